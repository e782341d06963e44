"""What one browser tab remembers: the only reader and writer of st.session_state.

Decoded scans do not live here, only their files in a folder that goes when the session does. Choices made in widgets
are kept by Streamlit itself (persist_state="session") under the keys that `key` returns.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import psutil
import streamlit as st
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.typing import UploadedFile

from medfusion.access import Person
from medfusion.doctor import Finding
from medfusion.pacs.found import Series, Study
from medfusion.service import Exported
from medfusion.types import EvaluationReport, ModelCard, Window
from medfusion.worklist import Entry, Said
from training.service import Estimate

SPOOL = "medfusion-session-"  # and the number of the process, in the folder for temporary files
PICKED = "case"  # key of the case list: the id of the case in view
CONTROLS = "map-controls"  # keys of the components that report from the browser
WIDTH = "page-width"
SESSION_MINUTES = 30.0
CUSTOM = "Custom"  # the window preset that the sliders choose
ROOM_PX = {
    0: 360,
    700: 700,
    1100: 1100,
    1800: 1500,
    2800: 2600,
}  # windows from so wide: room for pictures beside margins


@dataclass(frozen=True)
class Case:
    """One scan of this session: an uploaded file, or a sample where path is None."""

    id: int
    name: str
    path: Path | None = None
    sample_id: str = ""
    worklist_id: int = 0  # of the worklist, which keeps the file; 0: of this session only
    series: str = ""  # pseudonym; "" where the file is of none
    frame: int = 0  # the most suspicious one, where the worklist knows it


@dataclass(frozen=True)
class Rejected:
    """A file that could not be read, and the sentence that says why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Zoom:
    """The part of a frame in view, in its pixels: left and right, lower and upper."""

    x: tuple[float, float]
    y: tuple[float, float]


@dataclass(frozen=True)
class Found:
    """What an archive answered last. Names and numbers of patients live here only, and go with the session."""

    number: int  # of the search in this session
    archive: str
    studies: list[Study]


class Spool:
    """A folder for this session's files. Removed with the session, with the program, or after a crash by the next."""

    def __init__(self) -> None:
        sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{SPOOL}{os.getpid()}-"))
        self.remove = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


