"""What an untrusted file may cost. Every check here runs on a header, before anything is decoded."""

from __future__ import annotations

from medfusion.errors import ScanTooLarge, UnsupportedScan
from medfusion.types import Limits

SMALLER = "Export it at a lower resolution."


def check_bytes(size: int, limits: Limits) -> None:
    if size > limits.max_bytes:
        raise ScanTooLarge(
            f"This file has {size / 2**20:,.0f} MB; at most {limits.max_bytes / 2**20:,.0f} MB are read. {SMALLER}"
        )


def check_pixels(height_px: int, width_px: int, frames: int, limits: Limits) -> None:
    """Raises UnsupportedScan when a side is too short to show anything, ScanTooLarge when there are too many pixels."""
    size = f"{width_px:,} × {height_px:,} pixels"
    if min(height_px, width_px) < limits.min_side_px:
        raise UnsupportedScan(
            f"This picture is only {size}; at least {limits.min_side_px} are needed a side. Export it at full size."
        )
    if height_px * width_px > limits.max_pixels:
        raise ScanTooLarge(
            f"This picture has {size}; at most {limits.max_pixels / 1e6:,.0f} million pixels are read. {SMALLER}"
        )
    if height_px * width_px * frames > limits.max_total_pixels:
        raise ScanTooLarge(
            f"This scan has {frames:,} frames of {size}; at most {limits.max_total_pixels / 1e6:,.0f} million pixels "
            "are read in all. Export fewer frames."
        )
