"""Widgets of the Worklist page: files in, progress, filters, the table, and what can be done with its rows."""

from __future__ import annotations

from pathlib import PurePosixPath

import streamlit as st
from streamlit.elements.lib.column_types import ColumnConfig
from streamlit.typing import UploadedFile

from medfusion import scorer, worklist
from medfusion.errors import MedFusionError
from medfusion.worklist import Answer, Entry
from pages.ui import reading, state
from pages.ui.components import FORMATS, few
from pages.ui.messages import percent, plain, spoken
from pages.ui.pictures import file_uri

STATUS = {
    worklist.ANSWERED: "Answered",
    worklist.WAITING: "Waiting",
    worklist.REFUSED: "No model for it",
    worklist.UNREADABLE: "Unreadable",
}
ALWAYS = ("Case", "Answer", "Risk", "Uncertainty")  # columns that stay when they are empty
PAGE = 100  # rows at once: each has a picture
REDRAW_S = 1.0
UNSURE = 0.8  # uncertainty from which a case counts as uncertain


def upload() -> None:
    """Take dropped files, the files of dropped zips, or a folder: each is kept without identity, or told why not."""
    with st.expander("Add scans", icon=":material/upload_file:", expanded=not worklist.counts()):
        kind = st.segmented_control(
            "From", ("Files or zips", "A folder"), default="Files or zips", key="worklist-from", required=True,
            label_visibility="collapsed",
        )  # fmt: skip
        files = st.file_uploader(
            f"Drop {FORMATS} files, or zips of them" if kind != "A folder" else "Choose a folder",
            accept_multiple_files=True if kind != "A folder" else "directory",
            key=f"worklist-{kind}-{state.uploader_key()}",
        )
        if not files:
            return
        bar = st.progress(0.0, text="Keeping…")
        new, files = 0, few(files)
        for number, file in enumerate(files):
            bar.progress(number / len(files), text=f"Keeping file {number + 1} of {len(files)}")
            new += take(file)
        scorer.ensure()
        state.say("worklist", f"{new} new scan{'' if new == 1 else 's'}." if new else "No new scan.")
        state.renew_uploader()
        st.rerun()


def take(file: UploadedFile) -> int:
    """Keep an uploaded file, or those in a zip. Returns how many are new, and frees the memory either way."""
    new = 0
    with state.taking(file):
        try:
            for name, content in worklist.unpacked(file.name, file.getvalue()):
                try:
                    new += worklist.add(content)[1]
                except MedFusionError as error:
                    state.reject(PurePosixPath(name).name, str(error))
        except MedFusionError as error:
            state.reject(file.name, str(error))
    return new


def show_progress() -> None:
    """How many wait, drawn anew each second until none does."""
    if words := state.said("worklist"):
        st.toast(plain(words), icon=":material/check:")
    if worklist.counts().get(worklist.WAITING):
        progress(sum(worklist.counts().values()))


@st.fragment(run_every=REDRAW_S)
def progress(drawn: int) -> None:
    """drawn: cases when the page was drawn."""
    counts = worklist.counts()
    left, every = counts.get(worklist.WAITING, 0), sum(counts.values())
    if not left or every != drawn:
        st.rerun()
    scorer.ensure()
    done = every - left
    st.progress(done / every, text=f"Answering in the background: {done} of {every}. You may leave this page.")


def choose(listed: list[Entry], is_hidden: bool) -> list[Entry]:
    """The filters, and what passes them. is_hidden: no filter and no order tells of an answer."""
    counts = {status: sum(one.status == status for one in listed) for status in STATUS}
    names = {status: f"{STATUS[status]} ({count})" for status, count in counts.items() if count}
    answers = sorted({name for one in listed if one.answer for name in one.answer.answers})
    with st.container(horizontal=True, vertical_alignment="bottom"):
        words = st.text_input(
            "Search", key="worklist-search", placeholder="Case number, patient, study, modality", width=280
        )
        wanted = st.pills(
            "Status", list(names), selection_mode="multi", format_func=names.__getitem__, key="worklist-status"
        )
        said, unsure = ([], False) if is_hidden else choose_answers(answers)
        unread = st.toggle("Only unread", key="worklist-unread")
        orders = worklist.TELL_NOTHING if is_hidden else tuple(worklist.ORDERS)
        order = st.selectbox("Order by", orders, key=f"worklist-order{'-hidden' * is_hidden}", width=180)
        together = st.toggle(
            "One row a series", key="worklist-series", value=True,
            help="Its first slice stands for it." if is_hidden else "The riskiest slice stands for it.",
        )  # fmt: skip
    read = reading.read_ids(listed) if unread else set()
    found = [
        one
        for one in listed
        if (not wanted or one.status in wanted)
        and (not said or (one.answer and set(said) & set(one.answer.answers)))
        and (not unsure or (one.answer and (one.answer.abstains or one.answer.uncertainty >= UNSURE)))
        and one.id not in read
        and matches(one, words or "")
    ]
    if is_hidden:
        found.sort(key=lambda one: (one.instance, one.id))
    return sorted(worklist.heads(found) if together else found, key=worklist.ORDERS[order])


def choose_answers(names: list[str]) -> tuple[list[str], bool]:
    """The filters by what was answered."""
    said = st.multiselect("Answer", names, format_func=spoken, key="worklist-answer", width=260, placeholder="Any")
    unsure = st.toggle("Only uncertain", key="worklist-unsure", help="The model abstains, or its answers are close.")
    return said, unsure


def matches(one: Entry, words: str) -> bool:
    held = f"{one.id} {one.patient} {one.study} {one.series} {one.modality} {one.body_part}".lower()
    return all(word in held for word in words.lower().split())


