"""How long a run will take and how much memory: a few steps of the real network on pictures of noise.

`python -m training.estimate` in a process of its own, so that the app keeps its memory and goes on answering.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

from medfusion import places
from medfusion.background import give_way
from medfusion.errors import ConfigError
from medfusion.types import Task
from training.config import TrainConfig
from training.plan import settings_from

STEPS, ENOUGH_S = 4, 5.0  # steps that are timed, or fewer after so many seconds
TIMEOUT_S = 600  # a busy machine may be many times slower than an idle one


@dataclass(frozen=True)
class Estimate:
    epoch_s: float
    total_s: float  # with folds, trials and map tests, if no epoch is spared by early stopping
    memory_mb: float
    device: str


def estimate(settings: TrainConfig, train: int, val: int, classes: int) -> Estimate:
    """train, val: cases. Raises ConfigError when the steps cannot be run."""
    asked = json.dumps({"settings": asdict(settings), "train": train, "val": val, "classes": classes})
    try:
        done = subprocess.run(
            [sys.executable, "-m", "training.estimate"], input=asked, capture_output=True, text=True,
            timeout=TIMEOUT_S, check=True, cwd=places.PROJECT,
        )  # fmt: skip
        return Estimate(**json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired as error:
        raise ConfigError("The machine is too busy to try a few steps. Try again later, or start the run.") from error
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        raise ConfigError("The trial steps could not be run: memory may be short. Lower the batch size.") from error


def measure(settings: TrainConfig, train: int, val: int, classes: int) -> Estimate:
    """Steps as training makes them, on the device that it would take."""
    import torch

    from medfusion.inference import class_logits
    from training import loop
    from training.memory import keep_memory
    from training.sanity import MOST
    from training.watch import memory_mb

    keep_memory()
    gpu = settings.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    task: Task = "binary" if classes == 2 else "multiclass"
    network, trained = loop.started(settings, tuple(map(str, range(classes))), task)
    learner = loop.Learner(network, task, settings, torch.nn.functional.cross_entropy, trained)
    learner.to(device)
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], 1e-6)
    batch = max(1, min(settings.settled(train).batch_size, train))

    def pictures(count: int, side_px: int) -> torch.Tensor:
        return torch.rand(count, 3, side_px, side_px, device=device).contiguous(memory_format=torch.channels_last)

    x, y = pictures(batch, settings.train_px), torch.arange(batch, device=device) % classes

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=gpu and settings.precision != "32"):
            loss = torch.nn.functional.cross_entropy(class_logits(network(x), task), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    learner.train()
    trained_s = seconds(step, gpu) / batch
    network.eval()
    whole = pictures(batch, settings.side_px)
    with torch.no_grad():
        answered_s = seconds(lambda: network(whole), gpu) / batch
    epoch_s = train * trained_s + val * answered_s
    return Estimate(epoch_s, total_s(settings, epoch_s, min(train, MOST) * trained_s), memory_mb(device), device.type)


def total_s(settings: TrainConfig, epoch_s: float, twin_epoch_s: float) -> float:
    """Of the whole run. twin_epoch_s: an epoch of the twin on shuffled labels, by which maps are tested."""
    epochs = settings.epochs * (settings.seeds + settings.folds) + settings.trials * settings.trial_epochs
    trained_s = min(epochs * epoch_s, 60 * settings.minutes or float("inf"))
    return trained_s + (settings.sanity_epochs * twin_epoch_s if settings.sanity_scans else 0.0)


def seconds(act, gpu: bool) -> float:  # type: ignore[no-untyped-def]
    """Of one call, after a first one that warms up."""
    import torch

    def wait() -> None:
        if gpu:
            torch.cuda.synchronize()

    act()
    wait()
    begun, done, took = time.perf_counter(), 0, 0.0
    while done < STEPS and took < ENOUGH_S:
        act()
        wait()
        done, took = done + 1, time.perf_counter() - begun
    return took / done


if __name__ == "__main__":
    give_way()  # as the run will: a busy machine has less time for it
    asked = json.load(sys.stdin)
    asked["settings"] = settings_from(asked["settings"])
    sys.stdout.write(json.dumps(asdict(measure(**asked))) + "\n")
