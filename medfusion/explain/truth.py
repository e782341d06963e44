"""A map against a mask of where the evidence is known to be: drawn by a reader, or planted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt

TOLERANCE = 15 / 224  # of the longer side: how far off a hit may be (Zhang 2018, section 4.2: 15 px)


@dataclass(frozen=True)
class Overlap:
    """Each is better when larger."""

    points: bool  # the strongest place lies in the mask, or within TOLERANCE of it: the pointing game (Zhang 2018)
    energy: float  # share of the positive evidence inside the mask, 0..1 (Wang 2020, section 4.3)
    iou: float  # of the mask and as many of the strongest pixels, 0..1
    by_chance: float  # share of the picture that the mask covers: the energy of an even map


def against(heatmap: np.ndarray, mask: np.ndarray) -> Overlap:
    """heatmap: (H, W) in 0..1; mask: (H, W) bool. Raises ValueError on another shape or an empty mask."""
    if heatmap.shape != mask.shape or not mask.any():
        raise ValueError("The mask must have the shape of the map, and mark something.")
    total = float(heatmap.sum())
    if total == 0:
        return Overlap(False, 0.0, 0.0, float(mask.mean()))
    peak = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
    away = distance_transform_edt(~mask)[peak]
    strongest = np.zeros(mask.size, bool)
    strongest[np.argsort(-heatmap, axis=None, kind="stable")[: mask.sum()]] = True
    strongest = strongest.reshape(mask.shape) & (heatmap > 0)
    return Overlap(
        points=bool(away <= TOLERANCE * max(mask.shape)),
        energy=float(heatmap[mask].sum()) / total,
        iou=float((strongest & mask).sum() / (strongest | mask).sum()),
        by_chance=float(mask.mean()),
    )


def in_words(overlap: Overlap) -> str:
    """All of it, and what chance would give, in a sentence."""
    place = "lies inside" if overlap.points else "lies outside"
    return (
        f"Against the mask: the strongest place {place}; {100 * overlap.energy:.0f} % of the evidence is inside, of an "
        f"even map {100 * overlap.by_chance:.0f} %; overlap (IoU) {overlap.iou:.2f}."
    )
