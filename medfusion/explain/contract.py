"""What every explanation method takes and gives. The methods know this module and not each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from medfusion.library import Model


@dataclass(frozen=True, eq=False)
class Attribution:
    """raw: (h, w) float32, signed, in the method's own units, over the whole picture on the method's own grid."""

    raw: np.ndarray
    resampling: Literal["bilinear", "bicubic", "nearest-exact"]  # how the grid of the scan is reached
    fit: float | None = None  # R² of a local surrogate model, 0..1
    samples: int | None = None  # random draws that were answered
    shift: float = 0.0  # of a network's map: see sight.py
    evidence: np.ndarray | None = None  # raw without what chance explains; None: all of raw
    closer: np.ndarray | None = None  # (h, w) >= 0: which of equal places counts for more; None: see heatmap.py


class Progress(Protocol):
    """Called with the part done, 0..1, and with the map so far where there is one. May raise Cancelled."""

    def __call__(self, done: float, so_far: Attribution | None = None) -> None: ...


class Method(Protocol):
    """picture: (h, w, 3) uint8 of the model's size; target_index: 0..K-1."""

    def __call__(
        self, model: Model, picture: np.ndarray, target_index: int, seed: int, settings: Any, progress: Progress
    ) -> Attribution: ...


@dataclass(frozen=True)
class Explainer:
    """One entry of EXPLAINERS."""

    title: str
    meaning: str  # for a clinician, in one sentence
    misleads: str  # when not to rely on it, in one sentence
    attribute: Method
    settings: type  # a frozen dataclass whose defaults are the method's
    draws_random_numbers: bool = False
    tells_against: bool = True  # whether negative values of its map speak against the class
    knows_class: bool = True  # whether each class has a map of its own
    is_slow: bool = False  # seconds rather than tenths of one on a CPU
