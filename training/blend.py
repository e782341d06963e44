"""The weights that a run from another model ends with: an average of the start with its best or its last epoch.

A start knows more kinds of acquisition than one fine-tuning set, so the average holds better on pictures from elsewhere
(WiSE-FT, Wortsman 2022). Which average is chosen on val.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from medfusion.network import MedFusionNet
from medfusion.types import Task
from training import loop
from training.augment import RECIPES
from training.config import STARTS, TrainConfig
from training.datasets import Augmented, Draw, Pictures
from training.soup import Soup, stirred

EPOCHS = (loop.BEST, loop.LAST)
SHARES = (1.0, 0.8, 0.6, 0.4, 0.2)  # of training against the start; of equals the first
VARIANTS = 2  # of each picture of val, as in training


@dataclass(frozen=True)
class Blend:
    epoch: str  # one of EPOCHS
    share: float  # one of SHARES: the rest of the weights is the start's
    seeds: tuple[int, ...] = ()  # of the networks whose average training comes to


def blend(
    network: MedFusionNet,
    folders: Mapping[int, Path],
    config: TrainConfig,
    classes: tuple[str, ...],
    val: Pictures,
    task: Task,
) -> Blend:
    """Set the network to the chosen average, and say which. folders: soup.members, with their checkpoints.

    A start from ImageNet or from scratch has no part in it: only networks of several seeds are averaged.

    Of all averages whose loss on val exceeds the least by at most one standard error of the difference, case by case
    (after Hastie 2009, section 7.10), the one that loses least on val as augmented in training: as good on such
    pictures, it is the surest on others.
    """
    if config.start in STARTS:
        soup = stirred(network, folders, loop.BEST, val, task)
        network.load_state_dict(soup.weights)
        network.eval()
        return Blend(loop.BEST, 1.0, soup.seeds)
    first, labels = loop.started(config, classes, task)[0].state_dict(), torch.from_numpy(val.labels)
    shifted = variants(val, config, config.train_px)
    soups: dict[str, Soup] = {}
    found: list[tuple[Blend, Tensor, float]] = []
    for epoch in EPOCHS:
        soup = stirred(network, folders, epoch, val, task)
        if any(is_same(soup.weights, other.weights) for other in soups.values()):
            continue  # the last epoch was the best
        soups[epoch] = soup
        for share in SHARES:
            mix(network, first, soup.weights, share)
            plain = loop.calibrated_losses(loop.scores(network, val, task), labels)
            found.append((Blend(epoch, share, soup.seeds), plain, shifted_loss(network, shifted, labels, task)))
    least = min((plain for _, plain, _ in found), key=lambda plain: float(plain.mean()))
    good = [one for one in found if is_as_good(one[1], least)]
    best, _, _ = min(good, key=lambda one: one[2])
    mix(network, first, soups[best.epoch].weights, best.share)
    return best


def is_same(weights: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(value, others[name]) for name, value in weights.items())


def is_as_good(losses: Tensor, least: Tensor) -> bool:
    """Whether the mean difference of two losses of the same cases is within its standard error."""
    more = losses - least
    return bool(more.mean() <= more.std() / len(more) ** 0.5)


def mix(network: MedFusionNet, first: dict[str, Tensor], last: dict[str, Tensor], share: float) -> None:
    mixed = {name: old.lerp(last[name], share) for name, old in first.items() if old.is_floating_point()}
    network.load_state_dict(mixed, strict=False)
    network.eval()


def variants(val: Pictures, config: TrainConfig, side_px: int) -> list[Tensor]:
    """The pictures of val as training would augment them, at some size, VARIANTS times, the same for all averages."""
    drawn = Augmented(val, (RECIPES[config.augmentation],), config.seed, lambda _: side_px)
    return [torch.stack([drawn[Draw(case, number, case)][0] for case in range(len(val))]) for number in range(VARIANTS)]


def shifted_loss(network: MedFusionNet, shifted: list[Tensor], labels: Tensor, task: Task) -> float:
    found = (loop.answers(network, one.split, task) for one in shifted)
    return sum(loop.calibrated_loss(scores, labels) for scores in found) / len(shifted)


def seen(network: MedFusionNet, val: Pictures, config: TrainConfig, task: Task) -> tuple[Tensor, Tensor]:
    """Class logits and labels for calibration: of val as it is and as augmented, at the size of use, together.

    The weights were chosen on val, so alone it makes a network look surer than it may be on pictures from elsewhere,
    and asks for offsets that suit no others. At the size of training crops a network may lean to other classes.
    """
    found = [loop.scores(network, val, task)]
    found += (loop.answers(network, one.split, task) for one in variants(val, config, val.spec.height_px))
    return torch.cat(found), torch.cat([torch.from_numpy(val.labels)] * len(found))
