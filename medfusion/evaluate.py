"""Measure a model on a labelled set: `python -m medfusion evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medfusion import conformal, inference, metrics
from medfusion.errors import ConfigError, DataError
from medfusion.labelled import LabelledSet, read_labelled, read_pictures
from medfusion.library import Model
from medfusion.types import ModelCard

BATCH = 64
Progress = Callable[[float], None]  # called with the part done, 0..1


@dataclass(frozen=True, eq=False)
class Measurement:
    """Answers to labelled cases. figures: metrics.report, and prediction_sets where the card has them."""

    card: ModelCard
    data: LabelledSet
    probabilities: np.ndarray  # (n, K), calibrated
    labels: np.ndarray  # (n,)
    answers: np.ndarray  # (n,) at the operating point
    figures: dict[str, object]


def evaluate(model: Model, source: Path, split: str = "test", progress: Progress | None = None) -> dict[str, object]:
    """The figures of one split of a zip or folder, with what was measured on what. A set without splits counts whole.

    Raises DataError when the split is empty or a label is unknown to the model.
    """
    part = part_of(source, split)
    return origin_of(model, part, split) | evaluate_cases(model, part, progress)


def origin_of(model: Model, part: LabelledSet, split: str) -> dict[str, str]:
    """What was measured on what."""
    whole = split == "all" or not part.has_splits
    named = {"model": model.card.id, "version": model.card.version, "data": part.source.name}
    return named | {"split": "all" if whole else split}


def part_of(source: Path, split: str) -> LabelledSet:
    """The cases of one split, or all of them of a set without splits. Raises DataError when there are none."""
    data = read_labelled(source)
    part = data if split == "all" or not data.has_splits else data.subset(split)
    if not part.cases:
        raise DataError(f"{source.name} has no cases in split {split!r}. It has: {', '.join(sorted(data.counts()))}.")
    return part


def evaluate_cases(model: Model, data: LabelledSet, progress: Progress | None = None) -> dict[str, object]:
    """The figures of measure()."""
    return measure(model, data, progress).figures


def measure(model: Model, data: LabelledSet, progress: Progress | None = None) -> Measurement:
    """Answer all cases and compare with their labels. Raises ConfigError for a multi-label model."""
    card = model.card
    if card.task == "multilabel":
        raise ConfigError(f"Model {card.id!r} may give several answers and each case has one label. Choose another.")
    labels = data.labels(card.classes)
    probabilities = score_all(model, data, progress)
    answers = np.array([inference.answer_indices(row, card.operating_point, card.task)[0] for row in probabilities])
    found = metrics.report(probabilities, labels, answers, card.classes, [case.patient_id for case in data.cases])
    if card.set_thresholds:
        found["prediction_sets"] = conformal.observed(probabilities, labels, card.set_thresholds)
    return Measurement(card, data, probabilities, labels, answers, found)


def score_all(model: Model, data: LabelledSet, progress: Progress | None = None) -> np.ndarray:
    """Calibrated probabilities (n, K), case by case in the set's order, in batches."""
    model.backend.get()
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
