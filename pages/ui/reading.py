"""The reader's own word on a case of the worklist: before the answer is shown, beside it, and how often both agree."""

from __future__ import annotations

import streamlit as st

from medfusion import worklist
from medfusion.types import ModelCard, Prediction
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
        "what you see. A series or a scan of several frames opens in its middle.",
    )  # fmt: skip


def comes_first(case: Case) -> bool:
    """Whether the reader must commit before the answer of this case is shown."""
    return bool(case.worklist_id and state.is_on(FIRST) and state.first_label(case) is None)


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
                state.keep_first_label(case, label)
                st.rerun()


def show(case: Case, card: ModelCard, prediction: Prediction) -> None:
    """Agree, disagree, or say something else, with a comment. One read a press; the log counts them all."""
    if not case.worklist_id:
        return
    state.begin_reading(case)
    first = state.first_label(case)
    names = choices(card)
    with st.expander("Your reading", icon=":material/edit_note:", expanded=first is not None):
        if first:
            same = first in prediction.answers
            st.caption(f"Before the answer you said {plain(spoken(first))}: {'the same' if same else 'not the same'}.")
        said = first or next((name for name in prediction.answers if name in names), None)
        with st.form(key(case, "read"), border=False):
            label = st.radio(
                "This case shows", names, format_func=spoken, horizontal=True,
                index=names.index(said) if said in names else None, key=key(case, "label"),
            )  # fmt: skip
            comment = st.text_input("Comment", key=key(case, "comment"), placeholder="No names or numbers of patients")
            if st.form_submit_button("Keep my reading", type="primary") and label:
                worklist.keep_read(
                    case.worklist_id,
                    label,
                    first_label=first or "",
                    seconds=state.reading_s(case),
                    comment=comment or "",
                )
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
