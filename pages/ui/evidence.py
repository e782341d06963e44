"""Why the model answers as it does: Grad-CAM and LIME for the same class and the same picture, beside the scan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np
import streamlit as st

from medfusion import service
from medfusion.errors import MedFusionError
from medfusion.types import Explanation, ModelCard, Prediction, Scan
from pages.ui import pictures, prior, resources, state, trust
from pages.ui.figure import TOOLS, ColourBar, Panel, evidence_figure
from pages.ui.mask import show_mask
from pages.ui.messages import explained_errors, plain, spoken
from pages.ui.overlay import map_controls
from pages.ui.resources import Job
from pages.ui.state import Case
from pages.ui.trust import Task, title
from pages.ui.view import View

AGREEMENT = (
    "Larger is better. Rank correlation: 1 where both maps put all places in the same order, 0 where they are "
    "unrelated. Of the strongest tenth, 10 % would be the same by chance. Maps that agree can both be wrong; where "
    "they do not agree, trust neither alone."
)
SIGNED = "lime"  # the method whose evidence against a class is worth a look
SIGNED_SCALE = "blue–orange"
MOST_BESIDE = 3  # maps whose column beside the scan's leaves room for a text
PREVIEW_PX = 180  # of a map that is still being computed


@dataclass(frozen=True)
class Look:
    """How the maps are drawn."""

    methods: list[str]
    target_index: int
    scale: str
    signed: bool
    outline: float | None  # level, or None
    difference: bool  # a panel of where the first two disagree


def show_evidence(case: Case, scan: Scan, view: View, prediction: Prediction, card: ModelCard) -> None:
    """Controls, the one figure, what each map says and how far it can be believed, and what is still running."""
    look = choose_look(case, scan, view, prediction, card)
    refused = {method: reason for method in service.EXPLAINERS if (reason := service.refusal(card, method))}
    every = {
        method: resources.job_of(prediction, look.target_index, method)
        for method in service.EXPLAINERS
        if method not in refused
    }
    jobs = {method: every[method] for method in look.methods if method in every}
    above = st.container()  # keeps the figure in one place: moved, it would be seen twice until the page is done
    for method, job in jobs.items():
        if not is_slow(method) and resources.explanation(job) is None:
            with above, explained_errors(), st.spinner(f"Computing {title(method)}…"):
                resources.explain(job, scan)
    made = {method: resources.explanation(job) for method, job in jobs.items()}
    sentences = {method: service.describe(explanation) for method, explanation in made.items() if explanation}
    target = spoken(card.classes[look.target_index])
    panels = [map_panel(explanation, jobs[method], look, target) for method, explanation in made.items()]
    panels += difference_panels(jobs, made, look)
    read_out = [f"{title(method)}: {words} {trust.how_sure(jobs[method])}" for method, words in sentences.items()]
    alt = " ".join([f"The scan {case.name}.", *read_out])
    marked = outline_of_mask(case, view)
    drawn = [replace(panel, mask=marked) for panel in (Panel("Scan"), *panels)]
    plot(case, scan, view, drawn, alt)
    for method in look.methods:
        if method in refused:
            st.warning(plain(refused[method]), icon=":material/visibility_off:")
    running = st.container()
    about_all, *about_each = st.columns(1 + len(made))
    for column, method in zip(about_each, made, strict=True):
        if method in sentences:
            with column:
                st.markdown(f"**{title(method)}.** {plain(sentences[method])}")
                trust.show_trust(jobs[method])
    beside = len(made) <= MOST_BESIDE and not state.is_narrow()
    with about_all if beside else st.container():  # under the scan, as the others under their maps
        show_agreement([explanation for explanation in made.values() if explanation])
        trust.show_shortcuts(jobs)
    show_mask(case, scan, view.frame, [explanation for explanation in made.values() if explanation])
    trust.offer_files(case, jobs, scan, prediction)
    prior.show(case, scan, card, prediction, look.target_index)
    slow = [
        Task(job, title(method), partial(resources.explain, job, scan))
        for method, job in jobs.items()
        if is_slow(method) and made[method] is None
    ]
    for task in [*slow, *trust.tasks(jobs, scan)]:
        with running:
            run_slowly(task, scan)
    trust.show_comparison(every, scan, partial(run_slowly, scan=scan))


def show_agreement(made: list[Explanation]) -> None:
    """How far each two maps agree: in a sentence for one pair, in a table for more."""
    pairs = [
        (title(one.method), title(other.method), service.agreement(one, other))
        for one, other in combinations(made, 2)
        if one.has_positive_evidence and other.has_positive_evidence
    ]
    if len(pairs) == 1:
        ((one, other, found),) = pairs
        verdict = "do not agree" if found.strength == "no" else f"agree to a {found.strength} degree"
        st.markdown(
            f"**Agreement.** {one} and {other} {verdict}: rank correlation {found.rank_correlation:.2f}; "
            f"{100 * found.top_overlap:.0f} % of the strongest tenth is the same."
        )
    elif pairs:
        st.markdown("**Agreement.**")
        st.dataframe(
            {
                "Maps": [f"{one} and {other}" for one, other, _ in pairs],
                "Rank correlation": [f"{found.rank_correlation:.2f} ({found.strength})" for *_, found in pairs],
                "Of the strongest tenth, the same": [f"{100 * found.top_overlap:.0f} %" for *_, found in pairs],
            },
            hide_index=True,
        )
    if pairs:
        st.caption(AGREEMENT)


def show_scan(case: Case, scan: Scan, view: View) -> None:
    """The scan alone, where there is no answer to explain."""
    map_controls(case, scan, view, maps=False)
    panel = Panel(plain_title(case.name))
    plot(case, scan, view, [panel], alt=f"The scan {case.name}")


def choose_look(case: Case, scan: Scan, view: View, prediction: Prediction, card: ModelCard) -> Look:
    """Draw the controls of the maps."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        target = choose_target(case, prediction, card)
        methods = st.pills(
            "Maps",
            list(service.EXPLAINERS),
            selection_mode="multi",
            default=["gradcam", "lime"],
            format_func=title,
            key="methods",
            persist_state="session",
        )
        with st.popover("Colours and outline", icon=":material/palette:"):
            scale = st.selectbox("Colour map", ["cividis", "viridis"], key="scale", persist_state="session")
            signed = st.toggle(
                "LIME: also show what speaks against",
                key="signed",
                help="Blue speaks against the class, orange for it.",
                persist_state="session",
            )
            difference = st.toggle("Show where the first two maps disagree", key="difference", persist_state="session")
            outlined = st.toggle("Outline the strongest evidence", key="outlined", persist_state="session")
            level = st.slider(
                "Outline from", 0.1, 0.9, 0.5, 0.05, key="level", disabled=not outlined, persist_state="session"
            )
    map_controls(case, scan, view)
    return Look(methods, target, scale, signed, level if outlined else None, difference)


