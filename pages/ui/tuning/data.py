"""Step 1: a labelled set comes in, or one that is here is chosen."""

from __future__ import annotations

import streamlit as st

from pages.ui import state
from pages.ui.messages import explained_errors, plain
from pages.ui.tuning import steps
from training import service
from training.service import StoredSet

HOW = "A zip with one folder of pictures for each class: DICOM, PNG, JPEG or TIFF."
MORE = (
    "Folders inside of a class are taken for patients, and folders train, val and test for the split. A manifest.csv "
    "with the columns path and label says more: patient_id, so that a patient is never on both sides of the split, and "
    "split. Where a picture may have several labels, columns label:NAME of 0 and 1 take the place of label. A file of "
    "the form of MedMNIST (.npz) will do, too."
)


def show() -> None:
    st.markdown("**Bring labelled cases.** They stay on this machine.")
    upload()
    if st.toggle("Or bring a public set, to try it out", key="tuning-public", persist_state="session"):
        with explained_errors():
            public()
    known = service.list_sets()
    if not known:
        st.info(
            "Nothing here yet. A hundred pictures of each class are a good start; 20 of each are the least that can "
            "be measured.",
            icon=":material/help:",
        )
        return
    st.subheader("Sets on this machine", anchor=False)
    for stored in known:
        show_set(stored)


def upload() -> None:
    key = f"tuning-{state.uploader_key()}"
    file = st.file_uploader("Labelled zip", type=["zip", "npz"], key=key, help=MORE)
    st.caption(HOW)
    if file is None:
        return
    with explained_errors():
        kept = service.keep(file.name, file, file.size)
        state.release(file)
        choose(kept.id)
        state.renew_uploader()
        steps.queue(steps.CHECK)
        st.rerun()


def public() -> None:
    """A set of MedMNIST by name and size."""
    known = {one.name: one for one in service.list_public()}
    name = st.selectbox("Set of MedMNIST", known, format_func=lambda name: f"{name}, {known[name].pictures:,} pictures")
    size = st.segmented_control("Side of its pictures", service.PX, default=service.PX[-1], required=True)
    chosen = known[name]
    st.caption(plain(f"{chosen.says} Licence: {chosen.licence}. Classes: {', '.join(chosen.classes)}."))
    if st.button("Download", icon=":material/download:", key="tuning-public-get"):
        bar = st.progress(0.0, text=f"Bringing {name}…")
        try:
            kept = service.keep_public(name, size, lambda done: bar.progress(done, text=f"Bringing {name}: {done:.0%}"))
        finally:
            bar.empty()
        choose(kept.id)
        steps.queue(steps.CHECK)
        st.rerun()


def show_set(stored: StoredSet) -> None:
    """One line: its name, what was found, and what can be done with it."""
    chosen = steps.current_set()
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        mark = ":material/check_circle: " if chosen and chosen.id == stored.id else ""
        st.markdown(f"{mark}**{plain(stored.name)}**  \n{plain(summary(stored))}", width="stretch")
        st.button("Use", key=f"use-{stored.id}", on_click=use, args=(stored.id,))
        if stored.folder:
            with st.popover("Delete", icon=":material/delete:", key=f"forget-{stored.id}"):
                st.markdown("The pictures are removed from this machine. Models trained on them stay.")
                if st.button("Delete this set", key=f"forget-now-{stored.id}", type="primary"):
                    with explained_errors():
                        service.delete_set(stored.id)
                        st.rerun()


def summary(stored: StoredSet) -> str:
    place = "" if stored.folder else "From a folder of your administrator. "
    if stored.found is None:
        return f"{place}Not checked yet"
    classes = next(iter(stored.found.counts.values()))
    blocks = len(stored.found.blocks)
    fit = f"{blocks} {'thing' if blocks == 1 else 'things'} to mend" if blocks else "fit to train on"
    several = f"{len(classes)} classes" if len(classes) > 1 else "1 class"
    return f"{place}{stored.found.pictures:,} pictures of {several}, {fit}"


def choose(set_id: str) -> None:
    state.keep_tuning_set(set_id)


def use(set_id: str) -> None:
    """Callback: take this set, and look at it."""
    choose(set_id)
    steps.go(steps.CHECK)