@cache
def sweep() -> None:
    """Remove what programs left that did not end as they should, once."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SPOOL}*-*"):
        process = folder.name.removeprefix(SPOOL).partition("-")[0]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


class Memory:
    """Everything of a session that is not the value of a widget."""

    def __init__(self) -> None:
        self.cases: dict[int, Case] = {}
        self.rejected: list[Rejected] = []
        self.spool = Spool()
        self.last_id = 0
        self.uploaders = 0
        self.stopped: set[Hashable] = set()
        self.zooms: dict[int, Zoom] = {}
        self.window_px = 1100
        self.window_moved = False
        self.reports: dict[tuple[str, str], EvaluationReport] = {}
        self.masks: dict[tuple[int, int], np.ndarray] = {}
        self.archive: tuple[Hashable, bytes] | None = None
        self.estimate: tuple[Hashable, Estimate] | None = None
        self.exports: dict[tuple[str, str], Exported] = {}
        self.words: dict[str, str] = {}
        self.tuning_set: str | None = None
        self.tuning_run: str | None = None
        self.person: Person | None = None
        self.seen_s = 0.0  # when the person last did something
        self.ended = False  # the session of somebody who was away
        self.turned_away = ""  # why the person that the identity provider names may not come in
        self.findings: dict[str, Finding] = {}
        self.hidden: dict[int, bool] = {}
        self.told: dict[str | int, Said] = {}
        self.reading_since: dict[Hashable, float] = {}
        self.found: Found | None = None
        self.searches = 0
        self.series: dict[str, list[Series]] = {}


def memory() -> Memory:
    if "memory" not in st.session_state:
        st.session_state["memory"] = Memory()
    return st.session_state["memory"]


def key(case: Case, what: str) -> str:
    """The key of a widget that belongs to one case, so that each case keeps its own window, class and frame."""
    return f"{what}-{case.id}"


def cases() -> list[Case]:
    return list(memory().cases.values())


def current() -> Case | None:
    """The case in view; the last one when none was picked."""
    kept = memory().cases
    return kept.get(st.session_state.get(PICKED, 0)) or next(reversed(kept.values()), None)


def show(case: Case) -> None:
    """Bring a case into view. Call before the case list is drawn, or from a callback."""
    st.session_state[PICKED] = case.id


def step(by: int) -> None:
    """Callback: view the next (1) or the previous (-1) case, round the end."""
    ids, case = list(memory().cases), current()
    if case:
        show(memory().cases[ids[(ids.index(case.id) + by) % len(ids)]])


def add_file(name: str, data: bytes) -> Case:
    """Keep an uploaded file on disk, under a name of our own, and list it."""
    kept = memory()
    kept.last_id += 1
    path = kept.spool.folder / f"{kept.last_id}"
    path.write_bytes(data)
    kept.cases[kept.last_id] = Case(kept.last_id, name, path=path)
    return kept.cases[kept.last_id]


def keep_labelled(data: bytes) -> Path:
    """A labelled zip on disk, under a name of our own. The caller removes it."""
    path = Path(tempfile.mkdtemp(dir=memory().spool.folder)) / "labelled.zip"
    path.write_bytes(data)
    return path


def keep_report(card: ModelCard, found: EvaluationReport) -> None:
    memory().reports[card.id, card.version] = found


def report(card: ModelCard) -> EvaluationReport | None:
    """What was measured of this model in this session."""
    return memory().reports.get((card.id, card.version))


def keep_archive(about: Hashable, packed: bytes) -> None:
    memory().archive = (about, packed)


def archive(about: Hashable) -> bytes | None:
    """The zip that was packed last, if it is of these maps."""
    kept = memory().archive
    return kept[1] if kept and kept[0] == about else None


def keep_export(card: ModelCard, made: Exported) -> None:
    memory().exports = {(card.id, card.version): made}  # one at a time: 12 MB


def export(card: ModelCard) -> Exported | None:
    """The ONNX model that was made last, if it is this one."""
    return memory().exports.get((card.id, card.version))


def say(about: str, words: str) -> None:
    """Callback: words for the next drawing of the page."""
    memory().words[about] = words


def said(about: str) -> str | None:
    """What a callback said, once."""
    return memory().words.pop(about, None)


def keep_estimate(about: Hashable, found: Estimate) -> None:
    memory().estimate = (about, found)


def estimate(about: Hashable) -> Estimate | None:
    """The last trial of steps, if it was of these settings."""
    kept = memory().estimate
    return kept[1] if kept and kept[0] == about else None


def keep_tuning_set(set_id: str) -> None:
    memory().tuning_set = set_id


def tuning_set() -> str | None:
    """The id of the labelled set in view on the Fine-tune page."""
    return memory().tuning_set


def keep_tuning_run(run_id: str) -> None:
    memory().tuning_run = run_id


def tuning_run() -> str | None:
    """The id of the run in view on the Fine-tune page."""
    return memory().tuning_run


def keep_mask(case: Case, frame: int, mask: np.ndarray) -> None:
    memory().masks[case.id, frame] = mask


def mask(case: Case, frame: int) -> np.ndarray | None:
    """The reader's own mask of one frame, (H, W) bool."""
    return memory().masks.get((case.id, frame))


def forget_mask(case: Case, frame: int) -> None:
    """Callback: take the mask away."""
    memory().masks.pop((case.id, frame), None)


def open_sample(sample_id: str, title: str) -> None:
    """Callback: list a sample once, and view it."""
    kept = memory()
    known = [case for case in cases() if case.sample_id == sample_id]
    if not known:
        kept.last_id += 1
        kept.cases[kept.last_id] = Case(kept.last_id, title, sample_id=sample_id)
    show(known[0] if known else kept.cases[kept.last_id])


def sign_in(person: Person) -> None:
    """Begin anew with an empty memory: nothing of who was here before is left."""
    forget_everything()
    memory().person, memory().seen_s = person, time.monotonic()


def sign_out() -> None:
    forget_everything()


def forget_everything() -> None:
    clear()
    st.session_state.clear()