def choose_target(case: Case, prediction: Prediction, card: ModelCard) -> int:
    """The class to explain: the answer at first, any class on demand."""
    key = state.key(case, f"target-{card.id}")
    answered = prediction.answers or (
        prediction.classes[max(range(len(card.classes)), key=prediction.probabilities.__getitem__)],
    )
    state.start(key, answered[0])
    name = st.selectbox(
        "Evidence for", list(prediction.classes), key=key, format_func=spoken, width=230, persist_state="session"
    )
    return prediction.classes.index(name)


def map_panel(made: Explanation | None, job: Job, look: Look, target: str) -> Panel:
    """One map over the scan, or why there is none."""
    method = job.method
    if made is None:
        running = is_slow(method) and not state.is_stopped(job)
        return Panel(title(method), note="Computing…" if running else "Not computed")
    signed = look.signed and method == SIGNED
    if not (made.has_positive_evidence or (signed and made.signed.any())):
        return Panel(title(method), note=f"No positive evidence<br>for {plain_title(target)}")
    scale = SIGNED_SCALE if signed else look.scale
    found = trust.stability(job)
    unstable = found.unstable if found else None
    return Panel(
        title(method),
        pictures.map_uri(job, scale, signed, unstable is not None, made, unstable),
        colour_bar(scale, signed, plain_title(target)),
        pictures.outlines(job, look.outline, made) if look.outline and made.has_positive_evidence else [],
    )


