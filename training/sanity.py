"""`python -m training sanity`: would a model's maps look the same without what it has learned? See explain/sanity.py.

Weights are randomised part by part, and a second network is trained on the same pictures with shuffled labels (Adebayo
2018, sections 3.1 and 3.2). The figures go to the card; a method whose maps do not change is refused for the model.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lightning
import numpy as np

from medfusion import library
from medfusion.errors import ConfigError
from medfusion.explain import EXPLAINERS, refusal
from medfusion.explain.sanity import lessened, likenesses, unjudged
from medfusion.library import Model
from training import loop
from training.config import TrainConfig
from training.datasets import Pictures, parts_of
from training.plan import settings_of
from training.readme import readme
from training.watch import Watch

MOST = 500  # pictures with shuffled labels
WATCHED = 100  # of them, by which the best epoch is told
OTHER = "shuffled"
PHASE = "Testing whether maps depend on what was learned"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="the model, by id or folder")
    parser.add_argument("--data", type=Path, required=True, help="the zip or folder that it was trained on")
    parser.add_argument("--sanity-epochs", type=int, help="of training on shuffled labels; default: the model's own")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the decoded pictures")


def run(options: argparse.Namespace) -> str:
    """Write the figures to the card and its README.md. Returns which methods passed, in words."""
    folder = library.find(options.model)
    model = library.load(str(folder.resolve()), "cpu")
    config = settings_of(model.card)
    if options.sanity_epochs is not None:
        config = replace(config, sanity_epochs=options.sanity_epochs)
    train, val = parts_of(model.card, options.data, options.runs)
    metrics = dict(model.card.metrics) | {"sanity": figures(model, train, val, config)}
    card = library.save(folder, replace(model.card, metrics=metrics), model.network)
    (folder / "README.md").write_text(readme(card), encoding="utf-8")
    refused = [reason for method in EXPLAINERS if (reason := refusal(card, method))]
    return "\n".join(refused or [f"The maps of all methods depend on what {card.id} has learned."])


def figures(
    model: Model, train: Pictures, val: Pictures, config: TrainConfig, tell: Callable[[str], None] | None = None
) -> dict[str, object]:
    """By method, how alike maps are after randomising weights (by the last part) and after shuffling labels.

    tell: is told what is looked at, in words; without it the training of the twin shows a progress bar.
    """
    if not config.sanity_scans:
        return {}
    rows = val.rows[np.linspace(0, len(val) - 1, min(config.sanity_scans, len(val))).astype(int)]
    pictures = [np.asarray(val.pictures[row]) for row in rows]
    model = unjudged(model)  # once: networks are compiled for their first map, and all methods share them
    others = lessened(model)
    if config.sanity_epochs:
        others[OTHER] = shuffled(model, train, config, tell)
    weights, labels = {}, {}
    for number, (method, explainer) in enumerate(EXPLAINERS.items(), start=1):
        if tell:
            tell(f"{PHASE}: {explainer.title}, {number} of {len(EXPLAINERS)}")
        weights[method] = likenesses(model, others, pictures, method)
        if OTHER in others:
            labels[method] = weights[method].pop(OTHER)
    return {"scans": len(rows), "weights": weights} | ({"labels": labels} if labels else {})


class TwinWatch(Watch):
    """Tells the epochs of the twin in words; its figures mean nothing and stay in its own folder."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        super().__init__(folder, folder / "stop")
        self.tell = tell

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        which = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
        self.tell(f"{PHASE}: against a twin that learns shuffled labels, {which}")


def shuffled(model: Model, train: Pictures, config: TrainConfig, tell: Callable[[str], None] | None = None) -> Model:
    """A network that was trained on the same pictures with labels that mean nothing, from no model that knows them."""
    rng = np.random.default_rng(config.seed)
    chosen = rng.choice(len(train), min(MOST, len(train)), replace=False)
    labels = rng.permutation(train.labels[chosen])
    part = replace(train, rows=train.rows[chosen], labels=labels, groups=train.groups[chosen])
    watched = replace(part, rows=part.rows[:WATCHED], labels=labels[:WATCHED], groups=part.groups[:WATCHED])
    epochs = config.sanity_epochs
    config = replace(config, start="imagenet", epochs=epochs, patience=epochs, minutes=0.0)
    try:
        network, trained = loop.started(config, model.card.classes, model.card.task)
    except ConfigError:  # ImageNet weights are not installed
        config = replace(config, start="scratch", frozen_stages=0)
        network, trained = loop.started(config, model.card.classes, model.card.task)
    with tempfile.TemporaryDirectory(prefix="medfusion-") as folder:
        watch = TwinWatch(Path(folder), tell) if tell else None
        network = loop.fit(network, part, watched, model.card.task, config, Path(folder), trained=trained, watch=watch)
    return replace(model, network=network)