def signed_in() -> Person | None:
    """Who has signed in, unless nothing was done for SESSION_MINUTES: then the session ends."""
    kept = memory()
    if kept.person is None:
        return None
    if is_away():
        sign_out()
        memory().ended = True
        say("login", "You were away for a while. Sign in again.")
        return None
    kept.seen_s = time.monotonic()
    return kept.person


def is_away() -> bool:
    """Whether somebody signed in and has done nothing for too long. Asking does not count as doing."""
    kept = memory()
    return kept.person is not None and time.monotonic() - kept.seen_s > 60 * session_minutes()


def session_minutes() -> float:
    """Without any doing, by MEDFUSION_SESSION_MINUTES."""
    try:
        return float(os.environ.get("MEDFUSION_SESSION_MINUTES", "") or SESSION_MINUTES)
    except ValueError:
        return SESSION_MINUTES


def keep_finding(name: str, found: Finding) -> None:
    memory().findings[name] = found


def finding(name: str) -> Finding | None:
    """What a check of the System page found last."""
    return memory().findings.get(name)


def keep_found(archive: str, studies: list[Study]) -> None:
    kept = memory()
    kept.searches += 1
    kept.found, kept.series = Found(kept.searches, archive, studies), {}


def found() -> Found | None:
    """What the last search of an archive found."""
    return memory().found


def keep_series(study: str, series: list[Series]) -> None:
    memory().series[study] = series


def series(study: str) -> list[Series] | None:
    """The series of a study that was found, if they were listed."""
    return memory().series.get(study)


def read_as(case: Case) -> str | int:
    """What a reader says something of: a whole series, or a file that is of none."""
    return case.series or case.worklist_id


def told() -> dict[str | int, Said]:
    """What the reader said before seeing the answer, of all that was shown with its answer in this session."""
    return memory().told


def note_told(case: Case, said: Said) -> None:
    """The answer of this case is, or will now be, in sight."""
    memory().told[read_as(case)] = said


def was_hidden(case: Case) -> bool | None:
    """Whether its answer was hidden when the case was last gone to; None: it was not in view yet."""
    return memory().hidden.get(case.id)


def note_hidden(case: Case, is_hidden: bool) -> None:
    memory().hidden[case.id] = is_hidden


def begin_reading(case: Case) -> None:
    """Note when a case of the worklist was first in view."""
    memory().reading_since.setdefault(read_as(case), time.monotonic())


def reading_s(case: Case) -> float:
    """How long ago that was."""
    return time.monotonic() - memory().reading_since.get(read_as(case), time.monotonic())


def open_worklist(entries: Sequence[Entry], first: Entry) -> None:
    """View a case of the worklist, with the others behind the buttons for the next and the previous one."""
    kept = memory()
    for old in [case for case in cases() if case.worklist_id]:
        del kept.cases[old.id]
    for entry in entries:
        kept.last_id += 1
        case = seen_as(Case(kept.last_id, ""), entry)
        kept.cases[case.id] = case
        if entry == first:
            show(case)


def seen_as(case: Case, entry: Entry) -> Case:
    """A place in the case list that shows this case of the worklist."""
    frame = entry.answer.frame if entry.answer else 0
    return replace(
        case, name=f"Case {entry.id}", path=entry.path, worklist_id=entry.id, series=entry.series, frame=frame
    )


def show_slice(case: Case, entry: Entry) -> None:
    """Another slice of the series in the same place: window, zoom, model and class stay."""
    memory().cases[case.id] = seen_as(case, entry)


def show_frame(case: Case, frame: int) -> None:
    """Callback: frame counts from 0."""
    st.session_state[key(case, "frame")] = frame + 1


def picked_point(widget_key: str) -> int | None:
    """Callback: which point of a chart was just clicked; None where one was let go."""
    points = st.session_state[widget_key]["selection"]["points"]
    return int(points[0]["point_index"]) if points else None


def value_of(widget_key: str) -> int:
    """Callback: what a slider was just moved to."""
    return int(st.session_state[widget_key])


def reject(name: str, reason: str) -> None:
    memory().rejected.append(Rejected(name, reason))


def rejected() -> list[Rejected]:
    return memory().rejected


def forget_rejected() -> None:
    """Callback: empty the list of files that could not be read."""
    memory().rejected.clear()


