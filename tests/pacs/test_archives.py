"""Finding, fetching and sending with a real Orthanc, each by DICOMweb and by DIMSE."""

import io
import shutil
import subprocess
from functools import cache

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import JPEGBaseline8Bit, generate_uid

from medfusion import access, library, service, worklist
from medfusion.access import NOBODY, READER, Person
from medfusion.errors import AccessDenied, ArchiveError
from medfusion.imaging import read_scan
from medfusion.pacs import archives, link
from medfusion.pacs.archives import Pick
from medfusion.pacs.found import Query
from medfusion.records import audit
from medfusion.report import Report, for_archive
from tests.records.scans import NAME, NUMBER, PLACE, SECRETS, dicom

STUDY, SERIES = "1.2.3.4", "1.2.3.4.5"
BOTH = pytest.mark.parametrize("name", ["web", "dimse"])


def changed(content: bytes, **attributes: object) -> bytes:
    data = pydicom.dcmread(io.BytesIO(content))
    for keyword, value in attributes.items():
        setattr(data, keyword, value)
    out = io.BytesIO()
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    pydicom.dcmwrite(out, data, enforce_file_format=True)
    return out.getvalue()


def as_jpeg(content: bytes) -> bytes:
    """The same as a JPEG of 8 bits."""
    data = pydicom.dcmread(io.BytesIO(content))
    grey = np.clip(data.pixel_array / 8, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(grey).save(out, "JPEG")
    data.PixelData = pydicom.encaps.encapsulate([out.getvalue() + b"\0" * (out.tell() % 2)])
    data["PixelData"].is_undefined_length = True
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.pop("SmallestImagePixelValue", None), data.pop("LargestImagePixelValue", None)
    data.pop("PixelPaddingValue", None)
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    whole = io.BytesIO()
    pydicom.dcmwrite(whole, data, enforce_file_format=True)
    return whole.getvalue()


def note_object(study: str = STUDY) -> bytes:
    """A Key Object Selection: in the study, without a picture."""
    data = pydicom.dcmread(io.BytesIO(dicom()))
    for keyword in ("PixelData", "Rows", "Columns"):
        del data[keyword]
    return changed_to(data, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.59", Modality="KO", SOPInstanceUID=f"{study}.9.1")


def changed_to(data, **attributes):
    out = io.BytesIO()
    for keyword, value in attributes.items():
        setattr(data, keyword, value)
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    pydicom.dcmwrite(out, data, enforce_file_format=True)
    return out.getvalue()


@BOTH
def test_an_archive_answers_where_it_is(archives_of, name):
    assert "answers" in archives.echo(name)
    assert audit.entries(1)[0].details == {"answered": True}


@BOTH
def test_studies_are_found_by_each_field_and_their_series_listed(archives_of, name):
    odd = "A/1:2?" if name == "web" else "A&B/1 2+3"  # this Orthanc takes escapes in addresses as they stand
    other = changed(dicom(1, patient=odd, study="1.2.9"), StudyDate="20200102", AccessionNumber="ACC7", Modality="MR")
    archives_of.put(dicom(1), dicom(2), other)
    (one,) = archives.find(name, Query(patient_id=NUMBER))
    assert (one.uid, one.patient_id, one.patient_name, one.born) == (
        STUDY, NUMBER, "Doe, Jane Unmistakable", "1961-02-03",
    )  # fmt: skip
    assert (one.modalities, one.series, one.objects) == (("CT",), 1, 2)
    for query in (
        Query(accession="ACC7"), Query(modality="mr"), Query(date="20200102"), Query(date="20200101-20200131"),
        Query(patient_id=odd), Query(patient_id="A*"), Query(accession="ACC7", date="-20201231"),
    ):  # fmt: skip
        assert [found.uid for found in archives.find(name, query)] == ["1.2.9"], query
    assert archives.find(name, Query(patient_id="nobody")) == []
    (series,) = archives.find_series(name, STUDY)
    assert (series.uid, series.modality, series.objects) == (SERIES, "CT", 2)


@BOTH
def test_names_with_umlauts_are_read_as_they_are(archives_of, name):
    archives_of.put(changed(dicom(), SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jürgen", PatientID="Ä-1"))
    (one,) = archives.find(name, Query(date="19000101-"))
    assert (one.patient_name, one.patient_id) == ("Müller, Jürgen", "Ä-1")


@BOTH
def test_no_more_studies_come_than_are_asked_for(archives_of, home, name):
    at = home / "pacs.toml"
    at.write_text(at.read_text().replace("tries = 2", "tries = 2\nmax_results = 3"))
    archives_of.put(*(dicom(1, study=f"1.2.{number}") for number in range(20, 28)))
    assert len(archives.find(name, Query(patient_id=NUMBER))) == 3


@pytest.mark.parametrize(
    "query",
    [Query(), Query(patient_id=" * "), Query(date="yesterday"), Query(date="-"), Query(patient_id="a\\*"),
     Query(accession="x" * 65)],
)  # fmt: skip
def test_what_no_archive_should_be_asked_is_refused_before_it_is(archives_of, query):
    with pytest.raises(ArchiveError):
        archives.find("web", query)


@BOTH
def test_a_study_comes_once_without_identity_and_without_what_is_no_picture(archives_of, home, name):
    archives_of.put(dicom(1), dicom(2), note_object())
    told = archives.fetch(name, [Pick(STUDY)])
    assert (told.total, told.done, told.new, told.known, told.left_out, told.problems) == (2, 2, 2, 0, 1, ())
    again = archives.fetch(name, [Pick(STUDY), Pick(STUDY, SERIES)])
    assert (again.total, again.new, again.known) == (0, 0, 2)
    assert [one.source for one in worklist.entries()] == ["pacs", "pacs"]
    assert {one.instance for one in worklist.entries()} == {1, 2}
    kept = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file() and path.name != "pacs.toml")
    for secret in (*SECRETS, NAME, PLACE, STUDY + ".5"):
        assert secret.encode() not in kept


@BOTH
def test_a_study_that_is_not_there_is_said_to_be_missing(archives_of, name):
    archives_of.put(dicom(1))
    with pytest.raises(ArchiveError, match=r"holds nothing of that\. Search anew"):
        archives.fetch(name, [Pick(f"{STUDY}.99")])


def test_the_same_object_by_two_ways_is_one_case(archives_of):
    archives_of.put(dicom(1))
    assert archives.fetch("web", [Pick(STUDY)]).new == 1
    case = worklist.entries()[0]
    worklist.keep_outcome(case.id, worklist.UNREADABLE, "It took too long.")
    told = archives.fetch("dimse", [Pick(STUDY, SERIES)])  # asked for again, since it has no answer
    assert (told.total, told.new) == (1, 1)
    (one,) = worklist.entries()
    assert (one.id, one.status) == (case.id, worklist.WAITING)
    worklist.add(changed(dicom(1), PatientID="somebody else"), "pacs", once=True)
    assert len(worklist.entries()) == 2  # one identifier, two patients: nothing may vanish


@BOTH
def test_compressed_pictures_come_as_they_are_stored(archives_of, name):
    archives_of.put(as_jpeg(dicom(1)))
    assert archives.fetch(name, [Pick(STUDY)]).problems == ()
    scan = read_scan(worklist.entries()[0].path.read_bytes())
    assert scan.transfer_syntax == "JPEG Baseline (Process 1)"


def test_a_fetch_is_limited_to_what_the_site_wants(archives_of, home):
    at = home / "pacs.toml"
    at.write_text(at.read_text().replace("tries = 2", "tries = 2\nmax_objects = 1"))
    archives_of.put(dicom(1), dicom(2))
    with pytest.raises(ArchiveError, match="2 objects; Archive by web is asked for up to 1"):
        archives.fetch("web", [Pick(STUDY)])


@cache
def answered():
    """The model's answer to the one picture that these tests are about, with a map: made once."""
    model = library.load("chest-ct", "cpu")
    scan = read_scan(dicom(1))
    return model, service.predict(model, scan), service.explain(model, scan, 1, "gradcam")


NO_TESTS = service.Tests({}, {}, {})


def report_of(case_id: int, content: bytes):
    model, prediction, made = answered()

    def send(name: str) -> str:
        return service.send_report(name, case_id, model, read_scan(content), [made], NO_TESTS, prediction, content)

    return send


def report_of_file() -> list[bytes]:
    """SR and SC as `python -m medfusion report` writes them from the file with its identity."""
    model, prediction, made = answered()
    return for_archive(Report(dicom(1), read_scan(dicom(1)), model, prediction, [made], NO_TESTS))


@BOTH
def test_reports_of_a_case_without_identity_reach_its_patient_and_study_and_are_valid(archives_of, name, tmp_path):
    original = changed(dicom(1), SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jürgen", AccessionNumber="ACC9")
    archives_of.put(original)
    archives.fetch(name, [Pick(STUDY)])
    (case,) = worklist.entries()
    assert STUDY not in worklist.way_back(case.id).link
    before = set(archives_of.objects())
    assert [one.name for one in archives.goes_back_to(case.id, case.path.read_bytes())] == [name]
    assert report_of(case.id, case.path.read_bytes())(name).startswith("2 objects are stored")
    sent = [pydicom.dcmread(io.BytesIO(archives_of.file(one))) for one in set(archives_of.objects()) - before]
    assert {one.Modality for one in sent} == {"SR", "OT"}
    for data in sent:
        assert (data.PatientID, str(data.PatientName), data.StudyInstanceUID) == (NUMBER, "Müller^Jürgen", STUDY)
        assert (data.PatientBirthDate, data.AccessionNumber) == ("19610203", "ACC9")
        assert data.StudyDescription == pydicom.dcmread(io.BytesIO(original)).StudyDescription
    (structured,) = [one for one in sent if one.Modality == "SR"]
    (study,) = structured.CurrentRequestedProcedureEvidenceSequence
    (referred,) = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert (study.StudyInstanceUID, study.ReferencedSeriesSequence[0].SeriesInstanceUID) == (STUDY, SERIES)
    assert referred.ReferencedSOPInstanceUID == pydicom.dcmread(io.BytesIO(original)).SOPInstanceUID
    assert worklist.way_back(case.id).sent is not None
    again = archives.fetch(name, [Pick(STUDY)])  # our own reports are no scans
    assert (again.total, again.new, again.known, again.left_out, again.problems) == (0, 0, 1, 2, ())
    capture = next(one for one in sent if one.Modality == "OT")
    assert archives.fetch(name, [Pick(STUDY, str(capture.SeriesInstanceUID))]).new == 0
    assert len(worklist.entries()) == 1
    (entry,) = [one for one in audit.entries() if one.action == "report sent"]
    assert (entry.action, entry.subject, entry.details["case"]) == ("report sent", f"archive {name}", case.id)
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (Debian: apt install dicom3tools)")
    for data in sent:
        data.save_as(tmp_path / "sent.dcm")
        told = subprocess.run([program, str(tmp_path / "sent.dcm")], capture_output=True, text=True, check=False)
        assert "Error" not in told.stdout + told.stderr


@BOTH
def test_nothing_is_sent_when_the_study_is_of_somebody_else_by_now_or_gone(archives_of, name):
    archives_of.put(dicom(1))
    archives.fetch(name, [Pick(STUDY)])
    (case,) = worklist.entries()
    send = report_of(case.id, case.path.read_bytes())
    archives_of.clear()
    with pytest.raises(ArchiveError, match="does not hold this scan any more"):
        send(name)
    archives_of.put(changed(dicom(1), PatientID="somebody else"))
    with pytest.raises(ArchiveError, match="names another patient"):
        send(name)
    assert len(archives_of.objects()) == 1
    assert [entry.action for entry in audit.entries(3)].count("report not sent") == 2
    assert "report sent" not in {entry.action for entry in audit.entries()}


def test_a_link_is_kept_only_where_reports_go_back_and_goes_with_the_case(archives_of, home):
    at = home / "pacs.toml"
    whole = at.read_text()
    archives_of.put(dicom(1))
    at.write_text(whole.replace("send = true", ""))
    archives.fetch("web", [Pick(STUDY)])
    (case,) = worklist.entries()
    assert worklist.way_back(case.id).link == ""
    at.write_text(whole)
    assert archives.goes_back_to(case.id, b"") == []
    with pytest.raises(ArchiveError, match="did not come from an archive"):
        archives.send("web", case.id, b"", lambda header: [])
    worklist.remove([case.id])
    archives.fetch("web", [Pick(STUDY)])
    held = (home / "records.db").read_bytes() + (home / "records.db-wal").read_bytes()
    sealed = worklist.way_back(worklist.entries()[0].id).link
    assert sealed.encode() in held
    assert link.unseal(sealed).study == STUDY
    worklist.remove([worklist.entries()[0].id])
    assert worklist.entries() == []


def test_a_link_of_another_installation_opens_nothing(archives_of):
    from medfusion.records import keys

    archives_of.put(dicom(1))
    archives.fetch("web", [Pick(STUDY)])
    sealed = worklist.way_back(worklist.entries()[0].id).link
    keys.path().write_bytes(b"k" * keys.BYTES)
    keys.key.cache_clear()
    with pytest.raises(ArchiveError, match="of another installation"):
        link.unseal(sealed)


def test_an_opened_file_with_its_identity_can_be_reported_and_one_without_cannot(archives_of):
    archives_of.put(dicom(1))
    assert {one.name for one in archives.goes_back_to(0, dicom(1))} == {"web", "dimse"}
    assert report_of(0, dicom(1))("web").startswith("2 objects")
    assert len(archives_of.objects()) == 3
    assert archives.goes_back_to(0, changed(dicom(1), PatientIdentityRemoved="YES")) == []
    assert archives.goes_back_to(0, b"no DICOM") == []
    with pytest.raises(ArchiveError, match="names another patient"):
        report_of(0, changed(dicom(1), PatientID="somebody else"))("web")


def test_where_identity_is_kept_an_uploaded_case_can_be_reported_too(archives_of, monkeypatch):
    archives_of.put(dicom(1))
    case_id, _ = worklist.add(dicom(1))
    assert archives.goes_back_to(case_id, worklist.find(case_id).path) == []
    worklist.remove([case_id])
    monkeypatch.setenv("MEDFUSION_KEEP_IDENTITY", "1")
    case_id, _ = worklist.add(dicom(1))
    assert report_of(case_id, dicom(1))("dimse").startswith("2 objects")


@pytest.mark.parametrize(
    "call",
    [lambda: archives.echo("web"), lambda: archives.find("web", Query("x")), lambda: archives.find_series("web", "1"),
     lambda: archives.fetch("web", [Pick("1")]), lambda: archives.send("web", 1, b"", lambda header: []),
     lambda: archives.send_files("web", [])],
)  # fmt: skip
def test_nobody_may_ask_an_archive_anything(home, whom, call):
    whom[0] = NOBODY
    with pytest.raises(AccessDenied):
        call()


def test_the_log_names_who_asked_and_not_for_whom(archives_of, whom):
    whom[0] = Person("anna", READER)
    archives_of.put(dicom(1))
    archives.find("web", Query(patient_id=NUMBER, date="20040119"))
    archives.fetch("web", [Pick(STUDY)])
    told = audit.entries()
    assert {entry.actor for entry in told} == {"anna"}
    assert {"archive searched", "archive fetched", "case added"} == {entry.action for entry in told}
    (searched,) = [entry for entry in told if entry.action == "archive searched"]
    assert searched.details == {"by": ["PatientID", "StudyDate"], "found": 1}
    assert not [secret for secret in (*SECRETS, NAME, STUDY) if secret in repr(told)]
    assert access.current().name == "anna"


def test_only_reports_of_this_program_are_sent_as_files(archives_of):
    archives_of.put(dicom(1))
    with pytest.raises(ArchiveError, match="no report of this program"):
        archives.send_files("web", [dicom(2)])
    made = report_of_file()
    assert archives.send_files("web", made).startswith("2 objects")
    with pytest.raises(ArchiveError, match="or holds it for another patient"):
        archives.send_files("web", [changed(made[0], PatientID="somebody else")])
    with pytest.raises(ArchiveError, match="does not hold this study"):
        archives.send_files("web", [changed(made[0], StudyInstanceUID=generate_uid())])
