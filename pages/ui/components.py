"""Widgets of the Analyse page and those that pages share: uploads, samples, the case list, the answer."""

from __future__ import annotations

import re

import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.typing import UploadedFile

from medfusion import conformal, service
from medfusion.errors import MedFusionError
from medfusion.types import ModelCard, Prediction, Sample, Scan
from pages.ui import pictures, resources, state
from pages.ui.figure import probability_bars
from pages.ui.messages import percent, plain, spoken
from pages.ui.state import Case

FORMATS = "DICOM, PNG, JPEG or TIFF"
CARD_PAGE = "pages/model_library.py"
MOST_FILES, MOST_BYTES = 1000, 2 * 2**30  # of one upload: Streamlit holds all of it in memory
MORE = "Add it in a second step, or answer the folder by `python -m medfusion predict`."
LISTED, LISTED_PX = 12, 420  # bad files that are shown at once; of more, one is cut in half, so that one scrolls on


def page_head(title: str) -> None:
    """Title of a page, with the notice that stands on every page."""
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.header(plain(title), width="content", anchor=False)
        st.caption(":material/science: Research use only, not for clinical decisions", width="content")


def scan_uploader(label: str) -> None:
    """Take dropped files one by one: good ones become cases, bad ones are listed with their reason."""
    service.prepare()
    files = st.file_uploader(label, accept_multiple_files=True, key=state.uploader_key())
    if not files:
        return
    progress = st.progress(0.0, text="Reading…")
    taken: list[Case] = []
    files = few(files)
    for number, file in enumerate(files):
        progress.progress(number / len(files), text=f"Reading file {number + 1} of {len(files)}")
        taken += take(file, is_first=not taken)
    if taken:
        state.show(taken[0])
    state.renew_uploader()
    st.rerun()


def few(files: list[UploadedFile]) -> list[UploadedFile]:
    """Those of an upload that are taken at once; the others are listed with the reason, and their memory is freed."""
    taken: list[UploadedFile] = []
    size = 0
    for file in files:
        size += file.size
        if len(taken) < MOST_FILES and size <= MOST_BYTES:
            taken.append(file)
        else:
            state.reject(file.name, f"At most {MOST_FILES:,} files and {MOST_BYTES >> 30} GB are taken at once. {MORE}")
            state.release(file)
    return taken


def take(file: UploadedFile, is_first: bool) -> list[Case]:
    """Keep one uploaded file if it can be shown, and free its memory either way."""
    with state.taking(file):
        data = file.getvalue()
        try:
            decoded = service.read_scan(data, file.name)
        except MedFusionError as error:
            state.reject(file.name, str(error))
            return []
        case = state.add_file(file.name, data)
        if is_first:
            resources.keep_scan(case, decoded)  # it is shown next
        return [case]


def show_rejected() -> None:
    """The files that could not be read, each with its sentence."""
    rejected = state.rejected()
    if not rejected:
        return
    count = "1 file" if len(rejected) == 1 else f"{len(rejected)} files"
    with st.container(border=True):
        st.markdown(f":material/error: **{count} could not be shown.** Everything else is kept.")
        with st.container(height=LISTED_PX if len(rejected) > LISTED else "content", border=False, gap="xsmall"):
            for item in rejected:
                st.markdown(f"**{plain(item.name)}**: {plain(item.reason)}")
        st.button("Dismiss", on_click=state.forget_rejected, key="forget-rejected")


@st.cache_data(max_entries=32, show_spinner=False)
def sample_thumbnail(sample_id: str) -> str:
    return pictures.thumbnail(service.read_sample(sample_id))


def sample_gallery() -> None:
    """A card for each sample, so that someone with no scan at hand sees everything at once."""
    with st.grid("auto", min_column_width=190):
        places = [(sample, sample_card(sample)) for sample in service.list_samples()]
    for sample, place in places:  # pictures last: reading them may take a second
        try:
            place.image(sample_thumbnail(sample.id), width="stretch", alt=f"{sample.title}. {sample.origin}")
        except MedFusionError as error:
            place.caption(plain(str(error)))


def sample_card(sample: Sample) -> DeltaGenerator:
    """One card. Returns the place for its picture."""
    with st.container(border=True, height="stretch", gap="xsmall"):
        place = st.skeleton(height=180)
        st.markdown(f"**{plain(sample.title)}**")
        st.caption(plain(sample.origin))
        st.space("stretch")
        arguments = (sample.id, sample.title)
        st.button("Open", key=f"sample-{sample.id}", width="stretch", on_click=state.open_sample, args=arguments)
    return place


def case_list() -> None:
    """The cases of this session: pick, step through, remove."""
    cases = state.cases()
    names = {case.id: f"{number}. {case.name}" for number, case in enumerate(cases, start=1)}
    current = state.current()
    if current is None:
        return
    state.start(state.PICKED, current.id)
    st.selectbox(
        f"Cases ({len(cases)})", list(names), key=state.PICKED, format_func=names.__getitem__, persist_state="session"
    )
    with st.container(horizontal=True, gap="xsmall"):
        alone = len(cases) == 1
        st.button(
            ":material/chevron_left:",
            key="previous",
            help="Previous case",
            disabled=alone,
            on_click=state.step,
            args=(-1,),
            shortcut="P",
        )
        st.button(
            ":material/chevron_right:",
            key="next",
            help="Next case",
            disabled=alone,
            on_click=state.step,
            args=(1,),
            shortcut="N",
        )
        st.button(":material/close:", key="remove", help="Remove this case", on_click=state.remove, args=(current,))
        st.button("Clear all", key="clear", on_click=state.clear)


