"""Runs in processes of their own: they wait for each other, survive being killed, and end as they say."""

import errno
import json
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from medfusion.errors import ConfigError, DataError
from medfusion.labelled import Case, LabelledSet
from medfusion.types import InputSpec
from training import datasets, events, job, jobs, record
from training.checkpoints import WholeCheckpoints
from training.config import TrainConfig
from training.finish import About
from training.jobs import Process, State
from training.plan import Plan

PATIENCE_S = 300  # far more than any of these runs takes
SMALL = TrainConfig(
    start="scratch", frozen_stages=0, epochs=4, train_px=32, side_px=64, batch_size=8, workers=0, device="cpu",
    sanity_scans=0, sanity_epochs=0, average_decay=0.5,
)  # fmt: skip
PLAN = Plan("sides", SMALL, About("Sides"))
ROOMY, FULL = (SimpleNamespace(free=free) for free in (2**40, job.LITTLE_BYTES - 1))
LONG = replace(PLAN, settings=replace(SMALL, epochs=500, patience=500))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An installation of its own, whose children do not crowd the machine; none of them outlives the test."""
    monkeypatch.setenv("MEDFUSION_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield tmp_path / "home"
    for run in jobs.list_runs():
        if jobs.process_of(run.folder) != psutil.Process():
            jobs.kill(run.folder)


def wait_until(happened, run_id):
    deadline = time.monotonic() + PATIENCE_S
    while not happened(jobs.find(run_id)):
        run = jobs.find(run_id)
        assert time.monotonic() < deadline, f"{run.status}: {(run.folder / jobs.LOG).read_text()}"
        time.sleep(0.05)
    return jobs.find(run_id)


def ended(run_id):
    return wait_until(lambda run: not run.is_active, run_id)


def began_to_learn(run):
    return events.epochs(events.read_events(run.folder)) != []


def idle(run_id="20251123-101500-00ff", plan=PLAN, **state):
    """The folder of a run without any process."""
    folder = jobs.places.runs() / run_id
    folder.mkdir(parents=True)
    jobs.write_plan(folder / jobs.PLAN, plan)
    (folder / jobs.SOURCE).write_text(json.dumps("/nowhere/set.zip"))
    if state:
        jobs.write_state(folder, State(**state))
    return folder


def test_a_killed_run_lets_the_next_one_work_and_goes_on_to_the_same_weights(labelled_zip):
    first = jobs.start(PLAN, labelled_zip)
    while datetime.now() < first.created + timedelta(seconds=1):
        time.sleep(0.05)  # which of two runs of one second comes first is not told
    second = jobs.start(PLAN, labelled_zip)
    wait_until(began_to_learn, first.id)
    assert jobs.find(first.id).status == jobs.RUNNING
    assert jobs.find(second.id).status == jobs.QUEUED
    assert events.last(events.read_events(second.folder), "begin") is None

    jobs.kill(first.folder)
    assert jobs.find(first.id).status == jobs.INTERRUPTED
    assert len(events.epochs(events.read_events(first.folder))) < SMALL.epochs
    whole = ended(second.id)
    assert (whole.status, whole.message) == (jobs.DONE, "")

    jobs.resume(first.id)
    assert jobs.find(first.id).is_active
    resumed = ended(first.id)
    assert (resumed.status, resumed.message) == (jobs.DONE, "")
    weights, again = ((run.folder / "model" / "weights.safetensors").read_bytes() for run in (whole, resumed))
    assert weights == again
    told = events.read_events(resumed.folder)
    assert [epoch["epoch"] for epoch in events.epochs(told)] == list(range(SMALL.epochs))
    assert [epoch["val_loss"] for epoch in events.epochs(told)] == [
        epoch["val_loss"] for epoch in events.epochs(events.read_events(whole.folder))
    ]

    results = [json.loads((run.folder / "result.json").read_text()) for run in (whole, resumed)]
    assert results[0] == results[1]
    assert results[0]["verdict"] == "alone"
    for run in (whole, resumed):
        known = record.MlflowClient(record.address()).get_run(record.known_run(run.id))
        assert known.data.params["model_id"] == "sides"
        assert known.data.params["epochs"] == "4"
        assert "val_loss" in known.data.metrics


def test_a_stopped_run_keeps_its_best_weights_and_measures_them(labelled_zip):
    run = jobs.start(LONG, labelled_zip)
    wait_until(began_to_learn, run.id)
    jobs.stop(run.id)
    assert jobs.find(run.id).is_stopping
    stopped = ended(run.id)
    assert (stopped.status, stopped.message) == (jobs.DONE, "Stopped early.")
    assert not stopped.is_stopping
    assert 1 <= len(events.epochs(events.read_events(run.folder))) < 500
    assert (run.folder / "model" / "weights.safetensors").is_file()
    assert json.loads((run.folder / "result.json").read_text())["n"] > 0


def test_a_run_that_broke_off_can_be_finished_with_the_best_that_it_has(labelled_zip):
    run = jobs.start(LONG, labelled_zip)
    with pytest.raises(ConfigError, match="nothing yet"):
        jobs.finish(run.id)
    wait_until(began_to_learn, run.id)
    wait_until(lambda run: (run.folder / "checkpoints" / "last.ckpt").exists(), run.id)
    jobs.kill(run.folder)
    learned = len(events.epochs(events.read_events(run.folder)))
    assert jobs.find(run.id).can_finish
    jobs.finish(run.id)
    done = ended(run.id)
    assert (done.status, done.message) == (jobs.DONE, "Stopped early.")
    assert len(events.epochs(events.read_events(run.folder))) == learned
    assert (run.folder / "result.json").is_file()


def test_a_cancelled_run_ends_at_once_and_what_it_learned_is_gone(labelled_zip):
    run = jobs.start(LONG, labelled_zip)
    process = jobs.process_of(run.folder)
    wait_until(lambda run: (run.folder / "checkpoints" / "last.ckpt").exists(), run.id)
    jobs.cancel(run.id)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    cancelled = jobs.find(run.id)
    assert cancelled.status == jobs.CANCELLED
    assert not [name for name in jobs.HEAVY if (run.folder / name).exists()]
    assert cancelled.plan == LONG  # the list still shows what it was
    assert began_to_learn(cancelled)
    with pytest.raises(ConfigError, match="Start a new one"):
        jobs.resume(run.id)


def test_a_set_that_vanished_is_told_in_a_sentence(labelled_zip):
    labelled_zip.unlink()
    failed = ended(jobs.start(PLAN, labelled_zip).id)
    assert failed.status == jobs.FAILED
    assert failed.message.startswith("The labelled set is not there any more. Have it put back")
    wait_until(lambda run: jobs.process_of(run.folder) is None, failed.id)  # it writes its log last
    assert "Traceback" in (failed.folder / jobs.LOG).read_text()  # the rest is for who looks for the cause


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full. Free some space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "The disk is full. Free some space"),
        (MemoryError(), "Memory ran out. Close other programs or lower the batch size"),
        (RuntimeError("unable to mmap 8 bytes: Cannot allocate memory (12)"), "Memory ran out. Close other programs"),
        (RuntimeError("could not create a primitive"), "Memory ran out. Close other programs"),
        (RuntimeError("could not create a primitive descriptor"), "a fault of the program (RuntimeError)"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/home/x/set.zip"), "Upload the set again"),
        (ZeroDivisionError("/home/x"), "a fault of the program (ZeroDivisionError)"),
        (DataError("Class 'ill' has 2 cases. Add cases."), "Class 'ill' has 2 cases. Add cases."),
    ],
)
def test_what_ended_a_run_is_said_with_the_next_step_and_without_paths(error, said, tmp_path, monkeypatch):
    monkeypatch.setattr(job.shutil, "disk_usage", lambda _: ROOMY)
    words = job.in_words(error, tmp_path)
    assert said in words
    assert "/home" not in words
    assert words.endswith(".")


def test_any_fault_on_a_full_disk_is_put_down_to_it_but_a_fault_of_the_data_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(job.shutil, "disk_usage", lambda _: FULL)
    assert "The disk is full" in job.in_words(RuntimeError("unable to write file"), tmp_path)
    assert job.in_words(DataError("Add cases."), tmp_path) == "Add cases."


def test_a_disk_that_fills_while_a_checkpoint_is_written_leaves_the_last_one(tmp_path, monkeypatch):
    path = tmp_path / "checkpoints" / "best.ckpt"
    WholeCheckpoints().save_checkpoint({"epoch": 1}, path)

    def half(self, content):
        with self.open("wb") as file:
            file.write(bytes(content)[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(Path, "write_bytes", half)
        WholeCheckpoints().save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [one.name for one in path.parent.iterdir()] == ["best.ckpt"]  # and the room is free again


def test_a_run_on_a_full_disk_has_room_for_its_last_words(monkeypatch):
    folder = idle(status=jobs.QUEUED)

    def fill(_):
        assert (folder / jobs.RESERVE).stat().st_size == job.RESERVED_BYTES
        raise OSError(errno.ENOSPC, "No space left on device")

    def write_state(into, state):
        assert state.status != jobs.FAILED or not (folder / jobs.RESERVE).exists()
        jobs.write_state(into, state)

    monkeypatch.setattr(job, "work", fill)
    monkeypatch.setattr(job, "write_state", write_state)
    with pytest.raises(OSError, match="No space left"):
        job.attend(folder)
    assert jobs.find(folder.name).message == "The disk is full. Free some space, then go on from the last epoch."


def test_pictures_that_the_disk_cannot_take_are_told_before_any_is_decoded(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(datasets.os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="No space left"):
        datasets.decode(LabelledSet(tmp_path, (Case("a/1.png", ("a",), "p"),), ("a",)), InputSpec(), tmp_path / "p.npy")


def test_delete_removes_a_run_and_find_then_says_so():
    folder, kept = idle("20251123-101500-00aa", status=jobs.DONE), idle("20251123-101500-00bb", status=jobs.DONE)
    jobs.delete(folder.name)
    assert not folder.exists()
    assert [run.id for run in jobs.list_runs()] == [kept.name]
    with pytest.raises(ConfigError, match="not there any more"):
        jobs.delete(folder.name)


@pytest.mark.parametrize("hostile", ["", ".", "..", "../outside", "../runs/20251123-101500-00aa", "/", "a\0b"])
def test_an_id_cannot_reach_outside_the_folder_of_runs(hostile, home):
    idle("20251123-101500-00aa", status=jobs.DONE)
    outside = home / "outside"
    outside.mkdir()
    jobs.write_plan(outside / jobs.PLAN, PLAN)
    (outside / jobs.SOURCE).write_text('"set.zip"')
    for act in (jobs.find, jobs.delete, jobs.cancel, jobs.stop, jobs.resume):
        with pytest.raises(ConfigError, match="not there any more"):
            act(hostile)
    assert (outside / jobs.PLAN).exists()


def test_a_pid_that_is_used_again_is_not_taken_for_the_run():
    folder = idle(status=jobs.RUNNING)
    own = psutil.Process()
    jobs.write(folder / jobs.PROCESS, Process(own.pid, own.create_time()))
    assert jobs.find(folder.name).status == jobs.RUNNING  # the pid with its start is the run
    jobs.write(folder / jobs.PROCESS, Process(own.pid, own.create_time() - 60))
    assert jobs.find(folder.name).status == jobs.INTERRUPTED
    jobs.kill(folder)  # does nothing: this process goes on
    jobs.cancel(folder.name)
    assert jobs.find(folder.name).status == jobs.CANCELLED


@pytest.mark.parametrize("torn", ["", "{", '{"pid": "x"}', '{"other": 1}', "[]", "null"])
def test_torn_files_of_a_run_read_as_interrupted(torn):
    folder = idle(status=jobs.RUNNING)
    (folder / jobs.PROCESS).write_text(torn)
    assert jobs.find(folder.name).status == jobs.INTERRUPTED
    (folder / jobs.STATE).write_text(torn)
    assert jobs.find(folder.name).status == jobs.INTERRUPTED


def test_a_run_whose_settings_cannot_be_read_does_not_hide_the_others():
    broken, sound = idle("20251123-101500-00aa"), idle("20251123-101500-00bb", status=jobs.DONE)
    (broken / jobs.PLAN).write_text("{")
    assert [run.id for run in jobs.list_runs()] == [sound.name]


def test_runs_are_listed_the_newest_first():
    ids = ["20251123-101500-00aa", "20261123-101500-0000", "20251124-000000-ffff"]
    for run_id in ids:
        idle(run_id, status=jobs.DONE)
    assert [run.id for run in jobs.list_runs()] == [ids[1], ids[2], ids[0]]


def test_only_a_run_that_broke_off_can_go_on():
    folder = idle(status=jobs.DONE)
    with pytest.raises(ConfigError, match="interrupted or failed"):
        jobs.resume(folder.name)


def test_a_run_waits_for_earlier_ones_and_says_so_but_not_for_dead_or_later_ones(monkeypatch):
    earlier = idle("20251123-101500-00aa", status=jobs.RUNNING)
    later = idle("20251123-101502-00aa", status=jobs.RUNNING)
    own = psutil.Process()
    for folder in (earlier, later):
        jobs.write(folder / jobs.PROCESS, Process(own.pid, own.create_time()))
    idle("20251123-101400-00aa", status=jobs.RUNNING)  # nobody runs it any more
    mine, told = idle("20251123-101501-00aa", status=jobs.QUEUED), []
    monkeypatch.setattr(jobs.time, "sleep", lambda _: jobs.write_state(earlier, State(jobs.DONE)))
    jobs.wait_for_turn(mine, told.append).release()
    assert told == ["Waiting for 1 other run"]
