"""The Analyse page from the reader's side, without a browser."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import pytest
import streamlit as st
from PIL import Image
from streamlit.runtime.scriptrunner import RerunData, RerunException
from streamlit.testing.v1 import AppTest
from streamlit.typing import UploadedFile

from medfusion import library, service, synthetic
from medfusion.errors import Cancelled
from medfusion.explain import EXPLAINERS
from medfusion.explain.contract import Attribution
from medfusion.explain.faithfulness import Faithfulness
from medfusion.types import ModelCard, Route
from pages.ui import resources, state
from pages.ui.components import plausible_words
from pages.ui.trust import faithful_words
from tests.core.dicom_files import dicom
from tests.ui.conftest import grey_picture

LIBRARY = "pages/model_library.py"
GUIDE = "pages/reading_maps.py"
ANALYSE = "pages/analyse.py"


def texts(page: AppTest) -> str:
    """All words on the page, with Markdown's escapes and no-break spaces taken out."""
    found = [*page.header, *page.subheader, *page.markdown, *page.caption, *page.warning, *page.info, *page.error]
    return (
        " ".join(f"{item.value} {getattr(item, 'title', '') or ''}" for item in found)
        .replace("\\", "")
        .replace("\xa0", " ")
    )


def figure(page: AppTest) -> dict[str, Any]:
    """The evidence figure as the browser gets it."""
    return json.loads(page.get_by_key("evidence").proto.spec)


def upload(page: AppTest, files: dict[str, bytes]) -> AppTest:
    for name, data in files.items():
        page.file_uploader[0].upload(name, data)
    return page.run()


def open_sample(page: AppTest, sample_id: str) -> AppTest:
    page.run()
    return page.button(key=f"sample-{sample_id}").click().run()


def test_the_empty_page_says_what_to_drop_and_offers_samples(page: AppTest) -> None:
    page.run()
    assert not page.exception
    assert "DICOM, PNG, JPEG or TIFF" in page.file_uploader[0].label
    assert page.button(key="sample-synthetic-chest")
    assert "Synthetic: drawn by this program" in texts(page)


@pytest.mark.parametrize("path", [ANALYSE, LIBRARY, GUIDE])
def test_every_page_says_that_it_is_for_research_only(page: AppTest, path: str) -> None:
    page.run()
    page.switch_page(path).run()
    assert "Research use only, not for clinical decisions" in texts(page)


def test_a_sample_is_answered_and_explained_in_one_figure(page: AppTest) -> None:
    open_sample(page, "synthetic-chest")
    assert not page.exception
    assert "This picture is synthetic" in texts(page)
    assert page.subheader[0].value in ("normal", "pneumonia")
    assert "pneumonia is answered from 70.0 %." in texts(page)
    assert "Right in 93.0 % of 200 held-out pictures (95 % interval 90.0 % to 96.0 %)" in texts(page)
    drawn = figure(page)
    titles = [note["text"] for note in drawn["layout"]["annotations"]]
    assert titles[:3] == ["Scan", "Grad-CAM", "LIME"]
    assert all(image["source"].startswith("data:image/png;base64,") for image in drawn["layout"]["images"])
    assert not any("z" in trace for trace in drawn["data"])  # pictures never travel as numbers
    assert drawn["layout"]["xaxis3"]["matches"] == "x"  # zooming one zooms all
    assert drawn["layout"]["yaxis3"]["matches"] == "y"


def test_the_figure_has_an_alternative_text_that_says_where_the_evidence_lies(page: AppTest) -> None:
    open_sample(page, "fundus")
    assert "ositive evidence for" in page.get_by_key("evidence").proto.alt


