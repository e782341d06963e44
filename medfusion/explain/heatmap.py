"""From a method's own grid to the grid of the scan, without ever stretching a map that holds no evidence."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from medfusion.errors import ExplanationError


def to_scan_grid(
    raw: np.ndarray, height_px: int, width_px: int, resampling: Literal["bilinear", "nearest-exact"] = "bilinear"
) -> np.ndarray:
    """(h, w) over the whole picture to (height_px, width_px) float32.

    The picture was squashed, so each axis has its own scale; half-pixel centres on both sides keep the map in place.
    """
    grid = torch.from_numpy(np.ascontiguousarray(raw, dtype=np.float32))[None, None]
    align = False if resampling == "bilinear" else None
    return F.interpolate(grid, size=(height_px, width_px), mode=resampling, align_corners=align)[0, 0].numpy()


def positive_part(signed: np.ndarray) -> np.ndarray:
    """(H, W) of any units to 0..1, 1 = most supportive; all zero where nothing is positive."""
    return _divide(np.maximum(finite(signed), 0))


def signed_part(signed: np.ndarray) -> np.ndarray:
    """(H, W) of any units to -1..1 by the largest absolute value; an all-zero map stays zero."""
    return _divide(finite(signed))


def finite(values: np.ndarray) -> np.ndarray:
    """The values themselves. Raises ExplanationError where they are not all numbers."""
    if not np.isfinite(values).all():
        raise ExplanationError(
            "The map is not made of numbers: the model gives no finite answer for this scan. Choose another model."
        )
    return values


def _divide(values: np.ndarray) -> np.ndarray:
    peak = float(np.abs(values).max())
    return (values / peak if peak > np.finfo(np.float32).tiny else np.zeros_like(values)).astype(np.float32)
