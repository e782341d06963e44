"""`python -m training run`: a labelled set in, weights.safetensors and card.json out."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from medfusion import library, metrics
from medfusion.evaluate import evaluate
from medfusion.inference import answer_indices, looks_grey
from medfusion.labelled import LabelledSet, read_labelled
from medfusion.types import ModelCard, Task
from training import finish, loop
from training.config import TrainConfig
from training.datasets import Pictures, decode, with_splits

RUNS = Path("runs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line: where data comes from and goes to, and one option for each setting of TrainConfig."""
    parser.add_argument("--data", type=Path, required=True, help="zip or folder of CLASS/FILE, with or without manifest.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights.safetensors and card.json")
    parser.add_argument("--about", type=Path, help="JSON that describes the data: see training/about")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of this run")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder for checkpoints and curves (default: runs)")
    for setting in fields(TrainConfig):
        flag = "--" + setting.name.replace("_", "-")
        parser.add_argument(flag, type=type(setting.default), help=f"default: {setting.default}")


def config_from(options: argparse.Namespace, about: finish.About) -> TrainConfig:
    given = {f.name: getattr(options, f.name) for f in fields(TrainConfig) if getattr(options, f.name) is not None}
    return TrainConfig(**({"augmentation": about.augmentation} | given))


def run(options: argparse.Namespace) -> ModelCard:
    """Train, calibrate, measure val and test once, and write the model."""
    started = time.perf_counter()
    about = finish.read_about(options.about, options.out.name)
    config = config_from(options, about)
    data = with_splits(read_labelled(options.data), config.seed)
    classes = about.classes or data.classes
    task: Task = "binary" if len(classes) == 2 else "multiclass"
    spec = loop.spec_of(config)
    folder = options.runs / options.out.name
    pictures = decode(data, spec, folder / "pictures.npy")
    part = {name: _part(data, pictures, name, classes, spec) for name in ("train", "val")}
    network = loop.fit(part["train"], part["val"], len(classes), task, config, folder, options.resume)

    scores, labels = loop.scores(network, part["val"], task), part["val"].labels
    temperature = finish.fit_temperature(scores, torch.from_numpy(labels))
    probabilities = finish.calibrated(scores, task, temperature)
    point = finish.operating_point(probabilities, labels, task)
    colour = about.colour if about.colour is not None else not looks_grey(pictures[0])
    card = ModelCard(
        id=options.out.name, version=datetime.now(UTC).strftime("%Y.%m.%d"), size=config.size, task=task, classes=classes,
        colour=colour, input=spec, temperature=temperature, operating_point=point, weights_sha256="",
        data=dict(about.data) | {"file": options.data.name, "splits": data.counts()},
        training={
            "command": "python -m training " + shlex.join(_portable(sys.argv[1:])), "seed": config.seed,
            "config": asdict(config), "versions": finish.versions(),
            "elapsed_s": round(time.perf_counter() - started),
        },
        **finish.about_to_card(about),
    )  # fmt: skip
    card = library.save(options.out, card, network)
    return _measure(options, card, data, network, scores.softmax(1).numpy(), labels)


def _measure(options, card: ModelCard, data: LabelledSet, network, uncalibrated: np.ndarray, labels: np.ndarray) -> ModelCard:  # type: ignore[no-untyped-def]
    """Add the figures of val and test, made by the same command that users have, to the card."""
    model = library.load(str(options.out.resolve()), "cpu")
    measured: dict[str, object] = {}
    if read_labelled(options.data).has_splits:
        for split in ("val", "test"):
            if data.subset(split).cases:
                measured[split] = evaluate(model, options.data, split)
    before = metrics.expected_calibration_error(uncalibrated, labels)
    measured["val_ece_before_temperature"] = before
    return library.save(options.out, replace(card, metrics=measured), network)


def _part(data: LabelledSet, pictures: np.ndarray, split: str, classes: tuple[str, ...], spec) -> Pictures:  # type: ignore[no-untyped-def]
    chosen = np.array([case.split == split for case in data.cases])
    return Pictures(pictures[chosen], data.subset(split).labels(classes), spec)


def _portable(arguments: list[str]) -> list[str]:
    """Command-line arguments without the folders of this machine."""
    return [Path(word).name if Path(word).is_absolute() or ".." in Path(word).parts else word for word in arguments]


__all__ = ["add_arguments", "answer_indices", "run"]
