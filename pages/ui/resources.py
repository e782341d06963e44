"""What sessions share: loaded models, decoded scans, answers, maps and encoded pictures, each in bounded memory."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

import streamlit as st

from medfusion import service
from medfusion.errors import RecordsError
from medfusion.service import Faithfulness, Model, Router, Shortcuts
from medfusion.types import Explanation, ModelCard, Prediction, Route, Scan, Window
from pages.ui.state import Case

T = TypeVar("T")

SCAN_BYTES = 2**30  # decoded scans kept for all sessions together
TEST_BYTES = 2**22  # curves of maps: 1000
MAP_BYTES = 2**28  # explanations kept; one of a 2000 × 2000 scan takes 32 MB
SLOW = threading.BoundedSemaphore(max(1, (os.cpu_count() or 1) // 4))  # each takes several cores
LIME_SEED = 0  # one seed, so that the same scan always shows the same map


class RecentlyUsed(Generic[T]):
    """Values up to a number of bytes; those unused for longest go first. Safe between sessions."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, key: Hashable) -> T | None:
        with self.lock:
            if key not in self.held:
                return None
            self.held.move_to_end(key)
            return self.held[key][0]

    def drop(self, unwanted: Callable[[Hashable], bool]) -> None:
        with self.lock:
            for key in [key for key in self.held if unwanted(key)]:
                del self.held[key]

    def put(self, key: Hashable, value: T, size: int) -> T:
        with self.lock:
            self.held[key] = (value, size)
            self.held.move_to_end(key)
            while len(self.held) > 1 and sum(size for _, size in self.held.values()) > self.max_bytes:
                self.held.popitem(last=False)
        return value


@st.cache_resource
def scans() -> RecentlyUsed[Scan]:
    return RecentlyUsed(SCAN_BYTES)


@st.cache_resource
def explanations() -> RecentlyUsed[Explanation]:
    return RecentlyUsed(MAP_BYTES)


def cards(role: str = "diagnosis") -> dict[str, ModelCard]:
    """The models of one role by id. Of two with one id the first counts: it is the one that loads."""
    listed: dict[str, ModelCard] = {}
    for card in service.list_models():
        if card.role == role:
            listed.setdefault(card.id, card)
    return listed


def installed() -> tuple[str, ...]:
    """What the models are, so that a change among them is seen."""
    return tuple(f"{card.id} {card.weights_sha256}" for card in service.list_models())


@st.cache_resource(max_entries=1, show_spinner="Loading…")
def router(installed: tuple[str, ...]) -> Router | None:
    return service.load_router()


@st.cache_resource(max_entries=8, show_spinner="Loading the model…")
def model(model_id: str, version: str) -> Model:
    """A loaded model. version: of the card, so that a model replaced on disk is loaded again."""
    return service.load_model(model_id)


def scan(case: Case) -> Scan:
    """Decode a case, or take it from memory. Raises ScanError, or RecordsError when its file was removed meanwhile."""
    found = scans().get(case.path or case.sample_id)
    if found is not None:
        return found
    fresh = service.read_scan(content(case), case.name) if case.path else service.read_sample(case.sample_id)
    return keep_scan(case, fresh)


def keep_scan(case: Case, decoded: Scan) -> Scan:
    """What was decoded when the file came in need not be decoded again to be shown."""
    tidy()
    return scans().put(case.path or case.sample_id, decoded, decoded.frames.nbytes)


def tidy() -> None:
    """Let go of decoded scans whose files are gone: removed cases, and sessions that ended."""
    scans().drop(lambda key: isinstance(key, Path) and not key.exists())


def content(case: Case) -> bytes:
    """The file of a case; empty for a sample. Raises RecordsError when it was removed meanwhile."""
    try:
        return case.path.read_bytes() if case.path else b""
    except OSError as error:  # another reader removed it, or retention did
        raise RecordsError(f"{case.name} is not there any more. Choose another one.") from error


def patient(case: Case) -> str:
    """The pseudonym of the patient whom an uploaded file names; empty where it names none."""
    return patient_once(str(case.path), case.path) if case.path else ""


@st.cache_data(max_entries=1024, show_spinner=False)
def patient_once(name: str, _path: Path) -> str:
    return service.patient_of(_path.read_bytes())


def predict(model_id: str, version: str, scan: Scan, frame: int) -> Prediction:
    return predict_once(model_id, version, scan.sha256, frame, installed(), scan)


