"""The weights that a run from another model ends with: an average of the start with its best or its last epoch.

A start knows more kinds of acquisition than one fine-tuning set, so the average holds better on pictures from elsewhere
(WiSE-FT, Wortsman 2022). Which average is chosen on val.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from medfusion.inference import class_logits
from medfusion.network import MedFusionNet
from medfusion.types import Task
from training import loop
from training.augment import RECIPES
from training.config import TrainConfig
from training.datasets import Augmented, Draw, Pictures

EPOCHS = (loop.BEST, loop.LAST)
SHARES = (1.0, 0.8, 0.6, 0.4, 0.2)  # of training against the start; of equals the first
BATCH = 64
VARIANTS = 2  # of each picture of val, as in training


@dataclass(frozen=True)
class Blend:
    epoch: str  # one of EPOCHS
    share: float  # one of SHARES: the rest of the weights is the start's


def blend(
    network: MedFusionNet, folder: Path, config: TrainConfig, classes: tuple[str, ...], val: Pictures, task: Task
) -> Blend:
    """Set the network to the chosen average, and say which. folder: of the run, with its checkpoints.

    Of all averages whose loss on val exceeds the least by at most one standard error of the difference, case by case
    (after Hastie 2009, section 7.10), the one that loses least on val as augmented in training: as good on such
    pictures, it is the surest on others.
    """
    first, labels = loop.started(config, classes, task)[0].state_dict(), torch.from_numpy(val.labels)
    shifted = variants(val, config)
    found: list[tuple[Blend, Tensor, float]] = []
    for epoch in EPOCHS:
        trained = loop.weights_of(folder, epoch)
        for share in SHARES:
            mix(network, first, trained, share)
            plain = loop.calibrated_losses(loop.scores(network, val, task), labels)
            found.append((Blend(epoch, share), plain, shifted_loss(network, shifted, labels, task)))
    least = min((plain for _, plain, _ in found), key=lambda plain: float(plain.mean()))
    good = [one for one in found if is_as_good(one[1], least)]
    best, _, _ = min(good, key=lambda one: one[2])
    mix(network, first, loop.weights_of(folder, best.epoch), best.share)
    return best


def is_as_good(losses: Tensor, least: Tensor) -> bool:
    """Whether the mean difference of two losses of the same cases is within its standard error."""
    more = losses - least
    return bool(more.mean() <= more.std() / len(more) ** 0.5)


def mix(network: MedFusionNet, first: dict[str, Tensor], last: dict[str, Tensor], share: float) -> None:
    mixed = {name: old.lerp(last[name], share) for name, old in first.items() if old.is_floating_point()}
    network.load_state_dict(mixed, strict=False)
    network.eval()


def variants(val: Pictures, config: TrainConfig) -> list[Tensor]:
    """The pictures of val as training would show them, VARIANTS times, the same for all averages."""
    drawn = Augmented(val, (RECIPES[config.augmentation],), config.seed, lambda _: config.train_px)
    return [torch.stack([drawn[Draw(case, number, case)][0] for case in range(len(val))]) for number in range(VARIANTS)]


@torch.no_grad()
def shifted_loss(network: MedFusionNet, shifted: list[Tensor], labels: Tensor, task: Task) -> float:
    losses = []
    for pictures in shifted:
        batches = (part.contiguous(memory_format=torch.channels_last) for part in pictures.split(BATCH))
        answers = [class_logits(network(batch), task) for batch in batches]
        losses.append(loop.calibrated_loss(torch.cat(answers), labels))
    return sum(losses) / len(losses)
