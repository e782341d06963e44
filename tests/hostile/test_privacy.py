"""A patient goes through the whole program. Afterwards nothing of her is left, in any file that it wrote."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from medfusion import worklist
from medfusion.records import audit, database, keys
from tests.hostile import identity
from tests.hostile.identity import FAMILY, MARKS, NAMED, NUMBER, left_in, marks_in
from tests.ui import browser
from tests.ui.accessible import download_maps, insist
from tests.ui.browser import ROOT
from tests.zips import zipped


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that everything which is written lies in: home, logs, temporary files, caches."""
    (tmp_path / "tmp").mkdir()
    for name in ("TMPDIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "tmp"))
    monkeypatch.delenv("MEDFUSION_KEEP_IDENTITY", raising=False)
    monkeypatch.delenv("MEDFUSION_DATABASE_URL", raising=False)
    return tmp_path


@pytest.fixture
def elsewhere(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What starts after the server keeps its files in another place: the browser is the reader's own."""
    for name in ("TMPDIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name)


def payload(name: str, content: bytes) -> dict[str, object]:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def damaged() -> list[dict[str, object]]:
    """What ends in an error, named after the patient."""
    whole = identity.dicom()
    return [
        payload(f"{NAMED}-cut.dcm", whole[: len(whole) // 2]),
        payload(f"{NAMED}-head.dcm", whole[:700]),
        payload(f"{NAMED}.png", f"Letter about {FAMILY}, {NUMBER}\n".encode() * 20),
        payload(f"{NAMED}.pdf", b"%PDF-1.7 " + FAMILY.encode()),
        payload(f"{NAMED}.jpg", identity.jpeg()[:300]),
    ]


def journey(page, addresses: list[str]) -> dict[str, bytes]:  # type: ignore[no-untyped-def]
    """Returns what was downloaded on the way."""
    upload = page.locator("input[type=file]").first
    upload.wait_for(state="attached")
    upload.set_input_files([payload(f"{NAMED}.dcm", identity.dicom()), *damaged()])
    page.get_by_text("files could not be shown").wait_for()
    page.get_by_text("Answer at the operating point").wait_for()
    page.get_by_text("Shortcuts.", exact=True).wait_for()
    page.get_by_role("button", name="Dismiss").click()  # another page adds to the same list
    page.get_by_text("files could not be shown").wait_for(state="detached")
    download = download_maps(page)
    taken = {download.suggested_filename: Path(download.path()).read_bytes()}
    addresses.append(page.url)
    page.get_by_role("link", name="Card of this model").click()
    page.get_by_text("Measure it on your own labelled pictures").click()
    for name, labelled in (
        (f"{NAMED}.zip", {f"{label}/{NAMED}{n}.png": identity.png(n) for label in LABELS for n in (1, 2)}),
        (f"{NAMED}-bad.zip", {f"{LABELS[0]}/{NAMED}.png": identity.png()[:200], f"{LABELS[1]}/a.png": identity.png()}),
    ):
        measure(
            page,
            payload(name, zipped(labelled)),
            "Report with figures" if "bad" not in name else "Mend or remove this file",
        )
    addresses.append(page.url)
    page.get_by_role("link", name="Worklist").click()
    page.get_by_text("Answered scans stand here").wait_for()
    inside = {f"{NAMED}/{n}-{NAMED}.dcm": identity.dicom(n) for n in (2, 3)} | {f"{NAMED}/4.png": identity.png()}
    page.locator("input[type=file]").first.set_input_files(
        [payload(f"{NAMED}.zip", zipped(inside)), payload(f"{NAMED}.jpeg", identity.jpeg()), *damaged()]
    )
    page.get_by_text("files could not be shown").wait_for()
    while worklist.counts().get(worklist.WAITING):
        page.wait_for_timeout(500)
    return taken


def measure(page, file: dict[str, object], words: str) -> None:  # type: ignore[no-untyped-def]
    """Drop the zip, and press until its result is there."""
    from playwright.sync_api import TimeoutError as TooLate

    dropped = page.locator(f"[data-testid=stFileChipName][title='{file['name']}']")

    def press() -> None:
        if not dropped.count():
            page.locator("input[type=file]").first.set_input_files(file)
            with suppress(TooLate):
                dropped.wait_for(timeout=30_000)
        page.get_by_role("button", name="Measure", exact=True).click()

    insist(page, press, page.get_by_text(words))


LABELS = ("normal", "pneumonia")


@pytest.mark.browser
@pytest.mark.timeout(900)
@pytest.mark.skipif(browser.CHROMIUM is None, reason="There is no Chromium: install it, or name it in CHROMIUM")
def test_nothing_of_the_patient_is_left_after_a_journey(  # type: ignore[no-untyped-def]
    watched: Path, address: str, elsewhere: None, browser_page, home: Path
) -> None:
    page, addresses = browser_page, [address]
    page.set_default_timeout(600_000)  # the machine may be very busy
    taken = journey(page, addresses)
    assert not any(marks_in(one.encode()) for one in addresses)

    spools = list((watched / "tmp").glob("medfusion-session-*"))
    found = left_in(watched)
    outside = {
        name: marks for name, marks in found.items() if not any(name.startswith(f"tmp/{one.name}/") for one in spools)
    }
    assert not outside  # while it is in view, the file lies in the folder of the session, and nowhere else
    assert not any(marks_in(name.encode()) for name in found)

    exports = worklist.entries()
    reports = {"list.csv": worklist.as_csv(exports).encode(), "list.json": worklist.as_json(exports).encode()}
    assert [one.status for one in exports].count(worklist.UNREADABLE) == 2  # cut off behind the headers
    assert len(exports) == 4 + 2
    for name, content in taken.items():
        if name.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                reports |= {inner: archive.read(inner) for inner in archive.namelist()}
        else:
            reports[name] = content
    carry = {name for name, content in reports.items() if marks_in(content)}
    assert carry
    assert all(name.endswith(".dcm") for name in carry)  # made for the archive that the scan came from

    page.context.close()


def test_what_a_crash_leaves_goes_with_the_next_start(watched: Path) -> None:
    made = "import os; from pages.ui.state import Spool; spool = Spool(); "
    keep = f"{made}(spool.folder / '1').write_text('x'); print(spool.folder, flush=True)"
    ended = subprocess.run(
        [sys.executable, "-c", f"{keep}; os._exit(9)"], cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    left = Path(ended.stdout.split()[-1])
    assert left.exists()
    next_one = subprocess.run([sys.executable, "-c", keep], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not left.exists()
    assert not Path(next_one.stdout.split()[-1]).exists()  # that one ended as it should


@pytest.fixture
def home(watched: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MEDFUSION_HOME", str(watched / "home"))
    where = database.address()
    yield watched / "home"
    database.engine(where, os.getpid()).dispose()
    database.engine.cache_clear()
    keys.key.cache_clear()


def kept(home: Path) -> list[Path]:
    return [path for path in (home / "cases").rglob("*") if path.is_file()]


def mentioning(home: Path, words: str) -> list[Path]:
    return [path for path in home.rglob("*") if path.is_file() and words.encode() in path.read_bytes()]


def test_a_patient_who_is_removed_leaves_no_file_and_no_row(home: Path) -> None:
    for number in (1, 2):
        worklist.add(identity.dicom(number))
    worklist.add(identity.png())
    patient = next(one.patient for one in worklist.entries() if one.patient)
    assert not left_in(home)
    assert worklist.remove_patient(NUMBER) == 2
    assert len(kept(home)) == 1
    assert all(one.patient != patient for one in worklist.entries())
    assert not mentioning(home, patient)
    assert not left_in(home)
    assert audit.verify()[1] == []


def test_cases_past_their_time_leave_no_file_and_no_row(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case_id, _ = worklist.add(identity.dicom())
    worklist.keep_read(case_id, "normal", comment="shadow on the left side")
    patient = worklist.find(case_id).patient
    assert worklist.expire(1) == 0
    assert worklist.expire(0) == 1
    assert kept(home) == []
    assert not mentioning(home, patient)
    assert not mentioning(home, "shadow on the left")


@pytest.mark.parametrize("command", ["inspect", "predict", "report", "verify"])
def test_commands_say_what_is_wrong_without_the_patient(command: str, watched: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(identity.dicom()[:60_000])
    more = {"predict": ["--model", "chest-xray"], "report": ["--model", "chest-xray", "--out", str(tmp_path / "out")]}
    inputs = [str(path), str(path)] if command == "verify" else [str(path)]
    done = subprocess.run(
        [sys.executable, "-m", "medfusion", command, *inputs, *more.get(command, [])], cwd=ROOT, capture_output=True,
        env=os.environ | {"MEDFUSION_HOME": str(watched / "home")}, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert not marks_in(done.stdout + done.stderr)
    assert b"Traceback" not in done.stderr
    assert re.search(rb"\w", done.stdout + done.stderr)


def test_the_search_finds_what_was_planted() -> None:
    assert marks_in(identity.dicom()) == set(MARKS)
    assert marks_in(zipped({"a.png": identity.png()})) >= {FAMILY, NUMBER}
    assert marks_in(FAMILY.upper().encode("utf-16-le")) == {FAMILY}
    assert not marks_in(b"nobody")


def test_a_report_is_written_without_a_word_about_odd_names(tmp_path: Path) -> None:
    """Run apart, for pytest would catch the warnings that a server's log shows."""
    made = f"""
import pathlib, torch
from tests.hostile import identity
from medfusion import apart, inference, report
from medfusion.explain import explain
from medfusion.explain.record import Tests
from medfusion.library import load
content = identity.dicom()
scan, model = apart.read_scan(content), load("chest-xray", "cpu")
said = inference.predict(model, scan)
maps = [explain(model, scan, 1, "gradcam")]
report.write(pathlib.Path({str(tmp_path)!r}), report.Report(content, scan, model, said, maps, Tests()))
"""
    done = subprocess.run([sys.executable, "-c", made], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not marks_in(done.stdout + done.stderr)
    assert marks_in((tmp_path / "report-sr.dcm").read_bytes())
    assert not marks_in((tmp_path / "report.json").read_bytes() + (tmp_path / "report.pdf").read_bytes())
