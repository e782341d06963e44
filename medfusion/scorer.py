"""`python -m medfusion.scorer`: answers the cases of the worklist, in a process of its own, until none is left.

Pages start it where there is work. One runs at a time; what a killed one leaves is answered by the next.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from filelock import Timeout
from PIL import Image

from medfusion import places, worklist
from medfusion.background import give_way
from medfusion.errors import MedFusionError
from medfusion.triage import BATCH, risk_of, uncertainty_of
from medfusion.types import ModelCard, Route, Scan
from medfusion.worklist import ANSWERED, REFUSED, UNREADABLE, Entry, Outcome

if TYPE_CHECKING:
    from medfusion.library import Model

TAKEN = 256  # cases looked up at once
HELD_BYTES = 2**27  # of decoded pictures that wait for their model, and as many while they are read
IDLE_S = 20.0  # how long to wait for more before ending: loading a model takes seconds
POLL_S = 0.5
LONGEST_S = 120.0  # for decoding one file
BLAMED = "The program that reads it ended with this file, or took too long. Add it again to try once more, or as PNG."
THUMB_PX = 112
LOCK = "scorer"


def ensure() -> None:
    """Start the scorer unless one runs, or there is nothing to do."""
    if not worklist.counts().get(worklist.WAITING) or places.is_running(LOCK):
        return
    environment = os.environ | {"PYTHONPATH": str(places.PROJECT), "MEDFUSION_HOME": str(places.home())}
    with (places.home() / "scorer.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "medfusion.scorer"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            cwd=places.PROJECT, env=environment, start_new_session=True,
        )  # fmt: skip
    threading.Thread(target=child.wait, daemon=True).start()  # an ended child leaves no zombie


def main(idle_s: float = IDLE_S) -> int:
    give_way()
    with suppress(Timeout), places.lock(LOCK).acquire(timeout=0):
        if days := worklist.kept_days():
            worklist.expire(days)
        threading.Thread(target=watch, daemon=True).start()
        suspects, scorer = worklist.suspects(), Scorer()
        if len(suspects) == 1:
            worklist.keep_outcome(suspects[0].id, UNREADABLE, BLAMED)
        else:
            for one in suspects:
                scorer.score([one])  # by itself: if this process dies, too, the next one knows of which
        ended = time.monotonic() + idle_s
        while time.monotonic() < ended:
            if taken := worklist.waiting(TAKEN):
                scorer.score(taken)
                ended = time.monotonic() + idle_s
            else:
                time.sleep(POLL_S)
    return 0


DUE: dict[int, float] = {}  # until when a case may be read, by its number


@contextmanager
def limited(case_id: int) -> Iterator[None]:
    """For what may end this process, or take too long: the next one blames the file and goes on."""
    with worklist.suspected(case_id):
        DUE[case_id] = time.monotonic() + LONGEST_S
        try:
            yield
        finally:
            del DUE[case_id]


def watch() -> None:
    """End this process when a case takes too long."""
    while all(time.monotonic() < until for until in tuple(DUE.values())):
        time.sleep(POLL_S)
    os._exit(3)


T = TypeVar("T")


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; while one is used, the next is made in a thread."""
    with ThreadPoolExecutor(1) as maker:
        coming: Future[T | None] = maker.submit(next, items, None)
        while (found := coming.result()) is not None:
            coming = maker.submit(next, items, None)
            yield found


@dataclass(frozen=True, eq=False)
class Decoded:
    """A case whose file is read, before it is known which model it is for."""

    entry: Entry
    scan: Scan
    middle: np.ndarray  # its middle frame as it is displayed
    seen: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Looked:
    """A case as its model takes it: pictures (F, h, w, 3) uint8."""

    entry: Entry
    pictures: np.ndarray
    seen: dict[str, Any]
    warnings: list[str]


