"""The doctor: each check says what it found, and what is broken is an error with a next step."""

import json
import os

import pytest

from medfusion import doctor, library
from medfusion.__main__ import main
from medfusion.records import keys


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDFUSION_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MEDFUSION_DATABASE_URL", raising=False)
    monkeypatch.delenv("MEDFUSION_RETENTION_DAYS", raising=False)
    return tmp_path / "home"


def test_a_sound_installation_has_no_error(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == set(doctor.CHECKS)
    assert {one["state"] for one in found.values()} <= {"ok", "warning"}
    assert "JPEG Lossless" in found["decoders"]["found"]
    assert "answers in" in found["answers"]["found"]


def test_a_model_whose_weights_are_not_those_of_its_card_is_an_error(tmp_path, monkeypatch):
    from tests.ui.conftest import make_model

    make_model(tmp_path / "models", "chest-xray", ("no", "yes"), ("DX",), colour=False)
    monkeypatch.setattr(library, "SHIPPED", tmp_path / "models")
    assert doctor.check("models").state == "ok"
    path = tmp_path / "models" / "chest-xray" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert doctor.check("models").state == "error"


def test_what_a_check_raises_is_a_finding_without_a_traceback(monkeypatch):
    def broken() -> doctor.Finding:
        raise ImportError("libsecret.so")

    monkeypatch.setitem(doctor.CHECKS, "device", broken)
    found = doctor.check("device")
    assert (found.state, "ImportError" in found.found, "libsecret" in found.found) == ("error", True, False)


@pytest.mark.skipif(os.name != "posix", reason="Permissions of files are another matter there")
def test_a_key_that_others_can_read_and_a_full_disk_are_told(monkeypatch):
    assert doctor.check("key").state == "ok"
    keys.path().chmod(0o644)
    assert "chmod 600" in doctor.check("key").found
    monkeypatch.setattr(doctor, "LITTLE_BYTES", 2**60)
    assert doctor.check("disk").state == "warning"


@pytest.mark.parametrize(("days", "state", "words"), [("30", "ok", "after 30 days"), ("soon", "error", "is 'soon'")])
def test_retention_is_as_it_was_set(monkeypatch, days, state, words):
    monkeypatch.setenv("MEDFUSION_RETENTION_DAYS", days)
    found = doctor.check("retention")
    assert found.state == state
    assert words in found.found
