"""Reports: files that others can read, references that hold, no identity where none belongs, figures to check."""

import io
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from PIL import Image

from medfusion import inference, library, samples, verified
from medfusion.__main__ import main
from medfusion.explain import explain, record
from medfusion.explain.faithfulness import faithfulness
from medfusion.explain.shortcuts import shortcuts
from medfusion.imaging import read_scan
from medfusion.report import Report, write
from medfusion.report_parts import panels
from medfusion.report_pdf import as_pdf
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


@pytest.fixture(scope="module")
def in_print():
    """The words of a PDF, as a reader sees them."""
    program = shutil.which("pdftotext")
    if program is None:
        pytest.skip("pdftotext is not installed (Debian: apt install poppler-utils)")

    def words(content: bytes) -> str:
        told = subprocess.run([program, "-", "-"], input=content, capture_output=True, check=True)
        return " ".join(told.stdout.decode().split())

    return words


def test_the_pdf_says_what_was_answered_by_whom_and_how_sure(files, in_print):
    said, told = json.loads(files["report.json"])["prediction"], in_print(files["report.pdf"])
    for name, probability in zip(said["classes"], said["probabilities"], strict=True):
        assert f"{name.replace('_', ' ')}" in told and f"{100 * probability:.1f} %" in told
    for words in (
        said["model_version"],
        "held-out pictures (95 % interval",
        "Grad-CAM",
        "LIME",
        "seed 0",
        "0.661 × 0.661 mm",
    ):
        assert words in told
    assert told.count("Research use only") >= 2  # above and in the foot


def test_the_pdf_shows_code_as_code(model, in_print):
    scan = read_scan(dicom())
    card = replace(model.card, limits=("Measure it on your own pictures (`evaluate --model <id>`).",))
    report = Report(dicom(), scan, replace(model, card=card), inference.predict(model, scan), [], record.Tests())
    told = in_print(as_pdf(report))
    assert "(evaluate --model <id>)." in told and "`" not in told


def test_the_pdf_of_an_open_answer_says_that_the_model_abstains(model, in_print):
    scan = read_scan(dicom())
    sure = inference.predict(model, scan)
    report = Report(dicom(), scan, model, replace(sure, plausible=("non_covid", "covid")), [], record.Tests())
    told = in_print(as_pdf(report))
    for words in ("The model abstains", "it cannot tell non covid from covid", "Without abstaining: "):
        assert words in told
    assert "The model abstains" not in in_print(as_pdf(replace(report, prediction=replace(sure, plausible=("covid",)))))


def test_each_panel_bears_letters_and_ruler_in_the_proportions_of_the_body(model):
    scan = replace(read_scan(dicom()), spacing_mm=(2.0, 1.0))  # rows lie twice as far apart: twice as high as wide
    report = Report(b"", scan, model, inference.predict(model, scan), [], record.Tests())
    ((name, panel),) = panels(report)
    assert (name, panel.size) == ("Scan", (256, 512))
    bare = panels(replace(report, scan=replace(scan, orientation=None)))[0][1]
    changed = np.argwhere((np.asarray(panel) != np.asarray(bare)).any(axis=2))
    middle = np.array([256, 128])
    off = np.abs(changed - middle) / [256, 128]
    assert len(changed) and (off.max(axis=1) > 0.8).all()  # letters lie at the edges, and nothing else depends on them


def test_a_capture_of_unknown_orientation_claims_none(model, tmp_path):
    source = pydicom.dcmread(io.BytesIO(dicom()))
    del source.ImageOrientationPatient
    out = io.BytesIO()
    pydicom.dcmwrite(out, source)
    found = pydicom.dcmread(io.BytesIO(made(model, out.getvalue(), tmp_path)["report-sc.dcm"]))
    assert not found.PatientOrientation


def test_tests_of_maps_are_made_again_when_a_report_is_verified(model):
    scan = read_scan(dicom())
    made = [explain(model, scan, 1, "gradcam")]
    tests = record.Tests(
        {"gradcam": faithfulness(model, scan, made[0])}, {}, {"gradcam": shortcuts(model, scan, made[0])}
    )
    told = json.loads(json.dumps(record.account(model, made, tests)))
    assert {name for name, holds in verified.around(told, model, scan, made) if holds} == {
        "words on gradcam", "faithfulness of gradcam", "stability of gradcam", "shortcuts",
    }  # fmt: skip
    told["methods"]["gradcam"]["faithfulness"]["is_better_than_random"] ^= True
    told["shortcuts"] = {**told["shortcuts"], next(iter(told["shortcuts"])): 0.123}
    assert {name for name, holds in verified.around(told, model, scan, made) if not holds} == {
        "faithfulness of gradcam", "shortcuts",
    }  # fmt: skip