def test_letters_and_side_stand_at_the_edges_of_each_panel(page: AppTest) -> None:
    scan = dicom(grey_picture(), Modality="DX", PatientOrientation=["L", "F"], ImageLaterality="R")
    upload(page.run(), {"chest.dcm": scan})
    drawn = figure(page)["layout"]["annotations"]
    count = len([note for note in drawn if note["text"] in ("Scan", "Grad-CAM", "LIME")])
    assert count >= 2
    for text, place in {"R": (0, 0.5), "L": (1, 0.5), "H": (0.5, 1), "F": (0.5, 0), "right": (0, 1)}.items():
        notes = [note for note in drawn if note["text"] == f"<b>{text}</b>"]
        assert [(note["x"], note["y"]) for note in notes] == [place] * count


def test_bad_files_get_a_sentence_each_and_the_good_one_is_kept(
    page: AppTest, png: Callable[..., bytes], bad_files: dict[str, bytes]
) -> None:
    upload(page.run(), bad_files | {"good.png": png()})
    assert not page.exception
    assert f"{len(bad_files)} files could not be shown." in texts(page)
    for name in bad_files:
        assert f"**{name}**: This" in texts(page)
    assert page.header[0].value.replace("\\", "") == "good.png"


def test_after_bad_files_only_the_page_still_takes_good_ones(
    page: AppTest, png: Callable[..., bytes], bad_files: dict[str, bytes]
) -> None:
    upload(page.run(), bad_files)
    assert "sample" in texts(page)  # still the empty page
    upload(page, {"good.png": png()})
    assert page.header[0].value.replace("\\", "") == "good.png"


@pytest.mark.parametrize(
    ("better_than", "words"),
    [
        (1.0, "Hiding what it marks matters more than hiding what any of 19 random maps marks."),
        (18 / 19, "No better than random: hiding what 1 of 19 random maps marks matters as much or more."),
        (0.0, "No better than random: hiding what 19 of 19 random maps mark matters as much or more."),
    ],
)
def test_how_many_random_maps_do_as_well_is_said(better_than: float, words: str) -> None:
    found = Faithfulness(0.5, 0.5, 0, better_than, 0.5, (), (), (), ())
    assert faithful_words(found) == words


