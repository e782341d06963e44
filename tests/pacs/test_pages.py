"""Archives on the pages: nothing where none is configured; search, fetch and send where one is."""

from __future__ import annotations

import io
from pathlib import Path

import pydicom
import pytest
from streamlit.testing.v1 import AppTest

from medfusion import doctor, worklist
from medfusion.pacs import jobs
from tests.pacs.conftest import PASSWORD, configure, dimse_section, free_port, web_section
from tests.pacs.test_archives import STUDY
from tests.records.scans import NUMBER, chest, dicom
from tests.ui import browser
from tests.ui.browser import address, browser_page  # noqa: F401
from tests.ui.conftest import model_folder, page  # noqa: F401


@pytest.fixture
def list_page(page: AppTest, home: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:  # noqa: F811
    monkeypatch.setattr("medfusion.scorer.ensure", lambda: None)
    page.switch_page("pages/worklist.py")
    return page


def panels(at: AppTest) -> list[str]:
    assert not at.exception
    return [one.label for one in at.expander]


def fill(at: AppTest, patient: str) -> AppTest:
    at.text_input(key="archive-patient").set_value(patient)
    (search,) = [one for one in at.button if one.label == "Search"]
    return search.click().run()


def test_without_an_archive_there_is_no_panel_and_a_broken_file_is_told_in_a_sentence(list_page, home) -> None:  # type: ignore[no-untyped-def]
    assert panels(list_page.run()) == ["Add scans"]
    configure(home, "[archives.x]\nhost = 'secret.host'\n")
    assert panels(list_page.run()) == ["Add scans"]
    assert "The System page says why" in list_page.warning[0].value
    assert "secret.host" not in list_page.warning[0].value


def test_studies_are_listed_and_what_goes_wrong_is_a_sentence(list_page, archives_of, home) -> None:  # type: ignore[no-untyped-def]
    archives_of.put(dicom(1), dicom(2))
    assert panels(list_page.run()) == ["Add scans", "From the archive"]
    fill(list_page, NUMBER)
    table = list_page.dataframe[0].value
    assert (list(table["Patient id"]), list(table["Objects"])) == ([NUMBER], [2])
    assert [one.disabled for one in list_page.button if one.label == "Fetch"] == [True]
    fill(list_page, "nobody")
    assert "No study fits" in list_page.info[0].value
    fill(list_page, "")
    assert "Nothing was asked for" in list_page.error[0].value
    configure(home, web_section(archives_of).replace(archives_of.http, f"http://127.0.0.1:{free_port()}"))
    fill(list_page, NUMBER)
    assert "cannot be reached" in list_page.error[0].value
    assert not list_page.exception


def test_a_fetch_that_ended_says_what_came_until_it_is_dismissed(list_page, archives_of) -> None:  # type: ignore[no-untyped-def]
    archives_of.put(dicom(1))
    from tests.pacs.test_commands import ended

    ended(jobs.start("web", [jobs.Pick(STUDY)]))
    list_page.run()
    assert "1 new scan" in list_page.success[0].value
    (dismiss,) = [one for one in list_page.button if one.label == "Dismiss"]
    dismiss.click().run()
    assert not list_page.success
    assert len(worklist.entries()) == 1


def test_the_system_page_has_a_check_for_each_archive(page, archives_of) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    page.switch_page("pages/system.py").run()
    page.button(key="doctor-archive dimse").click().run()
    assert not page.exception
    assert any("answers C\\-ECHO" in one.value for one in page.markdown)
    assert "archive web" in doctor.names()


@pytest.fixture
def configured(tmp_path: Path, orthanc):  # type: ignore[no-untyped-def]
    """The installation of the browser's server, before it starts."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "password").write_text(PASSWORD)
    configure(folder, web_section(orthanc) + dimse_section(orthanc))
    orthanc.put(chest(1), chest(2), dicom(1, patient="P-2", study="1.2.9"))
    return orthanc


@pytest.mark.browser
@pytest.mark.timeout(900)
@pytest.mark.skipif(browser.CHROMIUM is None, reason="There is no Chromium: install it, or name it in CHROMIUM")
def test_a_study_is_found_fetched_read_and_its_report_sent_back(configured, browser_page) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    at = browser_page
    at.get_by_role("link", name="Worklist").click()
    at.get_by_text("From the archive").click()
    at.get_by_label("Patient id").fill(NUMBER)
    at.get_by_test_id("stBaseButton-primaryFormSubmit").click()
    at.get_by_text("Select what to fetch").wait_for()
    grid = at.get_by_test_id("stDataFrame").first
    grid.locator("canvas").first.wait_for()
    box = grid.bounding_box()
    at.mouse.click(box["x"] + 18, box["y"] + 36 + 17)  # the check box of the only row
    at.get_by_role("button", name="Fetch 1 study").click()
    at.get_by_text("2 new scans").wait_for()
    at.get_by_text("Answered (2)").wait_for()
    at.get_by_role("button", name="Read from the top").click()
    at.get_by_role("button", name="Send to the archive").click()
    assert at.get_by_text(NUMBER).count() == 0
    at.get_by_role("button", name="Send now").click()
    at.get_by_text("2 objects are stored in Archive by web").first.wait_for()
    files = [pydicom.dcmread(io.BytesIO(configured.file(one))) for one in configured.objects()]
    sent = [one for one in files if one.get("Manufacturer") == "MedFusionNet"]
    assert {(one.Modality, one.PatientID, one.StudyInstanceUID) for one in sent} == {
        ("SR", NUMBER, STUDY), ("OT", NUMBER, STUDY),
    }  # fmt: skip
