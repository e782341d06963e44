"""Would another seed have drawn another map? A method that draws random numbers is run again with other seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from medfusion.explain.agreement import cells, strongest
from medfusion.types import Explanation

SEEDS = 5
SURE = 2.0  # standard deviations from zero: else the next seed may turn support into its opposite


@dataclass(frozen=True, eq=False)
class Stability:
    """Of maps that differ in their seed alone; each array (h, w) on the method's own grid, in its own units."""

    seeds: tuple[int, ...]
    mean: np.ndarray
    deviation: np.ndarray  # sample standard deviation
    supports: np.ndarray  # bool: places that speak for the target in some map
    unstable: np.ndarray  # bool: those of them whose mean is not SURE to
    jaccard: float  # of the strongest tenths, mean of all pairs, 0..1; 1: each seed marks the same. NaN: no evidence

    @property
    def unstable_share(self) -> float:
        """Of the places that speak for the target in some map, the part that is not sure to, 0..1."""
        return float(self.unstable.sum() / max(1, self.supports.sum()))


def stability(made: Sequence[Explanation]) -> Stability:
    """Compare two maps or more. Raises ValueError when they differ in more than their seed."""
    if len({same(one) for one in made}) != 1 or len({one.seed for one in made}) != len(made) or len(made) < 2:
        raise ValueError("Stability needs two maps or more that differ in their seed alone.")
    evidence = np.stack([one.evidence for one in made])
    mean, deviation = evidence.mean(axis=0), evidence.std(axis=0, ddof=1)
    supports = np.any(evidence > 0, axis=0)
    tops = [strongest(cells(one.heatmap)) for one in made]
    shares = [len(one & other) / len(one | other) for one, other in combinations(tops, 2) if one | other]
    return Stability(
        seeds=tuple(one.seed for one in made if one.seed is not None),
        mean=mean,
        deviation=deviation,
        supports=supports,
        unstable=supports & (mean < SURE * deviation),
        jaccard=float(np.mean(shares)) if shares else float("nan"),
    )


def same(one: Explanation) -> tuple[object, ...]:
    """All that an explanation depends on but its seed."""
    return (
        one.method, one.scan_sha256, one.frame, one.model_id, one.model_version, one.target_index,
        tuple(sorted(one.settings.items())), one.raw.shape,
    )  # fmt: skip
