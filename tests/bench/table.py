"""A row of the table, and how its seconds are taken."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Two durations of one run: only their ratio means anything on another machine."""

    name: str
    ours_s: float
    package_s: float

    def __str__(self) -> str:
        return f"{self.name:<52} {self.ours_s:>8.3f} {self.package_s:>10.3f} {self.ours_s / self.package_s:>7.2f}"


HEADER = f"{'name':<52} {'ours_s':>8} {'package_s':>10} {'ratio':>7}"


def median_s(work: Callable[[], object], repeats: int = 1, warm_up: int = 1) -> float:
    for _ in range(warm_up):
        work()
    return statistics.median(elapsed_s(work) for _ in range(repeats))


def compare_s(ours: Callable[[], object], package: Callable[[], object]) -> tuple[float, float]:
    """One slow call of the package between two of ours, so that a machine that slows down favours neither."""
    before, reference, after = elapsed_s(ours), elapsed_s(package), elapsed_s(ours)
    return (before + after) / 2, reference


def elapsed_s(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
