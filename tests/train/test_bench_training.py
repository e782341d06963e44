"""What `make bench` says of training: rates of the device against its own limit, here those of a CPU."""

import re
from dataclasses import replace

import torch

from tests.bench.training import CONFIG, Bare, on_disk, rate
from training import loop
from training.config import TrainConfig


def test_the_rate_from_disk_stands_beside_the_limit_of_the_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    batch = (torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 0, 1]))
    row = rate(Bare(), [batch, batch])
    fed, limit = map(int, re.fullmatch(r"(\d+) pictures a second, CPU: (\d+)", row.name).groups())
    assert abs(fed - 1 / row.ours_s) <= 1
    assert abs(limit - 1 / row.package_s) <= 1


def test_the_bench_feeds_batches_of_the_size_that_a_run_would_find(tmp_path):
    config = replace(CONFIG, workers=0)  # forking this process is not what is tested
    feed = loop.Feed(on_disk(tmp_path, 2 * CONFIG.batch_size), on_disk(tmp_path, 2), config, ("general",), None)
    assert len(next(iter(feed.train_dataloader()))[1]) == CONFIG.batch_size > 1
    assert len(next(iter(feed.val_dataloader()))[1]) == 2


def test_a_gpu_gets_as_many_workers_as_there_are_cores_to_spare_and_a_cpu_what_was_asked(monkeypatch):
    monkeypatch.setattr(loop.os, "cpu_count", lambda: 16)
    config = TrainConfig()
    assert loop.workers(config, gpu=False) == config.workers == 1
    assert loop.workers(config, gpu=True) == loop.MOST_WORKERS
    monkeypatch.setattr(loop.os, "cpu_count", lambda: 2)
    assert loop.workers(config, gpu=True) == 1
    assert loop.workers(TrainConfig(workers=0), gpu=True) == 0
