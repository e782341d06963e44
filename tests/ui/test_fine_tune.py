"""The Fine-tune page: its steps with and without data, and the whole way in a real browser."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from medfusion import library
from training import jobs, public_sets, sets
from training.config import TrainConfig
from training.events import Journal
from training.finish import About
from training.plan import Plan, write_plan

SMALL = TrainConfig(
    start="scratch", frozen_stages=0, epochs=3, train_px=32, side_px=64, batch_size=8, workers=0, device="cpu",
    average_decay=0.5, sanity_scans=1, sanity_epochs=0,
)  # fmt: skip
STEP = "tuning-step"


def sides_zip(count: int = 84, copies: int = 0) -> bytes:
    """Which half of a noisy picture is bright; the first pictures once more under another name."""
    rng = np.random.default_rng(0)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(count):
            picture = np.kron(rng.integers(0, 90, (12, 12), dtype=np.uint8), np.ones((8, 8), dtype=np.uint8))
            picture[:, slice(0, 48) if number % 2 else slice(48, 96)] += 120
            stored = io.BytesIO()
            Image.fromarray(picture).save(stored, "PNG")
            folder = "left" if number % 2 else "right"
            archive.writestr(f"{folder}/{number}.png", stored.getvalue())
            if number < copies:
                archive.writestr(f"{folder}/{number}-copy.png", stored.getvalue())
    return out.getvalue()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDFUSION_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def kept(copies: int = 0) -> sets.StoredSet:
    content = sides_zip(copies=copies)
    return sets.keep("Fälle.zip", io.BytesIO(content), len(content))


def at(page: AppTest, step: str) -> AppTest:
    """The page at one step."""
    page.session_state[STEP] = step
    page.switch_page("pages/fine_tune.py").run()
    assert not page.exception
    return page


def words(page: AppTest) -> str:
    """All that the page says."""
    kinds = ("markdown", "caption", "info", "success", "warning", "error", "subheader", "header")
    return " ".join(str(one.value) for kind in kinds for one in page.get(kind))


def finished_run(home: Path, verdict: str, gain: float) -> str:
    """A run as its child process leaves it, with the model of the tests in it."""
    folder = home / "runs" / "20260101-120000-abcd"
    folder.mkdir(parents=True)
    write_plan(folder / jobs.PLAN, Plan("chest-xray", SMALL, About("Ward model")))
    (folder / jobs.SOURCE).write_text(json.dumps(str(folder / "gone.zip")))
    jobs.write_state(folder, jobs.State(jobs.DONE))
    model = library.load("chest-xray", "cpu")
    sane = {"scans": 1, "weights": {"gradcam": {"stem": 0.1}, "lime": {"stem": 0.1}}}
    each = {"value": 0.9, "low": 0.8, "high": 0.95}
    figures = {"n": 40} | dict.fromkeys(("accuracy", "balanced_accuracy", "auroc", "ece", "brier"), each)
    figures["per_class"] = {name: {"sensitivity": each, "specificity": each} for name in model.card.classes}
    library.save(folder / "model", replace(model.card, metrics={"test": figures, "sanity": sane}), model.network)
    difference = {"value": gain, "low": gain - 0.01, "high": gain + 0.01}
    result = {
        "n": 40, "classes": list(model.card.classes), "child": figures, "parent": figures, "verdict": verdict,
        "parent_id": "chest-xray", "parent_version": "0.0.1", "auroc_gain": difference, "accuracy_gain": difference,
        "p_accuracy": 0.03, "commonest": {"label": "normal", "accuracy": 0.6}, "maps": [],
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    return folder.name


@pytest.mark.parametrize("step", ["Data", "Check", "Settings", "Train", "Result", "Promote"])
def test_each_step_says_what_to_do_where_nothing_is_there_yet(page: AppTest, home: Path, step: str):
    at(page, step)
    assert page.get("info")
    assert not page.get("error")


def test_copies_block_until_they_are_left_out(page: AppTest, home: Path):
    kept(copies=3)
    at(page, "Check")
    assert "3 pictures are there more than once" in words(page)
    assert not any("Go on" in button.label for button in page.button)
    page.button(key="leave-out").click().run()
    assert "Fit to train on" in words(page)
    assert "3 pictures left out" in words(page)
    page.button(key="use-all").click().run()
    assert "3 pictures are there more than once" in words(page)


def test_the_three_choices_become_settings_and_a_wrong_file_of_settings_is_told(page: AppTest, home: Path):
    stored = kept()
    sets.check(stored.id)
    at(page, "Settings")
    epochs = next(one for one in page.number_input if one.label == "Epochs")
    assert epochs.value == 15
    page.segmented_control(key="tuning-length").set_value("Long").run()
    assert next(one for one in page.number_input if one.label == "Epochs").value == 40
    page.segmented_control(key="tuning-care").set_value("Careful").run()
    assert next(one for one in page.number_input if one.label == "Frozen stages").value == 3
    wrong = b'{"model_id": "x", "about": {"title": "x"}, "settings": {"epoch": 3}}'
    page.file_uploader(key="tuning-plan").set_value(("plan.json", wrong, "application/json")).run()
    assert "There is no setting" in words(page)
    beyond = Plan("sides", replace(SMALL, batch_size=4096, learning_rate=0.5), About("Sides")).as_json().encode()
    page.file_uploader(key="tuning-plan").set_value(("plan.json", beyond, "application/json")).run()
    assert not page.exception
    assert [one.value for one in page.number_input if one.label in ("Learning rate", "Batch size")] == [0.5, 4096]


def test_a_better_model_is_promoted_and_rolled_back(page: AppTest, home: Path, model_folder: Path):
    finished_run(home, "better", 0.05)
    at(page, "Result")
    assert "Better than chest-xray" in str([one.proto.title for one in page.success]) + words(page)
    at(page, "Promote")
    next(one for one in page.button if one.label == "Promote").click().run()
    assert "is in use" in words(page)
    assert library.find("chest-xray").parent == home / "models"
    page.button(key="back-chest-xray").click().run()
    assert "The shipped chest\\-xray is in use again" in words(page)
    assert library.find("chest-xray").parent == model_folder


def test_a_worse_model_is_refused_without_a_reason(page: AppTest, home: Path, model_folder: Path):
    finished_run(home, "worse", -0.05)
    at(page, "Promote")
    assert "It is worse than chest\\-xray" in words(page)
    next(one for one in page.button if one.label == "Promote").click().run()
    assert "write down why" in words(page)
    assert library.find("chest-xray").parent == model_folder
    page.text_area[0].input("The parent was trained on another scanner.").run()
    next(one for one in page.button if one.label == "Promote").click().run()
    promotion = library.read_card(library.find("chest-xray")).training["promotion"]
    assert promotion["reason"] == "The parent was trained on another scanner."


def test_runs_are_listed_and_a_failed_one_says_why(page: AppTest, home: Path):
    run_id = finished_run(home, "better", 0.05)
    jobs.write_state(home / "runs" / run_id, jobs.State(jobs.FAILED, "The disk is full. Free some space."))
    at(page, "Train")
    assert "The disk is full" in words(page)
    assert page.button(key="tuning-resume")
    assert page.dataframe[0].value["Status"].tolist() == ["Failed"]


def test_runs_are_opened_compared_and_deleted_by_keyboard_and_mouse_alike(page: AppTest, home: Path):
    first = finished_run(home, "better", 0.05)
    second = "20260101-120001-abcd"
    shutil.copytree(home / "runs" / first, home / "runs" / second)
    for number, run_id in enumerate((first, second)):
        Journal(home / "runs" / run_id).tell("epoch", epoch=0, val_auroc=0.8 + number / 10)
    at(page, "Data")
    page.multiselect(key="runs-chosen").set_value([first]).run()
    page.button(key="runs-open").click().run()
    assert page.session_state[STEP] == "Result"
    page.multiselect(key="runs-chosen").set_value([first, second]).run()
    assert page.get("plotly_chart")
    assert "0.900 (0.800 to 0.950)" in str(page.table[-1].value)
    page.multiselect(key="runs-chosen").set_value([second]).run()
    page.button(key="runs-delete-now").click().run()
    assert not page.exception
    assert [path.name for path in (home / "runs").iterdir()] == [first]
    assert page.multiselect(key="runs-chosen").value == []


def test_a_public_set_without_a_network_says_what_to_do(page: AppTest, home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(public_sets.catalogue()["bloodmnist"], "url_224", "http://127.0.0.1:9/none")
    at(page, "Data").toggle(key="tuning-public").set_value(True).run()
    page.selectbox[0].set_value("bloodmnist").run()
    assert "Licence: CC BY 4.0" in words(page).replace("\\", "")
    page.button(key="tuning-public-get").click().run()
    assert not page.exception
    assert "could not be downloaded" in page.error[0].value.replace("\\", "")
