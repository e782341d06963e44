"""How far the maps of two methods agree about one class of one scan. Neither number says which map is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

from medfusion.types import Explanation

SIDE = 56  # cells a side: coarser than any pixel, finer than any map of the network
TOP = 0.1  # the strongest part of a map


@dataclass(frozen=True)
class Agreement:
    """NaN where a map holds no positive evidence."""

    rank_correlation: float  # Spearman, -1..1; 1: both put all places in the same order, 0: unrelated
    top_overlap: float  # of the strongest tenth, the share that both maps have, 0..1; 0.1 by chance

    @property
    def strength(self) -> str:
        """The rank correlation in a word (Schober 2018, table 2)."""
        limits = ((0.9, "very strong"), (0.7, "strong"), (0.4, "moderate"), (0.1, "weak"))
        return next((word for least, word in limits if self.rank_correlation >= least), "no")


def agreement(first: Explanation, second: Explanation) -> Agreement:
    """Compare the positive evidence of two maps. Raises ValueError when they explain different things."""
    if subject(first) != subject(second):
        raise ValueError("The maps explain different scans, models or classes.")
    if not (first.has_positive_evidence and second.has_positive_evidence):
        return Agreement(float("nan"), float("nan"))
    one, other = cells(first.heatmap), cells(second.heatmap)
    return Agreement(
        float(spearmanr(one, other).statistic), float(len(strongest(one) & strongest(other)) / top_cells())
    )


def disagreement(first: Explanation, second: Explanation) -> np.ndarray:
    """(H, W) float32 in -1..1: 1 where only the first map supports the target, -1 where only the second, 0 where alike.

    Raises ValueError when they explain different things.
    """
    if subject(first) != subject(second):
        raise ValueError("The maps explain different scans, models or classes.")
    return first.heatmap - second.heatmap


def subject(explanation: Explanation) -> tuple[object, ...]:
    return (
        explanation.scan_sha256, explanation.frame, explanation.model_id, explanation.model_version,
        explanation.target_index,
    )  # fmt: skip


def cells(heatmap: np.ndarray) -> np.ndarray:
    """(H, W) to means over SIDE × SIDE cells, flat: maps of any grid and any scan become comparable."""
    return F.adaptive_avg_pool2d(torch.from_numpy(heatmap)[None, None], SIDE).flatten().numpy()


def top_cells() -> int:
    return round(TOP * SIDE**2)


def strongest(values: np.ndarray) -> set[int]:
    """The cells of the strongest tenth, fewer where less holds any evidence."""
    order = np.argsort(-values, kind="stable")[: top_cells()]
    return set(order[values[order] > 0].tolist())
