"""A reader's own mask beside a scan: it is outlined in the figure, and the maps are scored against it."""

from __future__ import annotations

import streamlit as st

from medfusion import service
from medfusion.types import Explanation, Scan
from pages.ui import state
from pages.ui.messages import explained_errors, percent
from pages.ui.state import Case
from pages.ui.trust import title

MEANING = (
    "Each is better when larger. The strongest place counts as inside up to 15/224 of the longer side away. An even "
    "map would have {by_chance} of its evidence inside. Overlap is of the mask and as many of the strongest pixels "
    "(IoU). A map shows what the model used: a low score can also mean that the model answers for other reasons."
)


def show_mask(case: Case, scan: Scan, frame: int, made: list[Explanation]) -> None:
    """Take a mask, or score the maps against the one there is."""
    mask = state.mask(case, frame)
    with st.expander("Compare with your own mask", icon=":material/gesture:", expanded=mask is not None):
        if mask is None:
            take_mask(case, scan, frame)
            return
        scores = {one.method: service.against(one.heatmap, mask) for one in made}
        if scores:
            st.dataframe(
                {
                    "Map": [title(method) for method in scores],
                    "Strongest place inside": ["yes" if found.points else "no" for found in scores.values()],
                    "Evidence inside": [percent(found.energy) for found in scores.values()],
                    "Overlap (IoU)": [f"{found.iou:.2f}" for found in scores.values()],
                },
                hide_index=True,
            )
            st.caption(MEANING.format(by_chance=percent(next(iter(scores.values())).by_chance)))
        st.button("Remove the mask", on_click=state.forget_mask, args=(case, frame), icon=":material/delete:")


def take_mask(case: Case, scan: Scan, frame: int) -> None:
    """Read a dropped mask; one that does not fit is refused in a sentence."""
    file = st.file_uploader(
        f"A picture of {scan.width_px}×{scan.height_px} px, black where nothing is marked (PNG, TIFF), or a DICOM "
        "segmentation. It stays on this machine.",
        key=state.key(case, f"mask-{frame}"),
    )
    if not file:
        return
    with explained_errors():
        with state.taking(file):
            state.keep_mask(case, frame, service.read_mask(file.getvalue(), scan, frame))
        st.rerun()
