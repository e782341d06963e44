"""Opacity, hiding, hold-to-compare, distances and dragging the window: in the browser, without a word to the server.

The window of a drag goes to the server when the button is released, which draws the scan anew from its full range.

Streamlit draws a changed figure anew and so forgets its zoom. The component reports the zoom, in a fragment of its own
so that nothing else runs for it, and the next figure is drawn with it.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import streamlit as st

from medfusion import service
from medfusion.types import Scan
from pages.ui import state
from pages.ui.state import Case
from pages.ui.view import View, shown


def asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


# Not isolated: its style sheet sets the opacity of the maps in the figure.
controls = st.components.v2.component(
    "map_controls",
    html=asset("overlay.html"),
    css=asset("overlay.css"),
    js=asset("measure.js") + asset("overlay.js"),
    isolate_styles=False,
)
width = st.components.v2.component("page_width", js=asset("width.js"))


@st.fragment
def map_controls(case: Case, scan: Scan, view: View, maps: bool = True) -> None:
    """Draw the controls; listen for the zoom and for a dragged window. maps: whether there are any over the scan."""
    controls(
        key=state.CONTROLS,
        data={
            "case": case.id,
            "window": asdict(shown(scan, view)),
            "scale": scale_of(scan, view),
            "maps": maps,
            "grey": scan.is_grey,
        },
        on_zoom_change=state.keep_zoom,
        on_window_change=state.keep_window,
    )
    if state.window_moved():
        st.rerun()


def scale_of(scan: Scan, view: View) -> dict[str, object]:
    """What the browser needs to measure. scan: of what; distances are kept under it."""
    return {
        "scan": f"{scan.sha256[:16]}-{view.frame}",
        "spacing": list(scan.spacing_mm or (1.0, 1.0)),
        "unit": service.unit(scan),
        "width": scan.width_px,
        "height": scan.height_px,
    }


def watch_width() -> None:
    """Learn, before there is a figure, how large its pictures may be, and whether they must be stacked. Shows nothing.

    A change of theme draws the page anew.
    """
    data = {"room": state.window_px(), "steps": list(state.ROOM_PX)}
    width(key=state.WIDTH, data=data, on_room_change=state.keep_width, on_dark_change=lambda: None)