class Scorer:
    """Answers cases in batches, each by the model that it is for."""

    def __init__(self) -> None:
        from medfusion import router

        self.router = router.load()
        self.models: dict[str, Model] = {}

    def score(self, taken: list[Entry]) -> None:
        """Decode, find the model, and answer: small cases together, each large one by itself."""
        groups: dict[str, list[Looked]] = {}
        for decoded in ahead(self.decoded(taken)):
            self.send(decoded, groups)
        for model_id, group in groups.items():
            self.answer(model_id, group)

    def decoded(self, taken: list[Entry]) -> Iterator[list[Decoded]]:
        """In batches; of what cannot be read it is kept why."""
        batch: list[Decoded] = []
        for one in taken:
            try:
                with limited(one.id):
                    batch.append(self.decode(one))
            except (MedFusionError, OSError) as error:
                reason = str(error) if isinstance(error, MedFusionError) else "The file of this case is gone."
                worklist.keep_outcome(one.id, UNREADABLE, reason)
            if len(batch) >= BATCH or sum(case.scan.frames.nbytes for case in batch) > HELD_BYTES:
                yield batch
                batch = []
        yield batch

    def decode(self, one: Entry) -> Decoded:
        """Read a file, and keep a small picture of it. Raises ScanError."""
        from medfusion.apart import read_scan
        from medfusion.imaging import display

        scan = read_scan(one.path.read_bytes())
        seen = {"modality": scan.modality or "", "body_part": scan.body_part or "", "frames": scan.frame_count}
        middle = display(scan, scan.frame_count // 2)
        small = Image.fromarray(middle)
        small.thumbnail((THUMB_PX, THUMB_PX))
        small.save(one.thumbnail, "WEBP", quality=80, method=0)
        return Decoded(one, scan, middle, seen)

    def send(self, decoded: list[Decoded], groups: dict[str, list[Looked]]) -> None:
        """To the group of its model; a full group is answered. The router looks at all of them in one pass."""
        unanswered: list[Outcome] = []
        for case, route in zip(decoded, self.routes([case.middle for case in decoded]), strict=True):
            if route.model_id is None:
                unanswered.append(Outcome(case.entry.id, REFUSED, route.reason, seen=case.seen))
                continue
            try:
                card = self.model(route.model_id).card
                with limited(case.entry.id):
                    looked = prepare(case, route, card)
            except MedFusionError as error:
                unanswered.append(Outcome(case.entry.id, UNREADABLE, str(error), seen=case.seen))
                continue
            group = groups.setdefault(route.model_id, [])
            group.append(looked)
            if sum(len(held.pictures) for held in group) >= BATCH:
                self.answer(route.model_id, groups.pop(route.model_id))
        if unanswered:
            worklist.keep_outcomes(unanswered)

    def routes(self, pictures: list[np.ndarray]) -> list[Route]:
        """The model that each display picture is for."""
        from medfusion.preprocess import squash

        if self.router is None:
            return [Route(None, "No model is installed. Install one.", {}) for _ in pictures]
        spec = self.router.foundation.card.input
        return self.router.routes(np.stack([squash(picture, spec) for picture in pictures])) if pictures else []

    def model(self, model_id: str) -> Model:
        from medfusion import library

        if model_id not in self.models:
            self.models[model_id] = library.load(model_id)
        return self.models[model_id]

    def answer(self, model_id: str, group: list[Looked]) -> None:
        from medfusion import inference

        model = self.model(model_id)
        pictures = np.concatenate([case.pictures for case in group])
        parts = [inference.score(model, pictures[start : start + BATCH]) for start in range(0, len(pictures), BATCH)]
        ends = np.cumsum([len(case.pictures) for case in group])
        worklist.keep_outcomes(
            [
                Outcome(case.entry.id, ANSWERED, answer=judged(model.card, rows, case.warnings), seen=case.seen)
                for case, rows in zip(group, np.split(np.concatenate(parts), ends[:-1]), strict=True)
            ]
        )


def prepare(case: Decoded, route: Route, card: ModelCard) -> Looked:
    """All frames as the model takes them."""
    from medfusion import inference
    from medfusion.imaging import display
    from medfusion.preprocess import squash

    scan, middle = case.scan, case.scan.frame_count // 2
    shown = (case.middle if frame == middle else display(scan, frame) for frame in range(scan.frame_count))
    pictures = np.stack([squash(picture, card.input) for picture in shown])
    return Looked(case.entry, pictures, case.seen, inference.input_warnings(card, scan, case.middle, route))


def judged(card: ModelCard, rows: np.ndarray, warnings: list[str]) -> dict[str, Any]:
    """A case by its most suspicious frame. rows: (F, K) probabilities."""
    from medfusion import inference

    risks = [risk_of(row, card.classes) for row in rows]
    frame = int(np.argmax(risks))
    row = rows[frame]
    plausible = inference.plausible(card, row)
    told = inference.answer_indices(row, card.operating_point, card.task)
    return {
        "model_id": card.id,
        "model_version": card.version,
        "weights_sha256": card.weights_sha256,
        "frame": frame,
        "answers": [card.classes[index] for index in told],
        "plausible": None if plausible is None else list(plausible),
        "probabilities": {name: float(p) for name, p in zip(card.classes, row, strict=True)},
        "risk": risks[frame],
        "uncertainty": uncertainty_of(row, card.task),
        "along": risks if len(risks) > 1 else [],
        "warnings": warnings,
    }


if __name__ == "__main__":
    sys.exit(main())