def remove(case: Case) -> None:
    """Callback: take one case off the list and delete its file."""
    ids = list(memory().cases)
    if len(ids) > 1:
        step(1)
    del memory().cases[case.id]
    memory().masks = {about: mask for about, mask in memory().masks.items() if about[0] != case.id}
    if case.path and not case.worklist_id:
        case.path.unlink(missing_ok=True)


def clear() -> None:
    """Callback: take all cases off the list and delete their files."""
    for case in cases():
        remove(case)
    forget_rejected()


def uploader_key() -> str:
    return f"upload-{memory().uploaders}"


def renew_uploader() -> None:
    """Let go of the uploader's value: the next run draws an empty one."""
    memory().uploaders += 1


@contextmanager
def taking(file: UploadedFile) -> Iterator[None]:
    """Free an uploaded file's memory when it is taken or refused, not before.

    Streamlit may break off a drawing at any use of the session and begin anew. A file freed by then would be lost.
    """
    try:
        yield
    except Exception:  # Streamlit breaks off by a BaseException
        release(file)
        raise
    release(file)


def release(file: UploadedFile) -> None:
    """Free the memory that Streamlit holds for an uploaded file."""
    context = get_script_run_ctx()
    if context and isinstance(context.uploaded_file_mgr, MemoryUploadedFileManager):
        context.uploaded_file_mgr.remove_file(context.session_id, file.file_id)


def choose_preset(case: Case, presets: tuple[Window, ...]) -> None:
    """Callback: move the window sliders to the preset just chosen."""
    for window in presets:
        if window.name == st.session_state[key(case, "preset")]:
            st.session_state[key(case, "center")] = window.center
            st.session_state[key(case, "width")] = window.width


def choose_custom(case: Case) -> None:
    """Callback: the sliders moved, so no preset applies."""
    st.session_state[key(case, "preset")] = CUSTOM


def reset_view(case: Case) -> None:
    """Callback: show the scan as its file asks."""
    for what in ("preset", "center", "width", "invert"):
        st.session_state.pop(key(case, what), None)


def start(widget_key: str, value: object) -> None:
    """Give a widget its first value, once."""
    st.session_state.setdefault(widget_key, value)


def is_on(widget_key: str) -> bool:
    """Whether a switch is on; it may stand further down the page."""
    return bool(st.session_state.get(widget_key))


def stop(job: Hashable) -> None:
    """Callback: do not run this explanation until it is asked for again."""
    memory().stopped.add(job)


def resume(job: Hashable) -> None:
    """Callback: run a stopped explanation after all."""
    memory().stopped.discard(job)


def is_stopped(job: Hashable) -> bool:
    return job in memory().stopped


def keep_zoom() -> None:
    """Callback: note the zoom of the figure that the browser reports."""
    zoomed = st.session_state[CONTROLS]["zoom"]
    x, y = zoomed["x"], zoomed["y"]
    memory().zooms[int(zoomed["case"])] = Zoom((float(x[0]), float(x[1])), (float(y[0]), float(y[1])))


def keep_window() -> None:
    """Callback: take over the window that was dragged in the browser."""
    moved = st.session_state[CONTROLS]["window"]
    case = memory().cases.get(int(moved["case"]))
    if case:
        st.session_state[key(case, "center")] = float(moved["center"])
        st.session_state[key(case, "width")] = float(moved["width"])
        choose_custom(case)
        memory().window_moved = True


def window_moved() -> bool:
    """Whether the window was dragged since this was last asked."""
    moved, memory().window_moved = memory().window_moved, False
    return moved


def keep_width() -> None:
    """Callback: note how wide the browser says that it is, as one of the steps in ROOM_PX."""
    memory().window_px = int(st.session_state[WIDTH]["room"])


def window_px() -> int:
    """The largest step of ROOM_PX that the window reaches."""
    return memory().window_px


def room_px() -> int:
    """About how wide the pictures of a case may be, together."""
    return ROOM_PX[window_px()]


def is_narrow() -> bool:
    """Whether the screen is too narrow for pictures side by side."""
    return window_px() == min(ROOM_PX)


def zoom(case: Case) -> Zoom | None:
    """The part of a case that was last in view; None for all of it."""
    return memory().zooms.get(case.id)
