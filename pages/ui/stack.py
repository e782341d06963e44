"""Frames of a scan and slices of a series: one after the other, and the risk along them, the most suspicious first.

While a reader's own word comes first they open in the middle, which tells nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import plotly.graph_objects as go
import streamlit as st

from medfusion import worklist
from medfusion.types import ModelCard, Scan
from medfusion.worklist import Entry
from pages.ui import resources, state
from pages.ui.figure import BAR_COLOUR, ink, plain_layout
from pages.ui.messages import percent
from pages.ui.state import Case

AT_ONCE = 120  # frames that are scored without being asked: a second or two
TOP_COLOUR, HERE_COLOUR = "#c2410c", "#7c3aed"  # contrast of 3 or more on both themes


def begin(case: Case, scan: Scan, is_hidden: bool) -> None:
    """Go to where a case begins, and again when its answer is hidden or shown. May run the page anew."""
    before = state.was_hidden(case)
    if before == is_hidden:
        return
    state.note_hidden(case, is_hidden)
    if scan.frame_count > 1:
        state.show_frame(case, scan.frame_count // 2 if is_hidden else suspicious_frame(case, scan))
        return
    slices = slices_of(case)
    if len(slices) > 1 and (is_hidden or before):  # else it opens at the slice that was picked
        to_slice(case, slices, len(slices) // 2 if is_hidden else highest(risks_of(slices)))
        st.rerun()


def suspicious_frame(case: Case, scan: Scan) -> int:
    """The most suspicious frame, if the model of the scan is known."""
    if not case.worklist_id and scan.frame_count <= AT_ONCE:
        middle = scan.frame_count // 2
        route, cards = resources.suggest(case, scan, middle), resources.cards()
        if card := cards.get(route.model_id or ""):
            return highest(resources.risk_along(card.id, card.version, scan))
    return case.frame


def choose(case: Case, scan: Scan) -> int:
    """The frame in view, from 0. The slices of a series are stepped through in the same way."""
    if scan.frame_count > 1:
        key = state.key(case, "frame")
        state.start(key, case.frame + 1)
        frame = st.slider("Frame", 1, scan.frame_count, key=key, persist_state="session") - 1
        show_steps("frame", frame, scan.frame_count, partial(state.show_frame, case))
        return frame
    slices = slices_of(case)
    if len(slices) > 1:
        here = place_of(case, slices)
        key = state.key(case, f"slice-{case.worklist_id}")
        state.start(key, here + 1)
        st.slider("Slice", 1, len(slices), key=key, on_change=slide, args=(case, slices, key))
        show_steps("slice", here, len(slices), partial(to_slice, case, slices))
    return 0


def show_steps(what: str, here: int, count: int, go_to) -> None:  # type: ignore[no-untyped-def]  # a callback
    with st.container(horizontal=True, gap="xsmall"):
        for by, icon, name, shortcut in ((-1, "chevron_left", "Previous", "K"), (1, "chevron_right", "Next", "J")):
            st.button(
                f":material/{icon}:", key=f"stack-{name.lower()}", help=f"{name} {what}", shortcut=shortcut,
                disabled=not 0 <= here + by < count, on_click=go_to, args=(here + by,),
            )  # fmt: skip


def show_along(case: Case, scan: Scan, card: ModelCard, frame: int) -> None:
    """The risk along frames or slices; a click goes there."""
    if scan.frame_count > 1:
        risks = frame_risks(case, scan, card)
        if risks:
            chart(case, risks, frame, "frame", partial(state.show_frame, case))
        return
    slices = slices_of(case)
    if len(slices) > 1:
        chart(case, risks_of(slices), place_of(case, slices), "slice", partial(to_slice, case, slices))


def frame_risks(case: Case, scan: Scan, card: ModelCard) -> Sequence[float | None]:
    """As the worklist has them, else scored now; many only when the reader asks."""
    answer = worklist.find(case.worklist_id).answer if case.worklist_id else None
    if answer and answer.along and (answer.model_id, answer.model_version) == (card.id, card.version):
        return answer.along
    wanted = scan.frame_count <= AT_ONCE or st.toggle(
        f"Score all {scan.frame_count} frames", key=state.key(case, "along")
    )
    return resources.risk_along(card.id, card.version, scan) if wanted else ()


def chart(case: Case, risks: Sequence[float | None], here: int, what: str, go_to) -> None:  # type: ignore[no-untyped-def]
    """Bars to click, in the order of the patient; the one in view and the riskiest stand out."""
    top = highest(risks)
    key = state.key(case, f"along-{what}-{here}")  # a new chart for each place: none keeps an old click
    words = f"Risk along the {len(risks)} {what}s: highest at {what} {top + 1}, {percent(risks[top] or 0)}."
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(
            f"{words} In view: {what} {here + 1}, {percent(risks[here] or 0)}. Click a bar to go there.",
            width="stretch",
        )
        st.button(
            "Most suspicious", key="stack-top", icon=":material/priority_high:", shortcut="M", disabled=here == top,
            on_click=go_to, args=(top,), help=f"Go to {what} {top + 1}",
        )  # fmt: skip
    colours = [HERE_COLOUR if at == here else TOP_COLOUR if at == top else BAR_COLOUR for at in range(len(risks))]
    figure = go.Figure(
        go.Bar(
            x=list(range(1, len(risks) + 1)), y=[risk or 0 for risk in risks], marker_color=colours,
            hovertemplate=f"{what.capitalize()} %{{x}}: %{{y:.1%}}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_layout(
        height=130, margin={"l": 42, "r": 4, "t": 10, "b": 24}, bargap=0.15, dragmode=False,
        yaxis={"range": [0, 1], "tickformat": ".0%", "tickvals": [0, 0.5, 1], "fixedrange": True, "color": ink(),
               "gridcolor": "rgba(135,141,148,0.35)"},
        xaxis={"fixedrange": True, "ticks": "outside", "color": ink(), "range": [0.4, len(risks) + 0.6]},
        **plain_layout(),
    )  # fmt: skip

    def clicked() -> None:
        point = state.picked_point(key)
        if point is not None:
            go_to(point)

    st.plotly_chart(
        figure, key=key, on_select=clicked, selection_mode="points", theme=None, alt=words,
        config={"displayModeBar": False},
    )  # fmt: skip


def highest(risks: Sequence[float | None]) -> int:
    """The place of the highest risk, the first of several."""
    return max(range(len(risks)), key=lambda at: -1.0 if risks[at] is None else float(risks[at] or 0))


def risks_of(slices: Sequence[Entry]) -> list[float | None]:
    return [one.answer.risk if one.answer else None for one in slices]


def slices_of(case: Case) -> list[Entry]:
    """The series of a case of the worklist, in order."""
    return worklist.slices(worklist.find(case.worklist_id)) if case.worklist_id else []


def place_of(case: Case, slices: Sequence[Entry]) -> int:
    return [one.id for one in slices].index(case.worklist_id)


def slide(case: Case, slices: Sequence[Entry], key: str) -> None:
    """Callback of the slider."""
    to_slice(case, slices, state.value_of(key) - 1)


def to_slice(case: Case, slices: Sequence[Entry], at: int) -> None:
    """Callback: at counts from 0."""
    state.show_slice(case, slices[at])
