"""`python -m tests.bench [NAME…]`: speed as ratios within one run, which a busy or small machine distorts least."""

import os
import sys
from collections.abc import Callable

import torch

from tests.bench.apart import reading
from tests.bench.explain import explanations, methods
from tests.bench.gpu import answers
from tests.bench.table import HEADER, Row
from tests.bench.training import training

BENCHES: dict[str, Callable[[], list[Row]]] = {
    "explain": explanations,
    "methods": methods,
    "gpu": answers,
    "training": training,
    "apart": reading,
}


def main(names: list[str]) -> int:
    unknown = sorted(set(names) - set(BENCHES))
    if unknown:
        sys.stderr.write(f"There is no bench {unknown[0]!r}. Choose from: {', '.join(BENCHES)}.\n")
        return 2
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))  # a small computer's; one waits less on a busy one
    busy = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    sys.stdout.write(f"load average {busy} on {os.cpu_count()} cores\n{HEADER}\n")
    for name in names or BENCHES:
        for row in BENCHES[name]():
            sys.stdout.write(f"{row}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
