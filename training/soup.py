"""Several networks from one start, each with a seed of its own, as one: the average of their weights.

Networks that were trained from the same weights lie in one valley, and its middle holds better than any of them on
pictures from elsewhere, at the price of one (model soups, Wortsman 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from medfusion import metrics
from medfusion.errors import ConfigError
from medfusion.inference import to_probabilities
from medfusion.network import MedFusionNet
from medfusion.types import Task
from training import loop
from training.config import TrainConfig
from training.datasets import Pictures
from training.watch import Watch


@dataclass(frozen=True, eq=False)
class Soup:
    weights: dict[str, Tensor]
    seeds: tuple[int, ...]  # of the networks in it, the best first


def members(folder: Path, config: TrainConfig) -> dict[int, Path]:
    """By seed, the folder of each network's checkpoints and curves."""
    if config.seeds == 1:
        return {config.seed: folder}
    return {config.seed + number: folder / "seeds" / str(config.seed + number) for number in range(config.seeds)}


def fit_all(
    train: Pictures,
    val: Pictures,
    classes: tuple[str, ...],
    task: Task,
    config: TrainConfig,
    folder: Path,
    resume: bool = False,
    watch: Watch | None = None,
) -> MedFusionNet:
    """Train one network for each seed from the same start; their checkpoints go to `members`. Returns the last one.

    Raises ConfigError when the run is stopped before the last has begun: there is no average to keep.
    """
    share = replace(config, minutes=config.minutes / config.seeds)
    for seed, own in members(folder, config).items():
        if watch and config.seeds > 1:
            if watch.stop.exists():
                raise ConfigError(f"The run was stopped before seed {seed}. Go on if you like.")
            watch.journal.tell("phase", text=f"Training, seed {seed - config.seed + 1} of {config.seeds}")
        own.mkdir(parents=True, exist_ok=True)
        network, trained = loop.started(config, classes, task)  # by the first seed: all heads begin alike
        going_on = resume and (config.seeds == 1 or (own / "checkpoints" / f"{loop.LAST}.ckpt").exists())
        network = loop.fit(
            network, train, val, task, replace(share, seed=seed), own, going_on, trained=trained, watch=watch
        )
    return network


def stirred(network: MedFusionNet, folders: Mapping[int, Path], epoch: str, val: Pictures, task: Task) -> Soup:
    """The greedy soup (Wortsman 2022, recipe 1): from the best network on val to the worst, each that does not harm.

    network: only borrowed, to answer val. epoch: see loop.weights_of.
    """
    labels = torch.from_numpy(val.labels)

    def loss(weights: Mapping[str, Tensor]) -> float:
        network.load_state_dict(weights)
        return loop.calibrated_loss(loop.scores(network.eval(), val, task), labels)

    found = {seed: loop.weights_of(folder, epoch) for seed, folder in folders.items()}
    if len(found) == 1:
        ((seed, weights),) = found.items()
        return Soup(weights, (seed,))
    losses = {seed: loss(weights) for seed, weights in found.items()}
    first, *others = sorted(losses, key=lambda seed: losses[seed])
    soup, least = Soup(found[first], (first,)), losses[first]
    for seed in others:
        seeds = (*soup.seeds, seed)
        weights = average([found[one] for one in seeds])
        if (loss_now := loss(weights)) <= least:
            soup, least = Soup(weights, seeds), loss_now
    return soup


def average(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor; counters stay the first one's."""
    return {
        name: torch.stack([state[name] for state in states]).mean(0) if value.is_floating_point() else value
        for name, value in states[0].items()
    }


def figures(
    network: MedFusionNet, folders: Mapping[int, Path], parts: Mapping[str, Pictures], task: Task
) -> dict[str, dict[str, dict[str, float]]]:
    """By seed and split, what each network does alone: the recipe's figures. network: only borrowed, to answer.

    accuracy: of the most probable class; multi-label: of all yes and no answers at one half.
    """
    table: dict[str, dict[str, dict[str, float]]] = {}
    for seed, folder in folders.items():
        network.load_state_dict(loop.weights_of(folder, loop.BEST))
        network.eval()
        table[str(seed)] = {split: alone(loop.scores(network, part, task), part, task) for split, part in parts.items()}
    return table


def alone(scores: Tensor, part: Pictures, task: Task) -> dict[str, float]:
    probabilities, labels = to_probabilities(scores, task).numpy(), part.labels
    right = (probabilities > 0.5) == labels if labels.ndim == 2 else probabilities.argmax(1) == labels
    return {"accuracy": float(right.mean()), "auroc": metrics.auroc(probabilities, labels)}
