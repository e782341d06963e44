"""Start, list, stop and resume runs. Each is a folder and a child process that outlives the browser and the app.

Nothing here trains: `training/job.py` is what the child runs. Runs wait for each other, since they share one device.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from medfusion import places
from medfusion.cluster import is_wanted
from medfusion.errors import ConfigError, DataError
from training import cluster
from training.plan import Plan, read_plan, write_plan

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
INTERRUPTED = "interrupted"  # never written: what queued or running is without a process
PLAN, SOURCE, STATE, PROCESS = "plan.json", "source.json", "state.json", "process.json"
STOP, LOG = "stop", "log.txt"
RESERVE = "reserve"  # room for the last words of a run
HEAVY = (
    RESERVE, "ray", "checkpoints", "pictures.npy", "pictures.done", "curves", "model", "folds", "trials", "search.db",
)  # fmt: skip
POLL_S = 0.5
ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{4}")


@dataclass(frozen=True)
class State:
    """What state.json holds: how far the run came, by its own account."""

    status: str = QUEUED
    message: str = ""


@dataclass(frozen=True)
class Process:
    """What process.json holds: the run's process, by pid and start, for pids are used again; or its job's id."""

    pid: int = 0
    started_s: float = 0.0  # seconds since 1970
    job: str = ""  # of the cluster


@dataclass(frozen=True)
class Run:
    id: str
    folder: Path
    plan: Plan
    source: Path
    status: str
    message: str

    @property
    def is_active(self) -> bool:
        return self.status in (QUEUED, RUNNING)

    @property
    def is_stopping(self) -> bool:
        return self.status == RUNNING and (self.folder / STOP).exists()

    @property
    def can_finish(self) -> bool:
        """Whether it broke off with weights that are worth measuring."""
        return self.status in (INTERRUPTED, FAILED) and (self.folder / "checkpoints" / "best.ckpt").exists()

    @property
    def created(self) -> datetime:
        return datetime.strptime(self.id[:15], "%Y%m%d-%H%M%S")


def start(plan: Plan, source: Path) -> Run:
    """Make a run of a labelled set and begin, or queue behind those that run. source: a zip, folder or CSV."""
    run_id = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    folder = places.runs() / run_id
    folder.mkdir(parents=True)
    write_plan(folder / PLAN, plan)
    (folder / SOURCE).write_text(json.dumps(str(source.absolute())), encoding="utf-8")
    spawn(folder)
    return find(run_id)


def spawn(folder: Path, stopping: bool = False) -> None:
    """Start the process of a run, which outlives this program: on this machine, or on the cluster if there is one.

    stopping: it is to train no further, and to measure the best weights that it has.
    """
    (folder / STOP).unlink(missing_ok=True)
    if stopping:
        (folder / STOP).touch()
    write_state(folder, State(QUEUED))
    if is_wanted():
        write(folder / PROCESS, Process(job=cluster.submit(folder, folder / LOG)))
        return
    command = [sys.executable, "-m", "training.job", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(places.PROJECT), "MEDFUSION_HOME": str(places.home())}
    with (folder / LOG).open("ab") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=places.PROJECT, env=environment,
            start_new_session=True,
        )  # fmt: skip
    with suppress(psutil.NoSuchProcess):
        write(folder / PROCESS, Process(child.pid, psutil.Process(child.pid).create_time()))
    threading.Thread(target=child.wait, daemon=True).start()  # an ended child leaves no zombie


def find(run_id: str) -> Run:
    """Raises ConfigError when there is no such run."""
    folder = places.runs() / run_id
    if not ID.fullmatch(run_id) or not (folder / PLAN).is_file():
        raise ConfigError("This run is not there any more. Choose another one.")
    return read_run(folder)


def list_runs() -> list[Run]:
    """All runs, the newest first. A folder that is being deleted is passed over."""
    found = []
    for path in sorted(places.runs().glob(f"*/{PLAN}"), reverse=True):
        with suppress(OSError, ConfigError):
            found.append(read_run(path.parent))
    return found


def read_run(folder: Path) -> Run:
    plan = read_plan((folder / PLAN).read_text(encoding="utf-8"))
    source = Path(json.loads((folder / SOURCE).read_text(encoding="utf-8")))
    state = read_state(folder)
    active = state.status in (QUEUED, RUNNING)
    status = INTERRUPTED if active and not is_alive(folder) else state.status
    return Run(folder.name, folder, plan, source, status, state.message)


def read_state(folder: Path) -> State:
    try:
        return State(**json.loads((folder / STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return State()


def write_state(folder: Path, state: State) -> None:
    write(folder / STATE, state)


def write(path: Path, held: State | Process) -> None:
    """In one step, so that a reader never sees half of it."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(asdict(held)), encoding="utf-8")
    fresh.replace(path)


