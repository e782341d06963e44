"""What became of the evidence between two pictures of one patient, by one method and model, for one class.

The pictures are not registered: places are compared as parts of the whole picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.stats import spearmanr

from medfusion.explain.agreement import cells, strongest, top_cells
from medfusion.types import Explanation


@dataclass(frozen=True, eq=False)
class Change:
    """map: (H, W) float32 in -1..1 on the grid of the picture in view; 1 where support was gained, -1 where lost."""

    map: np.ndarray
    rank_correlation: float  # of both maps, -1..1; NaN where one holds no positive evidence
    same_top: float  # of the strongest tenth, the share that both have, 0..1; 0.1 by chance


def change(now: Explanation, then: Explanation) -> Change:
    """Compare in the method's own units, which one model gives the same meaning in both pictures.

    Raises ValueError when method, model or class differ.
    """
    if asked(now) != asked(then):
        raise ValueError("The maps are of different methods, models or classes.")
    height, width = now.heatmap.shape
    before = np.asarray(Image.fromarray(then.heatmap).resize((width, height), Image.Resampling.BILINEAR))
    difference = now.heatmap * peak(now) - before * peak(then)
    largest = max(peak(now), peak(then))
    difference = difference / largest if largest > 0 else difference
    if not (now.has_positive_evidence and then.has_positive_evidence):
        return Change(difference.astype(np.float32), float("nan"), 0.0)
    one, other = cells(now.heatmap), cells(then.heatmap)
    same = len(strongest(one) & strongest(other)) / top_cells()
    return Change(difference.astype(np.float32), float(spearmanr(one, other).statistic), same)


def asked(explanation: Explanation) -> tuple[object, ...]:
    return explanation.method, explanation.model_id, explanation.model_version, explanation.target_index


def peak(explanation: Explanation) -> float:
    """The largest support in the method's own units; 0 where there is none."""
    return max(0.0, float(explanation.evidence.max())) if explanation.has_positive_evidence else 0.0
