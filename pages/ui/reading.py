"""The reader's own word on a case of the worklist: before the answer is shown, beside it, and how often both agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import streamlit as st

from medfusion import access, worklist
from medfusion.types import ModelCard, Prediction
from medfusion.worklist import Entry, Said
from pages.ui import state
from pages.ui.messages import plain, spoken
from pages.ui.state import Case

FIRST = "read-first"
OTHER = "something else"


def choose_mode() -> bool:
    """The switch of the read-first mode, one for the worklist and all its cases."""
    return st.toggle(
        "Read before the answer", key=FIRST, persist_state="session",
        help="Answers, risks and maps stay hidden, and the worklist has an order of its own, until you have said "
        "what you see. A series or a scan of several frames opens in its middle. Switch it on before you look.",
    )  # fmt: skip


def told() -> dict[str | int, Said]:
    """What the reader said of the cases whose answer is no secret any more, in this session or, by account, ever."""
    return worklist.own_reads() | state.told()


def secrets(many: Iterable[str | int]) -> set[str | int]:
    """Those of these series and files whose answer is not shown before the reader commits."""
    return set(many) - told().keys() if state.is_on(FIRST) else set()


def read_ids(listed: Sequence[Entry]) -> set[int]:
    """Of these cases, those that were read: by anybody, or, where readers read first, by who is at work."""
    own = worklist.own_reads() if state.is_on(FIRST) and access.current().name else None
    return {one.id for one in listed if (one.label is not None if own is None else one.read_as in own)}


def comes_first(case: Case) -> bool:
    return bool(case.worklist_id and secrets([state.read_as(case)]))


def ask_first(case: Case, card: ModelCard) -> None:
    """The reader's word without the answer in sight."""
    state.begin_reading(case)
    with st.form(state.key(case, "first"), border=True):
        st.markdown("**What do you see?** The answer appears once you have said it.")
        label = st.radio(
            "Your reading", choices(card), format_func=spoken, index=None, horizontal=True,
            key=state.key(case, "first-label"),
        )  # fmt: skip
        if st.form_submit_button("Keep, and show the answer", type="primary"):
            if label is None:
                st.warning("Choose one first.", icon=":material/touch_app:")
            else:
                seconds = state.reading_s(case)
                number = worklist.keep_read(case.worklist_id, label, first_label=label, seconds=seconds)
                state.note_told(case, Said(label, number))
                st.rerun()


def show(case: Case, card: ModelCard, prediction: Prediction) -> None:
    """Agree, disagree, or say something else, with a comment. One read a press; the log counts them all."""
    if not case.worklist_id:
        return
    state.begin_reading(case)
    said = told().get(state.read_as(case), Said())
    state.note_told(case, said)
    first = said.first_label
    names = choices(card)
    if state.is_on(FIRST) and not first:
        st.caption("You have seen this answer before, so nothing is asked first.")
    with st.expander("Your reading", icon=":material/edit_note:", expanded=bool(first)):
        if first:
            same = first in prediction.answers
            st.caption(f"Before the answer you said {plain(spoken(first))}: {'the same' if same else 'not the same'}.")
        chosen = first or next((name for name in prediction.answers if name in names), None)
        with st.form(key(case, "read"), border=False):
            label = st.radio(
                "This case shows", names, format_func=spoken, horizontal=True,
                index=names.index(chosen) if chosen in names else None, key=key(case, "label"),
            )  # fmt: skip
            comment = st.text_input("Comment", key=key(case, "comment"), placeholder="No names or numbers of patients")
            if st.form_submit_button("Keep my reading", type="primary") and label:
                worklist.keep_read(
                    case.worklist_id, label, first_label=first, seconds=state.reading_s(case), comment=comment or "",
                    instead_of=said.unfinished,
                )  # fmt: skip
                state.note_told(case, Said(first))
                state.say("reading", "Kept.")
                st.rerun()
        if words := state.said("reading"):
            st.toast(words, icon=":material/check:")


def key(case: Case, what: str) -> str:
    """Of a widget that belongs to one slice, though its neighbours are seen in the same place."""
    return f"{state.key(case, what)}-{case.worklist_id}"


def choices(card: ModelCard) -> list[str]:
    return [*card.classes, OTHER]


def show_figures() -> None:
    """How often readers and each version of a model agree, and change their minds."""
    figures = worklist.reading_figures()
    if not figures:
        return
    with st.expander("How readers and models agree", icon=":material/handshake:"):
        st.table(
            {
                "Model": [plain(f"{one.model_id} {one.model_version}") for one in figures],
                "Reads": [str(one.reads) for one in figures],
                "Agree": [f"{one.agree} of {one.reads}" for one in figures],
                "Read first": [str(one.first) for one in figures],
                "Changed their mind": [f"{one.changed} of {one.first}" if one.first else "–" for one in figures],
                "…to the model's answer": [
                    f"{one.followed} of {one.changed}" if one.changed else "–" for one in figures
                ],
                "Median time": [f"{one.median_s:.0f} s" for one in figures],
            }
        )
        st.caption("Agreement says nothing of who was right. Reads of one case by several readers count each.")
