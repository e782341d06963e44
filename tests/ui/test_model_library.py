"""The Model library page: cards that a clinician can read."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from medfusion import library
from medfusion.types import EvaluationReport
from pages.ui.cards import split_table, words
from pages.ui.messages import plain, prose
from tests.ui.conftest import encoded, grey_picture

LIBRARY = "pages/model_library.py"


def show_card(
    page: AppTest, model_folder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: object
) -> None:
    """Open the page with one model, whose card is that of the retina with these fields changed."""
    own = folder / "own"
    shutil.copytree(model_folder / "retina", own)
    written = json.loads((own / "card.json").read_text())
    (own / "card.json").write_text(json.dumps(written | {"id": "own"} | changes))
    monkeypatch.setattr(library, "SHIPPED", folder)
    page.run()
    page.switch_page(LIBRARY).run()
    assert not page.exception


def test_a_card_shows_use_limits_and_figures_with_their_intervals(page: AppTest) -> None:
    page.run()
    page.switch_page(LIBRARY).run()
    assert not page.exception
    assert page.header[1].value == r"Test model chest\-xray"
    assert [item.value for item in page.subheader] == [
        "Intended use",
        "Limits",
        "How well it does",
        "What it was trained on",
    ]
    assert (page.metric[0].label, page.metric[0].value, page.metric[0].delta) == (
        "Accuracy",
        "93.0 %",
        "(90.0 % to 96.0 %)",
    )


def test_a_card_tells_which_maps_depend_on_the_model(
    page: AppTest, model_folder: Path, tmp_path: Path, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    sanity = {
        "scans": 8,
        "weights": {"gradcam": {"head": 0.9, "stem": 0.1}, "lime": {"stem": 0.7}},
        "labels": {"lime": 0.2},
    }
    metrics = json.loads((model_folder / "retina" / "card.json").read_text())["metrics"] | {"sanity": sanity}
    show_card(page, model_folder, tmp_path / "models", monkeypatch, metrics=metrics)
    assert any("1 of 2 methods show the model" in box.label for box in page.expander)
    table = next(one.value for one in page.table if "All weights random" in one.value)
    assert table.values.tolist() == [["Grad-CAM", "0.10", "", "yes"], ["LIME", "0.70", "0.20", "no"]]


def test_a_card_says_that_it_was_measured_on_other_data_than_it_was_trained_on(
    page: AppTest, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show_card(page, model_folder, tmp_path / "models", monkeypatch, data={"calibrated_on": "ward *7*.zip"})
    told = plain("Calibrated and measured on ward *7*.zip, which is not what it was trained on")
    assert told in [one.value for one in page.caption]


def test_a_card_tells_folds_seeds_and_offsets(
    page: AppTest, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = json.loads((model_folder / "retina" / "card.json").read_text())
    pooled = card["metrics"]["test"] | {"n": 519}
    folds = {"folds": {"auroc": [0.9, 0.8]}, "mean": {"auroc": 0.85}, "spread": {"auroc": 0.071}, "pooled": pooled}
    seeds = {"0": {"test": {"accuracy": 0.75, "auroc": 0.9}}, "1": {"test": {"accuracy": 0.8, "auroc": 0.91}}}
    seeds["0"]["val"] = {"accuracy": 0.7, "auroc": 0.8}  # what only one of them tells is not compared
    metrics = card["metrics"] | {"cross_validation": folds, "seeds": seeds}
    offsets = [0.25 - i for i in range(len(card["classes"]))]
    show_card(page, model_folder, tmp_path / "models", monkeypatch, metrics=metrics, class_offsets=offsets)
    labels = [box.label for box in page.expander]
    assert "Cross-validation: AUROC 0.850 ± 0.071 over 2 folds" in labels
    assert any(one.value.startswith("All folds: 519 pictures") for one in page.caption)
    table = next(one.value for one in page.table if "Held out: accuracy" in one.value)
    assert table.values.tolist() == [["0", "75.0 %", "0.900"], ["1", "80.0 %", "0.910"]]
    told = [one.value for one in page.markdown]
    assert any("Offsets of the classes, in the weights" in text and "+0.25" in text for text in told)


COMMAND = "python -m training run --data `x` <b>\npython -m training finish"


def test_code_of_a_card_is_shown_as_code_and_its_text_as_it_is(
    page: AppTest, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = "Copies\n(`python -m  training check`) are **in** it, see [this](https://x) and :red[that]."
    training = {"command": COMMAND, "note": "Found by `search`.", "seed": 3}
    show_card(page, model_folder, tmp_path / "models", monkeypatch, limits=[limit], training=training)
    assert [one.value for one in page.code] == [COMMAND]
    shown = [one.value for one in page.markdown]
    assert "**Training:** Found by `search`\\." in shown
    told = (
        r"- Copies \(`python -m training check`\) are \*\*in\*\* it, see "
        r"\[this\]\(https\://x\) and \:red\[that\]\."
    )
    assert told in shown
    assert json.loads(page.json[0].value) == {"seed": 3}


@pytest.mark.parametrize("text", ["one ` only", "`` empty", "` ` blank", "a `b` c ` d"])
def test_backticks_that_hold_no_code_are_shown_as_they_are(text: str) -> None:
    assert prose(text) == plain(text)


def test_another_model_is_chosen_from_the_list(page: AppTest) -> None:
    page.run()
    page.switch_page(LIBRARY).run()
    page.selectbox[0].select("retina").run()
    assert page.header[1].value == "Test model retina"


def test_a_link_opens_the_card_that_it_names(page: AppTest) -> None:
    page.run()
    page.switch_page(LIBRARY)
    page.query_params["model"] = "retina"
    page.run()
    assert page.header[1].value == "Test model retina"


def test_without_models_the_page_says_what_to_do(
    page: AppTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "SHIPPED", tmp_path)
    page.run()
    page.switch_page(LIBRARY).run()
    assert not page.exception
    assert "No model is installed" in page.info[0].value


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        ({"value": 0.5, "low": 0.4, "high": 0.6}, ("50.0 %", "(40.0 % to 60.0 %)")),
        ({"value": 1.0}, ("100.0 %", "")),
        (0.25, ("25.0 %", "")),
        (None, ("not measured", "")),
    ],
)
def test_a_figure_reads_well_whatever_the_card_has(figure: object, expected: tuple[str, str]) -> None:
    assert words(figure, share=True) == expected


def labelled_zip(names: dict[str, int]) -> bytes:
    """A zip of so many grey pictures a class."""
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as archive:
        for name, count in names.items():
            for index in range(count):
                archive.writestr(f"{name}/{index}.png", encoded(grey_picture(seed=len(name) * 100 + index)))
    return stored.getvalue()


def measure(page: AppTest, data: bytes) -> AppTest:
    page.run()
    page.switch_page(LIBRARY).run()
    page.file_uploader[0].upload("own.zip", data).run()
    return page.button(key="measure-chest-xray").click().run()


def test_own_labelled_pictures_are_measured_and_the_report_can_be_kept(page: AppTest) -> None:
    measure(page, labelled_zip({"normal": 4, "pneumonia": 5}))
    assert not page.exception
    assert not page.error
    assert any("Your own: 9 pictures" in item.value for item in page.caption)
    (report,) = state_reports(page)
    with zipfile.ZipFile(io.BytesIO(report.archive)) as archive:
        names = set(archive.namelist())
    assert {"report/report.html", "report/figures/roc.svg", "report/tables/worst.csv"} <= names


def test_labels_that_the_model_does_not_know_are_named(page: AppTest) -> None:
    measure(page, labelled_zip({"normal": 2, "fracture": 2}))
    assert not page.exception
    assert "fracture" in page.error[0].value
    assert not state_reports(page)


def state_reports(page: AppTest) -> list[EvaluationReport]:
    return list(page.session_state["memory"].reports.values())


def test_the_parts_of_a_set_stand_in_their_usual_order() -> None:
    table = split_table({"test": {"a": 1}, "val": {"a": 2}, "odd": {"a": 3}, "train": {"a": 4}, "note": "x"}, ("a",))
    assert list(table) == ["Class", "Training", "Validation", "Held out", "odd"]
    assert table["Training"] == ["4", "4"]
