"""Measure a model on a labelled set: `python -m medfusion evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from medfusion import inference, metrics
from medfusion.errors import DataError
from medfusion.labelled import LabelledSet, read_labelled, read_pictures
from medfusion.library import Model

BATCH = 64


def evaluate(
    model: Model, source: Path, split: str = "test", progress: Callable[[float], None] | None = None
) -> dict[str, object]:
    """The figures of metrics.report on one split of a zip or folder, with what was measured on what.

    A set without splits is measured whole. Raises DataError when the split is empty or a label is unknown to the model.
    """
    data = read_labelled(source)
    part = data.subset(split) if data.has_splits and split != "all" else data
    if not part.cases:
        raise DataError(f"{source.name} has no cases in split {split!r}. It has: {', '.join(sorted(data.counts()))}.")
    labels = part.labels(model.card.classes)
    probabilities = score_all(model, part, progress)
    card = model.card
    answers = np.array([inference.answer_indices(row, card.operating_point, card.task)[0] for row in probabilities])
    figures = metrics.report(probabilities, labels, answers, card.classes, [case.patient_id for case in part.cases])
    return {
        "model": card.id,
        "version": card.version,
        "data": source.name,
        "split": split if data.has_splits else "all",
        **figures,
    }


def score_all(model: Model, data: LabelledSet, progress: Callable[[float], None] | None = None) -> np.ndarray:
    """Calibrated probabilities (n, K), case by case in the set's order, in batches."""
    rows: list[np.ndarray] = []
    batch: list[np.ndarray] = []
    for index, picture in enumerate(read_pictures(data, model.card.input), start=1):
        batch.append(picture)
        if len(batch) == BATCH or index == len(data.cases):
            rows.append(inference.score(model, np.stack(batch)))
            batch = []
            if progress:
                progress(index / len(data.cases))
    return np.concatenate(rows)