def show_table(shown: list[Entry], is_hidden: bool) -> list[Entry]:
    """Rows with thumbnails. Returns the selected ones. is_hidden: neither what models answer nor what others read."""
    if not shown:
        st.info("No case passes these filters.", icon=":material/filter_alt_off:")
        return []
    pages = -(-len(shown) // PAGE)
    first = 0
    if pages > 1:
        number = st.number_input(f"Page, of {pages}", 1, pages, key="worklist-page", width=120)
        first = (int(number) - 1) * PAGE
    part = shown[first : first + PAGE]
    sizes, read = worklist.series_sizes(), reading.read_ids(part)
    table: dict[str, list[object]] = {
        "Scan": [thumbnail(one) for one in part],
        "Case": [one.id for one in part],
        "Answer": [status_words(one) if is_hidden or not one.answer else answer_words(one.answer) for one in part],
        "Risk": [uncertain(one.answer.risk) if one.answer else None for one in part],
        "Uncertainty": [uncertain(one.answer.uncertainty) if one.answer else None for one in part],
        "Read": [("yes" if is_hidden else spoken(one.label or "")) if one.id in read else "" for one in part],
        "What": [kind_words(one, sizes) for one in part],
        "Patient": [one.patient[:8] for one in part],
        "Added": [one.added for one in part],
    }
    if is_hidden:
        del table["Risk"], table["Uncertainty"]
    table = {name: values for name, values in table.items() if name in ALWAYS or any(values)}
    chosen = st.dataframe(
        table, hide_index=True, row_height=56, selection_mode="multi-row", on_select="rerun", key="worklist-table",
        alt="The worklist, without answers" if is_hidden else "The worklist, the riskiest case first",
        column_config={
            "Scan": st.column_config.ImageColumn(width=64),
            "Case": st.column_config.NumberColumn(width=60, format="%d"),
            "Answer": st.column_config.TextColumn(width="medium"),
            "Risk": share_column("That it is none of the harmless classes"),
            "Uncertainty": share_column("0: sure; 1: all classes alike"),
            "Patient": st.column_config.TextColumn(help="A pseudonym that only this installation can make"),
            "Added": st.column_config.DatetimeColumn(format="D MMM, HH:mm"),
        },
    )  # fmt: skip
    return [part[row] for row in chosen["selection"]["rows"] if row < len(part)]


def uncertain(share: float) -> float:
    """No column claims certainty, as no words do (messages.percent)."""
    return min(max(share, 0.001), 0.999)


def share_column(help: str) -> ColumnConfig:
    return st.column_config.ProgressColumn(help=help, min_value=0.0, max_value=1.0, format="percent")


def thumbnail(one: Entry) -> str | None:
    return file_uri(one.thumbnail) if one.thumbnail.exists() else None


def status_words(one: Entry) -> str:
    return STATUS[one.status] + (f": {one.reason}" if one.reason else "")


def answer_words(answer: Answer) -> str:
    named = ", ".join(map(spoken, answer.answers)) or "none of the classes"
    return f"abstains ({named})" if answer.abstains else named


def kind_words(one: Entry, sizes: dict[str, int]) -> str:
    slices = sizes.get(one.series, 1)
    words = [
        one.modality,
        one.body_part.capitalize(),
        f"{one.frames} frames" if one.frames > 1 else "",
        f"slice {one.instance} of {slices}" if slices > 1 else "",
        "text in the picture?" if one.burned_in else "",
    ]
    return ", ".join(word for word in words if word)


def show_actions(shown: list[Entry], picked: list[Entry], is_hidden: bool) -> None:
    readable = [one for one in shown if one.status in (worklist.ANSWERED, worklist.REFUSED)]
    with st.container(horizontal=True):
        label = "Read from the top" if not picked else "Read this case" if len(picked) == 1 else "Read these"
        order = [one for one in readable if one in picked] or readable
        if st.button(label, type="primary", disabled=not order, icon=":material/visibility:", key="worklist-read"):
            state.open_worklist(readable if len(picked) < 2 else order, order[0])
            st.switch_page("pages/analyse.py")
        told = reading.told() if is_hidden else None
        st.download_button(
            "CSV", lambda: worklist.as_csv(shown, told), file_name="worklist.csv", mime="text/csv",
            icon=":material/download:",
        )  # fmt: skip
        st.download_button(
            "JSON", lambda: worklist.as_json(shown, told), file_name="worklist.json", mime="application/json",
            icon=":material/download:",
        )  # fmt: skip
        gone = picked or shown
        with st.popover("Remove", icon=":material/delete:", key="worklist-remove"):
            count = f"{len(gone)} case{'' if len(gone) == 1 else 's'}"
            st.markdown(f"{count} with files, answers and reads. That they were here stays in the audit log.")
            if st.button(f"Remove {count}", type="primary", key="worklist-remove-now"):
                worklist.remove(worklist.with_series(gone))
                st.rerun()
    if is_hidden:
        st.caption("CSV and JSON leave the answers of cases out that you have not read yet.")


def show_along(shown: list[Entry], picked: list[Entry]) -> None:
    """The risk along the frames or slices of the selected case."""
    one = picked[0] if len(picked) == 1 else None
    if one is None or one.answer is None:
        return
    along = worklist.risk_along(one)
    if len(along) > 1:
        what = "frames" if one.answer.along else "slices"
        most = max(risk for risk in along if risk is not None)
        st.caption(f"Case {one.id}: risk along its {len(along)} {what}; the highest is {percent(most)}")
        st.line_chart({"Risk": along}, height=160, y_label="Risk", x_label=what.capitalize()[:-1])
    for warning in one.answer.warnings:
        st.caption(f":material/warning: {plain(warning)}")
