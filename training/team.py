"""One training by several processes: the first one leads, and the others join in each fit.

A process by itself is a team of one. Only fits are shared: everything else is the leader's work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import lightning
import torch.distributed
from lightning.pytorch.callbacks import Callback

from medfusion.errors import MedFusionError

Call = Callable[..., object]  # of a module, with arguments that can be pickled


class Team:
    """One process. rank: 0 for the leader."""

    rank, size = 0, 1

    def together(self, call: Call, **arguments: object) -> None:
        """Have every process make this call."""
        call(**arguments)

    def trainer(self, device: str) -> dict[str, Any]:
        """What Lightning's trainer must know of it."""
        return {"accelerator": device, "devices": 1}


class Several(Team):
    """Processes of one torch.distributed group. strategy: makes Lightning's strategy and cluster environment."""

    def __init__(self, strategy: Callable[[], tuple[Any, Any]]) -> None:
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.strategy = strategy
        self.channel: Any = torch.distributed.new_group(backend="gloo")  # of calls, whatever the gradients go through

    def together(self, call: Call, **arguments: object) -> None:
        self.send((call, arguments))
        call(**arguments)

    def send(self, call: tuple[Call, dict[str, object]] | None) -> tuple[Call, dict[str, object]] | None:
        """What the leader sends, on all processes."""
        box = [call]
        torch.distributed.broadcast_object_list(box, src=0, group=self.channel)
        return box[0]

    def follow(self) -> None:
        """Join in what the leader calls, until it dismisses the team."""
        while told := self.send(None):
            call, arguments = told
            with suppress(MedFusionError):  # the leader raises it, too, and decides what follows
                call(**arguments)

    def dismiss(self) -> None:
        self.send(None)

    def trainer(self, device: str) -> dict[str, Any]:
        strategy, environment = self.strategy()
        return {
            "accelerator": device,
            "devices": "auto",
            "strategy": strategy,
            "plugins": [environment],
            "use_distributed_sampler": False,  # training.datasets.Order gives each process its share
        }


class StopTogether(Callback):
    """What one process decides ends training on all. Must stand behind the callbacks that decide."""

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        self.spread(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        self.spread(trainer)

    @staticmethod
    def spread(trainer: lightning.Trainer) -> None:
        trainer.should_stop = trainer.strategy.reduce_boolean_decision(trainer.should_stop, all=False)


_team = Team()


def current() -> Team:
    return _team


@contextmanager
def led(several: Several) -> Iterator[None]:
    """Fits in this block are made by several processes. Those that follow stay in it until the leader leaves it."""
    global _team
    _team = several
    try:
        if several.rank:
            several.follow()
        yield
        if not several.rank:
            several.dismiss()
    finally:
        _team = Team()
