"""Fetches in processes of their own, so that they outlive the page. `python -m medfusion.pacs.jobs ID` is one.

What to fetch goes in by the child's stdin and stays in its memory. On disk lies who started it and how far it is, in
numbers: fetches/ID.json and fetches/ID.told.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from medfusion import access, places, scorer
from medfusion.access import READER, Person, needs
from medfusion.errors import MedFusionError
from medfusion.pacs import archives, config
from medfusion.pacs.archives import Fetched, Pick

DIED = "The fetch ended before all was there. Fetch again: what came is kept."
STOPPED = "Stopped. What came is kept."
TOLD_S = 0.5  # between two notes of how far it is


@dataclass(frozen=True)
class Job:
    id: str
    archive: str
    fetched: Fetched
    error: str  # why it ended early, "" if it did not
    is_running: bool


def path(job_id: str, suffix: str = ".json") -> Path:
    return places.home() / "fetches" / f"{job_id}{suffix}"


@needs(READER)
def start(archive: str, picks: Sequence[Pick]) -> str:
    """Fetch in the background. Returns the id of the job. Raises ConfigError when there is no such archive."""
    archives.named(archive)
    who, job_id = access.current(), secrets.token_hex(8)
    environment = os.environ | {"PYTHONPATH": str(places.PROJECT), "MEDFUSION_HOME": str(places.home())}
    if "MEDFUSION_PACS" in environment:
        environment["MEDFUSION_PACS"] = str(config.path())
    places.make_home()
    with (places.home() / "fetch.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "medfusion.pacs.jobs", job_id], stdin=subprocess.PIPE, stdout=log, stderr=log,
            cwd=places.PROJECT, env=environment, start_new_session=True,
        )  # fmt: skip
    about = {"archive": archive, "actor": who.name, "pid": child.pid, "started": begun(child.pid)}
    places.write_whole(path(job_id), json.dumps(about).encode())
    wanted = {"archive": archive, "name": who.name, "role": who.role, "picks": [asdict(one) for one in picks]}
    if child.stdin is not None:
        with suppress(BrokenPipeError), child.stdin as into:  # one that died at once is seen as such
            into.write(json.dumps(wanted).encode())
    threading.Thread(target=child.wait, daemon=True).start()  # an ended child leaves no zombie
    return job_id


def begun(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return 0.0


@needs(READER)
def own() -> list[Job]:
    """The fetches of who is at work, the oldest first; ended ones until they are forgotten."""
    found = []
    every = [(at, held(at)) for at in path("x").parent.glob("*.json")]
    for at, about in sorted(every, key=lambda one: one[1].get("started", 0)):
        if about.get("actor") != access.current().name:
            continue
        told = held(at.with_suffix(".told"))
        process = process_of(about)
        is_running = process is not None and not told.get("ended")
        error = str(told.get("error", "")) or ("" if is_running or told.get("ended") else DIED)
        counts = {**told.get("fetched", {})}
        counts["problems"] = tuple(counts.get("problems", ()))
        found.append(Job(at.stem, about["archive"], Fetched(**counts), error, is_running))
    return found


def held(at: Path) -> dict[str, Any]:
    try:
        found = json.loads(at.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def process_of(about: dict[str, Any]) -> psutil.Process | None:
    """The process of a fetch, if it is still the same one and alive."""
    try:
        process = psutil.Process(int(about["pid"]))
        alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return process if alive and abs(process.create_time() - about["started"]) < 1 else None
    except (psutil.Error, KeyError, TypeError, ValueError):
        return None


@needs(READER)
def stop(job_id: str) -> None:
    """End a fetch of one's own. What came stays."""
    if job_id not in {job.id for job in own()}:
        return
    process = process_of(held(path(job_id)))
    if process is not None:
        with suppress(psutil.Error):
            process.terminate()
            process.wait(10)
    told = held(path(job_id, ".told"))
    if not told.get("ended"):
        places.write_whole(path(job_id, ".told"), json.dumps({**told, "ended": True, "error": STOPPED}).encode())


@needs(READER)
def forget(job_id: str) -> None:
    """Take an ended fetch of one's own off the list."""
    if job_id in {job.id for job in own() if not job.is_running}:
        for suffix in (".json", ".told"):
            path(job_id, suffix).unlink(missing_ok=True)


def main(job_id: str) -> int:
    """The child: fetch what stdin says as who started it."""
    wanted = json.loads(sys.stdin.read())
    person = Person(wanted["name"], wanted["role"])
    access.ask_whom(lambda: person)
    last, told_s = Fetched(), 0.0

    def note(so_far: Fetched, ended: bool = False, error: str = "") -> None:
        told = {"fetched": asdict(so_far), "ended": ended, "error": error}
        places.write_whole(path(job_id, ".told"), json.dumps(told).encode())

    def tell(so_far: Fetched) -> None:
        nonlocal last, told_s
        last = so_far
        if time.monotonic() - told_s > TOLD_S:
            note(so_far)
            told_s = time.monotonic()
            scorer.ensure()

    try:
        last = archives.fetch(wanted["archive"], [Pick(**one) for one in wanted["picks"]], tell)
        note(last, ended=True)
    except MedFusionError as error:
        note(last, ended=True, error=str(error))
    scorer.ensure()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
