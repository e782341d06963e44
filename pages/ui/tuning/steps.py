"""Which step, which labelled set and which run are in view. They stay while other pages are visited."""

from __future__ import annotations

import streamlit as st

from pages.ui import state
from training import service
from training.service import Run, StoredSet

DATA, CHECK, SETTINGS, TRAIN, RESULT, PROMOTE = "Data", "Check", "Settings", "Train", "Result", "Promote"
ALL = (DATA, CHECK, SETTINGS, TRAIN, RESULT, PROMOTE)
KEY = "tuning-step"
NEXT = "tuning-next-step"


def choose() -> str:
    """The bar of steps. The first visit begins with the data, or with a run that is going on."""
    if NEXT in st.session_state:
        go(st.session_state.pop(NEXT))
    begin = TRAIN if any(run.is_active for run in service.list_runs()) else DATA
    state.start(KEY, begin)
    return st.segmented_control(
        "Step",
        ALL,
        format_func=lambda step: f"{ALL.index(step) + 1} · {step}",
        required=True,
        key=KEY,
        label_visibility="collapsed",
        persist_state="session",
    )  # type: ignore[return-value]  # one of ALL: required


def go(step: str) -> None:
    """Callback: to another step."""
    st.session_state[KEY] = step


def queue(step: str) -> None:
    """To another step with the next run of the page: its bar is drawn already."""
    st.session_state[NEXT] = step


def button(label: str, step: str, disabled: bool = False, kind: str = "primary") -> None:
    """A button that leads to a step."""
    st.button(label, on_click=go, args=(step,), disabled=disabled, type=kind, key=f"go-{step}-{label}")  # type: ignore[arg-type]


def current_set() -> StoredSet | None:
    """The labelled set in view: the chosen one, else the newest that was uploaded."""
    known = service.list_sets()
    chosen = next((one for one in known if one.id == state.tuning_set()), None)
    return chosen or next((one for one in known if one.folder), None)


def current_run() -> Run | None:
    """The run in view: the chosen one, else one that is going on, else the newest."""
    known = service.list_runs()
    chosen = next((run for run in known if run.id == state.tuning_run()), None)
    return chosen or next((run for run in known if run.is_active), None) or next(iter(known), None)


def needs_run(what: str) -> Run | None:
    """The run in view, or None after saying what is missing."""
    run = current_run()
    if run is None:
        st.info(f"{what} stands here once a model was trained.", icon=":material/help:")
        button("Begin with the data", DATA)
    return run
