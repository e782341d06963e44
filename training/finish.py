"""From a trained network to what its card says: calibration and operating point, chosen on val."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize, minimize_scalar
from scipy.stats import chisquare
from torch import Tensor

import medfusion
from medfusion import conformal
from medfusion.errors import ConfigError
from medfusion.types import OperatingPoint, Task
from training.balance import WEIGHTING
from training.config import TrainConfig

CHANCE = 0.05  # by which classes of one frequency differ so much in number (Pearson's chi-squared test)
MOST_OFFSET = 10.0  # of a class, in logits after temperature
SENSITIVITY = 0.95  # share of the diseased on val that the operating point must find


@dataclass(frozen=True)
class About:
    """What only a person can say about a labelled set and the model made from it. Read from a JSON file."""

    title: str
    modality: str = "the kind of picture that it was trained on"
    dicom_modalities: tuple[str, ...] = ()
    colour: bool | None = None  # None: seen from the pictures
    augmentation: str = "general"
    classes: tuple[str, ...] = ()  # the order; for two classes the second is the one looked for
    intended_use: str = ""
    limits: tuple[str, ...] = ()
    license: str = ""
    data: Mapping[str, object] = field(default_factory=dict)  # source, licence, citation, patient_id, notes


def read_about(path: Path | None, fallback_title: str) -> About:
    """Read a description, or make the barest one. Raises ConfigError on an unknown or missing field."""
    if path is None:
        return About(fallback_title)
    try:
        return about_from(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path.name} does not describe data ({error}). See training/about for examples.") from error


def about_from(raw: dict[str, Any]) -> About:
    lists: dict[str, Any] = {key: tuple(value) for key, value in raw.items() if isinstance(value, list)}
    return About(**(raw | lists))


def log_losses(scores: Tensor, labels: Tensor) -> Tensor:
    """(n,) log loss of each case. scores: class logits (n, K); labels: (n,), or (n, K) of 0 and 1."""
    if labels.ndim == 2:
        return F.binary_cross_entropy_with_logits(scores, labels.to(scores), reduction="none").mean(dim=1)
    return F.cross_entropy(scores, labels.long(), reduction="none")


def fit_temperature(scores: Tensor, labels: Tensor) -> float:
    """The temperature with the lowest log loss on val (Guo et al. 2017, section 4.2). As for log_losses."""
    wide = scores.double()
    found = minimize_scalar(lambda log_t: float(log_losses(wide / math.exp(log_t), labels).mean()), bounds=(-4, 4))
    return math.exp(found.x)


@dataclass(frozen=True, eq=False)
class Calibration:
    """What makes class logits probabilities: (scores + offsets) / temperature."""

    offsets: Tensor  # (K,)
    temperature: float


def calibration(scores: Tensor, labels: Tensor, cases: int, config: TrainConfig) -> Calibration:
    """Of the answers to val, as for fit_offsets."""
    asked = config.calibration == "offsets"
    offsets = fit_offsets(scores, labels, cases) if asked else torch.zeros(scores.shape[1])
    return Calibration(offsets, fit_temperature(scores + offsets, labels))


def weighting(offsets: Tensor, config: TrainConfig) -> float:
    """How far rare classes are to count for more in answers: see operating_point.

    Offsets give frequent classes back their probability; rare ones keep by this what balanced training gave them.
    """
    return config.class_weighting if offsets.any() and config.balance in WEIGHTING else 0.0


def fit_offsets(scores: Tensor, labels: Tensor, cases: int) -> Tensor:
    """(K,) what to add to the class logits, as for log_losses, for the lowest log loss with a temperature beside.

    Bias-corrected temperature scaling (Alexandari et al. 2020, section 3). A temperature alone cannot give back what
    balanced training takes from frequent classes, nor an average of weights that leans to one class. Zeros where a
    class does not occur, or where the Bayesian information criterion (Schwarz 1978) finds the gain too small.

    cases: how many of val the answers are of; there may be several answers to each.
    """
    wide, plain = scores.double(), fit_temperature(scores, labels)
    several, classes = labels.ndim == 2, scores.shape[1]
    counts = labels.sum(dim=0) if several else torch.bincount(labels, minlength=classes)
    if bool((counts == 0).any()) or (several and bool((counts == len(labels)).any())):
        return torch.zeros(classes)

    def loss(found: np.ndarray) -> float:
        return float(log_losses(wide / math.exp(found[0]) + torch.from_numpy(found[1:]), labels).mean())

    first = np.array([math.log(plain), *[0.0] * classes])
    bounds = [(-4, 4), *[(-MOST_OFFSET, MOST_OFFSET)] * classes]
    found = minimize(loss, first, method="L-BFGS-B", bounds=bounds)
    # where classes exclude each other, the same offset for all changes nothing: one is not free
    free, answers = (classes, classes * cases) if several else (classes - 1, cases)
    if answers * (loss(first) - found.fun) <= free / 2 * math.log(cases):
        return torch.zeros(classes)
    offsets = torch.from_numpy(found.x[1:] * math.exp(found.x[0])).float()
    return offsets if several else offsets - offsets.mean()


def operating_point(
    probabilities: np.ndarray, labels: np.ndarray, task: Task, weighting: float = 0.0, kind: str = "validation"
) -> OperatingPoint:
    """How to answer, chosen on cases of some kind.

    binary: the highest threshold that finds SENSITIVITY of the diseased: scans acquired elsewhere tend to look more
    suspicious than they are, so what sensitivity can be spared goes to specificity. multilabel: the same for each
    class. Else: the most probable class. weighting: how far rare classes then count for more, as in training, where
    some are rarer by more than chance.
    """
    classes = probabilities.shape[1]
    if task == "multiclass":
        counts = np.bincount(labels, minlength=classes)
        if not weighting or chisquare(counts).pvalue >= CHANCE:
            return OperatingPoint((1.0,) * classes, "The most probable class.")
        limits = (counts.clip(1) / counts.max()) ** weighting
        share = f"their share of {kind} cases to the power of {weighting:g}"
        rule = f"Rarer classes count for more: thresholds follow {share}."
        return OperatingPoint(tuple(limits.tolist()), rule)
    if task == "multilabel":
        each = tuple(sensitive(probabilities[labels[:, k] == 1, k]) for k in range(classes))
        promised = f"at least {100 * SENSITIVITY:.0f} % of its {kind} cases"
        rule = f"For each class the highest threshold that finds {promised}."
        return OperatingPoint(each, rule, SENSITIVITY)
    diseased = probabilities[labels == 1, 1]
    threshold = sensitive(diseased)
    rule = (
        f"The highest threshold that finds at least {100 * SENSITIVITY:.0f} % of {len(diseased)} diseased {kind} "
        "cases, so that healthy scans acquired elsewhere are not called ill."
    )
    return OperatingPoint((1 - threshold, threshold), rule, SENSITIVITY)


def sensitive(diseased: np.ndarray) -> float:
    """The highest threshold that finds SENSITIVITY of the diseased, with SLACK, from their probabilities (n,)."""
    spare = int(np.floor((1 - SENSITIVITY) * len(diseased)))
    return float(np.clip(np.sort(diseased)[spare] - conformal.SLACK, conformal.SLACK, 1 - conformal.SLACK))


def versions() -> dict[str, str]:
    """What a rerun needs to know."""
    return {"medfusion": medfusion.__version__, "torch": torch.__version__, "python": platform.python_version()}
