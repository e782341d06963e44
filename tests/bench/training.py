"""Training: does the network wait for pictures, what does the loop cost beyond its steps, and how soon is it good?

On the GPU where there is one, else on the CPU. Pictures are noise: what they show changes no duration. With DATA set to
a folder that holds breast_ultrasound.zip, also the time from the zip to an AUROC on val.
"""

import math
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from medfusion.inference import class_logits
from medfusion.labelled import read_labelled
from medfusion.network import MedFusionNet, build
from medfusion.types import InputSpec, Task
from tests.bench.table import Row, compare_s
from training import loop
from training.config import TrainConfig
from training.datasets import Pictures, decode, pictures_of, with_splits
from training.events import epochs, read_events
from training.watch import Watch

CASES, VAL, EPOCHS = 768, 96, 2
CONFIG = TrainConfig(start="scratch", frozen_stages=0, epochs=EPOCHS, patience=EPOCHS).settled(CASES)
LOCAL, GOOD, BUDGET_S = "breast_ultrasound.zip", 0.93, 300.0
Batches = Iterable[tuple[Tensor, Tensor]]


def training() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        train, val = on_disk(Path(folder), CASES), on_disk(Path(folder), VAL)
        feed = loop.Feed(train, val, CONFIG, ("general",), None)
        fed = feed.train_dataloader()
        ready = list(fed)
        bare = Bare()
        bare.epoch(ready[:2])  # warms up
        rows = [
            Row(
                "an epoch's steps, against batches in memory",
                *compare_s(lambda: bare.epoch(fed), lambda: bare.epoch(ready)),
            )
        ]

        rows.append(rate(bare, fed))

        def whole() -> None:
            run = Path(folder) / "run"
            run.mkdir(exist_ok=True)
            loop.fit(build("tiny", 1), train, val, "binary", CONFIG, run, watch=Watch(run, run / "stop"))

        rows.append(Row(f"{EPOCHS} epochs, against a bare loop", *compare_s(whole, lambda: Bare().fit(feed))))
    source = Path(os.environ.get("DATA", "")) / LOCAL
    if source.is_file():
        rows.append(Row(f"breast ultrasound to AUROC {GOOD} on val, against 5 min", seconds_to_good(source), BUDGET_S))
    return rows


def seconds_to_good(source: Path) -> float:
    """From the zip, started from the foundation model, until an epoch reaches GOOD; infinite if none does in time."""
    begun = time.time()
    config = TrainConfig(start="foundation", epochs=8, minutes=BUDGET_S / 60)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = with_splits(read_labelled(source))
        spec = InputSpec(config.side_px, config.side_px)
        pictures = decode(data, spec, folder / "pictures.npy")
        train, val = (pictures_of(data, pictures, split, data.classes, spec) for split in ("train", "val"))
        task: Task = "binary" if len(data.classes) == 2 else "multiclass"
        network, trained = loop.started(config, data.classes, task)
        loop.fit(network, train, val, task, config, folder, trained=trained, watch=Watch(folder, folder / "stop"))
        good = [epoch["at"] for epoch in epochs(read_events(folder)) if epoch["val_auroc"] >= GOOD]
    return min(good, default=math.inf) - begun


def on_disk(folder: Path, count: int) -> Pictures:
    """Pictures as a run finds them, decoded and memory-mapped."""
    spec = InputSpec(CONFIG.side_px, CONFIG.side_px)
    path = folder / f"{count}.npy"
    noise = np.random.default_rng(0).integers(0, 256, (count, spec.height_px, spec.width_px, 3), dtype=np.uint8)
    np.save(path, noise)
    rows = np.arange(count)
    return Pictures(np.load(path, mmap_mode="r"), rows, rows % 2, spec, np.zeros(count, dtype=int))


class Bare:
    """The same work without Lightning, checkpoints or records: steps, averaged weights, validation."""

    def __init__(self) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network: MedFusionNet = build("tiny", 1).to(self.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), 1e-4)
        self.average = AveragedModel(self.network, multi_avg_fn=loop.averaging(CONFIG.average_decay))
        self.precision = torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def scores(self, network: torch.nn.Module, pictures: Tensor) -> Tensor:
        placed = pictures.to(self.device, memory_format=torch.channels_last, non_blocking=True)
        with self.precision:
            return class_logits(network(placed), "binary")

    def epoch(self, batches: Batches) -> None:
        self.network.train()
        for pictures, labels in batches:
            loss = F.cross_entropy(self.scores(self.network, pictures), labels.to(self.device))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.average.update_parameters(self.network)
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def fit(self, feed: loop.Feed) -> None:
        batches, held_out = feed.train_dataloader(), feed.val_dataloader()
        for _ in range(EPOCHS):
            self.epoch(batches)
            self.average.eval()
            with torch.no_grad():
                for pictures, _ in held_out:
                    self.scores(self.average, pictures)


def rate(bare: Bare, fed: Sequence[tuple[Tensor, Tensor]] | DataLoader[tuple[Tensor, Tensor]]) -> Row:
    """Pictures a second from disk, against the device's own limit: the same steps on one batch that lies there."""
    pictures, labels = next(iter(fed))
    there = (pictures.to(bare.device, memory_format=torch.channels_last), labels.to(bare.device))
    steps = [there] * len(fed)
    count = len(steps) * len(labels)
    fed_s, limit_s = compare_s(lambda: bare.epoch(fed), lambda: bare.epoch(steps))
    name = torch.cuda.get_device_name(bare.device) if bare.device.type == "cuda" else "CPU"
    said = f"{count / fed_s:.0f} pictures a second, {name}: {count / limit_s:.0f}"
    return Row(said, fed_s / count, limit_s / count)
