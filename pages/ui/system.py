"""Widgets of the System page: checks with a button each, the audit log, retention, and what the scorer wrote."""

from __future__ import annotations

import streamlit as st

from medfusion import access, doctor, places, worklist
from medfusion.doctor import Finding
from medfusion.records import audit
from pages.ui import state
from pages.ui.messages import explained_errors, plain

ICONS = {"ok": ":material/check_circle:", "warning": ":material/warning:", "error": ":material/error:"}
NEWEST = 500
LINES = 60


def show_checks() -> None:
    """All checks: run together, or one by one."""
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.subheader("Checks", anchor=False, width="content")
        every = st.button("Run all", type="primary", icon=":material/stethoscope:", key="doctor-all")
    bar = st.empty()
    names = doctor.names()
    asked = names if every else []
    for number, name in enumerate(asked):
        bar.progress(number / len(asked), text=f"Checking {name}")
        state.keep_finding(name, doctor.check(name))
    bar.empty()
    for name in names:
        show_check(name, state.finding(name))


def show_check(name: str, found: Finding | None) -> None:
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        icon = ICONS[found.state] if found else ":material/radio_button_unchecked:"
        st.markdown(f"{icon} **{name.capitalize()}**", width=170)
        st.markdown(plain(found.found) if found else "Not checked yet.", width="stretch")
        if st.button("Test", key=f"doctor-{name}"):
            with st.spinner(f"Checking {name}…"):
                state.keep_finding(name, doctor.check(name))
            st.rerun()


def show_log() -> None:
    with st.expander("Audit log", icon=":material/history:"):
        access.require(access.ADMINISTRATOR)
        found = audit.entries(NEWEST)
        if not found:
            st.caption("Nothing was done yet.")
            return
        st.dataframe(
            {
                "Entry": [entry.number for entry in found],
                "When": [entry.at for entry in found],
                "Who": [entry.actor for entry in found],
                "What": [entry.action for entry in found],
                "Of": [entry.subject for entry in found],
                "Details": [", ".join(f"{key}: {value}" for key, value in entry.details.items()) for entry in found],
            },
            hide_index=True, alt="The newest entries of the audit log",
            column_config={"When": st.column_config.DatetimeColumn(format="D MMM YYYY, HH:mm:ss")},
        )  # fmt: skip
        st.caption("The check of the audit log above finds whether any of it was changed.")


def show_retention() -> None:
    with st.expander("Retention", icon=":material/auto_delete:"):
        with st.form("retention", border=False):
            days = st.number_input(
                "Remove cases older than so many days", 0.0, value=worklist.kept_days() or 365.0, step=1.0
            )
            if st.form_submit_button("Remove them now"):
                with explained_errors():
                    st.success(f"{worklist.expire(days, 'system page')} cases removed.")
        with st.form("forget", border=False):
            patient = st.text_input("Remove all cases of a patient", placeholder="Id in the files, or pseudonym")
            if st.form_submit_button("Remove this patient") and patient.strip():
                with explained_errors():
                    st.success(f"{worklist.remove_patient(patient, 'system page')} cases removed.")


def show_output() -> None:
    with st.expander("What the scorer wrote", icon=":material/terminal:"):
        path = places.home() / "scorer.log"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        st.code("\n".join(lines[-LINES:]) or "Nothing.", language=None)
