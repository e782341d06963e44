"""From a method's own grid to the grid of the scan, without ever stretching a map that holds no evidence."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medfusion.errors import ExplanationError

HAIR = 1e-3
COARSE = 64  # cells a side


def to_scan_grid(
    raw: np.ndarray,
    height_px: int,
    width_px: int,
    resampling: Literal["bilinear", "bicubic", "nearest-exact"] = "bilinear",
    shift: float = 0.0,
) -> np.ndarray:
    """(h, w) over the whole picture to (height_px, width_px) float32.

    The picture was squashed, so each axis has its own scale; half-pixel centres on both sides keep the map in place.
    shift: how far behind the middle of its patch a cell looks, in cells; not for nearest-exact maps.
    bicubic: of a few large cells the strongest place lies between those that say the most, not in the middle of one.
    """
    grid = torch.from_numpy(np.ascontiguousarray(raw, dtype=np.float32))[None]
    if resampling == "nearest-exact":
        return F.interpolate(grid[None], size=(height_px, width_px), mode=resampling)[0, 0].numpy()
    on_scan = stretched(grid, height_px, width_px, shift, resampling)[0]
    return on_scan.clamp_(float(raw.min()), float(raw.max())).numpy()  # a curve may swing beyond what it goes through


def stretched(
    maps: Tensor, height: int, width: int, shift: float = 0.0, mode: Literal["bilinear", "bicubic"] = "bilinear"
) -> Tensor:
    """(C, h, w) to (C, height, width), smooth between the places where cells look; flat beyond the outermost."""
    if not shift:
        return F.interpolate(maps[None], size=(height, width), mode=mode)[0]
    rows, columns = (
        ((torch.arange(side, device=maps.device) + 0.5) / side * cells - shift) / cells * 2 - 1
        for side, cells in zip((height, width), maps.shape[1:], strict=True)
    )
    places = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
    return F.grid_sample(maps[None], places[None].to(maps), mode, padding_mode="border", align_corners=False)[0]


def positive_part(signed: np.ndarray, closer: np.ndarray | None = None) -> np.ndarray:
    """(H, W) of any units to 0..1, 1 = most supportive; all zero where nothing is positive.

    Of equal places, as a superpixel has, whoever asks for the strongest gets that of the largest closer, (H, W) >= 0;
    without it that whose surroundings support most: the middle of a lone superpixel, and of two strong neighbours the
    side where they meet.
    """
    heatmap = _divide(np.maximum(finite(signed), 0))
    best = heatmap == 1
    if best.sum() > 1:
        support = (surroundings(heatmap) if closer is None or not closer[best].any() else closer)[best]
        heatmap[best] = 1 - HAIR * (1 - support / support.max())
    return heatmap


def surroundings(heatmap: np.ndarray) -> np.ndarray:
    """(H, W) float32 >= 0: the Gaussian mean around each place, a sixteenth of each side wide; nothing lies outside.

    Worked out on a small copy: on all of a large scan it would take seconds.
    """
    small = cv2.resize(heatmap, (COARSE, COARSE), interpolation=cv2.INTER_AREA)
    mean = cv2.GaussianBlur(small, (0, 0), COARSE / 16, borderType=cv2.BORDER_CONSTANT)
    return cv2.resize(mean, heatmap.shape[::-1], interpolation=cv2.INTER_LINEAR)


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
