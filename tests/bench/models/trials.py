"""What is compared: three experiments, each a list of trials. Data only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.models.networks import OURS, RIVALS
from training.balance import BALANCES

LITE0 = "efficientnet-lite0"
SHARES = (0.1, 0.25, 0.5, 1.0)
FOUNDATIONS = {"foundation": 1, "foundation, 4 times": 4}  # for each of its sets, times the budget of a trial
RARE = 10  # one case of the rare class to so many others


@dataclass(frozen=True)
class Trial:
    """One training run. Two trials of an experiment differ in what it compares, and in the seed."""

    experiment: str
    data: str  # the zip's name without its ending
    network: str = OURS
    start: str = "scratch"  # or imagenet, or one of FOUNDATIONS, trained jointly on all sets but this one
    share: float = 1.0  # of the training cases
    rarity: int = 0  # so many cases of the first class for each of the second; 0 leaves them as they are
    balance: str = "weights"
    seed: int = 0


def trials(experiment: str, seeds: list[int]) -> Iterator[Trial]:
    """Seed by seed, so that a run that is cut short has compared something."""
    for seed in seeds:
        yield from EXPERIMENTS[experiment](experiment, seed)


def learning_curves(experiment: str, seed: int) -> Iterator[Trial]:
    """Is the foundation worth it? On sets that it has not seen, against other starts, by the size of the set."""
    for data in ("breast_ultrasound", "retina"):
        for share in SHARES:
            for start in (*FOUNDATIONS, "imagenet", "scratch"):
                yield Trial(experiment, data, start=start, share=share, seed=seed)
            yield Trial(experiment, data, network=LITE0, start="imagenet", share=share, seed=seed)


def rivals(experiment: str, seed: int) -> Iterator[Trial]:
    """All from scratch, and those from ImageNet whose weights are at hand: small, imbalanced and larger set."""
    for data, rarity in (("breast_ultrasound", 0), ("chest_xray", RARE), ("brain_mri", 0)):
        for network in (OURS, *RIVALS):
            yield Trial(experiment, data, network, rarity=rarity, balance="sampler", seed=seed)
        for network in (OURS, LITE0):
            yield Trial(experiment, data, network, "imagenet", rarity=rarity, balance="sampler", seed=seed)


def imbalance(experiment: str, seed: int) -> Iterator[Trial]:
    """What to do about a rare class."""
    for balance in BALANCES:
        yield Trial(experiment, "chest_xray", start="imagenet", rarity=RARE, balance=balance, seed=seed)


EXPERIMENTS = {"learning_curves": learning_curves, "rivals": rivals, "imbalance": imbalance}
