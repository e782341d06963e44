"""Several processes train one network together: each batch is divided, and what one decides holds for all."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from training.datasets import Order

PROCESSES = 2


@pytest.mark.parametrize(("cases", "batch"), [(64, 8), (67, 8), (67, 9), (5, 8), (8, 2)])
def test_processes_share_each_batch_and_draw_nothing_twice(cases, batch):
    whole = list(Order(cases, None, seed=3, batch_size=batch))
    assert [draw.number for draw in whole] == list(range(cases))
    shares = [list(Order(cases, None, 3, batch, rank, PROCESSES)) for rank in range(PROCESSES)]
    assert len(shares[0]) == len(shares[1]) == len(Order(cases, None, 3, batch, 0, PROCESSES)) > 0
    together = sorted(draw for share in shares for draw in share)
    assert len(set(together)) == len(together) >= cases - batch
    assert set(together) <= set(whole)
    part = Order(cases, None, 3, batch, 0, PROCESSES).share
    firsts = {draw.number for share in shares for draw in share[:part]}
    assert firsts == set(range(PROCESSES * part))  # the first batch of all is the first batch of one


def test_a_weighted_order_is_shared_as_well():
    draws = np.r_[np.full(30, 0.5), np.full(5, 5.0)]
    shares = [list(Order(35, draws, 1, 8, rank, PROCESSES)) for rank in range(PROCESSES)]
    assert {draw.number for share in shares for draw in share} == set(range(40))


PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path
import torch, torch.distributed
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from training import loop, team
from training.config import TrainConfig
from medfusion.errors import ConfigError
from tests.train.sides import pictures

folder = Path(sys.argv[1])
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")

class Environment(LightningEnvironment):
    creates_processes_externally = True
    def set_world_size(self, size): pass
    def set_global_rank(self, rank): pass
    def world_size(self): return torch.distributed.get_world_size()
    def global_rank(self): return torch.distributed.get_rank()
    def local_rank(self): return 0
    def node_rank(self): return torch.distributed.get_rank()

several = team.Several(lambda: (DDPStrategy(process_group_backend="gloo"), Environment()))
train, val = pictures(48, seed=1), pictures(24, seed=2)
config = TrainConfig(start="scratch", frozen_stages=0, epochs=2, train_px=32, side_px=64, batch_size=8, workers=0,
                     device="cpu", average_decay=0.5, minutes=30)

class Stopping(loop.Watch):
    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step == 3

class Failing(loop.Watch):
    def on_train_batch_end(self, trainer, module, *_):
        module.loss = lambda scores, y: scores.sum() * float("nan")

with team.led(several):
    if several.rank == 0:
        network, trained = loop.started(config, ("right", "left"), "binary")
        network = loop.fit(network, train, val, "binary", config, folder / "fit", trained=trained)
        torch.save(network.state_dict(), folder / "together.pt")
        network, _ = loop.started(config, ("right", "left"), "binary")
        part = folder / "stopped"; part.mkdir()
        loop.fit(network, train, val, "binary", replace(config, epochs=50), part, watch=Stopping(part, part / "stop"))
        part = folder / "failed"; part.mkdir()
        network, _ = loop.started(config, ("right", "left"), "binary")
        try:
            loop.fit(network, train, val, "binary", config, part, watch=Failing(part, part / "stop"))
        except ConfigError as error:
            (folder / "told.txt").write_text(str(error))
# every process holds the same weights in the end, whoever wrote them
print("ended", several.rank)
"""


def test_two_processes_fit_stop_and_end_together(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = os.environ | {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(PROCESSES), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path.cwd()),
    }  # fmt: skip
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path)], env=common | {"RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(PROCESSES)
    ]  # fmt: skip
    try:
        told = [child.communicate(timeout=300)[0] for child in children]
    finally:
        for child in children:
            child.kill()
    for rank, (child, text) in enumerate(zip(children, told, strict=True)):
        assert child.returncode == 0, text
        assert f"ended {rank}" in text
    state = torch.load(tmp_path / "together.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in state.values())
    last = torch.load(tmp_path / "stopped" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3
    assert "The loss is no longer a number" in (tmp_path / "told.txt").read_text()
