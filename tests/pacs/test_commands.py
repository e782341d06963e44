"""The commands and the fetch in the background, as somebody at a terminal and a page use them."""

import json
import os
import subprocess
import sys
import time

import pytest

from medfusion import access, doctor, places, worklist
from medfusion.__main__ import main
from medfusion.access import READER, Person
from medfusion.errors import ConfigError
from medfusion.pacs import archives, jobs
from medfusion.pacs.archives import Pick
from medfusion.records import audit
from tests.pacs.conftest import configure, dimse_section, free_port
from tests.pacs.test_archives import SERIES, STUDY, report_of_file
from tests.pacs.test_trouble import reply, section, served
from tests.records.scans import NUMBER, SECRETS, dicom


@pytest.fixture(autouse=True)
def no_scorer(monkeypatch):
    monkeypatch.setattr("medfusion.scorer.ensure", lambda: None)


def test_find_fetch_and_send_from_the_terminal(archives_of, home, tmp_path, capsys):
    archives_of.put(dicom(1))
    assert main(["pacs", "echo"]) == 0
    assert capsys.readouterr().out.count("answers") == 2
    assert main(["pacs", "find", "web", "--patient", NUMBER, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["uid"] == STUDY
    assert main(["pacs", "find", "dimse", "--study", STUDY]) == 0
    assert SERIES in capsys.readouterr().out
    assert main(["pacs", "find", "web", "--patient", "nobody"]) == 1
    assert main(["pacs", "find", "web"]) == 2
    assert "Nothing was asked for" in capsys.readouterr().err
    assert main(["pacs", "fetch", "dimse", "--study", STUDY, "--series", SERIES]) == 0
    assert "1 new scan" in capsys.readouterr().out
    assert main(["pacs", "fetch", "web", "--study", STUDY]) == 0
    assert "1 already on the worklist" in capsys.readouterr().out

    (case,) = worklist.entries()
    assert main(["pacs", "send", "dimse", "--case", str(case.id)]) == 2  # no answer yet
    assert "nothing to report" in capsys.readouterr().err
    answer = {
        "model_id": "retina", "model_version": "1", "weights_sha256": "0" * 64, "frame": 0, "answers": ["covid"],
        "plausible": None, "probabilities": {}, "risk": 0.9, "uncertainty": 0.1, "along": [], "warnings": [],
    }  # fmt: skip
    worklist.keep_outcome(case.id, worklist.ANSWERED, answer=answer)
    capsys.readouterr()
    assert main(["pacs", "send", "dimse", "--case", str(case.id), "--method", "gradcam"]) == 0
    said = capsys.readouterr().out
    assert f"warning  case {case.id}  " in said  # of what is no picture of an eye
    assert "2 objects are stored" in said
    assert len(archives_of.objects()) == 3
    assert main(["pacs", "send", "web", "--case", str(case.id)]) == 2  # it came from the other one
    assert main(["pacs", "send", "web"]) == 2
    for name, made in zip(("sr", "sc"), report_of_file(), strict=True):
        (tmp_path / name).write_bytes(made)
    assert main(["pacs", "send", "web", str(tmp_path / "sr"), str(tmp_path / "sc")]) == 0
    assert len(archives_of.objects()) == 5


def test_what_the_libraries_would_say_of_odd_values_names_nobody(home):
    odd = {
        "0020000D": {"vr": "UI", "Value": ["no uid: Unmistakable"]}, "00100020": {"vr": "LO", "Value": ["U" * 80]},
        "00100030": {"vr": "DA", "Value": ["Unmistakable"]}, "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe"}]},
    }  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(places.PROJECT), "PYTHONWARNINGS": "default"}
    command = [sys.executable, "-m", "medfusion", "pacs", "find", "a", "--patient", "x"]
    with served(lambda handler: reply(handler, 200, json.dumps([odd]).encode())) as port:
        configure(home, section("web", port))
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "Doe" in told.stdout
    assert "Unmistakable" not in told.stderr


def test_echo_and_doctor_tell_which_archive_is_down(archives_of, home, capsys):
    at = home / "pacs.toml"
    down = dimse_section(archives_of, "down").replace(f"port = {archives_of.dicom_port}", f"port = {free_port()}")
    at.write_text(at.read_text() + down)
    assert main(["pacs", "echo"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "ok", "error"]
    assert doctor.names()[-3:] == ["archive web", "archive dimse", "archive down"]
    assert (doctor.check("archive web").state, doctor.check("archive down").state) == ("ok", "error")
    assert doctor.check("archives").found == "3 configured, no listener"
    (home / "password").chmod(0o644)
    assert "password can be read by others" in doctor.check("archives").found


def test_without_archives_the_doctor_is_content_and_a_broken_file_is_an_error(home):
    assert doctor.check("archives").state == "ok"
    configure(home, "[archives.x]\n")
    assert doctor.names()[-1] == "archives"
    assert "either url" in doctor.check("archives").found
    with pytest.raises(ConfigError):
        archives.configured()


def ended(job_id):
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        (job,) = [one for one in jobs.own() if one.id == job_id]
        if not job.is_running:
            return job
        time.sleep(0.1)
    raise AssertionError("it did not end")


def test_a_fetch_in_the_background_tells_how_far_it_is_and_belongs_to_who_started_it(archives_of, home, whom):
    whom[0] = Person("anna", READER)
    archives_of.put(*(dicom(number) for number in range(1, 6)))
    job = ended(jobs.start("web", [Pick(STUDY)]))
    assert (job.error, job.fetched.new, job.fetched.total, job.fetched.problems) == ("", 5, 5, ())
    assert {entry.actor for entry in audit.entries()} == {"anna"}
    told = b"".join(path.read_bytes() for path in (home / "fetches").iterdir())
    assert not [secret for secret in (*SECRETS, STUDY) if secret.encode() in told]
    assert (home / "fetch.log").read_bytes() == b""
    whom[0] = Person("berta", READER)
    assert jobs.own() == []
    jobs.forget(job.id)
    whom[0] = Person("anna", READER)
    assert len(jobs.own()) == 1
    jobs.forget(job.id)
    assert jobs.own() == []


def test_a_fetch_that_is_stopped_or_dies_leaves_what_came(archives_of, home):
    for number in range(1, 30):
        archives_of.put(dicom(number))
    job_id = jobs.start("web", [Pick(STUDY)])
    deadline = time.monotonic() + 120
    while not worklist.counts() and time.monotonic() < deadline:
        time.sleep(0.02)
    jobs.stop(job_id)
    (job,) = jobs.own()
    assert (job.is_running, job.error in (jobs.STOPPED, "")) == (False, True)
    came = len(worklist.entries())
    assert came >= 1
    job = ended(jobs.start("web", [Pick(STUDY)]))
    assert job.fetched.new + job.fetched.known == 29
    assert len(worklist.entries()) == 29

    died = jobs.start("web", [Pick(STUDY)])
    process = jobs.process_of(jobs.held(jobs.path(died)))
    if process:
        process.kill()
        process.wait(60)
    assert ended(died).error in (jobs.DIED, "")  # "" if it was faster


def test_a_fetch_of_what_is_not_configured_does_not_begin(home):
    with pytest.raises(ConfigError):
        jobs.start("web", [Pick(STUDY)])
    assert jobs.own() == []
    assert access.current().name == ""


def test_an_archive_that_fails_in_the_background_says_so(archives_of, home):
    at = home / "pacs.toml"
    at.write_text(at.read_text().replace(archives_of.http, f"http://127.0.0.1:{free_port()}"))
    assert "cannot be reached" in ended(jobs.start("web", [Pick(STUDY)])).error
