"""How urgent a case is: risk and uncertainty of probabilities, along the frames of a scan, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from medfusion.types import Scan

if TYPE_CHECKING:
    from medfusion.library import Model

HARMLESS = ("normal", "notumor", "no_tumor", "benign", "healthy", "no_finding", "non_covid")  # risk is all the rest
BATCH = 32  # pictures answered at once


def risk_of(row: np.ndarray, classes: tuple[str, ...]) -> float:
    """The probability of anything but a harmless class; where none is harmless, that of the most probable one."""
    harmless = [index for index, name in enumerate(classes) if name.lower() in HARMLESS]
    return float(np.clip(1 - row[harmless].sum(), 0, 1)) if harmless else float(row.max())


def uncertainty_of(row: np.ndarray, task: str) -> float:
    """Entropy over its largest value, 0..1; of several labels, the mean of each."""
    rows = np.stack([row, 1 - row], axis=1) if task == "multilabel" else row[None]
    kept = np.clip(rows, 1e-12, 1)
    return float((-(kept * np.log(kept)).sum(axis=1) / np.log(rows.shape[1])).mean())


def risk_along(model: Model, scan: Scan, progress: Callable[[float], None] | None = None) -> tuple[float, ...]:
    """The risk of each frame, in batches. progress: called with the part done, 0..1."""
    from medfusion import inference  # PyTorch takes seconds, and pages that only list cases need none of it
    from medfusion.imaging import display
    from medfusion.preprocess import squash

    found: list[float] = []
    for first in range(0, scan.frame_count, BATCH):
        part = range(first, min(first + BATCH, scan.frame_count))
        pictures = np.stack([squash(display(scan, frame), model.card.input) for frame in part])
        found += [risk_of(row, model.card.classes) for row in inference.score(model, pictures)]
        if progress:
            progress(len(found) / scan.frame_count)
    return tuple(found)
