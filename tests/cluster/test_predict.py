"""An archive is answered on a cluster of several nodes on this machine, and one of them is killed on the way."""

import io
import json
import threading
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from medfusion.commands import archive

FILES = 60
pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]  # Ray warns of itself


@pytest.fixture
def scans(tmp_path):
    path, rng = tmp_path / "scans.zip", np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as into:
        for number in range(FILES):
            out = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(out, "PNG")
            into.writestr(f"{number % 4}/{number:03}.png", out.getvalue())
        into.writestr("4/broken.png", b"\x89PNG\r\n\x1a\n")
    return path


def test_a_killed_node_loses_nothing_and_nothing_counts_twice(cluster, scans, tmp_path, monkeypatch):
    whole, nodes = cluster
    monkeypatch.setattr(archive, "BLOCK", 2)
    out, parts = tmp_path / "answers.jsonl", tmp_path / "answers.jsonl.parts"
    killed = []

    def kill() -> None:
        while len(list(parts.glob("[0-9]*.jsonl"))) < 4:
            time.sleep(0.05)
        killed.append(len(list(parts.glob("[0-9]*.jsonl"))))
        whole.remove_node(nodes[0], allow_graceful=False)

    threading.Thread(target=kill, daemon=True).start()
    assert archive.score(str(scans), out, "chest-xray", "cpu", 1) == 1
    assert killed
    assert killed[0] < (FILES + 1) / 2
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    with zipfile.ZipFile(scans) as given:
        assert [row["path"] for row in rows] == sorted(given.namelist())
    monkeypatch.delenv("RAY_ADDRESS")
    assert archive.score(str(scans), tmp_path / "here.jsonl", "chest-xray", "cpu", 1) == 1
    for row, own in zip(rows, (tmp_path / "here.jsonl").read_text().splitlines(), strict=True):
        own = json.loads(own)
        assert row.get("probabilities") == pytest.approx(own.get("probabilities"))
        assert (row["status"], row.get("answers")) == (own["status"], own.get("answers"))
