"""Opacity, hiding and hold-to-compare for the maps: all in the browser, without a word to the server."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pages.ui import state

KEY = "map-controls"


def asset(kind: str) -> str:
    return Path(__file__).with_name(f"overlay.{kind}").read_text(encoding="utf-8")


# Not isolated: its style sheet sets the opacity of the maps in the figure.
controls = st.components.v2.component(
    "map_controls", html=asset("html"), css=asset("css"), js=asset("js"), isolate_styles=False
)


def map_controls() -> bool:
    """Draw the controls. Returns whether the screen is too narrow for panels side by side."""
    narrow = bool(state.component_value(KEY, "narrow"))
    return bool(controls(key=KEY, data={"narrow": narrow}, on_narrow_change=lambda: None).narrow)
