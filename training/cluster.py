"""Runs on a Ray cluster: Ray Train spreads one over machines and moves it off those that die; Ray Jobs keep them.

Sets and runs (MEDFUSION_HOME) must lie in storage that all machines share, and the program at the same path on each.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medfusion import cluster
from medfusion.errors import ConfigError, MedFusionError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

FAILED = "failed.txt"  # what the work raised, in one sentence
MOST_LOSSES = 5  # machines that a run may lose before it gives up
MACHINES = "MEDFUSION_MACHINES"  # how many train one model together; 1 by default
STOP_S = 20.0


def train(work: Callable[[], None], folder: Path) -> None:
    """Do the work on the cluster once there is room, again where its machine dies: it must go on from checkpoints.

    With several machines, work is done by one and its fits by all. folder: of the run, in shared storage. Raises
    ConfigError when it could not be finished.
    """
    cluster.connect()
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if len(nodes) < machines():
        raise ConfigError(f"{MACHINES} is {machines()}, and the cluster has {len(nodes)}. Start more, or lower it.")
    gpus = any(node.get("GPU") for node in nodes)
    cores = int(min(node["CPU"] for node in nodes if bool(node.get("GPU")) == gpus))
    failed = folder.absolute() / FAILED
    failed.unlink(missing_ok=True)
    trainer = TorchTrainer(
        member,
        train_loop_config={"work": work, "failed": failed},
        scaling_config=ScalingConfig(
            num_workers=machines(), use_gpu=gpus, resources_per_worker={"CPU": cores, **({"GPU": 1} if gpus else {})}
        ),
        run_config=RunConfig(
            name="ray", storage_path=str(folder.absolute()), failure_config=FailureConfig(max_failures=MOST_LOSSES)
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        if failed.exists():
            raise ConfigError(failed.read_text(encoding="utf-8")) from error
        raise ConfigError(
            "The run lost its machines too often, or failed on them; its log tells more. Go on from the last epoch."
        ) from error


def machines() -> int:
    given = os.environ.get(MACHINES, "1")
    if not given.isdigit() or given == "0":
        raise ConfigError(f"{MACHINES} is {given!r}. Set it to how many machines train one model together.")
    return int(given)


def member(config: dict[str, Any]) -> None:
    """What Ray Train runs in each process. It runs all again after a failure; what the work itself raised is final."""
    import ray.train
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

    from training import team

    def work() -> None:
        try:
            config["work"]()
        except Exception as error:
            why = str(error) if isinstance(error, MedFusionError) else f"{type(error).__name__}: {error}"
            config["failed"].write_text(why, encoding="utf-8")
            raise

    if config["failed"].exists():
        raise ConfigError(config["failed"].read_text(encoding="utf-8"))
    if ray.train.get_context().get_world_size() == 1:
        work()
        return
    several = team.Several(lambda: (RayDDPStrategy(), RayLightningEnvironment()))
    with team.led(several):
        if several.rank == 0:
            work()


@cache
def client() -> JobSubmissionClient:
    """Raises ConfigError where no cluster answers."""
    if not cluster.is_wanted():
        raise ConfigError("This run is on a Ray cluster. Set RAY_ADDRESS to its address and start the program again.")
    try:
        from ray.job_submission import JobSubmissionClient

        return JobSubmissionClient(os.environ["RAY_ADDRESS"])
    except (ImportError, ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"No Ray cluster answers at RAY_ADDRESS ({error}). Start it, or unset it.") from error


def submit(folder: Path, log: Path) -> str:
    """Start `training.job` for a run as a job of the cluster. Returns the job's id."""
    work = f"{shlex.quote(sys.executable)} -m training.job {shlex.quote(str(folder))}"
    asked = f"{work} 2>&1 | tee -a {shlex.quote(str(log))}"
    return client().submit_job(entrypoint=asked, runtime_env=cluster.environment())


def is_alive(job: str) -> bool:
    """Whether a job is waiting or at work. While the cluster does not answer, it is taken to be."""
    try:
        return not client().get_job_status(job).is_terminal()
    except (ConfigError, ConnectionError):
        return True
    except RuntimeError:  # the cluster was started anew and does not know it
        return False


def end(job: str) -> None:
    """Stop a job at once. Raises ConfigError where the cluster does not."""
    if not is_alive(job):
        return
    try:
        client().stop_job(job)
    except (ConnectionError, RuntimeError) as error:
        raise ConfigError(f"The cluster does not stop this run ({error}). Try again.") from error
    limit = time.monotonic() + STOP_S
    while is_alive(job) and time.monotonic() < limit:
        time.sleep(0.2)