def test_a_picture_without_headers_has_no_dicom_objects(model, tmp_path):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(out, "PNG")
    assert set(made(model, out.getvalue(), tmp_path)) == {"report.json", "report.pdf"}


def test_figures_are_confirmed_and_a_changed_one_is_found(files, tmp_path, capsys):
    scan = tmp_path / "scan.dcm"
    scan.write_bytes(dicom())
    report = tmp_path / "report.json"
    assert main(["verify", str(report), str(scan)]) == 0
    out = capsys.readouterr().out
    assert "differs" not in out
    assert {"operating point", "words on gradcam", "words on lime", "agreement of the maps", "map by lime"} <= {
        line.removeprefix("holds").strip() for line in out.splitlines()
    }

    told = json.loads(files["report.json"])
    told["prediction"]["probabilities"][0] += 0.01
    report.write_text(json.dumps(told))
    assert main(["verify", str(report), str(scan)]) == 1
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("differs")] == [
        "differs  probability of non_covid"
    ]
    for change, name in (
        (lambda told: told["prediction"]["operating_point"].update(rule="another"), "operating point"),
        (lambda told: told["maps"]["methods"]["gradcam"].update(in_words="All is well."), "words on gradcam"),
        (lambda told: told["maps"]["agreement"]["gradcam,lime"].update(rank_correlation=0.99), "agreement of the maps"),
        (lambda told: told["maps"]["methods"]["lime"]["sha256"].update(raw="0" * 64), "map by lime"),
        (lambda told: told["prediction"].update(model_version="1999.1.1"), "model"),
    ):
        told = json.loads(files["report.json"])
        change(told)
        report.write_text(json.dumps(told))
        assert main(["verify", str(report), str(scan)]) == 1
        assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("differs")] == [
            f"differs  {name}"
        ]
    scan.write_bytes(dicom(instance=7))
    assert main(["verify", str(report), str(scan)]) == 1
    assert "differs  scan" in capsys.readouterr().out
    report.write_text("{}")
    assert main(["verify", str(report), str(scan)]) == 2
    assert "is no report of this program" in capsys.readouterr().err


WARNING = "This picture does not look like those that the model was trained on."


def texts(content: bytes) -> list[str]:
    """All texts of a structured report."""
    elements = pydicom.dcmread(io.BytesIO(content)).iterall()
    return [str(element.value) for element in elements if element.keyword == "TextValue"]


def test_what_speaks_against_an_answer_is_in_every_file(model, tmp_path):
    scan = read_scan(dicom())
    said = inference.predict(model, scan)
    doubted = replace(said, warnings=(WARNING,), plausible=said.classes[:2])
    quiet = replace(said, warnings=(), plausible=said.answers)
    files, without = (
        {path.name: path.read_bytes() for path in write(tmp_path / name, report)}
        for name, prediction in (("doubted", doubted), ("quiet", quiet))
        for report in [Report(dicom(), scan, model, prediction, [explain(model, scan, 1, "gradcam")], record.Tests())]
    )
    assert json.loads(files["report.json"])["prediction"]["warnings"] == [WARNING]
    assert WARNING in texts(files["report-sr.dcm"])
    told = [words for words in texts(files["report-sr.dcm"]) if words.startswith("The model abstains")]
    possible = " from ".join(name.replace("_", " ") for name in said.classes[:2])
    assert told == [f"The model abstains. At 90 % coverage it cannot tell {possible}."]
    assert not any("abstains" in words for words in texts(without["report-sr.dcm"]))
    rows = [pydicom.dcmread(io.BytesIO(kept["report-sc.dcm"])).Rows for kept in (files, without)]
    assert rows[0] > rows[1]  # the words stand below the pictures
    validator = shutil.which("dciodvfy")
    if validator:
        for name in ("report-sr.dcm", "report-sc.dcm"):
            said_of = subprocess.run(
                [validator, str(tmp_path / "doubted" / name)], capture_output=True, text=True, check=False
            )
            assert "Error" not in said_of.stdout + said_of.stderr


def test_the_command_warns_of_a_scan_that_another_model_is_for(tmp_path, capsys):
    path = tmp_path / "scan.png"
    path.write_bytes(samples.sample_bytes("fundus"))
    assert main(["report", str(path), "--model", "chest-xray", "--method", "gradcam", "--out", str(tmp_path)]) == 0
    words = "This picture does not look like those that the model was trained on"
    assert f"warning  scan.png  {words}" in capsys.readouterr().out
    told = json.loads((tmp_path / "report.json").read_text())["prediction"]
    assert any(words in one for one in told["warnings"])
    assert "those that retina was trained on" in told["override"]
