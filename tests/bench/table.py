"""A row of the table, and how its seconds are taken."""

import csv
import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """Two durations of one run: only their ratio means anything on another machine."""

    name: str
    ours_s: float
    package_s: float
    ours_mib: float | None = None  # peak memory beyond what was held before
    package_mib: float | None = None

    def __str__(self) -> str:
        memory = [f"{mib:>9.0f}" for mib in (self.ours_mib, self.package_mib) if mib is not None]
        ratio = self.ours_s / self.package_s
        return f"{self.name:<52} {self.ours_s:>8.3f} {self.package_s:>10.3f} {ratio:>7.2f} {' '.join(memory)}".rstrip()


HEADER = f"{'name':<52} {'ours_s':>8} {'package_s':>10} {'ratio':>7} {'ours_MiB':>9} {'package_MiB':>9}"
STATUS = Path("/proc/self/status")


def median_s(work: Callable[[], object], repeats: int = 1, warm_up: int = 1) -> float:
    for _ in range(warm_up):
        work()
    return statistics.median(elapsed_s(work) for _ in range(repeats))


def compare_s(ours: Callable[[], object], package: Callable[[], object]) -> tuple[float, float]:
    """One slow call of the package between two of ours, so that a machine that slows down favours neither."""
    before, reference, after = elapsed_s(ours), elapsed_s(package), elapsed_s(ours)
    return (before + after) / 2, reference


def compare_both(ours: Callable[[], object], package: Callable[[], object]) -> list[tuple[float, float]]:
    """As compare_s, by the clock and in seconds of all cores together: the second hardly minds a busy machine."""
    laps = []
    for work in (ours, package, ours):
        cores = time.process_time()
        laps.append((elapsed_s(work), time.process_time() - cores))
    return [((before + after) / 2, reference) for before, reference, after in zip(*laps, strict=True)]


def elapsed_s(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peak_mib(work: Callable[[], object]) -> float | None:
    """Peak memory of this process during a call, beyond what it held before. None where Linux does not tell."""
    if not STATUS.exists():
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator kept back would hide what the call takes
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = held_mib("VmRSS")
    work()
    return held_mib("VmHWM") - before


def held_mib(what: str) -> float:
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(f"{what}:"))
    return int(line.split()[1]) / 1024


def write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    """A table for the repository, its columns those of the first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.DictWriter(file, rows[0])
        lines.writeheader()
        lines.writerows(rows)