@st.cache_data(max_entries=1024, show_spinner=False)
def predict_once(
    model_id: str, version: str, sha256: str, frame: int, installed: tuple[str, ...], _scan: Scan
) -> Prediction:
    return service.predict(model(model_id, version), _scan, frame, route(installed, sha256, frame, _scan))


@st.cache_data(max_entries=1024, show_spinner=False)
def route(installed: tuple[str, ...], sha256: str, frame: int, _scan: Scan) -> Route | None:
    """The model that a frame is for; None where no router is installed."""
    known = router(installed)
    return service.route(known, _scan, frame) if known else None


def suggest(case: Case, scan: Scan, frame: int) -> Route:
    """The model to begin with and why: a sample's own, the router's, or the one that suits headers or colours."""
    own = {sample.id: sample.model_id for sample in service.list_samples()}
    if case.sample_id in own:
        model_id = own[case.sample_id]
        return Route(model_id or None, "This sample has its model." if model_id else "No model is for this sample.", {})
    found = route(installed(), scan.sha256, frame, scan)
    if found:
        return found
    suited = service.suggest_model(scan)
    if suited is None:
        return Route(None, "No model is known to suit this picture.", {})
    kind = (
        f"it says that it is {scan.modality}"
        if scan.modality
        else "of its colours: the file does not say what it shows"
    )
    return Route(suited, f"Suggested only because {kind}.", {})


def risk_along(model_id: str, version: str, scan: Scan) -> tuple[float, ...]:
    return risk_along_once(model_id, version, scan.sha256, scan)


@st.cache_data(max_entries=256, show_spinner="Scoring the frames…")
def risk_along_once(model_id: str, version: str, sha256: str, _scan: Scan) -> tuple[float, ...]:
    return service.risk_along(model(model_id, version), _scan)


@st.cache_data(max_entries=256, show_spinner=False)
def presets(sha256: str, _scan: Scan) -> tuple[Window, ...]:
    return service.presets(_scan)


class Job(NamedTuple):
    """What identifies an explanation. The method's settings are its defaults for all."""

    scan_sha256: str
    frame: int
    model_id: str
    model_version: str
    target_index: int
    method: str
    seed: int = LIME_SEED


@contextmanager
def turn(wait: Callable[[], None]) -> Iterator[None]:
    """Slow work of all sessions takes turns, so that answers do not wait for many maps that nobody sees yet.

    wait is called each second until it is our turn; what it raises gives the turn up.
    """
    while not SLOW.acquire(timeout=1):
        wait()
    try:
        yield
    finally:
        SLOW.release()


def job_of(prediction: Prediction, target_index: int, method: str) -> Job:
    answered = (prediction.scan_sha256, prediction.frame, prediction.model_id, prediction.model_version)
    return Job(*answered, target_index, method)


def explanation(job: Job) -> Explanation | None:
    """A map that was made before, or None."""
    return explanations().get(job)


class Report(Protocol):
    """How slow work tells of itself: the part done, 0..1, and the map so far."""

    def __call__(self, done: float) -> None: ...

    def show(self, so_far: Explanation) -> None: ...


def explain(job: Job, scan: Scan, report: Report | None = None) -> Explanation:
    """Make a map and keep it. Raises ExplanationError."""
    loaded = model(job.model_id, job.model_version)
    made = service.explain(
        loaded, scan, job.target_index, job.method, frame=job.frame, seed=job.seed, progress=report,
        partial_map=report.show if report else None,
    )  # fmt: skip
    return explanations().put(job, made, made.heatmap.nbytes + made.signed.nbytes + 2 * made.raw.nbytes)


class Tested(NamedTuple):
    """What tells how far one map can be believed."""

    faithfulness: Faithfulness | None  # None where the map has no contrast
    shortcuts: Shortcuts


@st.cache_resource
def tests() -> RecentlyUsed[Tested]:
    return RecentlyUsed(TEST_BYTES)


def tested(job: Job) -> Tested | None:
    """The tests of a map that were made before, or None."""
    return tests().get(job)


def test(job: Job, scan: Scan, made: Explanation, progress: Callable[[float], None]) -> Tested:
    """Test a map and keep what is found."""
    loaded = model(job.model_id, job.model_version)
    faithful = service.faithfulness(loaded, scan, made, progress=progress)
    return tests().put(job, Tested(faithful, service.shortcuts(loaded, scan, made)), 2**12)
