"""Training on a cluster of several nodes on this machine: a node is killed, several nodes train together, jobs obey."""

import json
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from medfusion.errors import ConfigError
from tests.train.conftest import labelled_zip  # noqa: F401  # a fixture
from tests.train.test_jobs import LONG, PLAN, SMALL, began_to_learn, ended, wait_until
from training import cluster as on_cluster
from training import events, jobs
from training.__main__ import main as command
from training.plan import write_plan

pytestmark = [pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]  # Ray warns of itself


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch, cluster):
    monkeypatch.setenv("MEDFUSION_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    on_cluster.client.cache_clear()
    yield
    for run in jobs.list_runs():
        jobs.kill(run.folder)


def where_it_works(nodes):
    """The node on which a training process is."""
    import psutil

    for node in nodes:
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        if any("RayTrainWorker" in " ".join(child.cmdline()) for child in raylet.children(recursive=True)):
            return node
    return None


def test_a_run_whose_machine_dies_ends_with_the_weights_of_an_undisturbed_one(cluster, labelled_zip, monkeypatch):  # noqa: F811
    whole, nodes = cluster
    lost = jobs.start(PLAN, labelled_zip)
    wait_until(began_to_learn, lost.id)
    whole.remove_node(where_it_works(nodes), allow_graceful=False)
    lost = ended(lost.id)
    assert (lost.status, lost.message) == (jobs.DONE, "")
    told = events.read_events(lost.folder)
    assert "A machine was lost. Going on from the last epoch." in [event.get("text") for event in told]
    assert [epoch["epoch"] for epoch in events.epochs(told)] == list(range(SMALL.epochs))

    monkeypatch.delenv("RAY_ADDRESS")
    here = ended(jobs.start(PLAN, labelled_zip).id)
    weights, own = ((run.folder / "model" / "weights.safetensors").read_bytes() for run in (lost, here))
    assert weights == own


def test_several_machines_train_one_model_together(labelled_zip, monkeypatch):  # noqa: F811
    monkeypatch.setenv(on_cluster.MACHINES, "2")
    together = ended(jobs.start(PLAN, labelled_zip).id)
    assert (together.status, together.message) == (jobs.DONE, "")
    monkeypatch.delenv("RAY_ADDRESS")
    alone = ended(jobs.start(PLAN, labelled_zip).id)
    losses = [
        [epoch["val_loss"] for epoch in events.epochs(events.read_events(run.folder))] for run in (together, alone)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=0.1)
    assert losses[0] != losses[1]  # statistics of half a batch each
    files = [load_file(run.folder / "model" / "weights.safetensors") for run in (together, alone)]
    assert all(np.isfinite(value).all() for value in files[0].values())


def test_a_stopped_job_keeps_its_best_weights_and_a_cancelled_one_nothing(labelled_zip):  # noqa: F811
    run = jobs.start(LONG, labelled_zip)
    wait_until(began_to_learn, run.id)
    jobs.stop(run.id)
    stopped = ended(run.id)
    assert (stopped.status, stopped.message) == (jobs.DONE, "Stopped early.")
    assert json.loads((run.folder / "result.json").read_text())["n"] > 0
    run = jobs.start(LONG, labelled_zip)
    wait_until(began_to_learn, run.id)
    jobs.cancel(run.id)
    time.sleep(2)
    assert jobs.find(run.id).status == jobs.CANCELLED
    assert not (run.folder / "checkpoints").exists()


def test_what_the_work_raises_ends_the_run_in_its_own_sentence(labelled_zip):  # noqa: F811
    labelled_zip.unlink()
    failed = ended(jobs.start(PLAN, labelled_zip).id)
    assert failed.status == jobs.FAILED
    assert failed.message.startswith("The labelled set is not there any more. Have it put back")


def test_more_machines_than_there_are_is_an_error_before_any_work(labelled_zip, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setenv(on_cluster.MACHINES, "9")
    with pytest.raises(ConfigError, match="MEDFUSION_MACHINES is 9, and the cluster has 3"):
        on_cluster.train(lambda: None, tmp_path)


def test_the_command_trains_on_the_cluster_from_an_address(labelled_zip, tmp_path, capsys):  # noqa: F811
    write_plan(tmp_path / "settings.json", PLAN)
    asked = ["run", "--config", str(tmp_path / "settings.json"), "--data", f"file://{labelled_zip}"]
    asked += ["--out", str(tmp_path / "sides"), "--runs", str(tmp_path / "runs")]
    assert command(asked) == 0
    assert "sides" in capsys.readouterr().out
    assert (tmp_path / "sides" / "weights.safetensors").is_file()
    labelled_zip.unlink()
    assert command(asked) == 2
    assert "cannot be fetched" in capsys.readouterr().err
