"""The Worklist page: what it shows of waiting, answered and refused cases, and its filters."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from medfusion import scorer, worklist
from tests.records.scans import dicom
from tests.ui import browser
from tests.ui.conftest import encoded, grey_picture


def in_browser(test):  # type: ignore[no-untyped-def]
    for mark in browser.in_browser:
        test = mark(test)
    return test


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDFUSION_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MEDFUSION_DATABASE_URL", raising=False)
    monkeypatch.setattr(scorer, "ensure", lambda: None)  # what waits goes on waiting
    return tmp_path / "home"


def answered(seed: int, name: str, risk: float, uncertainty: float = 0.1, plausible: tuple[str, ...] = ("x",)) -> int:
    case_id, _ = worklist.add(encoded(grey_picture(seed=seed)))
    answer = {
        "model_id": "chest-xray", "model_version": "0.0.1", "weights_sha256": "0" * 64, "frame": 0, "answers": [name],
        "plausible": list(plausible), "probabilities": {"normal": 1 - risk, "pneumonia": risk}, "risk": risk,
        "uncertainty": uncertainty, "along": [], "warnings": [],
    }  # fmt: skip
    worklist.keep_outcome(case_id, worklist.ANSWERED, answer=answer, modality="DX", frames=1)
    return case_id


@pytest.fixture
def list_page(page: AppTest, home: Path) -> AppTest:
    page.switch_page("pages/worklist.py")
    return page


def rows(page: AppTest) -> list[int]:
    assert not page.exception
    return list(page.dataframe[0].value["Case"]) if page.dataframe else []


def test_the_empty_page_says_what_to_drop(list_page: AppTest) -> None:
    list_page.run()
    assert not list_page.exception
    assert "Answered scans stand here" in list_page.caption[-1].value
    assert not list_page.dataframe


def test_the_riskiest_case_is_on_top_and_filters_narrow_the_list(list_page: AppTest) -> None:
    low, high = answered(0, "normal", 0.1), answered(1, "pneumonia", 0.9)
    unsure = answered(2, "pneumonia", 0.6, uncertainty=0.95, plausible=("normal", "pneumonia"))
    worklist.keep_read(high, "pneumonia")
    assert rows(list_page.run()) == [high, unsure, low]
    table = list_page.dataframe[0].value
    assert list(table["Answer"]) == ["pneumonia", "abstains (pneumonia)", "normal"]
    assert list(table["Read"]) == ["pneumonia", "", ""]
    assert "Patient" not in table  # no file names one

    assert rows(list_page.toggle(key="worklist-unsure").set_value(True).run()) == [unsure]
    list_page.toggle(key="worklist-unsure").set_value(False)
    assert rows(list_page.toggle(key="worklist-unread").set_value(True).run()) == [unsure, low]
    assert rows(list_page.multiselect(key="worklist-answer").set_value(["normal"]).run()) == [low]
    list_page.multiselect(key="worklist-answer").set_value([])
    assert rows(list_page.text_input(key="worklist-search").set_value("nothing like it").run()) == []
    assert "No case passes" in list_page.info[0].value


def test_slices_of_a_series_are_one_row_unless_asked_for(list_page: AppTest) -> None:
    ids = [worklist.add(dicom(instance))[0] for instance in (1, 2, 3)]
    assert rows(list_page.run()) == ids[:1]
    assert rows(list_page.toggle(key="worklist-series").set_value(False).run()) == ids
    assert list(list_page.dataframe[0].value["What"]) == [f"slice {number} of 3" for number in (1, 2, 3)]


def test_cases_that_wait_or_have_no_answer_say_so(list_page: AppTest) -> None:
    waits, _ = worklist.add(encoded(grey_picture(seed=3)))
    refused, _ = worklist.add(encoded(grey_picture(seed=4)))
    worklist.keep_outcome(refused, worklist.REFUSED, "It looks like nothing that is known.")
    list_page.run()
    assert not list_page.exception
    said = dict(zip(list_page.dataframe[0].value["Case"], list_page.dataframe[0].value["Answer"], strict=True))
    assert said == {waits: "Waiting", refused: "No model for it: It looks like nothing that is known."}


def test_how_readers_and_models_agree_is_counted_by_version(list_page: AppTest) -> None:
    case_id = answered(0, "pneumonia", 0.9)
    worklist.keep_read(case_id, "pneumonia", seconds=4)
    worklist.keep_read(case_id, "pneumonia", first_label="normal", seconds=8)
    worklist.keep_read(case_id, "normal", first_label="normal", seconds=12)
    (found,) = worklist.reading_figures()
    assert (found.reads, found.agree, found.first, found.changed, found.followed) == (3, 2, 2, 1, 1)
    assert found.median_s == 8
    list_page.run()
    table = list_page.table[0].value
    assert list(table["Agree"]) == ["2 of 3"]
    assert list(table["Changed their mind"]) == ["1 of 2"]


@in_browser
def test_a_zip_and_a_bad_file_are_answered_read_first_and_removed(browser_page) -> None:  # type: ignore[no-untyped-def]
    page = browser_page
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for seed in range(3):
            archive.writestr(f"Meier_Hans/{seed}.png", encoded(grey_picture(seed=seed)))
        archive.writestr("ct.dcm", dicom())
    page.get_by_role("link", name="Worklist").click()
    page.get_by_text("Answered scans stand here").wait_for()
    page.locator("input[type=file]").first.set_input_files(
        [
            {"name": "set.zip", "mimeType": "application/zip", "buffer": out.getvalue()},
            {"name": "letter.png", "mimeType": "image/png", "buffer": b"A letter, not a picture.\n" * 20},
        ]
    )
    page.get_by_text("1 file could not be shown.").wait_for()
    page.get_by_text("Answered (1)").wait_for()
    page.get_by_text("No model for it (3)").wait_for()
    page.get_by_text("Answering in the background").wait_for(state="detached")
    page.get_by_role("button", name="Read from the top").click()
    page.get_by_role("heading", name="Case 4").wait_for()  # the CT: it alone has a risk
    assert page.get_by_text("Meier").count() == 0
    page.get_by_text("Read before the answer").click()
    page.get_by_text("What do you see?").wait_for()
    assert page.get_by_text("Answer at the operating point").count() == 0
    page.get_by_text("something else", exact=True).click()
    page.get_by_role("button", name="Keep, and show the answer").click()
    page.get_by_text("Before the answer you said something else").wait_for()
    page.get_by_role("button", name="Keep my reading").click()
    page.get_by_text("Kept.", exact=True).wait_for()
    page.keyboard.press("n")
    page.get_by_role("heading", name="Case 1").wait_for()
    page.get_by_role("link", name="Worklist").click()
    page.get_by_text("How readers and models agree").wait_for()
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Remove 4 cases").click()
    page.get_by_text("Answered scans stand here").wait_for()
