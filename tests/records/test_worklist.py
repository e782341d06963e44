"""The worklist: scans come in without their patient, get answers in order of risk, and go with all that was kept."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest
from sqlalchemy import text

from medfusion import places, privacy, scorer, triage, worklist
from medfusion.__main__ import main
from medfusion.errors import NotAnImage, RecordsError
from medfusion.imaging import display, read_scan
from medfusion.records import audit, database
from medfusion.records.database import session
from tests.records.scans import NAME, NUMBER, SECRETS, chest, dicom, png


def answer(risk=0.5, uncertainty=0.2, answers=("ill",), **more):
    held = {
        "model_id": "toy", "model_version": "1", "weights_sha256": "0" * 64, "frame": 0, "answers": list(answers),
        "plausible": list(answers), "probabilities": {"ill": risk, "well": 1 - risk}, "risk": risk,
        "uncertainty": uncertainty, "along": [], "warnings": [],
    }  # fmt: skip
    return held | more


def answered(seed: int, **given) -> int:
    case_id, _ = worklist.add(png(seed))
    worklist.keep_outcome(case_id, worklist.ANSWERED, answer=answer(**given), modality="DX", frames=1)
    return case_id


def everything_on_disk(folder) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_the_same_file_is_one_case_however_often_it_comes(home):
    first, again, other = worklist.add(png(0)), worklist.add(png(0)), worklist.add(png(1))
    assert (first[1], again, other[1]) == (True, (first[0], False), True)
    assert worklist.counts() == {worklist.WAITING: 2}


def test_a_case_without_an_answer_gets_another_try_when_it_comes_again(home):
    case_id, _ = worklist.add(png(0))
    worklist.keep_outcome(case_id, worklist.UNREADABLE, "It took too long.")
    assert worklist.add(png(0)) == (case_id, True)
    assert worklist.find(case_id).status == worklist.WAITING
    worklist.keep_outcome(case_id, worklist.ANSWERED, answer=answer())
    assert worklist.add(png(0)) == (case_id, False)
    assert worklist.find(case_id).status == worklist.ANSWERED


def test_what_is_no_image_is_refused_and_nothing_is_kept(home):
    with pytest.raises(NotAnImage):
        worklist.add(b"hello")
    assert worklist.counts() == {}
    assert not places.cases().exists()


def test_the_riskiest_comes_first_and_of_equal_ones_the_least_certain(home):
    low, high = answered(0, risk=0.1), answered(1, risk=0.9)
    unsure = answered(2, risk=0.9, uncertainty=0.8)
    waits, _ = worklist.add(png(3))
    assert [one.id for one in worklist.entries()] == [unsure, high, low, waits]


def test_each_order_puts_first_what_it_says(home):
    risky, unsure = answered(0, risk=0.9, uncertainty=0.1), answered(1, risk=0.2, uncertainty=0.9)
    both, waits = answered(2, risk=0.6, uncertainty=0.6), worklist.add(png(3))[0]

    def ordered(name: str) -> list[int]:
        return [one.id for one in sorted(worklist.entries(), key=worklist.ORDERS[name])]

    assert ordered("Risk") == [risky, both, unsure, waits]
    assert ordered("Uncertainty") == [unsure, both, risky, waits]
    assert ordered("Risk × uncertainty") == [both, unsure, risky, waits]  # 0.36, 0.18, 0.09
    assert ordered("Newest") == [waits, both, unsure, risky]


def test_slices_come_in_the_order_of_the_patient_and_so_does_their_risk(home):
    ids = {number: worklist.add(dicom(number))[0] for number in (3, 1, 2)}
    for number, risk in ((1, 0.2), (3, 0.7)):
        worklist.keep_outcome(ids[number], worklist.ANSWERED, answer=answer(risk=risk), modality="CT", frames=1)
    one = worklist.find(ids[3])
    assert [other.id for other in worklist.slices(one)] == [ids[1], ids[2], ids[3]]
    assert worklist.risk_along(one) == [0.2, None, 0.7]
    alone = worklist.find(answered(9))
    assert worklist.slices(alone) == [alone]


def test_pictures_of_one_patient_are_found_with_the_days_between_and_without_any_date(home):
    ids = []
    for study, date, patient in (("1.1", "20240228", NUMBER), ("1.2", "20240301", NUMBER), ("1.3", "20240301", "x")):
        data = pydicom.dcmread(io.BytesIO(dicom(1, patient, study)))
        data.StudyDate = date
        out = io.BytesIO()
        pydicom.dcmwrite(out, data)
        ids.append(worklist.add(out.getvalue())[0])
        worklist.keep_outcome(ids[-1], worklist.ANSWERED, answer=answer(), modality="CT", frames=1)
    first, second, stranger = map(worklist.find, ids)
    assert {one.id for one in worklist.of_patient(first.patient)} == set(ids[:2])
    assert worklist.of_patient("") == []
    assert second.day - first.day == 2  # a leap year
    assert second.day != stranger.day  # the same date on another patient's calendar
    assert b"20240301" not in everything_on_disk(home)


def test_a_case_that_was_answered_or_removed_meanwhile_keeps_its_first_answer(home):
    case_id = answered(0, risk=0.4)
    worklist.keep_outcome(case_id, worklist.ANSWERED, answer=answer(risk=0.9))
    assert worklist.find(case_id).answer.risk == 0.4
    worklist.remove([case_id])
    worklist.keep_outcome(case_id, worklist.ANSWERED, answer=answer())
    with pytest.raises(RecordsError, match="is not there any more"):
        worklist.find(case_id)


def test_files_of_one_study_stay_together_and_nobody_can_tell_whose_they_are(home):
    ids = [worklist.add(dicom(instance))[0] for instance in (2, 1)]
    other = worklist.add(dicom(1, patient="somebody else", study="1.2.9"))[0]
    found = {one.id: one for one in worklist.entries()}
    assert found[ids[0]].study == found[ids[1]].study != found[other].study
    assert found[ids[0]].patient == found[ids[1]].patient != found[other].patient
    assert [found[number].instance for number in ids] == [2, 1]
    kept = everything_on_disk(home) + repr(list(found.values())).encode()
    for secret in (*SECRETS, NAME, "1.2.3.4", "SECRET VENDOR", "NOWHERE"):
        assert secret.encode() not in kept


def test_a_stripped_scan_shows_what_the_file_showed():
    before, after = (read_scan(content) for content in (dicom(), privacy.strip(dicom()).content))
    assert np.array_equal(before.frames, after.frames)
    assert np.array_equal(display(before), display(after))
    assert (before.spacing_mm, before.modality, before.orientation) == (
        after.spacing_mm, after.modality, after.orientation,
    )  # fmt: skip
    data = pydicom.dcmread(io.BytesIO(privacy.strip(dicom()).content))
    assert (data.PatientIdentityRemoved, data.DeidentificationMethod) == ("YES", "PS3.15 basic profile")
    assert data.SOPInstanceUID == data.file_meta.MediaStorageSOPInstanceUID != "1.2.3.4.5.1"


def test_the_text_around_a_picture_of_another_format_goes_too(home):
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    out, about = io.BytesIO(), PngInfo()
    about.add_text("Patient", NAME)
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(out, "PNG", pnginfo=about)
    kept = privacy.strip(out.getvalue()).content
    assert NAME.encode() not in kept
    assert np.array_equal(read_scan(kept).frames, read_scan(out.getvalue()).frames)


def test_a_site_may_keep_files_as_they_come(home, monkeypatch):
    monkeypatch.setenv("MEDFUSION_KEEP_IDENTITY", "1")
    case_id, _ = worklist.add(dicom())
    assert worklist.find(case_id).path.read_bytes() == dicom()


@pytest.mark.parametrize(("said", "modality", "expected"), [("YES", "CT", True), ("NO", "US", False), ("", "US", True)])
def test_burned_in_text_is_told_where_the_file_says_so_or_its_kind_has_some(said, modality, expected):
    data = pydicom.dcmread(io.BytesIO(dicom()))
    data.Modality = modality
    if said:
        data.BurnedInAnnotation = said
    out = io.BytesIO()
    data.save_as(out)
    assert privacy.strip(out.getvalue()).burned_in is expected


def test_a_read_says_whether_it_agrees_and_what_was_said_before(home):
    case_id = answered(0, answers=("ill",))
    worklist.keep_read(case_id, "ill", "anna", seconds=4.5)
    worklist.keep_read(case_id, "well", "berta", first_label="ill", comment="see the hilum")
    assert worklist.find(case_id).label == "well"
    with session() as opened:
        rows = opened.execute(text("SELECT reader, agrees, first_label FROM reads ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [("anna", True, ""), ("berta", False, "ill")]
    assert audit.entries(1)[0].details == {"agrees": False, "read_first": True}
    with pytest.raises(RecordsError, match="is not there any more"):
        worklist.keep_read(case_id + 1, "ill")


def test_a_removed_case_is_gone_from_disk_and_database_but_the_log_tells_of_it(home):
    case_id = answered(0)
    worklist.keep_read(case_id, "ill")
    path = worklist.find(case_id).path
    assert path.exists()
    assert worklist.remove([case_id, 999], "anna") == 1
    assert not path.exists()
    with session() as opened:
        assert [opened.scalar(text(f"SELECT count(*) FROM {name}")) for name in ("cases", "answers", "reads")] == [
            0
        ] * 3
    assert audit.entries(1)[0].subject == f"case {case_id}"
    assert audit.verify()[1] == []
    assert worklist.add(png(5))[0] > case_id  # no number is used again


def test_a_patient_is_forgotten_by_the_id_in_the_files(home, capsys):
    for instance in (1, 2):
        worklist.add(dicom(instance))
    kept, _ = worklist.add(dicom(1, patient="somebody else", study="1.2.9"))
    assert main(["forget", "--patient", NUMBER]) == 0
    assert "2 cases removed" in capsys.readouterr().out
    assert [one.id for one in worklist.entries()] == [kept]
    assert main(["forget", "--patient", worklist.find(kept).patient]) == 0
    assert worklist.entries() == []


def files_of_tables(home: Path) -> Path:
    """Where the database keeps its tables; all that it holds is written there first."""
    if database.is_sqlite():
        return home
    with database.engine(database.address(), os.getpid()).connect() as opened:
        opened = opened.execution_options(isolation_level="AUTOCOMMIT")
        for command in ("ANALYZE", "CHECKPOINT"):
            opened.exec_driver_sql(command)
        return Path(opened.exec_driver_sql("SHOW data_directory").scalar_one()) / "base"


def mentioning(folder: Path, words: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and words.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    "remove", [lambda: worklist.remove_patient(NUMBER), lambda: worklist.expire(0)], ids=["patient", "age"]
)
def test_what_is_removed_is_in_no_table_file_any_more(home, remove):
    for instance in range(1, 21):
        case_id, _ = worklist.add(dicom(instance))
        comment = f"shadow {os.urandom(8).hex()} on the left"
        worklist.keep_read(case_id, "ill", comment=comment)
    patient = worklist.find(case_id).patient
    worklist.add(png(0))
    for words in (patient, comment):
        assert mentioning(files_of_tables(home), words)
    assert remove() >= 20
    for words in (patient, comment):
        assert not mentioning(files_of_tables(home), words)


def test_a_reader_who_holds_the_tables_does_not_keep_a_case_from_being_removed(home, monkeypatch, caplog):
    monkeypatch.setattr(database, "BUSY_S", 0.1)
    case_id, _ = worklist.add(png(0))
    with session() as opened:
        opened.execute(text("SELECT * FROM reads")).all()
        assert worklist.remove([case_id]) == 1
    assert worklist.entries() == []
    assert ("still in the files" in caplog.text) is not database.is_sqlite()


def test_cases_expire_after_the_days_that_a_site_keeps_them(home):
    old, _ = worklist.add(png(0))
    new, _ = worklist.add(png(1))
    with session(writes=True) as opened:
        then = datetime.now(UTC) - timedelta(days=31)
        opened.execute(worklist.CaseRow.__table__.update().where(worklist.CaseRow.id == old).values(added=then))
    assert worklist.expire(30) == 1
    assert [one.id for one in worklist.entries()] == [new]


def test_an_export_holds_no_identity_and_no_formula(home):
    worklist.add(dicom())
    case_id = answered(0, answers=("=1+1",))
    worklist.keep_read(case_id, "@SUM(A1)")
    listed = worklist.entries()
    table = list(csv.DictReader(io.StringIO(worklist.as_csv(listed))))
    assert len(table) == 2
    assert (table[0]["answer"], table[0]["read"]) == ("'=1+1", "'@SUM(A1)")
    told = json.loads(worklist.as_json(listed))
    assert told[0]["probabilities"] == {"ill": 0.5, "well": 0.5}
    assert not [secret for secret in SECRETS if secret in worklist.as_csv(listed) + worklist.as_json(listed)]


def test_risk_is_what_is_left_beside_the_harmless_classes():
    row = np.array([0.2, 0.3, 0.5])
    assert triage.risk_of(row, ("benign", "malignant", "normal")) == pytest.approx(0.3)
    assert triage.risk_of(row, ("a", "b", "c")) == pytest.approx(0.5)
    assert triage.uncertainty_of(np.array([0.5, 0.5]), "binary") == pytest.approx(1)
    assert triage.uncertainty_of(np.array([1.0, 0.0, 0.0]), "multiclass") == pytest.approx(0, abs=1e-6)
    assert triage.uncertainty_of(np.array([0.5, 1.0]), "multilabel") == pytest.approx(0.5, abs=1e-6)


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps rights elsewhere")
def test_a_folder_made_for_the_records_is_for_its_owner_only(home):
    worklist.add(png(0))
    assert home.stat().st_mode & 0o077 == 0


def test_two_processes_that_add_at_once_lose_nothing(home):
    program = (
        "import sys; from medfusion import worklist; from tests.records.scans import png\n"
        "for seed in range(12): worklist.add(png(seed + 10 * int(sys.argv[1])))"
    )
    environment = os.environ | {"PYTHONPATH": str(places.PROJECT), "OMP_NUM_THREADS": "1"}
    children = [
        subprocess.Popen([sys.executable, "-c", program, str(number)], env=environment, stderr=subprocess.PIPE)
        for number in range(3)
    ]
    for child in children:
        _, said = child.communicate(timeout=300)
        assert child.returncode == 0, said
    assert worklist.counts() == {worklist.WAITING: 32}  # 0 to 31, two of each neighbour in common
    assert audit.verify() == (32, [])


@pytest.mark.parametrize("home", ["sqlite"], indirect=True)
def test_the_scorer_answers_what_waits_and_tells_why_it_cannot(home):
    scan, _ = worklist.add(chest())
    picture, _ = worklist.add(png(1))
    gone, _ = worklist.add(png(2))
    worklist.find(gone).path.unlink()
    scorer.ensure()
    deadline = time.monotonic() + 300
    while worklist.counts().get(worklist.WAITING) and time.monotonic() < deadline:
        time.sleep(0.2)
    found = {one.id: one for one in worklist.entries()}
    assert places.is_running(scorer.LOCK)
    assert (found[scan].status, found[scan].answer.model_id) == (worklist.ANSWERED, "chest-xray")
    assert (found[scan].modality, found[scan].frames) == ("DX", 1)
    assert found[scan].answer.risk == pytest.approx(found[scan].answer.probabilities["pneumonia"])
    assert found[picture].status == worklist.REFUSED
    assert found[picture].reason
    assert (found[gone].status, found[gone].reason) == (worklist.UNREADABLE, "The file of this case is gone.")
    assert audit.verify() == (6, [])
    subprocess.run(["pkill", "-f", "medfusion.scorer"], check=False)


@pytest.mark.parametrize("home", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("death", "suspects"),
    [("os.kill(os.getpid(), 9)", 0), ("__import__('time').sleep(60)", 0), ("os.kill(os.getpid(), 9)", 2)],
)
def test_a_file_that_kills_its_reader_is_blamed_and_the_others_are_answered(home, death, suspects):
    evil, _ = worklist.add(png(1))
    good, _ = worklist.add(chest())
    for case_id in (evil, good)[:suspects]:  # of a process that died while it read two at once
        worklist.suspects_folder().mkdir(exist_ok=True)
        (worklist.suspects_folder() / str(case_id)).touch()
    program = f"""
import os, sys
from medfusion import apart, scorer
whole = apart.read_scan
def deadly(data, *rest):
    if data[:2] == b"II":  # the first one: bare pixels as TIFF
        {death}
    return whole(data, *rest)
apart.read_scan, scorer.LONGEST_S = deadly, 3.0
sys.exit(scorer.main(idle_s=0.1))
"""
    environment = os.environ | {"PYTHONPATH": str(places.PROJECT), "OMP_NUM_THREADS": "1"}
    codes = [subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode for _ in "ab"]
    assert codes[0] in (-9, 3)
    assert codes[1] == 0
    found = {one.id: one for one in worklist.entries()}
    assert (found[evil].status, found[evil].reason) == (worklist.UNREADABLE, scorer.BLAMED)
    assert found[good].status == worklist.ANSWERED