def outline_of_mask(case: Case, view: View) -> list[np.ndarray]:
    mask = state.mask(case, view.frame)
    return [] if mask is None else pictures.closed_lines(mask, 0.5, pictures.MAP_SIDE_PX)


def difference_panels(jobs: dict[str, Job], made: dict[str, Explanation | None], look: Look) -> list[Panel]:
    """Where the first two maps with evidence disagree, if the reader wants to see it."""
    pair = [(jobs[method], found) for method, found in made.items() if found and found.has_positive_evidence][:2]
    if not look.difference or len(pair) < 2:
        return []
    (one, first), (other, second) = pair
    bar = ColourBar(
        pictures.SCALES[SIGNED_SCALE], "Marked by one map only", title(other.method), title(one.method), "both or none"
    )
    return [Panel("Where they disagree", pictures.difference_uri(one, other, SIGNED_SCALE, first, second), bar)]


def colour_bar(scale: str, signed: bool, target: str) -> ColourBar:
    colours = pictures.SCALES[scale]
    if signed:
        return ColourBar(colours, f"Speaks against or for {target}", "against", "for", "neither")
    return ColourBar(colours, f"Support of {target}", "least", "most")


def plot(case: Case, scan: Scan, view: View, panels: list[Panel], alt: str) -> None:
    source = pictures.raw_uri(scan.sha256, view.frame, view.window, view.invert, scan)
    figure = evidence_figure(source, scan, panels, state.room_px(), stacked=state.is_narrow(), zoom=state.zoom(case))
    st.plotly_chart(figure, key="evidence", config=TOOLS, theme=None, alt=alt)


class Bar:
    """Progress of a slow task, and a small picture of its map so far where it has one."""

    def __init__(self, task: Task, scan: Scan) -> None:
        self.task, self.scan = task, scan
        with st.container(horizontal=True, vertical_alignment="center"):
            self.picture = st.empty()
            self.bar = st.progress(0.0, text=f"Computing {task.title}…")
            st.button("Stop", key=f"stop-{task.title}", on_click=state.stop, args=(task.key,), icon=":material/stop:")

    def __call__(self, done: float) -> None:
        self.bar.progress(done, text=f"Computing {self.task.title}: {done:.0%}")  # a click that stops it surfaces here

    def wait(self) -> None:
        self.bar.progress(0.0, text=f"{self.task.title[0].upper()}{self.task.title[1:]} waits for its turn…")

    def show(self, so_far: Explanation) -> None:
        small = pictures.small_uri(service.overlay(self.scan, so_far), PREVIEW_PX)
        self.picture.image(small, width=PREVIEW_PX, alt=f"The map of {self.task.title} so far")


def run_slowly(task: Task, scan: Scan) -> None:
    """Do slow work with progress. Stop, or any other click, ends it; a click elsewhere starts it again."""
    name = task.title[0].upper() + task.title[1:]
    if state.is_stopped(task.key):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"{name} was stopped.", width="content")
            st.button(f"Compute {task.title}", key=f"resume-{task.title}", on_click=state.resume, args=(task.key,))
        return
    try:
        bar = Bar(task, scan)
        with resources.turn(bar.wait):
            task.run(bar)
    except MedFusionError:
        state.stop(task.key)  # so that the error stays in view instead of being met again
        raise
    st.rerun()


def is_slow(method: str) -> bool:
    """Whether a method takes seconds: run last, with progress and a way to stop."""
    return service.EXPLAINERS[method].is_slow


def plain_title(text: str) -> str:
    """Text that Plotly does not read as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
