"""Networks of several seeds from one start, and their average."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.train.sides import pictures
from tests.train.test_training import SIDES, SMALL
from training import loop, soup
from training.blend import blend


class Halves(nn.Module):
    """Weighs the mean brightness of the left half against that of the right."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[3] // 2
        means = torch.stack([x[..., :half].mean((1, 2, 3)), x[..., half:].mean((1, 2, 3))], dim=1)
        return (means @ self.weight)[:, None]


def test_the_greedy_soup_leaves_out_a_network_that_harms(tmp_path, monkeypatch):
    known = {3: [1.0, -0.2], 4: [0.0, 50.0], 5: [0.2, -1.0]}
    monkeypatch.setattr(
        soup.loop, "weights_of", lambda folder, epoch: {"weight": torch.tensor(known[int(folder.name)])}
    )
    folders = {seed: tmp_path / str(seed) for seed in known}
    made = soup.stirred(Halves(), folders, loop.BEST, pictures(40, 1), "binary")
    assert sorted(made.seeds) == [3, 5]
    assert made.weights["weight"].tolist() == pytest.approx([0.6, -0.6])


def test_an_average_keeps_counters():
    states = [
        {"w": torch.tensor([0.0, 2.0]), "n": torch.tensor(7)},
        {"w": torch.tensor([4.0, 4.0]), "n": torch.tensor(9)},
    ]
    mean = soup.average(states)
    assert mean["w"].tolist() == [2.0, 3.0]
    assert mean["n"].item() == 7


def test_all_seeds_begin_alike_and_end_apart_and_their_average_is_what_blend_gives(tmp_path):
    train, val = pictures(16, 0), pictures(12, 1)
    config = replace(SMALL, epochs=1, finish_epochs=0, seeds=2, seed=5)
    network = soup.fit_all(train, val, SIDES, "binary", config, tmp_path)
    folders = soup.members(tmp_path, config)
    assert list(folders) == [5, 6]
    first, second = (loop.weights_of(folder, loop.BEST)["head.weight"] for folder in folders.values())
    begun = loop.started(config, SIDES, "binary")[0].head.weight.detach()
    assert not torch.equal(first, second)
    assert (first - second).norm() < (begun - loop.build("tiny", 1, seed=6).head.weight).norm()  # one valley
    chosen = blend(network, folders, config, SIDES, val, "binary")
    expected = [loop.weights_of(folders[seed], loop.BEST)["head.weight"] for seed in chosen.seeds]
    assert torch.allclose(network.head.weight, torch.stack(expected).mean(0))
    alone = soup.figures(network, folders, {"val": val}, "binary")
    assert set(alone) == {"5", "6"}
    assert all(0 <= row["val"][name] <= 1 for row in alone.values() for name in ("accuracy", "auroc"))
