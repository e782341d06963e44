"""Prediction sets that hold the right class with a chosen probability: class-conditional LAC.

Least ambiguous sets (Sadinle, Lei & Wasserman 2019), each class calibrated on its own cases (Vovk 2012, section 3), so
that the promise holds for rare classes too. It holds for cases like those of calibration, and for no others.
A set that is not empty also holds the class that is answered, so that it never leaves another one alone: coverage can
only rise by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medfusion.metrics import Estimate, wilson

COVERAGE = 0.9
SLACK = 1e-3  # another backend changes a probability by less


def thresholds(probabilities: np.ndarray, labels: np.ndarray, coverage: float = COVERAGE) -> tuple[float, ...]:
    """K probabilities from which on a class belongs to the set. probabilities: (n, K) on val, labels: (n,).

    A class with too few cases for the promise gets 0: it is in every set. The case on the edge stays in by SLACK.
    """
    found = []
    for k in range(probabilities.shape[1]):
        own = np.sort(probabilities[labels == k, k])
        spare = len(own) + 1 - math.ceil((len(own) + 1) * coverage)  # how many may be left out, plus one
        found.append(max(0.0, float(own[spare - 1]) - SLACK) if spare >= 1 else 0.0)
    return tuple(found)


def members(probabilities: np.ndarray, limits: tuple[float, ...], answers: np.ndarray) -> np.ndarray:
    """(n, K) whether each class is in the set of each case. probabilities: (n, K); answers: (n,), classes answered."""
    found = probabilities >= np.asarray(limits)
    found[np.arange(len(answers)), answers] |= found.any(axis=1)
    return found


def prediction_set(probabilities: np.ndarray, limits: tuple[float, ...], answer: int) -> tuple[int, ...]:
    """Classes of one case (K,) that cannot be ruled out. One means sure; none or several, abstain."""
    return tuple(np.flatnonzero(members(probabilities[None], limits, np.array([answer]))[0]).tolist())


def abstains(plausible: Sequence[str] | None) -> bool:
    """Whether a prediction set is an abstention: anything but one class. None: the model has no such sets."""
    return plausible is not None and len(plausible) != 1


def in_words(plausible: Sequence[str]) -> str:
    """What a prediction set says of its picture, in a sentence. plausible: classes as they are read."""
    if not plausible:
        return "Few pictures of any class looked like this one."
    *others, last = plausible
    at = f"At {100 * COVERAGE:.0f} % coverage"
    if not others:
        return f"{at} only {last} remains."
    if len(others) == 1:
        return f"{at} it cannot tell {others[0]} from {last}."
    return f"{at} it cannot tell {', '.join(others)} and {last} apart."


def observed(
    probabilities: np.ndarray, labels: np.ndarray, limits: tuple[float, ...], answers: np.ndarray
) -> dict[str, object]:
    """Coverage observed, by class and overall, mean size and share of single answers, on labelled cases (n, K)."""
    inside = members(probabilities, limits, answers)
    hit = inside[np.arange(len(labels)), labels]
    sizes = inside.sum(axis=1)
    return {
        "coverage": float(hit.mean()),
        "per_class": [float(hit[labels == k].mean()) if (labels == k).any() else None for k in range(inside.shape[1])],
        "mean_size": float(sizes.mean()),
        "single": float((sizes == 1).mean()),
    }


def covered(figures: Mapping[str, Any]) -> dict[str, Estimate]:
    """Coverage of each class that occurs, with its 95 % Wilson interval. figures: of one split, with prediction_sets.

    The interval takes pictures for independent: where a patient has several it is too narrow.
    """
    shares = zip(figures["per_class"].items(), figures["prediction_sets"]["per_class"], strict=True)
    return {name: wilson(round(share * row["n"]), row["n"]) for (name, row), share in shares if share is not None}


def covered_in_all(figures: Mapping[str, Any]) -> Estimate:
    """The same over all classes."""
    return wilson(round(figures["prediction_sets"]["coverage"] * figures["n"]), figures["n"])
