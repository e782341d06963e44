"""`python -m tests.bench.worklist [FOLDER]`: 200 files on the worklist, against the batches of the models alone.

Rows: the seconds from the first waiting case to the last answer, against the same networks answering the same
pictures in full batches, in turn, as many rounds as ROUNDS says; and the memory of the process before the first round
and after each, when the list is cleared. FOLDER: pictures to use; without, chest X-rays are drawn. Wants an idle
machine.
"""

import gc
import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from PIL import Image

FILES = 200
ROUNDS = 7
LIMIT = 1.5


def main(folder: Path | None) -> int:
    with tempfile.TemporaryDirectory() as home:
        os.environ["MEDFUSION_HOME"] = home
        os.environ.pop("MEDFUSION_DATABASE_URL", None)
        return measure(pictures_of(folder))


def pictures_of(folder: Path | None) -> list[bytes]:
    """FILES different files."""
    if folder:
        return [path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()][:FILES]
    from medfusion.synthetic import chest_xray

    rng, drawn = np.random.default_rng(0), chest_xray(512, seed=0) // 16
    files = []
    for _ in range(FILES):
        out = io.BytesIO()
        noisy = np.clip(drawn + rng.normal(0, 3, drawn.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(out, "JPEG", quality=95)
        files.append(out.getvalue())
    return files


def measure(files: list[bytes]) -> int:
    from medfusion.scorer import Scorer

    began = time.perf_counter()
    scorer = Scorer()
    warm_up(scorer)
    sys.stdout.write(f"models loaded in {time.perf_counter() - began:.1f} s\n")
    memory, rounds = [resident_mib()], []
    for _ in range(ROUNDS):
        rounds.append(one_round(scorer, files))
        memory.append(resident_mib())
    kept, answered, alone, spent, spent_alone = np.median(rounds, axis=0)
    ratios = [one.answered_s / one.alone_s for one in rounds]
    ratio = float(np.median(ratios))
    sys.stdout.write(
        f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; medians of {ROUNDS} rounds\n"
        f"{len(files)} files kept without identity in {kept:.1f} s\n"
        f"answered in {answered:.2f} s; the models' own batches take {alone:.2f} s: {ratio:.2f} times "
        f"(at most {LIMIT}; each round: {', '.join(f'{one:.2f}' for one in ratios)})\n"
        f"processor seconds: {spent:.2f}, of the batches {spent_alone:.2f}\n"
        f"memory {memory[0]:.0f} MiB before, after clearing {', '.join(f'{one:.0f}' for one in memory[1:])} MiB\n"
    )
    return int(ratio > LIMIT)


class Round(NamedTuple):
    """Seconds; those spent are the processor's."""

    kept_s: float
    answered_s: float
    alone_s: float
    spent_s: float
    spent_alone_s: float


def one_round(scorer, files: list[bytes]) -> Round:  # type: ignore[no-untyped-def]
    """Fill the list, have it answered, answer the same pictures by the networks alone, and clear the list."""
    from medfusion import worklist
    from medfusion.scorer import TAKEN

    began = time.perf_counter()
    for content in files:
        worklist.add(content)
    added, spent = time.perf_counter(), processor_s()
    while waiting := worklist.waiting(TAKEN):
        scorer.score(waiting)
    answered, spent = time.perf_counter(), processor_s() - spent
    assert worklist.counts().keys() <= {worklist.ANSWERED, worklist.REFUSED}, worklist.counts()
    alone, spent_alone = seconds_alone(scorer)
    worklist.remove([one.id for one in worklist.entries()])
    return Round(added - began, answered - added, alone, spent, spent_alone)


def warm_up(scorer) -> None:  # type: ignore[no-untyped-def]
    """First-time set-up of networks is no part of it."""
    from medfusion import inference, library
    from medfusion.router import features

    picture = np.zeros((32, 224, 224, 3), np.uint8)
    if scorer.router:
        features(scorer.router.foundation, picture)
        for model_id in scorer.router.known:
            scorer.models[model_id] = library.load(model_id)
            inference.score(scorer.models[model_id], picture)


def seconds_alone(scorer) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """The router's pass over all pictures, and that of each model over its own, in full batches of pixels at hand.

    Seconds, and processor seconds.
    """
    from medfusion import inference, worklist
    from medfusion.imaging import display, read_scan
    from medfusion.preprocess import squash
    from medfusion.router import features
    from medfusion.triage import BATCH

    groups: dict[str, list[np.ndarray]] = {}
    for one in worklist.entries():
        scan = read_scan(one.path.read_bytes())
        spec = scorer.router.foundation.card.input
        model_id = one.answer.model_id if one.answer else ""
        groups.setdefault(model_id, []).append(squash(display(scan), spec))
    every = np.stack([picture for group in groups.values() for picture in group])
    began, spent = time.perf_counter(), processor_s()
    for first in range(0, len(every), BATCH):
        features(scorer.router.foundation, every[first : first + BATCH])
    for model_id, group in groups.items():
        for first in range(0, len(group) if model_id else 0, BATCH):
            inference.score(scorer.models[model_id], np.stack(group[first : first + BATCH]))
    return time.perf_counter() - began, processor_s() - spent


def processor_s() -> float:
    """Of this process and those that decode for it."""
    whole = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(one.cpu_times()[:2]) for one in whole)


def resident_mib() -> float:
    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