@pytest.mark.parametrize(
    ("broken_off_by", "freed"), [(None, True), (ValueError(), True), (RerunException(RerunData()), False)]
)
def test_an_upload_is_freed_when_it_is_taken_and_kept_where_streamlit_draws_anew(
    broken_off_by: BaseException | None, freed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[object] = []
    monkeypatch.setattr(state, "release", released.append)
    file = cast(UploadedFile, object())
    with suppress(ValueError, RerunException), state.taking(file):
        assert not released
        if broken_off_by:
            raise broken_off_by
    assert released == [file] * freed


def test_a_file_name_is_shown_as_it_is_and_never_read_as_markup(page: AppTest, png: Callable[..., bytes]) -> None:
    name = "Röntgen 胸部 *bold* <b>x [a](b).png"
    upload(page.run(), {name: png()})
    assert not page.exception
    assert page.header[0].value == r"Röntgen 胸部 \*bold\* \<b\>x \[a\]\(b\)\.png"


def test_two_hundred_files_at_once_all_become_cases(page: AppTest, png: Callable[..., bytes]) -> None:
    page.run()
    data = [png(seed) for seed in range(4)]
    started = time.perf_counter()
    upload(page, {f"{number:03}.png": data[number % 4] for number in range(200)})
    assert not page.exception
    assert page.selectbox(key="case").label == "Cases (200)"
    assert len(page.selectbox(key="case").options) == 200
    assert time.perf_counter() - started < 60


def test_removing_the_case_in_view_shows_another_and_clearing_shows_the_empty_page(
    page: AppTest, png: Callable[..., bytes]
) -> None:
    upload(page.run(), {"a.png": png(1), "b.png": png(2)})
    page.button(key="remove").click().run()
    assert not page.exception
    assert page.header[0].value.replace("\\", "") == "b.png"
    page.button(key="clear").click().run()
    assert not page.exception
    assert page.header[0].value == "Analyse a scan"


def test_files_of_removed_cases_leave_the_disk(page: AppTest, png: Callable[..., bytes]) -> None:
    upload(page.run(), {"a.png": png()})
    folder: Path = page.session_state["memory"].spool.folder
    assert len(list(folder.iterdir())) == 1
    page.button(key="clear").click().run()
    assert not list(folder.iterdir())


def test_a_model_made_for_something_else_is_warned_about(page: AppTest) -> None:
    open_sample(page, "synthetic-chest")
    page.selectbox(key="model-1").select("retina").run()
    assert "This scan says that it is DX; the model reads Colour fundus photograph only." in texts(page)


def test_where_no_model_suits_none_answers_until_one_is_chosen(page: AppTest) -> None:
    open_sample(page, "histology")
    assert "No answer is given" in texts(page)
    assert not page.subheader
    assert page.get_by_key("evidence")  # the scan itself is in view
    page.selectbox(key="model-1").select("retina").run()
    assert page.subheader[0].value in ("normal", "cataract", "glaucoma")


def test_without_any_model_the_scan_is_shown_and_the_page_says_so(
    page: AppTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "SHIPPED", tmp_path)
    open_sample(page, "synthetic-chest")
    assert not page.exception
    assert "No model is installed" in texts(page)
    assert page.get_by_key("evidence")


def test_damaged_weights_are_one_sentence_and_no_traceback(
    page: AppTest, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "chest-xray"
    copy.mkdir()
    card = (model_folder / "chest-xray" / "card.json").read_text(encoding="utf-8").replace("0.0.1", "0.0.2")
    (copy / "card.json").write_text(card, encoding="utf-8")
    (copy / "weights.safetensors").write_bytes(b"broken")
    monkeypatch.setattr(library, "SHIPPED", tmp_path)
    open_sample(page, "synthetic-chest")
    assert not page.exception
    assert "This model cannot be used" in texts(page)
    assert "are not those of its card" in texts(page)


def test_scan_window_class_and_maps_survive_five_page_switches(page: AppTest) -> None:
    open_sample(page, "fundus")
    page.selectbox(key="preset-1").select("Full range").run()
    page.slider(key="center-1").set_value(100.0).run()
    page.slider(key="width-1").set_value(80.0).run()
    page.toggle(key="invert-1").set_value(True).run()
    page.selectbox(key="target-retina-1").select("glaucoma").run()
    page.selectbox(key="scale").select("viridis").run()
    before = page.get_by_key("evidence").proto.spec
    for _ in range(5):
        page.switch_page(LIBRARY).run()
        page.switch_page(ANALYSE).run()
    assert not page.exception
    assert page.header[0].value == "Fundus photograph"
    assert page.selectbox(key="preset-1").value == "Custom"
    assert (page.slider(key="center-1").value, page.slider(key="width-1").value) == (100.0, 80.0)
    assert page.toggle(key="invert-1").value is True
    assert page.selectbox(key="target-retina-1").value == "glaucoma"
    assert page.get_by_key("evidence").proto.spec == before


def test_the_view_changes_the_picture_but_not_the_answer(page: AppTest) -> None:
    open_sample(page, "synthetic-chest")
    bars, figure = page.get_by_key("bars").proto.spec, page.get_by_key("evidence").proto.spec
    page.toggle(key="invert-1").set_value(True).run()
    assert page.get_by_key("bars").proto.spec == bars
    assert page.get_by_key("evidence").proto.spec != figure
    page.button(key="reset-view").click().run()
    assert page.get_by_key("evidence").proto.spec == figure


def test_a_preset_moves_the_sliders_and_a_slider_leaves_the_preset(page: AppTest) -> None:
    open_sample(page, "ct-head")
    page.selectbox(key="preset-1").select("Bone").run()
    assert (page.slider(key="center-1").value, page.slider(key="width-1").value) == (400.0, 1800.0)
    page.slider(key="width-1").set_value(900.0).run()
    assert page.selectbox(key="preset-1").value == "Custom"


def test_a_frame_of_a_loop_is_chosen_with_a_slider(page: AppTest) -> None:
    open_sample(page, "ultrasound")
    first, began = page.get_by_key("evidence").proto.spec, page.slider(key="frame-1").value
    page.slider(key="frame-1").set_value(20 if began != 20 else 10).run()
    assert not page.exception
    assert page.get_by_key("evidence").proto.spec != first


def test_a_scan_of_frames_begins_at_its_most_suspicious_one_and_buttons_lead_along(page: AppTest) -> None:
    loop = np.stack([grey_picture(seed=seed) for seed in range(5)])
    upload(page.run(), {"loop.dcm": dicom(loop, Modality="DX")})
    assert not page.exception
    key = "frame-1"
    bars = json.loads(page.get_by_key(f"along-frame-{page.slider(key=key).value - 1}-1").proto.spec)["data"][0]["y"]
    risks = list(np.frombuffer(b64decode(bars["bdata"]), bars["dtype"])) if isinstance(bars, dict) else bars
    top = int(np.argmax(risks))
    assert len(risks) == 5 and len(set(risks)) == 5
    assert page.slider(key=key).value == top + 1
    assert page.button(key="stack-top").disabled
    by, name = (1, "next") if top < 4 else (-1, "previous")
    page.button(key=f"stack-{name}").click().run()
    assert page.slider(key=key).value == top + 1 + by
    page.button(key="stack-top").click().run()
    assert page.slider(key=key).value == top + 1
    assert f"highest at frame {top + 1}" in texts(page)


def test_lime_that_was_stopped_waits_until_it_is_asked_for(
    page: AppTest, png: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(*_: object) -> NoReturn:
        raise Cancelled("Stopped. Start it again when you need it.")

    with monkeypatch.context() as patched:
        patched.setitem(EXPLAINERS, "lime", replace(EXPLAINERS["lime"], attribute=cancelled))
        upload(page.run(), {"new.png": png(seed=77)})
    page.run()  # would run LIME again if it did not wait
    assert "LIME was stopped." in texts(page)
    assert "Grad-CAM." in texts(page)
    page.button(key="resume-LIME").click().run()
    assert not page.exception
    assert "LIME was stopped." not in texts(page)
    assert "**LIME.**" in texts(page)


def test_a_class_without_positive_evidence_says_so_instead_of_showing_a_map(
    page: AppTest, png: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def against(*_: object) -> Attribution:
        return Attribution(np.full((7, 7), -1.0, np.float32), "bilinear")

    monkeypatch.setitem(EXPLAINERS, "gradcam", replace(EXPLAINERS["gradcam"], attribute=against))
    upload(page.run(), {"other.png": png(seed=78)})
    page.get_by_key("methods").set_value(["gradcam"]).run()
    layout = figure(page)["layout"]
    assert "No positive evidence<br>for" in [note["text"][:27] for note in layout["annotations"]]
    assert len(layout["images"]) == 2  # the scan twice, and no map over it


@pytest.fixture
def routed(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Route], AppTest]]:
    """The page on an installation whose router says the same of every picture."""

    def with_route(route: Route) -> AppTest:
        st.cache_data.clear()
        st.cache_resource.clear()
        monkeypatch.setattr(service, "load_router", lambda: "a router")
        monkeypatch.setattr(service, "route", lambda known, scan, frame: route)
        return page.run()

    yield with_route
    st.cache_data.clear()  # the router of this installation must not meet other tests
    st.cache_resource.clear()


def test_the_model_that_a_picture_is_for_answers_at_once(routed, png) -> None:  # type: ignore[no-untyped-def]
    page = routed(Route("retina", "This picture looks like those that retina was trained on.", {"retina": 0.4}))
    upload(page, {"grey.png": png()})
    assert page.selectbox(key=next(box.key for box in page.selectbox if box.label == "Model")).value == "retina"
    assert "looks like those that “Test model retina” was trained on" in texts(page)
    assert "Answer at the operating point" in texts(page)
    assert "would not choose" not in texts(page)
    next(box for box in page.selectbox if box.label == "Model").select("chest-xray").run()
    assert "would not choose" not in texts(page)  # the router does not know the pictures of this model


def test_an_answer_of_another_model_than_the_picture_is_for_is_marked(routed, png) -> None:  # type: ignore[no-untyped-def]
    reason = "This picture looks like those that retina was trained on."
    page = routed(Route("retina", reason, {"retina": 0.1, "chest-xray": 0.9}))
    upload(page, {"grey.png": png()})
    next(box for box in page.selectbox if box.label == "Model").select("chest-xray").run()
    assert "By itself the program would not choose this model." in texts(page)
    assert "looks like those that “Test model retina” was trained on" in texts(page)


def test_a_refused_picture_is_answered_only_against_a_warning(routed, png) -> None:  # type: ignore[no-untyped-def]
    reason = "This picture looks like none of those that the models were trained on. Check what it is."
    page = routed(Route(None, reason, {"retina": 7.0, "chest-xray": 9.0}))
    upload(page, {"noise.png": png()})
    assert reason in texts(page)
    assert "Answer at the operating point" not in texts(page)
    next(box for box in page.selectbox if box.label == "Model").select("chest-xray").run()
    assert "does not look like those that the model was trained on" in texts(page)
    assert "Answer at the operating point" in texts(page)


@pytest.mark.parametrize(
    ("plausible", "words"),
    [
        (("glaucoma",), "only glaucoma remains"),
        (("glaucoma", "diabetic_retinopathy"), "cannot tell glaucoma from diabetic retinopathy"),
        (("glaucoma", "diabetic_retinopathy", "normal"), "cannot tell glaucoma, diabetic retinopathy and normal apart"),
        ((), "Few pictures of any class looked like this one"),
    ],
)
def test_the_prediction_set_in_words(plausible, words) -> None:  # type: ignore[no-untyped-def]
    said = plausible_words(plausible, "glaucoma")
    assert words in said
    assert ("Without abstaining: **glaucoma**" in said) == (len(plausible) != 1)


def test_agreement_of_two_maps_is_a_sentence_and_of_three_a_table(page: AppTest) -> None:
    open_sample(page, "synthetic-chest")
    assert "**Agreement.** Grad-CAM and LIME" in texts(page)
    next(group for group in page.button_group if group.label == "Maps").set_value(["gradcam", "hirescam", "layercam"])
    page.run()
    assert not page.exception
    assert len(page.dataframe[0].value) == 3


def test_each_map_says_whether_it_is_better_than_random_and_the_scan_whether_there_is_a_shortcut(page: AppTest) -> None:
    open_sample(page, "synthetic-chest")
    assert not page.exception
    words = texts(page)
    assert words.count("random maps mark") == 2  # under Grad-CAM and under LIME
    assert "**Shortcuts.**" in words
    drawn = json.loads(page.get_by_key("curves-gradcam").proto.spec)["data"]
    assert [len(trace["y"]) for trace in drawn] == [len(service.SHARES)] * 4


def test_lime_is_repeated_with_other_seeds_on_demand(page: AppTest) -> None:
    open_sample(page, "synthetic-chest")
    before = figure(page)["layout"]["images"][-1]["source"]
    assert "Jaccard" not in texts(page)
    page.toggle(key="repeat-lime").set_value(True).run()
    assert not page.exception
    assert "Jaccard" in texts(page)
    assert figure(page)["layout"]["images"][-1]["source"] != before  # hatched: 6 samples are not stable


def test_all_methods_are_compared_on_demand(page: AppTest) -> None:
    open_sample(page, "synthetic-chest")
    page.toggle(key="compare-all").set_value(True).run()
    assert not page.exception
    table = page.dataframe[-1].value
    assert list(table["Method"]) == [explainer.title for explainer in EXPLAINERS.values()]
    assert set(table["Better than random"]) <= {"yes", "no", "untested"}


def test_the_maps_in_view_can_be_saved(page: AppTest) -> None:
    open_sample(page, "synthetic-chest")
    assert not page.get("download_button")
    next(button for button in page.button if button.label == "Save maps and report").click().run()
    assert not page.exception
    assert page.get("download_button")[0].proto.label == "Download maps.zip"
    page.toggle(key="difference").set_value(True).run()
    assert page.get("download_button")  # the same maps


def dropped_mask(page: AppTest, mask: np.ndarray) -> AppTest:
    out = BytesIO()
    Image.fromarray(mask).save(out, "PNG")
    next(one for one in page.file_uploader if "black where nothing is marked" in one.label).upload(
        "mask.png", out.getvalue()
    )
    return page.run()


def test_the_maps_are_scored_against_the_readers_own_mask(page: AppTest) -> None:
    open_sample(page, "synthetic-chest")
    side = synthetic.SIDE_PX
    strokes = len(figure(page)["data"])
    mask = np.zeros((side, side), np.uint8)
    mask[: side // 2] = 255
    dropped_mask(page, mask)
    assert not page.exception
    scores = next(table.value for table in page.dataframe if "Overlap (IoU)" in table.value)
    assert list(scores["Map"]) == ["Grad-CAM", "LIME"]
    assert set(scores["Strongest place inside"]) <= {"yes", "no"}
    assert "50.0 % of its evidence inside" in texts(page)
    assert sum(trace.get("line", {}).get("dash") == "dash" for trace in figure(page)["data"]) == 3  # on each picture
    next(button for button in page.button if button.label == "Remove the mask").click().run()
    assert len(figure(page)["data"]) == strokes


def test_a_mask_of_another_size_is_refused_in_a_sentence(page: AppTest) -> None:
    open_sample(page, "synthetic-chest")
    dropped_mask(page, np.eye(30, dtype=np.uint8) * 255)
    assert not page.exception
    assert "The mask is 30×30 px" in texts(page)
    assert "**Agreement.**" in texts(page)


def test_where_two_maps_disagree_is_a_panel_on_demand(page: AppTest) -> None:
    open_sample(page, "synthetic-chest")
    before = len(figure(page)["layout"]["images"])
    page.toggle(key="difference").set_value(True).run()
    assert not page.exception
    drawn = figure(page)
    assert len(drawn["layout"]["images"]) == before + 2  # the scan and the difference over it
    assert "Where they disagree" in [note["text"] for note in drawn["layout"]["annotations"]]


def test_a_method_that_shows_the_picture_and_not_the_model_is_not_shown(page: AppTest, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    known = resources.cards

    def judged(role: str = "diagnosis") -> dict[str, ModelCard]:
        sanity = {"sanity": {"weights": {"gradcam": {"stem": 0.9}}}}
        return {name: replace(card, metrics=dict(card.metrics) | sanity) for name, card in known(role).items()}

    monkeypatch.setattr(resources, "cards", judged)
    open_sample(page, "synthetic-chest")
    assert not page.exception
    assert "Grad-CAM shows the picture, not this model" in texts(page)
    titles = [note["text"] for note in figure(page)["layout"]["annotations"]]
    assert "LIME" in titles
    assert "Grad-CAM" not in titles


def test_the_guide_explains_every_method(page: AppTest) -> None:
    page.run()
    page.switch_page(GUIDE).run()
    assert not page.exception
    assert list(page.table[0].value["Method"]) == [explainer.title for explainer in service.EXPLAINERS.values()]
    assert "not what is wrong" in texts(page)
