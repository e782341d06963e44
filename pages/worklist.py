"""Many scans at once: dropped, answered in the background, and read in order of risk."""

import streamlit as st

from medfusion import worklist
from medfusion.access import READER
from pages.ui import archive, cases, components, login, reading
from pages.ui.messages import explained_errors

login.enter(READER)

components.page_head("Worklist")
with explained_errors():
    cases.upload()
    archive.show_panel()
    with st.container():  # what comes and goes keeps its place, or what follows would be drawn twice for a moment
        components.show_rejected()
    with st.container():
        cases.show_progress()
    listed = worklist.entries()
    if not listed:
        st.caption("Answered scans stand here, the riskiest first. Files are kept on this machine without identity.")
        st.stop()
    is_hidden = reading.choose_mode()
    shown = cases.choose(listed, is_hidden)
    picked = cases.show_table(shown, is_hidden)
    cases.show_actions(shown, picked, is_hidden)
    if not is_hidden:
        cases.show_along(shown, picked)
    reading.show_figures()
