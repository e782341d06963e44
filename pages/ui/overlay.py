"""Opacity, hiding and hold-to-compare for the maps: all in the browser, without a word to the server.

Streamlit draws a changed figure anew and so forgets its zoom. The component reports the zoom, in a fragment of its own
so that nothing else runs for it, and the next figure is drawn with it.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pages.ui import state
from pages.ui.state import Case


def asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


# Not isolated: its style sheet sets the opacity of the maps in the figure.
controls = st.components.v2.component(
    "map_controls",
    html=asset("overlay.html"),
    css=asset("overlay.css"),
    js=asset("overlay.js"),
    isolate_styles=False,
)
width = st.components.v2.component("page_width", js=asset("width.js"))


@st.fragment
def map_controls(case: Case) -> None:
    """Draw the controls and listen for the zoom."""
    controls(key=state.CONTROLS, data={"case": case.id}, on_zoom_change=state.keep_zoom)


def watch_width() -> None:
    """Learn, before there is a figure, whether its pictures must be stacked. Shows nothing."""
    width(key=state.WIDTH, data={"narrow": state.is_narrow()}, on_narrow_change=state.keep_width)
