"""The Worklist page: what it shows of waiting, answered and refused cases, and its filters."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import select
from streamlit.testing.v1 import AppTest

from medfusion import access, scorer, worklist
from medfusion.records.database import session
from medfusion.records.tables import ReadRow
from medfusion.synthetic import chest_xray_dicom
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
    keep(case_id, name, risk, uncertainty, plausible)
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


def test_no_column_claims_certainty(list_page: AppTest) -> None:
    answered(0, "pneumonia", 1.0, uncertainty=0.0)
    assert rows(list_page.run())
    assert list(list_page.dataframe[0].value["Risk"]) == [0.999]
    assert list(list_page.dataframe[0].value["Uncertainty"]) == [0.001]


def test_slices_of_a_series_are_one_row_unless_asked_for(list_page: AppTest) -> None:
    ids = [worklist.add(dicom(instance))[0] for instance in (1, 2, 3)]
    assert rows(list_page.run()) == ids[:1]
    assert rows(list_page.toggle(key="worklist-series").set_value(False).run()) == ids
    assert list(list_page.dataframe[0].value["What"]) == [f"slice {number} of 3" for number in (1, 2, 3)]


def series(*risks: float, study: str = "1.2.3.4") -> list[int]:
    """The slices of one series of one patient, answered."""
    ids = []
    for number, risk in enumerate(risks, start=1):
        ids.append(worklist.add(dicom(number, study=study))[0])
        keep(ids[-1], "pneumonia", risk)
    return ids


def keep(
    case_id: int, name: str, risk: float, uncertainty: float = 0.1, plausible: tuple[str, ...] = ("x",),
    frame: int = 0, along: Sequence[float] = (), frames: int = 1,
) -> None:  # fmt: skip
    answer = {
        "model_id": "chest-xray", "model_version": "0.0.1", "weights_sha256": "0" * 64, "frame": frame,
        "answers": [name], "plausible": list(plausible), "probabilities": {"normal": 1 - risk, "pneumonia": risk},
        "risk": risk, "uncertainty": uncertainty, "along": list(along), "warnings": [],
    }  # fmt: skip
    worklist.keep_outcome(case_id, worklist.ANSWERED, answer=answer, modality="DX", frames=frames)


def test_the_list_is_ordered_as_asked_and_read_in_that_order(list_page: AppTest) -> None:
    risky, unsure = answered(0, "pneumonia", 0.9), answered(1, "normal", 0.2, uncertainty=0.9)
    assert rows(list_page.run()) == [risky, unsure]
    assert rows(list_page.selectbox(key="worklist-order").select("Uncertainty").run()) == [unsure, risky]
    list_page.button(key="worklist-read").click().run()
    list_page.switch_page("pages/analyse.py").run()
    assert list_page.header[0].value == f"Case {unsure}"
    list_page.button(key="next").click().run()
    assert list_page.header[0].value == f"Case {risky}"


def test_a_series_opens_at_its_most_suspicious_slice_and_is_stepped_through_in_order(list_page: AppTest) -> None:
    ids = series(0.2, 0.8, 0.4)
    list_page.run().button(key="worklist-read").click().run()
    page = list_page.switch_page("pages/analyse.py").run()
    page.selectbox(key=f"model-{case_number(page)}").set_value("chest-xray").run()
    assert not page.exception
    assert page.header[0].value == f"Case {ids[1]}"
    assert "highest at slice 2, 80" in texts(page)
    assert page.button(key="stack-top").disabled
    page.button(key="stack-next").click().run()
    assert page.header[0].value == f"Case {ids[2]}"
    assert page.button(key="stack-next").disabled
    assert "In view: slice 3, 40" in texts(page)
    page.button(key="stack-top").click().run()
    assert page.header[0].value == f"Case {ids[1]}"


def test_reading_first_a_series_opens_in_its_middle_and_at_the_riskiest_slice_once_something_was_said(
    list_page: AppTest,
) -> None:
    ids = series(0.2, 0.4, 0.1, 0.9)
    page = read_first(list_page)
    assert page.header[0].value == f"Case {ids[2]}"
    assert "What do you see?" in texts(page)
    assert "Risk along" not in texts(page)
    page.button(key="stack-previous").click().run()
    assert page.header[0].value == f"Case {ids[1]}"  # free to go, and still without the answer
    assert "Risk along" not in texts(page)
    say_first(page, "normal")
    assert page.header[0].value == f"Case {ids[3]}"
    assert "Risk along the 4 slices" in texts(page)
    page.button(key="stack-previous").click().run()
    assert page.header[0].value == f"Case {ids[2]}"  # one word for the whole series
    assert "Before the answer you said normal" in texts(page)


def test_reading_first_a_scan_of_several_frames_opens_in_its_middle(list_page: AppTest) -> None:
    out = io.BytesIO()
    first, *others = (Image.fromarray(grey_picture(seed=seed)) for seed in range(5))
    first.save(out, "TIFF", save_all=True, append_images=others)
    case_id, _ = worklist.add(out.getvalue())
    keep(case_id, "pneumonia", 0.9, frame=4, along=[0.1, 0.2, 0.3, 0.1, 0.9], frames=5)
    page = read_first(list_page)
    frame = f"frame-{case_number(page)}"
    assert page.slider(key=frame).value == 3
    assert "What do you see?" in texts(page)  # the switch holds on both pages
    assert "Risk along" not in texts(page)
    say_first(page, "normal")
    assert page.slider(key=frame).value == 5


def read_first(page: AppTest) -> AppTest:
    """The first case of the list, whose reader must speak first."""
    page.run().toggle(key="read-first").set_value(True).run()
    page.button(key="worklist-read").click().run()
    page.switch_page("pages/analyse.py").run()
    page.selectbox(key=f"model-{case_number(page)}").set_value("chest-xray").run()
    return page


def say_first(page: AppTest, label: str) -> None:
    page.get_by_key(f"first-label-{case_number(page)}").set_value(label)
    next(one for one in page.button if one.label == "Keep, and show the answer").click().run()
    assert not page.exception


def reads() -> list[tuple[str, str, str]]:
    with session() as opened:
        rows = opened.scalars(select(ReadRow).order_by(ReadRow.id)).all()
        return [(row.reader, row.first_label, row.label) for row in rows]


def test_a_first_word_is_kept_at_once_and_the_last_word_completes_it(list_page: AppTest) -> None:
    answered(0, "pneumonia", 0.9)
    page = read_first(list_page)
    say_first(page, "normal")
    assert reads() == [("", "normal", "normal")]
    page.radio[0].set_value("pneumonia")
    next(one for one in page.button if one.label == "Keep my reading").click().run()
    assert reads() == [("", "normal", "pneumonia")]
    (found,) = worklist.reading_figures()
    assert (found.reads, found.first, found.changed, found.followed) == (1, 1, 1, 1)


def test_who_has_seen_an_answer_is_not_asked_as_if_it_were_hidden(list_page: AppTest) -> None:
    answered(0, "pneumonia", 0.9)
    list_page.run().button(key="worklist-read").click().run()
    page = list_page.switch_page("pages/analyse.py").run()
    page.selectbox(key=f"model-{case_number(page)}").set_value("chest-xray").run()
    page.toggle(key="read-first").set_value(True).run()
    assert not page.exception
    assert "What do you see?" not in texts(page)
    assert "You have seen this answer before" in texts(page)


def test_with_accounts_each_reader_is_asked_once_for_all_sessions(page: AppTest, home: Path) -> None:
    case_id = answered(0, "pneumonia", 0.9)
    worklist.keep_read(case_id, "normal", "anna", first_label="normal")
    anna = access.Person("anna", access.READER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(access, "_whom", [lambda: anna])
        assert worklist.own_reads() == {case_id: worklist.Said("normal", 1)}
        patch.setattr(access, "_whom", [lambda: access.Person("ben", access.READER)])
        assert worklist.own_reads() == {}
    assert worklist.own_reads() == {}  # without accounts nobody can be told apart


def test_an_export_of_who_reads_first_leaves_out_what_they_have_not_read(list_page: AppTest) -> None:
    ids = [*series(0.2, 0.8), answered(0, "pneumonia", 0.9)]
    worklist.keep_read(ids[2], "pneumonia", "ben")
    rows = worklist.as_rows(worklist.entries(), told={worklist.find(ids[0]).series})
    told = {row["case"]: row for row in rows}
    assert [told[one]["answer_hidden"] for one in ids] == [False, False, True]
    assert [told[one]["risk"] for one in ids] == [0.2, 0.8, None]
    shown = {"case", "added", "status", "sha256", "modality", "frames", "answer_hidden"}
    assert {name for name, value in told[ids[2]].items() if value not in ("", None, 0)} == shown
    assert list(rows[0]) == list(rows[-1])  # no column tells by being there
    assert "answer_hidden" not in worklist.as_csv(worklist.entries())
    list_page.run().toggle(key="read-first").set_value(True).run()
    assert "leave the answers of cases out that you have not read yet" in texts(list_page)


def test_who_reads_first_compares_only_with_pictures_they_have_read(list_page: AppTest) -> None:
    (then,) = series(0.1, study="1.2.1")
    (now,) = series(0.9, study="1.2.2")
    page = read_first(list_page)
    say_first(page, "normal")
    assert page.header[0].value == f"Case {then}"
    assert page.selectbox(key=f"prior-{case_number(page)}").options == []
    assert "once you have read them" in texts(page)
    page.button(key="next").click().run()
    page.selectbox(key=f"model-{case_number(page)}").set_value("chest-xray").run()
    assert page.header[0].value == f"Case {now}"
    say_first(page, "normal")
    (choice,) = page.selectbox(key=f"prior-{case_number(page)}").options
    assert choice.startswith(f"Case {then}")


def test_the_list_of_who_reads_first_tells_of_no_answer(list_page: AppTest) -> None:
    ids = series(0.2, 0.8)
    low, high = answered(0, "normal", 0.1), answered(1, "pneumonia", 0.9)
    worklist.keep_read(high, "pneumonia")
    assert rows(list_page.run()) == [high, ids[1], low]
    list_page.toggle(key="read-first").set_value(True).run()
    assert rows(list_page) == [ids[0], low, high]
    table = list_page.dataframe[0].value
    assert not {"Risk", "Uncertainty"} & set(table)
    assert set(table["Answer"]) == {"Answered"}
    assert list(table["Read"]) == ["", "", "yes"]
    assert list_page.selectbox(key="worklist-order-hidden").options == ["Oldest", "Newest"]
    assert not list_page.multiselect
    assert "worklist-unsure" not in [one.key for one in list_page.toggle]
    list_page.toggle(key="read-first").set_value(False).run()
    assert rows(list_page) == [high, ids[1], low]


def test_an_earlier_picture_of_the_patient_is_compared_by_score_and_map(list_page: AppTest) -> None:
    (then,) = series(0.1, study="1.2.1")
    (now,) = series(0.9, study="1.2.2")
    answered(0, "pneumonia", 0.5)  # somebody else
    list_page.run().button(key="worklist-read").click().run()
    page = list_page.switch_page("pages/analyse.py").run()
    page.selectbox(key=f"model-{case_number(page)}").set_value("chest-xray").run()
    page.get_by_key("methods").set_value(["gradcam"]).run()
    assert page.header[0].value == f"Case {now}"
    choice = page.selectbox(key=f"prior-{case_number(page)}")
    assert len(choice.options) == 1 and choice.options[0].startswith(f"Case {then}, same day")
    choice.select_index(0).run()
    assert not page.exception
    table = next(one.value for one in page.table if "Change" in one.value)
    assert list(table.iloc[:, 0]) == ["normal", "pneumonia", "answer"]
    assert list(table["Change"]) == ["+0.0 points", "+0.0 points", "the same"]  # the same pixels under another study
    assert "more support of pneumonia in the picture in view" in texts(page)


def test_a_case_that_somebody_else_removed_says_so_and_the_others_stay(list_page: AppTest) -> None:
    gone, stays = answered(0, "pneumonia", 0.9), answered(1, "pneumonia", 0.5)
    list_page.run().button(key="worklist-read").click().run()
    worklist.remove([gone])
    page = list_page.switch_page("pages/analyse.py").run()
    assert not page.exception
    assert f"Case {gone} is not there any more" in page.error[0].value
    page.button(key="next").click().run()
    assert not page.error and page.header[0].value == f"Case {stays}"


def test_two_readers_of_one_case_are_counted_both_and_the_last_word_is_shown(list_page: AppTest) -> None:
    case_id = answered(0, "pneumonia", 0.9)
    readers = [threading.Thread(target=worklist.keep_read, args=(case_id, label, label)) for label in ("a", "b") * 4]
    for one in readers:
        one.start()
    for one in readers:
        one.join()
    worklist.keep_read(case_id, "pneumonia", "c")
    (figures,) = worklist.reading_figures()
    assert (figures.reads, figures.agree) == (9, 1)
    list_page.run()
    assert list(list_page.dataframe[0].value["Read"]) == ["pneumonia"]


def texts(page: AppTest) -> str:
    found = [*page.markdown, *page.caption, *page.info, *page.warning]
    return " ".join(str(one.value) for one in found).replace("\xa0", " ")


def case_number(page: AppTest) -> int:
    """Of the case in view, by which the keys of its widgets end."""
    return int(page.selectbox(key="case").value)


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
        archive.writestr("thorax.dcm", chest_xray_dicom())
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
    page.get_by_text("Read before the answer").click()
    page.get_by_text("CSV and JSON leave the answers").wait_for()
    page.get_by_role("button", name="Read from the top").click()
    page.get_by_role("heading", name="Case 1").wait_for()
    page.keyboard.press("p")
    page.get_by_role("heading", name="Case 4").wait_for()  # the X-ray: it alone has an answer
    assert page.get_by_text("Meier").count() == 0
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
