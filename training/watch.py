"""What a run shows while it trains: figures, time left, memory, and the map of one pinned case after each epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import lightning
import psutil
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch import nn

from training.events import Journal

EVERY_S = 1.0  # between two events of kind step
Pin = Callable[[nn.Module, Path], None]  # draws the pinned case by a network's answer into a file


class Watch(Callback):
    """Writes events, and ends training once the file `stop` is there. Changes nothing in the run.

    Must stand before the callback that averages weights: it looks at the averaged ones while they are in place.
    """

    def __init__(self, folder: Path, stop: Path, pin: Pin | None = None, loggers: tuple[Logger, ...] = ()) -> None:
        self.folder, self.stop, self.pin, self.loggers = folder, stop, pin, loggers
        self.journal = Journal(folder)
        self.told = self.began = self.epoch_began = 0.0
        self.first_step = 0
        self.averaged: nn.Module | None = None

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.began, self.first_step = time.monotonic(), trainer.global_step
        self.journal.tell(
            "begin", epochs=trainer.max_epochs, steps=int(trainer.estimated_stepping_batches),
            device=module.device.type, precision=str(trainer.precision),
            batch_size=getattr(trainer.train_dataloader, "batch_size", None),
        )  # fmt: skip

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        if self.stop.exists():
            trainer.should_stop = True
        now = time.monotonic()
        if now - self.told < EVERY_S:
            return
        self.told = now
        self.journal.tell(
            "step", step=trainer.global_step, epoch=trainer.current_epoch, loss=float(outputs["loss"]),
            learning_rate=max(group["lr"] for group in trainer.optimizers[0].param_groups),
            left_s=self.left_s(trainer), memory_mb=memory_mb(module.device),
        )  # fmt: skip

    def left_s(self, trainer: lightning.Trainer) -> float:
        """Time until the last epoch ends if none is spared by early stopping. Validation is part of the pace."""
        done = max(1, trainer.global_step - self.first_step)
        ahead = int(trainer.estimated_stepping_batches) - trainer.global_step
        return ahead * (time.monotonic() - self.began) / done

    @staticmethod
    def network_of(module: lightning.LightningModule) -> nn.Module:
        assert isinstance(module.network, nn.Module)
        return module.network

    def on_validation_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.averaged = deepcopy(self.network_of(module)).cpu().eval() if self.pin else None

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        epoch = trainer.current_epoch
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if self.pin and self.averaged:
            (self.folder / "pinned").mkdir(exist_ok=True)
            self.pin(self.averaged, self.folder / "pinned" / f"{epoch}.webp")
            self.averaged = None
        self.journal.tell("epoch", epoch=epoch, step=trainer.global_step, **figures)


def memory_mb(device: torch.device) -> float:
    """Of the GPU the most that was taken, of a CPU what the process holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return psutil.Process().memory_info().rss / 2**20
