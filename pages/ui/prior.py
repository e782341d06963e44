"""Another picture of the same patient beside the one in view: both answers, both maps, and what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st
from PIL import Image

from medfusion import service, worklist
from medfusion.types import Explanation, ModelCard, Prediction, Scan
from medfusion.worklist import Entry
from pages.ui import components, pictures, reading, resources, state
from pages.ui.messages import percent, plain, spoken
from pages.ui.state import Case
from pages.ui.trust import title

UNREGISTERED = (
    "The pictures are not laid over each other: a place is compared with the same part of the other picture, so "
    "another position, breath or zoom looks like change."
)
SIDE_PX = 720


@dataclass(frozen=True)
class Other:
    """A picture to compare with."""

    case: Case
    words: str


def show(case: Case, scan: Scan, card: ModelCard, prediction: Prediction, target_index: int) -> None:
    """Offered only where there is something to compare with."""
    found = candidates(case)
    if not found:
        return
    secret = reading.secrets(state.read_as(one.case) for one in found if one.case.worklist_id)
    others = [one for one in found if not one.case.worklist_id or state.read_as(one.case) not in secret]
    with st.expander("Compare with another picture of this patient", icon=":material/compare:"):
        if len(others) < len(found):
            st.caption("Pictures whose answer you have not seen yet are offered once you have read them.")
        with st.container(horizontal=True, vertical_alignment="bottom"):
            number = st.selectbox(
                "Picture", range(len(others)), format_func=lambda at: others[at].words, index=None, width=420,
                key=state.key(case, "prior"), placeholder="Choose a picture",
            )  # fmt: skip
            methods = [name for name, one in service.EXPLAINERS.items() if not one.is_slow]
            allowed = [name for name in methods if not service.refusal(card, name)]
            method = st.selectbox(
                "Map", allowed, format_func=title, key="prior-method", width=200, persist_state="session"
            )
        if number is None or method is None:
            return
        other = others[number].case
        past = resources.scan(other)
        past_frame = choose_frame(other, past)
        told = resources.predict(card.id, card.version, past, past_frame)
        now = mapped(scan, prediction, target_index, method)
        then = mapped(past, told, target_index, method)
        show_scores(prediction, told, others[number].words)
        show_pictures((scan, now), (past, then), others[number].words, spoken(card.classes[target_index]))


def choose_frame(other: Case, past: Scan) -> int:
    if past.frame_count == 1:
        return 0
    return st.slider("Its frame", 1, past.frame_count, other.frame + 1, key=f"prior-frame-{past.sha256[:16]}") - 1


def mapped(scan: Scan, prediction: Prediction, target_index: int, method: str) -> Explanation:
    job = resources.job_of(prediction, target_index, method)
    return resources.explanation(job) or resources.explain(job, scan)


def show_scores(now: Prediction, then: Prediction, words: str) -> None:
    """Each class then and now, in the direction of time where it is known."""
    for warning in components.warnings_of(then):
        st.warning(f"The other picture: {plain(warning)}", icon=":material/warning:")
    rows = zip(now.classes, then.probabilities, now.probabilities, strict=True)
    table: list[tuple[str, ...]] = [
        (spoken(name), percent(old), percent(new), f"{100 * (new - old):+.1f} points") for name, old, new in rows
    ]
    named = [", ".join(map(spoken, one.answers)) or "none of the classes" for one in (then, now)]
    table.append(("answer", *named, "the same" if then.answers == now.answers else "another"))
    st.table({
        "": [plain(row[0]) for row in table],
        f"Other: {plain(words)}": [plain(row[1]) for row in table],
        "In view": [plain(row[2]) for row in table],
        "Change": [row[3] for row in table],
    })  # fmt: skip


def show_pictures(now: tuple[Scan, Explanation], then: tuple[Scan, Explanation], words: str, target: str) -> None:
    """Both with their maps, and the change over the one in view."""
    found = service.change(now[1], then[1])
    columns = st.columns(3)
    for column, name, (scan, made) in zip(columns, (f"Other: {words}", "In view"), (then, now), strict=False):
        with column:
            alt = f"{name}. {service.describe(made)}"
            st.image(seen(service.overlay(scan, made), scan), caption=plain(name), width="stretch", alt=alt)
    changed = f"Orange: more support of {target} in the picture in view than in the other; blue: less."
    if found.rank_correlation == found.rank_correlation:  # both maps hold evidence
        changed += f" Of the strongest tenth, {percent(found.same_top)} lies in the same part of both pictures"
        changed += f"; rank correlation {found.rank_correlation:.2f}."
    with columns[2]:
        base = Image.fromarray(service.display(now[0], now[1].frame)).convert("RGBA")
        over = Image.fromarray(pictures.coloured(found.map, "blue–orange", signed=True)).resize(base.size)
        alpha = np.asarray(over.getchannel("A"), dtype=np.float32) * 0.65
        over.putalpha(Image.fromarray(alpha.astype(np.uint8)))
        st.image(seen(Image.alpha_composite(base, over), now[0]), caption="Change", width="stretch", alt=changed)
    st.markdown(plain(changed))
    st.caption(UNREGISTERED)


def seen(picture: Image.Image, scan: Scan) -> Image.Image:
    """In the proportions of the body, with letters and ruler."""
    ratio = scan.spacing_mm[0] / scan.spacing_mm[1] if scan.spacing_mm else 1.0
    height, width = scan.height_px * ratio, scan.width_px
    factor = SIDE_PX / max(height, width)
    return service.mark(picture.resize((max(1, round(width * factor)), max(1, round(height * factor)))), scan)


def candidates(case: Case) -> list[Other]:
    """Answered cases of the worklist, and scans of this session, of the same patient by pseudonym.

    Scans of this session that name no patient are offered, too: the reader knows whose they are.
    """
    mine = worklist.find(case.worklist_id) if case.worklist_id else None
    patient = mine.patient if mine else resources.patient(case)
    kept = [one for one in worklist.of_patient(patient) if not mine or is_other(one, mine)]
    sizes = worklist.series_sizes() if kept else {}
    found = [Other(state.seen_as(Case(0, ""), one), entry_words(one, mine, sizes)) for one in kept]
    if mine:
        return found
    for other in state.cases():
        theirs = "" if other.worklist_id else resources.patient(other)
        if other.id == case.id or other.worklist_id or other.sample_id or case.sample_id:
            continue
        if theirs == patient:
            found.append(Other(other, other.name if patient else f"{other.name} (names no patient)"))
    return found


def is_other(one: Entry, mine: Entry) -> bool:
    return one.id != mine.id and (not mine.series or one.series != mine.series)


def entry_words(one: Entry, mine: Entry | None, sizes: dict[str, int]) -> str:
    """Which picture it is, and how long before or after."""
    days = one.day - mine.day if mine and one.day is not None and mine.day is not None else None
    when = "" if days is None else "same day" if days == 0 else f"{abs(days)} days {'later' if days > 0 else 'earlier'}"
    what = f"slice {one.instance}" if sizes.get(one.series, 1) > 1 else ""
    parts: Sequence[str] = [f"Case {one.id}", when, one.modality, what]
    return ", ".join(part for part in parts if part)
