"""The main job: drop a scan, read a calibrated answer, see why."""

import streamlit as st

from medfusion.access import READER
from pages.ui import components, evidence, login, overlay, reading, resources, stack, state, view
from pages.ui.messages import explained_errors

login.enter(READER)

case = state.current()
overlay.watch_width()

if case is None:
    resources.tidy()
    components.page_head("Analyse a scan")
    components.scan_uploader(f"Drop scans here: {components.FORMATS}, one or many. They stay on this machine.")
    components.show_rejected()
    st.subheader("No scan at hand? Open a sample", anchor=False)
    with explained_errors():
        components.sample_gallery()
    st.stop()

with st.sidebar:
    components.scan_uploader("Add scans")
    components.case_list()

components.page_head(case.name)
components.show_rejected()

with explained_errors():
    scan = resources.scan(case)
    components.show_facts(scan)
    stack.begin(case, scan, reading.comes_first(case))
    with st.sidebar:
        seen = view.view_controls(case, scan)
        if case.worklist_id:
            reading.choose_mode()
    about_model, answer = st.columns([1, 2.2], gap="medium")
    with about_model:
        card = components.choose_model(case, scan, seen.frame, resources.cards())
    if card is None:
        evidence.show_scan(case, scan, seen)
        st.stop()
    if reading.comes_first(case):
        with answer:
            reading.ask_first(case, card)
        evidence.show_scan(case, scan, seen)
        st.stop()
    prediction = resources.predict(card.id, card.version, scan, seen.frame)
    with about_model:
        components.show_model(card)
    with answer:
        components.show_prediction(prediction, card)
        reading.show(case, card, prediction)
    stack.show_along(case, scan, card, seen.frame)
    evidence.show_evidence(case, scan, seen, prediction, card)
