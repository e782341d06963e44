"""`predict --out`: every file of an archive once, whatever breaks off on the way."""

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from medfusion.__main__ import main
from medfusion.commands import archive
from tests.core.test_commands import ROOT, folder, model  # noqa: F401


@pytest.fixture
def asked(folder, model, tmp_path):  # noqa: F811
    """A function that answers the folder or its zip, and gives the exit status and the rows."""
    path = tmp_path / "scans.zip"
    with zipfile.ZipFile(path, "w") as into:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                into.write(file, file.relative_to(folder).as_posix())

    def ask(source: str = str(path), out: str = "rows.jsonl") -> tuple[int, list[dict]]:
        status = main(["predict", source, "--model", model, "--device", "cpu", "--out", str(tmp_path / out)])
        written = tmp_path / out
        return status, [json.loads(line) for line in written.read_text().splitlines()] if written.exists() else []

    return ask


def test_zip_folder_and_address_give_the_same_rows_as_files_one_by_one(asked, folder, model, tmp_path, capsys):  # noqa: F811
    status, rows = asked()
    assert status == 1  # two of them are no pictures
    assert [row["path"] for row in rows] == ["a.dcm", "deeper/ακτίνα.png", "deeper/ωμέγα.png", "z"]
    assert asked(str(folder), "folder.jsonl")[1] == rows
    assert asked((tmp_path / "scans.zip").as_uri(), "address.jsonl")[1] == rows
    capsys.readouterr()
    main(["predict", str(folder), "--model", model, "--json", "--device", "cpu"])
    for row, one in zip(rows, json.loads(capsys.readouterr().out), strict=True):
        assert {name: one[name] for name in row if name != "path"} == {n: row[n] for n in row if n != "path"}
    assert not list(tmp_path.glob("*.parts"))


def test_what_was_broken_off_goes_on_with_what_is_missing(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "BLOCK", 1)
    scored, score = [], archive.Scorer.score

    def breaking(scorer: archive.Scorer, block: int) -> None:
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(block)
        score(scorer, block)

    monkeypatch.setattr(archive.Scorer, "score", breaking)
    with pytest.raises(KeyboardInterrupt):
        asked()
    assert len(list((tmp_path / "rows.jsonl.parts").glob("0*.jsonl"))) == 2
    monkeypatch.setattr(archive.Scorer, "score", lambda scorer, block: scored.append(block) or score(scorer, block))
    _, rows = asked()
    assert scored == [0, 1, 2, 3]
    monkeypatch.setattr(archive, "BLOCK", 128)
    assert rows == asked(out="at once.jsonl")[1]


def test_rows_of_two_archives_are_never_mixed(asked, folder, tmp_path, capsys):  # noqa: F811
    parts = tmp_path / "rows.jsonl.parts"
    parts.mkdir()
    (parts / archive.JOB).write_text("{}")
    assert asked() == (2, [])
    assert "holds answers to another archive" in capsys.readouterr().err


def test_an_answer_that_is_there_is_not_written_over(asked, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text('{"kept": 1}\n')
    assert asked() == (2, [{"kept": 1}])
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["none.zip", "memory://none.zip", "nothing://none.zip"])
def test_an_archive_that_is_not_there_is_told(asked, source, tmp_path, capsys):
    assert asked(source if "://" in source else str(tmp_path / source)) == (2, [])
    assert "none.zip" in capsys.readouterr().err


def test_a_process_killed_at_any_time_loses_nothing(folder, tmp_path):  # noqa: F811
    path, out = tmp_path / "many.zip", tmp_path / "rows.jsonl"
    picture = (folder / "deeper" / "ακτίνα.png").read_bytes()
    with zipfile.ZipFile(path, "w") as into:
        for number in range(300):
            into.writestr(f"{number:03}.png", picture)
    command = [
        sys.executable,
        "-m",
        "medfusion",
        "predict",
        str(path),
        "--model",
        "chest-xray",
        "--device",
        "cpu",
        "--out",
    ]
    parts = Path(f"{out}.parts")
    first = subprocess.Popen([*command, str(out)], cwd=ROOT, stderr=subprocess.DEVNULL)
    while first.poll() is None and not (parts / "000000.jsonl").exists():
        time.sleep(0.02)
    first.kill()
    first.wait()
    assert not out.exists()
    kept = (parts / "000000.jsonl").stat().st_mtime_ns
    second = subprocess.Popen([*command, str(out)], cwd=ROOT, stderr=subprocess.DEVNULL)
    while second.poll() is None and not (parts / "000001.jsonl").exists():
        assert (parts / "000000.jsonl").stat().st_mtime_ns == kept  # it was not scored again
        time.sleep(0.02)
    assert second.wait() == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["path"] for row in rows] == [f"{number:03}.png" for number in range(300)]