def facts(scan: Scan) -> str:
    """What a reader needs to know about a file, without the patient's identity."""
    spacing = scan.spacing_mm
    words = [
        f"{scan.width_px} × {scan.height_px} px",
        f"{spacing[1]:.3g} × {spacing[0]:.3g} {service.unit(scan)} to a pixel" if spacing else "pixel size unknown",
        scan.modality or "modality unknown",
        scan.body_part and scan.body_part.capitalize(),
        service.SIDES.get(scan.laterality or ""),
        f"{scan.frame_count} frames" if scan.frame_count > 1 else None,
        scan.file_format + (f", {scan.transfer_syntax}" if scan.transfer_syntax else ""),
    ]
    return " · ".join(plain(word) for word in words if word)


def show_facts(scan: Scan) -> None:
    """What the file is, and what its reader should know about it."""
    with st.container(gap="xsmall"):
        st.caption(facts(scan))
        for note in scan.notes:
            st.markdown(f":material/info: {plain(note)}")


def choose_model(case: Case, scan: Scan, frame: int, by_id: dict[str, ModelCard]) -> ModelCard | None:
    """The model that suits the scan, or the reader's own choice; None while there is neither."""
    if not by_id:
        st.info("No model is installed, so no answer is given.", icon=":material/help:")
        return None
    route = resources.suggest(case, scan, frame)
    key = state.key(case, "model")
    state.start(key, route.model_id if route.model_id in by_id else None)
    chosen = st.selectbox(
        "Model",
        list(by_id),
        key=key,
        index=None,
        format_func=lambda id: by_id[id].title,
        placeholder="Choose a model",
        persist_state="session",
    )
    if chosen is None:
        words = f"{plain(name_titles(route.reason, by_id))} No answer is given unless you choose a model above."
        st.info(words, icon=":material/help:")
    elif chosen == route.model_id:
        st.caption(plain(name_titles(route.reason, by_id)))
    return by_id.get(chosen or "")


def name_titles(reason: str, by_id: dict[str, ModelCard]) -> str:
    """A reason with the titles of models in place of their ids."""
    return re.sub("|".join(map(re.escape, by_id)), lambda found: f"“{by_id[found[0]].title}”", reason)


def warnings_of(prediction: Prediction) -> list[str]:
    """What speaks against an answer, with the titles of models in place of their ids."""
    by_id = resources.cards()
    return [name_titles(words, by_id) if words == prediction.override else words for words in prediction.warnings]


def show_prediction(prediction: Prediction, card: ModelCard) -> None:
    """The answer in words, the probabilities as bars, and what they rest on."""
    for warning in warnings_of(prediction):
        st.warning(plain(warning), icon=":material/warning:")
    answer, bars = st.columns([1, 1.2], gap="medium")
    with answer.container(gap="xsmall"):
        st.caption("Answer at the operating point")
        named = ", ".join(plain(spoken(name)) for name in prediction.answers) or "None of the classes"
        plausible = prediction.plausible
        st.subheader("The model abstains" if conformal.abstains(plausible) else named, anchor=False)
        if plausible is not None:
            st.markdown(plausible_words(plausible, named))
        st.caption(operating_point_words(prediction, card))
    with bars.container(gap="xsmall"):
        st.caption("Calibrated probabilities")
        words = "; ".join(
            f"{spoken(n)} {percent(p)}" for n, p in zip(prediction.classes, prediction.probabilities, strict=True)
        )
        st.plotly_chart(probability_bars(prediction), key="bars", config={"staticPlot": True}, theme=None, alt=words)


def plausible_words(plausible: tuple[str, ...], named: str) -> str:
    """What the conformal set says, in words; anything but one class is an abstention. named: the answer without it."""
    words = conformal.in_words([plain(spoken(name)) for name in plausible])
    if conformal.abstains(plausible):
        return f":material/help: {words} Without abstaining: **{named}**."
    return f":material/check: {words}"


def show_model(card: ModelCard) -> None:
    """Version, a link to the card, and how well the model does."""
    label = f"Card of this model, version {card.version}"
    st.page_link(CARD_PAGE, label=label, icon=":material/description:", query_params={"model": card.id})
    st.caption(f"{plain(card.modality[:1].upper() + card.modality[1:])}. {performance_words(card)}")


def operating_point_words(prediction: Prediction, card: ModelCard) -> str:
    """When a class is answered, in words."""
    point = prediction.operating_point
    if card.task == "binary":
        when = f"{spoken(card.classes[1])} is answered from {percent(point.thresholds[1])}."
    elif len(set(point.thresholds)) == 1 and card.task == "multiclass":
        return "The most probable class is answered."
    elif card.task == "multiclass":
        limits = ", ".join(
            f"{spoken(name)} {percent(t)}" for name, t in zip(card.classes, point.thresholds, strict=True)
        )
        when = f"The class that is highest against its threshold is answered ({limits})."
    else:
        limits = ", ".join(
            f"{spoken(name)} from {percent(t)}" for name, t in zip(card.classes, point.thresholds, strict=True)
        )
        when = f"Each class is answered on its own: {limits}."
    return plain(f"{when} {point.rule}")


def performance_words(card: ModelCard) -> str:
    """One honest sentence on how often the model was right on held-out pictures."""
    test = card.metrics.get("test")
    accuracy = test.get("accuracy") if isinstance(test, dict) else None
    if not isinstance(test, dict) or not isinstance(accuracy, dict) or "value" not in accuracy:
        return "How often this model is right has not been measured."
    of = "the answers yes or no to " if card.task == "multilabel" else ""
    sentence = f"Right in {percent(accuracy['value'])} of {of}{test.get('n', 'the')} held-out pictures"
    if "low" in accuracy and "high" in accuracy:
        sentence += f" (95 % interval {percent(accuracy['low'])} to {percent(accuracy['high'])})"
    return plain(f"{sentence}; on pictures from elsewhere it may do worse.")
