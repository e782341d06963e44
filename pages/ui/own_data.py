"""Measure a model on the reader's own labelled pictures: a zip in, an evaluation report out."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from medfusion import service
from medfusion.types import ModelCard
from pages.ui import cards, resources, state
from pages.ui.messages import explained_errors, plain

WHAT = (
    "A zip with one folder of pictures for each class, named as this model names them: {classes}. A manifest.csv "
    "with the columns path and label may add patient_id, split, and any others: they become subgroups."
)
SPLITS = {"all": "all pictures", "test": "only those of the split test", "val": "only those of the split val"}


def measure_own_data(card: ModelCard) -> None:
    """The form, the work with its progress, and the result to look at and to keep."""
    with st.expander("Measure it on your own labelled pictures", icon=":material/monitoring:"):
        st.caption(plain(WHAT.format(classes=", ".join(card.classes))))
        file = st.file_uploader("Labelled zip", type="zip", key=f"own-{card.id}")
        split = st.segmented_control(
            "Measure on", list(SPLITS), default="all", format_func=SPLITS.__getitem__, key=f"own-split-{card.id}"
        )
        if st.button("Measure", key=f"measure-{card.id}", disabled=file is None or split is None) and file and split:
            bar = st.progress(0.0, text="Reading…")
            with explained_errors():
                path = state.keep_labelled(file.getvalue())
                try:
                    model = resources.model(card.id, card.version)
                    state.keep_report(card, service.evaluate_labelled(model, path, split, progress_on(bar)))
                finally:
                    path.unlink(missing_ok=True)
            bar.empty()
        report = state.report(card)
        if report is None:
            return
        cards.show_split("own", report.figures)
        st.download_button(
            "Report with figures and tables (zip)",
            report.archive,
            file_name=f"evaluation-{card.id}.zip",
            mime="application/zip",
            icon=":material/download:",
        )


def progress_on(bar: DeltaGenerator) -> Callable[[float], None]:
    def report(done: float) -> None:
        bar.progress(done, text=f"Answering: {done:.0%}")

    return report
