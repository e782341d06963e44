"""Measure a model on a labelled set: `python -m medfusion evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
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
    labels: np.ndarray  # (n,), or (n, K) where a case may have several labels: see metrics
    answers: np.ndarray  # of the same shape, at the operating point
    figures: dict[str, object]

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without any case: figures that need every class are not defined."""
        return tuple(name for k, name in enumerate(self.card.classes) if not metrics.holds(self.labels, k).any())

    @cached_property
    def right(self) -> np.ndarray:
        """(n,) bool: of several labels, whether all were told."""
        same = self.answers == self.labels
        return same if same.ndim == 1 else same.all(axis=1)

    def given(self, values: np.ndarray) -> np.ndarray:
        """(n, 1) probability of labels or answers; of several labels (n, K) that of the yes or no to each."""
        if values.ndim == 1:
            return np.take_along_axis(self.probabilities, values[:, None], axis=1)
        return np.where(values == 1, self.probabilities, 1 - self.probabilities)

    def answer(self, index: int) -> str:
        """What a case was called."""
        if self.answers.ndim == 1:
            return self.card.classes[self.answers[index]]
        return " + ".join(self.card.classes[k] for k in np.flatnonzero(self.answers[index])) or "none"

    @cached_property
    def draws(self) -> list[np.ndarray]:
        """Bootstrap samples, of whole patients, as in the figures."""
        return metrics.resamples([case.patient_id for case in self.data.cases])

    def interval(self, metric: metrics.Metric) -> metrics.Estimate:
        return metrics.interval(metric, self.probabilities, self.labels, self.answers, self.draws)

    @cached_property
    def ranking(self) -> dict[int, tuple[metrics.Estimate, metrics.Estimate]]:
        """AUROC and average precision of each class, by its index, against the rest."""
        return {k: (self.interval(auroc_of(k)), self.interval(precision_of(k))) for k in range(len(self.card.classes))}

    def only(self, chosen: np.ndarray) -> Measurement:
        """Some of the cases, chosen (n,) bool, without figures."""
        cases = tuple(case for case, kept in zip(self.data.cases, chosen, strict=True) if kept)
        rows = (self.probabilities[chosen], self.labels[chosen], self.answers[chosen])
        return Measurement(self.card, replace(self.data, cases=cases), *rows, {})


def auroc_of(k: int) -> metrics.Metric:
    return lambda p, y, a: metrics.auroc_of_class(p, y, k)


def precision_of(k: int) -> metrics.Metric:
    return lambda p, y, a: metrics.average_precision(p, y, k)


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
    """Answer all cases and compare with their labels. Raises ConfigError where one has several and the other one."""
    card = model.card
    several = card.task == "multilabel"
    if several != data.several:
        gives, has = ("several answers", "one label") if several else ("one answer", "several labels")
        raise ConfigError(f"Model {card.id!r} may give {gives} and each case has {has}. Choose another.")
    labels = data.labels(card.classes)
    probabilities = score_all(model, data, progress)
    answers = np.zeros_like(labels)
    for index, row in enumerate(probabilities):
        told = inference.answer_indices(row, card.operating_point, card.task)
        if several:
            answers[index, list(told)] = 1
        else:
            answers[index] = told[0]
    found = metrics.report(probabilities, labels, answers, card.classes, [case.patient_id for case in data.cases])
    if card.set_thresholds and not several:
        found["prediction_sets"] = conformal.observed(probabilities, labels, card.set_thresholds, answers)
    return Measurement(card, data, probabilities, labels, answers, found)


def score_all(model: Model, data: LabelledSet, progress: Progress | None = None) -> np.ndarray:
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
