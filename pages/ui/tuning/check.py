"""Step 2: everything that can be told about a set before any training."""

from __future__ import annotations

import streamlit as st

from medfusion.errors import MedFusionError
from pages.ui.cards import SPLITS
from pages.ui.messages import headline, plain, spoken
from pages.ui.pictures import file_uri
from pages.ui.tuning import steps
from training import service
from training.service import Preflight, StoredSet

SHOWN = 50  # names that a list shows at most
ACROSS, COPY_PX = 6, 128  # copies of one picture that are shown at most


def show() -> None:
    stored = steps.current_set()
    if stored is None:
        st.info("Choose a labelled set first.", icon=":material/help:")
        steps.button("Choose a set", steps.DATA)
        return
    st.markdown(f"**{plain(stored.name)}**")
    found = stored.found or check(stored)
    if found is None:
        return
    show_verdict(stored, found)
    show_counts(found)
    show_problems(stored, found)
    show_sheets(stored, found)
    st.button("Check again", icon=":material/refresh:", on_click=check_again, args=(stored.id,))


def check(stored: StoredSet) -> Preflight | None:
    """Look at every file, with progress; an error is shown and nothing is kept."""
    bar = st.progress(0.0, text="Looking at every picture…")

    def report(done: float) -> None:
        bar.progress(done, text=f"Looking at every picture: {done:.0%}")

    try:
        return service.check(stored.id, report)
    except MedFusionError as error:
        st.error(plain(str(error)), title=headline(error), icon=":material/error:")
        steps.button("Choose another set", steps.DATA)
        return None
    finally:
        bar.empty()


def check_again(set_id: str) -> None:
    service.forget_check(set_id)


def show_verdict(stored: StoredSet, found: Preflight) -> None:
    if found.left_out:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f":material/visibility_off: {count(found.left_out)} left out")
            st.button("Use all again", on_click=service.leave_out, args=(stored.id, []), key="use-all")
    if not found.blocks:
        st.success("Fit to train on.", icon=":material/check_circle:")
        steps.button("Go on to the settings", steps.SETTINGS)
    else:
        st.error(
            "\n".join(f"- {plain(block)}" for block in found.blocks),
            title="To mend before training" if len(found.blocks) > 1 else "One thing to mend before training",
            icon=":material/block:",
        )
        with st.container(horizontal=True):
            if found.spare:
                st.button(
                    f"Leave {count(found.spare)} out and check again", on_click=service.leave_out,
                    args=(stored.id, found.spare), type="primary", icon=":material/visibility_off:", key="leave-out",
                    help="Unreadable files, all copies with two labels, and of other copies all but one.",
                )  # fmt: skip
            steps.button("Bring a mended set", steps.DATA, kind="secondary")
    for words in found.advice:
        st.info(plain(words), icon=":material/lightbulb:")


def count(files: list[str]) -> str:
    return "1 picture" if len(files) == 1 else f"{len(files)} pictures"


def show_counts(found: Preflight) -> None:
    """Cases by class and by side of the split, given or as the run will make it."""
    classes = list(next(iter(found.counts.values())))
    table = {"Class": [*(plain(spoken(name)) for name in classes), "All labels" if found.several else "All"]}
    columns = found.counts | {side: found.planned[side] for side in SPLITS if side in found.planned}
    for split, row in columns.items():
        numbers = [row[name] for name in classes]
        table[SPLITS.get(split, "All pictures")] = [f"{number:,}" for number in (*numbers, sum(numbers))]
    left, right = st.columns([2, 1], gap="large")
    with left:
        st.table(table)
    with right:
        small, large = (" × ".join(map(str, size)) for size in (found.smallest_px, found.largest_px))
        sizes = f"{small} px" if small == large else f"{small} to {large} px"
        st.markdown(f"**{found.pictures:,} pictures** of {sizes}")
        st.markdown(plain(service.in_words_of_kind(found)))
        if found.modalities:
            told = ", ".join(f"{name} ({number})" for name, number in found.modalities.items())
            st.markdown(plain(f"DICOM headers say: {told}"))
        if found.several:
            st.caption("A picture may have several of these labels, or none.")
        if "" in found.counts:
            st.caption("No split is given: this one keeps each patient on one side.")


def show_problems(stored: StoredSet, found: Preflight) -> None:
    if found.unreadable:
        with st.expander(f"{len(found.unreadable)} files cannot be read", icon=":material/broken_image:"):
            lines = [f"- **{plain(path)}**: {plain(why)}" for path, why in list(found.unreadable.items())[:SHOWN]]
            st.markdown("\n".join(lines))
            if len(found.unreadable) > SHOWN:
                st.caption(f"and {len(found.unreadable) - SHOWN} more")
    if found.duplicates:
        with st.expander(f"{len(found.duplicates)} groups of copies or near copies", icon=":material/content_copy:"):
            groups = [group[:ACROSS] for group in found.duplicates[:SHOWN]]
            drawn = service.copies(stored.id)
            with st.container(horizontal=True, gap="medium"):
                for group, row in zip(groups, drawn, strict=False):
                    names = plain(", ".join(group))
                    st.image(file_uri(row), caption=names, width=COPY_PX * len(group), alt=f"Side by side: {names}")
            st.markdown("\n".join(f"- {plain(', '.join(group))}" for group in groups[len(drawn) :]))
            if len(found.duplicates) > SHOWN:
                st.caption(f"and {len(found.duplicates) - SHOWN} more")


def show_sheets(stored: StoredSet, found: Preflight) -> None:
    sheets = service.sheets(stored.id)
    if not sheets:
        return
    st.subheader("Do the labels fit?", anchor=False)
    with st.grid(3, min_column_width=260):
        for name, sheet in zip(next(iter(found.counts.values())), sheets, strict=False):  # in the order of the classes
            words = f"Pictures labelled {spoken(name)}, side by side"
            st.image(file_uri(sheet), caption=plain(spoken(name)), width="stretch", alt=words)
