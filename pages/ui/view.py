"""How the scan is shown: frame, window, inversion. None of it changes what the model reads, but for the frame."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from medfusion.types import Scan, Window
from pages.ui import resources, stack, state
from pages.ui.state import CUSTOM, Case

AS_STORED = "As the file asks"


@dataclass(frozen=True)
class View:
    """What the reader chose. window None: as the file asks."""

    frame: int
    window: Window | None
    invert: bool


@dataclass(frozen=True)
class Shown:
    """The window on the screen and where it may go, in the units of the modality."""

    center: float
    width: float
    low: float
    high: float
    step: float  # one grey level
    invert: bool


def shown(scan: Scan, view: View) -> Shown:
    presets = resources.presets(scan.sha256, scan)
    window = view.window or presets[0]
    low, high = value_range(presets)
    return Shown(window.center, window.width, low, high, grey_level(scan, low, high), view.invert)


def grey_level(scan: Scan, low: float, high: float) -> float:
    return (high - low) / 1000 if scan.frames.dtype.kind == "f" else 1.0


def view_controls(case: Case, scan: Scan) -> View:
    """Draw the controls of one case, with the values that it had before."""
    frame = stack.choose(case, scan)
    window = choose_window(case, scan)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        invert = st.toggle("Invert", key=state.key(case, "invert"), persist_state="session")
        st.button("Reset view", key="reset-view", on_click=state.reset_view, args=(case,))
    st.caption("The view does not change what the model reads.")
    return View(frame, window, invert)


def choose_window(case: Case, scan: Scan) -> Window | None:
    """The window in use; None to show the scan as its file asks."""
    presets = resources.presets(scan.sha256, scan)
    low, high = value_range(presets)
    step = grey_level(scan, low, high)
    by_name = {window.name: window for window in presets}
    preset, center, width = (state.key(case, what) for what in ("preset", "center", "width"))
    state.start(preset, AS_STORED)
    state.start(center, float(presets[0].center))
    state.start(width, float(max(presets[0].width, step)))
    chosen = st.selectbox(
        "Window",
        [AS_STORED, *by_name, CUSTOM],
        key=preset,
        on_change=state.choose_preset,
        args=(case, presets),
        persist_state="session",
    )
    middle = level_slider("Centre (level)", low, high, step, case, center)
    breadth = level_slider("Width", step, max(high - low, 2 * step), step, case, width)
    if chosen == AS_STORED:
        return None
    return by_name.get(chosen) or Window(middle, breadth, CUSTOM)


def level_slider(label: str, low: float, high: float, step: float, case: Case, key: str) -> float:
    """A slider in the units of the modality. Moving it leaves the preset."""
    form = "%.0f" if step >= 1 else "%.3g"
    return st.slider(
        label,
        low,
        high,
        step=step,
        format=form,
        key=key,
        on_change=state.choose_custom,
        args=(case,),
        persist_state="session",
    )


def value_range(presets: tuple[Window, ...]) -> tuple[float, float]:
    """From the lowest to the highest value that any preset shows; never empty."""
    low = min(window.center - window.width / 2 for window in presets)
    high = max(window.center + window.width / 2 for window in presets)
    return (float(low), float(high)) if high > low else (float(low) - 1, float(high) + 1)
