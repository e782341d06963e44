"""Opacity, hiding and hold-to-compare for the maps: all in the browser, without a word to the server.

Streamlit draws a changed figure anew and so forgets its zoom. The component reports the zoom, in a fragment of its own
so that nothing else runs for it, and the next figure is drawn with it.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pages.ui import state
from pages.ui.state import Case


def asset(kind: str) -> str:
    return Path(__file__).with_name(f"overlay.{kind}").read_text(encoding="utf-8")


# Not isolated: its style sheet sets the opacity of the maps in the figure.
controls = st.components.v2.component(
    "map_controls", html=asset("html"), css=asset("css"), js=asset("js"), isolate_styles=False
)


@st.fragment
def map_controls(case: Case) -> None:
    """Draw the controls; run the page again only when it must change its layout."""
    was_narrow = state.is_narrow()
    controls(
        key=state.BROWSER,
        data={"case": case.id, "narrow": was_narrow},
        on_narrow_change=state.keep_report,
        on_zoom_change=state.keep_report,
    )
    if state.is_narrow() != was_narrow:
        st.rerun()
