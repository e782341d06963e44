"""A backup holds everything, and is restored into any database, but only into an empty one."""

import json
import os
import zipfile

import pytest

from medfusion import worklist
from medfusion.__main__ import main
from medfusion.records import audit, database, keys
from tests.records.conftest import new_database
from tests.records.scans import dicom, png
from tests.records.test_worklist import answered


def moved(monkeypatch, tmp_path, address=None) -> None:
    """To a new installation."""
    monkeypatch.setenv("MEDFUSION_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.delenv("MEDFUSION_DATABASE_URL", raising=False)
    if address:
        monkeypatch.setenv("MEDFUSION_DATABASE_URL", address)


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_what_was_backed_up_is_there_again_in_any_database(home, target, tmp_path, monkeypatch, request, capsys):
    address = new_database(request.getfixturevalue("postgres")) if target == "postgresql" else None
    worklist.add(dicom())
    case_id = answered(0, risk=0.7)
    worklist.keep_read(case_id, "ill", "anna")
    before, log = worklist.entries(), audit.entries()
    contents = [one.path.read_bytes() for one in before]
    file = tmp_path / "backup.zip"
    assert main(["backup", str(file)]) == 0
    assert file.stat().st_mode & 0o077 == 0
    first = (database.address(), os.getpid())

    moved(monkeypatch, tmp_path, address)
    assert main(["restore", str(file)]) == 0
    assert "2 cases" in capsys.readouterr().out
    assert worklist.entries() == before
    assert [one.path.read_bytes() for one in worklist.entries()] == contents
    assert audit.entries() == log
    assert audit.verify() == (len(log), [])
    assert worklist.add(png(7))[0] > case_id
    assert audit.verify() == (len(log) + 1, [])
    assert main(["restore", str(file)]) == 2
    assert "There are records here already" in capsys.readouterr().err
    for used in (first, (database.address(), os.getpid())):
        database.engine(*used).dispose()


@pytest.mark.parametrize("home", ["sqlite"], indirect=True)
def test_what_is_no_backup_is_refused_in_a_sentence(home, tmp_path, capsys):
    (tmp_path / "none.zip").write_bytes(b"PK")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("about.json", json.dumps({"version": 1}))
    for name in ("none.zip", "other.zip", "missing.zip"):
        assert main(["restore", str(tmp_path / name)]) == 2
        assert f"{name} is no backup" in capsys.readouterr().err


@pytest.mark.parametrize("home", ["sqlite"], indirect=True)
def test_a_backup_with_another_key_or_a_name_that_leads_elsewhere_is_refused(home, tmp_path, monkeypatch, capsys):
    answered(0)
    assert main(["backup", str(tmp_path / "backup.zip")]) == 0
    moved(monkeypatch, tmp_path)
    keys.sign("", "")
    assert main(["restore", str(tmp_path / "backup.zip")]) == 2
    assert "has another key" in capsys.readouterr().err
    keys.path().unlink()
    keys.key.cache_clear()
    with zipfile.ZipFile(tmp_path / "backup.zip", "a") as archive:
        archive.writestr("cases/../../outside", b"x")
    assert main(["restore", str(tmp_path / "backup.zip")]) == 2
    assert not (tmp_path / "outside").exists()
    assert worklist.entries() == []