def read_process(folder: Path) -> Process:
    try:
        return Process(**json.loads((folder / PROCESS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Process()


def is_alive(folder: Path) -> bool:
    known = read_process(folder)
    return cluster.is_alive(known.job) if known.job else process_of(folder) is not None


def process_of(folder: Path) -> psutil.Process | None:
    """The living process of a run on this machine."""
    known = read_process(folder)
    if not known.pid:
        return None
    try:
        process = psutil.Process(known.pid)
        same = abs(process.create_time() - known.started_s) < 1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, TypeError, ValueError):  # gone, or half written and no pid at all
        return None


def stop(run_id: str) -> None:
    """End training after this step; the best weights so far are kept and measured."""
    run = find(run_id)
    if run.status == QUEUED:
        cancel(run_id)
    else:
        (run.folder / STOP).touch()


def cancel(run_id: str) -> None:
    """End the process at once and discard what it made; settings and curves stay for the list."""
    run = find(run_id)
    kill(run.folder)
    write_state(run.folder, State(CANCELLED, "Cancelled: what it had learned is discarded."))
    discard(run.folder)


def kill(folder: Path) -> None:
    if job := read_process(folder).job:
        cluster.end(job)
        return
    process = process_of(folder)
    if process is None:
        return
    family = [*process.children(recursive=True), process]
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=10)


def discard(folder: Path) -> None:
    for name in HEAVY:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def resume(run_id: str) -> None:
    """Go on from the last checkpoint of a run whose process is gone, or that failed."""
    run = find(run_id)
    if run.status not in (INTERRUPTED, FAILED):
        raise ConfigError("Only a run that was interrupted or failed can go on. Start a new one.")
    spawn(run.folder)


def finish(run_id: str) -> None:
    """Train no further: measure the best weights of a run whose process is gone, or that failed."""
    run = find(run_id)
    if not run.can_finish:
        raise ConfigError("This run has learned nothing yet that could be kept. Let it go on, or start a new one.")
    spawn(run.folder, stopping=True)


def delete(run_id: str) -> None:
    """Remove a run with all it made, its promoted model excepted: that one lies in the library."""
    run = find(run_id)
    kill(run.folder)
    shutil.rmtree(run.folder)


def free_source(source: Path) -> None:
    """Raises DataError while a run that may still go on reads this labelled set."""
    if any(run.source == source and run.status in (QUEUED, RUNNING, INTERRUPTED) for run in list_runs()):
        raise DataError("A run still needs this set. Wait for its end, or cancel it.")


def wait_for_turn(folder: Path, told: Callable[[str], None] = lambda _: None) -> FileLock:
    """Block until the runs that were queued earlier have ended, then hold the device. Called by the child."""
    lock = FileLock(places.runs() / "device.lock")
    while True:
        ahead = [run for run in list_runs() if run.is_active and run.id < folder.name]
        if not ahead:
            with suppress(Timeout):
                lock.acquire(timeout=0)
                return lock
        told(f"Waiting for {len(ahead) or 1} other run{'s' if len(ahead) > 1 else ''}")
        time.sleep(POLL_S)
