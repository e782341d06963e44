"""Reports: files that others can read, references that hold, no identity where none belongs, figures to check."""

import io
import json
import shutil
import subprocess
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from PIL import Image

from medfusion import inference, library
from medfusion.__main__ import main
from medfusion.explain import explain, record
from medfusion.imaging import read_scan
from medfusion.report import Report, write
from tests.records.scans import NAME, NUMBER, SECRETS, dicom


@pytest.fixture(scope="module")
def model():
    return library.load("chest-ct", "cpu")


def made(model, content: bytes, folder: Path) -> dict[str, bytes]:
    scan = read_scan(content)
    maps = [explain(model, scan, 1, "gradcam"), explain(model, scan, 1, "lime", settings={"samples": 64})]
    report = Report(content, scan, model, inference.predict(model, scan), maps, record.Tests())
    return {path.name: path.read_bytes() for path in write(folder, report)}


@pytest.fixture
def files(model, tmp_path) -> dict[str, bytes]:
    return made(model, dicom(), tmp_path)


@pytest.mark.parametrize("name", ["report-sr.dcm", "report-sc.dcm"])
def test_an_independent_validator_finds_no_error(files, name, tmp_path):
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (Debian: apt install dicom3tools)")
    told = subprocess.run([program, str(tmp_path / name)], capture_output=True, text=True, check=False)
    assert "Error" not in told.stdout + told.stderr


def test_objects_belong_to_the_patient_and_study_of_the_scan_under_new_identifiers(files):
    source = pydicom.dcmread(io.BytesIO(dicom()))
    seen = set()
    for name in ("report-sr.dcm", "report-sc.dcm"):
        data = pydicom.dcmread(io.BytesIO(files[name]))
        assert (data.PatientID, str(data.PatientName)) == (NUMBER, NAME)
        assert data.StudyInstanceUID == source.StudyInstanceUID
        assert "research use only" in data.SeriesDescription
        seen |= {data.SeriesInstanceUID, data.SOPInstanceUID}
    assert len(seen | {source.SeriesInstanceUID, source.SOPInstanceUID}) == 6


def test_the_structured_report_holds_the_probabilities_and_refers_to_the_scan(files):
    held = highdicom.sr.srread(io.BytesIO(files["report-sr.dcm"]))
    (group,) = held.content.get_image_measurement_groups()
    told = json.loads(files["report.json"])["prediction"]
    values = {measurement.name.meaning: float(measurement.value) for measurement in group.get_measurements()}
    assert values == pytest.approx(
        {f"Probability of {name}": p for name, p in zip(told["classes"], told["probabilities"], strict=True)}
    )
    (answer,) = group.get_qualitative_evaluations()
    assert answer.value.meaning == told["answers"][0]
    source = pydicom.dcmread(io.BytesIO(dicom()))
    assert group.source_images[0].referenced_sop_instance_uid == source.SOPInstanceUID


def test_the_capture_is_the_scan_beside_its_maps_and_says_what_is_burned_in(files):
    data = pydicom.dcmread(io.BytesIO(files["report-sc.dcm"]))
    assert data.BurnedInAnnotation == "YES"
    assert data.Columns == 3 * data.pixel_array.shape[0] - 3 * (data.pixel_array.shape[0] - 512)
    assert np.ptp(data.pixel_array) > 100


def test_json_and_pdf_hold_no_identity_and_say_research_use(files):
    for name in ("report.json", "report.pdf"):
        assert not [secret for secret in (*SECRETS, NAME) if secret.encode() in files[name]]
    assert "Research use only" in json.loads(files["report.json"])["notice"]
    assert files["report.pdf"].startswith(b"%PDF")


def test_a_picture_without_headers_has_no_dicom_objects(model, tmp_path):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(out, "PNG")
    assert set(made(model, out.getvalue(), tmp_path)) == {"report.json", "report.pdf"}


def test_figures_are_confirmed_and_a_changed_one_is_found(files, tmp_path, capsys):
    scan = tmp_path / "scan.dcm"
    scan.write_bytes(dicom())
    report = tmp_path / "report.json"
    assert main(["verify", str(report), str(scan)]) == 0
    assert "differs" not in capsys.readouterr().out

    told = json.loads(files["report.json"])
    told["prediction"]["probabilities"][0] += 0.01
    report.write_text(json.dumps(told))
    assert main(["verify", str(report), str(scan)]) == 1
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("differs")] == [
        "differs  probability of non_covid"
    ]
    scan.write_bytes(dicom(instance=7))
    assert main(["verify", str(report), str(scan)]) == 1
    assert "differs  scan" in capsys.readouterr().out
    report.write_text("{}")
    assert main(["verify", str(report), str(scan)]) == 2
    assert "is no report of this program" in capsys.readouterr().err
