"""Archives (PACS) on the pages, where one is configured: search and fetch on the Worklist, send a report on Analyse."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import streamlit as st

from medfusion import worklist
from medfusion.errors import ConfigError
from medfusion.pacs import archives, jobs
from medfusion.pacs.archives import Pick
from medfusion.pacs.config import Archive
from medfusion.pacs.found import Query, Series, Study
from medfusion.pacs.jobs import Job
from pages.ui import state
from pages.ui.messages import explained_errors, plain
from pages.ui.state import Case, Found

MODALITIES = ("CR", "CT", "DX", "MG", "MR", "OP", "SM", "US")
FIRST_DAY = date(1980, 1, 1)
REDRAW_S = 1.0
IDENTITY = "Names and numbers are shown as the archive has them and are not kept; what you fetch is kept without them."
GOES = (
    "A Structured Report and a picture of the maps go to **{title}**, into the study of the patient as it is there, "
    "where others see them. Both say: research use only."
)


def configured() -> dict[str, Archive]:
    """The archives; none, and a word about it, where the configuration is not right."""
    try:
        return archives.configured()
    except ConfigError:
        st.warning("The archive cannot be used: its configuration is not right. The System page says why.")
        return {}


def show_panel() -> None:
    """Search an archive and fetch into the worklist."""
    known = configured()
    if not known:
        return
    with st.expander("From the archive", icon=":material/dns:", expanded=state.found() is not None):
        with explained_errors():
            search(known)
        found = state.found()
        if found and found.archive in known:
            with explained_errors():
                show_found(found, known[found.archive])
    with st.container():
        show_jobs(known)


def search(known: dict[str, Archive]) -> None:
    with st.form("archive-search", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        name = next(iter(known))
        if len(known) > 1:
            name = st.selectbox(
                "Archive", list(known), format_func=lambda one: known[one].title, width=200, key="archive-name"
            )
        patient = st.text_input("Patient id", key="archive-patient", width=170, autocomplete="off")
        accession = st.text_input("Accession number", key="archive-accession", width=170, autocomplete="off")
        modality = st.selectbox(
            "Modality", MODALITIES, index=None, key="archive-modality", width=120, placeholder="Any"
        )
        first = st.date_input("From", None, min_value=FIRST_DAY, key="archive-from", width=150)
        last = st.date_input("To", None, min_value=FIRST_DAY, key="archive-to", width=150)
        asked = st.form_submit_button("Search", type="primary", icon=":material/search:", key="archive-search-now")
    if asked:
        query = Query(patient or "", accession or "", modality or "", in_dicom(first, last))
        with st.spinner(f"Asking {plain(known[name].title)}…"):
            state.keep_found(name, archives.find(name, query))


def in_dicom(first: date | None, last: date | None) -> str:
    """A range of days as DICOM writes it, open where one is not given."""
    days = [one.strftime("%Y%m%d") if one else "" for one in (first, last)]
    return "-".join(days) if any(days) else ""


def show_found(found: Found, archive: Archive) -> None:
    """The studies, the series of a single chosen one, and a button that fetches."""
    if not found.studies:
        st.info("No study fits.", icon=":material/search_off:")
        return
    if len(found.studies) >= archive.max_results:
        st.caption(f"The newest of the first {archive.max_results} that fit. Ask for less to see all.")
    chosen = st.dataframe(
        studies_table(found.studies), hide_index=True, selection_mode="multi-row", on_select="rerun",
        key=f"archive-studies-{found.number}", alt="The studies that the archive found",
    )  # fmt: skip
    rows = [row for row in chosen["selection"]["rows"] if row < len(found.studies)]
    picked = [found.studies[row] for row in rows]
    picks = [Pick(one.uid) for one in picked]
    what = f"{len(picked)} {'study' if len(picked) == 1 else 'studies'}"
    if len(picked) == 1:
        series = choose_series(found, picked[0])
        if series:
            picks = [Pick(picked[0].uid, one.uid) for one in series]
            what = f"{len(series)} series"
    with st.container(horizontal=True, vertical_alignment="center"):
        label = f"Fetch {what}" if picks else "Fetch"
        if st.button(label, type="primary", disabled=not picks, icon=":material/download:", key="archive-fetch"):
            for job in jobs.own():
                jobs.forget(job.id)  # what ended before was read by now
            jobs.start(found.archive, picks)
            st.rerun()
        st.caption(IDENTITY if picks else f"Select what to fetch. {IDENTITY}")


def studies_table(studies: list[Study]) -> dict[str, list[object]]:
    table: dict[str, list[object]] = {
        "Patient id": [one.patient_id for one in studies],
        "Name": [one.patient_name for one in studies],
        "Born": [one.born for one in studies],
        "Study date": [one.date for one in studies],
        "Modality": [", ".join(one.modalities) for one in studies],
        "Study": [one.description for one in studies],
        "Accession": [one.accession for one in studies],
        "Series": [one.series or None for one in studies],
        "Objects": [one.objects or None for one in studies],
    }
    return {name: values for name, values in table.items() if any(values)}


def choose_series(found: Found, study: Study) -> list[Series]:
    """The series of a study that the reader selects; none means all."""
    series = state.series(study.uid)
    if series is None:
        with st.spinner("Asking for its series…"):
            series = archives.find_series(found.archive, study.uid)
        state.keep_series(study.uid, series)
    if len(series) < 2:
        return []
    st.caption("Its series: select some, or none to fetch the whole study.")
    chosen = st.dataframe(
        {
            "Number": [one.number for one in series],
            "Modality": [one.modality for one in series],
            "Series": [one.description for one in series],
            "Body part": [one.body_part.capitalize() for one in series],
            "Objects": [one.objects or None for one in series],
        },
        hide_index=True, selection_mode="multi-row", on_select="rerun",
        key=f"archive-series-{found.number}-{found.studies.index(study)}", alt="The series of the selected study",
    )  # fmt: skip
    return [series[row] for row in chosen["selection"]["rows"] if row < len(series)]


def show_jobs(known: dict[str, Archive]) -> None:
    """What is being fetched, drawn anew each second, and what came of it."""
    own = jobs.own()
    if any(job.is_running for job in own):
        running([job.id for job in own if job.is_running], bool(worklist.counts().get(worklist.WAITING)))
    for job in own:
        if not job.is_running:
            show_ended(job, known)


@st.fragment(run_every=REDRAW_S)
def running(drawn: list[str], waiting_was_drawn: bool) -> None:
    """drawn: fetches that ran when the page was drawn."""
    now = [job for job in jobs.own() if job.is_running]
    if [job.id for job in now] != drawn or (worklist.counts().get(worklist.WAITING) and not waiting_was_drawn):
        st.rerun()
    for job in now:
        with st.container(horizontal=True, vertical_alignment="center"):
            done, total = job.fetched.done, job.fetched.total
            words = f"Fetching: {done} of {total}. You may leave this page." if total else "Asking what there is…"
            st.progress(done / total if total else 0.0, text=words)
            if st.button("Stop", key=f"archive-stop-{job.id}", icon=":material/stop:"):
                jobs.stop(job.id)
                st.rerun()


def show_ended(job: Job, known: dict[str, Archive]) -> None:
    title = known[job.archive].title if job.archive in known else job.archive
    words = plain(f"{title}: {job.error + ' ' if job.error else ''}{job.fetched.in_words()}")
    bad = job.error or job.fetched.problems
    with st.container(horizontal=True, vertical_alignment="center"):
        (st.warning if bad else st.success)(words, icon=":material/warning:" if bad else ":material/check:")
        if st.button("Dismiss", key=f"archive-dismiss-{job.id}"):
            jobs.forget(job.id)
            st.rerun()


def offer_sending(case: Case, send: Callable[[str], str]) -> None:
    """The way of a report back to the archive of its scan, if it has one. send: given its name, says what was sent."""
    known = configured()
    if not any(one.send for one in known.values()) or case.path is None:
        return
    with explained_errors():
        into = archives.goes_back_to(case.worklist_id, case.path)
        if not into:
            if case.worklist_id:
                st.caption("This scan did not come from an archive that takes reports.")
            return
        sent = worklist.way_back(case.worklist_id).sent if case.worklist_id else None
        with st.popover("Send to the archive", icon=":material/send:", key=state.key(case, "send")):
            name = into[0].name
            if len(into) > 1:
                name = st.selectbox(
                    "Archive", [one.name for one in into], format_func=lambda one: known[one].title,
                    key=state.key(case, "send-to"),
                )  # fmt: skip
            st.markdown(GOES.format(title=plain(known[name].title)))
            if sent:
                st.caption(f"A report of this scan was sent on {sent:%d %B %Y, %H:%M} UTC. This one is added to it.")
            if st.button("Send now", type="primary", key=state.key(case, "send-now")):
                with st.spinner("Sending…"):
                    state.say("sent", send(name))
                st.rerun()
    if words := state.said("sent"):
        st.toast(plain(words), icon=":material/check:")
        st.caption(f":material/check: {plain(words)}")
