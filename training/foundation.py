"""`python -m training foundation`: one encoder trained jointly on several labelled sets, the start for local data.

Every class of every set is an output of one softmax, so the network also learns which kind of picture it sees.
"""

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
from medfusion.errors import ConfigError, DataError
from medfusion.inference import to_probabilities
from medfusion.labelled import read_labelled
from medfusion.types import InputSpec, ModelCard, OperatingPoint
from training import balance, finish, loop
from training.config import TrainConfig
from training.datasets import Pictures, decode, with_splits
from training.run import portable

ABOUT = Path(__file__).parent / "about"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line: the sets, how often to draw from them, and one option for each setting of TrainConfig."""
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="zips or folders of CLASS/FILE pictures")
    parser.add_argument("--draws", type=int, nargs="*", default=[], help="cases drawn from each set an epoch")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights.safetensors and card.json")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of this run")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder for checkpoints and curves")
    for setting in fields(TrainConfig):
        flag = "--" + setting.name.replace("_", "-")
        parser.add_argument(flag, type=type(setting.default), help=f"default: {setting.default}")


def run(options: argparse.Namespace) -> str:
    """Train on all sets at once and write the encoder as a model whose classes are "SET: CLASS"."""
    started = time.perf_counter()
    given = {f.name: getattr(options, f.name) for f in fields(TrainConfig) if getattr(options, f.name) is not None}
    config = TrainConfig(**(given | {"balance": "sampler"}))  # by draws, below
    if options.draws and len(options.draws) != len(options.data):
        raise ConfigError(f"There are {len(options.data)} sets and {len(options.draws)} draws. Give one for each.")
    spec = InputSpec(config.side_px, config.side_px)
    folder = options.runs / options.out.name
    names = [path.stem.replace("_", "-") for path in options.data]
    described = {path.stem: path for path in ABOUT.glob("*.json")}
    abouts = [finish.read_about(described.get(name), name) for name in names]
    parts: dict[str, list[Pictures]] = {"train": [], "val": []}
    classes: list[str] = []
    splits: dict[str, dict[str, int]] = {}
    for index, (path, name) in enumerate(zip(options.data, names, strict=True)):
        data = with_splits(read_labelled(path))
        if data.several:
            raise DataError(f"{path.name} has several labels a picture. Sets trained on jointly need one each.")
        pictures = decode(data, spec, folder / f"{name}.npy")
        for split, counts in data.counts().items():
            splits.setdefault(split, {}).update({f"{name}: {label}": n for label, n in counts.items()})
        for split, into in parts.items():
            rows = np.flatnonzero([case.split == split for case in data.cases])
            labels = data.labels()[rows] + len(classes)
            into.append(Pictures(np.asarray(pictures), rows, labels, spec, np.full(len(rows), index)))
        classes += [f"{name}: {label}" for label in data.classes]

    train, val = (joined(parts[split]) for split in ("train", "val"))
    config = config.settled(len(train))
    draws = np.concatenate(
        [
            balance.draws(part.labels, options.draws[index] if options.draws else len(part), config.class_weighting)
            for index, part in enumerate(parts["train"])
        ]
    )
    recipes = tuple(about.augmentation for about in abouts)
    network, trained = loop.started(config, tuple(classes), "multiclass")
    network = loop.fit(network, train, val, "multiclass", config, folder, options.resume, recipes, draws, trained)
    scores = loop.scores(network, val, "multiclass")
    temperature = finish.fit_temperature(scores, torch.from_numpy(val.labels))
    probabilities = to_probabilities(scores, "multiclass", temperature).numpy()
    card = ModelCard(
        id=options.out.name,
        title="Foundation: a start for local data",
        version=datetime.now(UTC).strftime("%Y.%m.%d"),
        size=config.size,
        task="multiclass",
        classes=tuple(classes),
        modality="any of: " + "; ".join(about.modality for about in abouts),
        role="foundation",
        dicom_modalities=tuple(sorted({code for about in abouts for code in about.dicom_modalities})),
        colour=True,
        input=spec,
        temperature=temperature,
        operating_point=OperatingPoint((1.0,) * len(classes), "The most probable class."),
        weights_sha256="",
        intended_use="The start of fine-tuning on local data, and telling kinds of pictures apart. Makes no diagnosis.",
        limits=("Trained on the sets below and nothing else.",),
        data={key: listed(names, abouts, key) for key in ("source", "licence", "citation")} | {"splits": splits},
        training={
            "command": "python -m training " + shlex.join(portable(sys.argv[1:])),
            "seed": config.seed,
            "config": asdict(config),
            "versions": finish.versions(),
            "elapsed_s": round(time.perf_counter() - started),
        },
        license="Apache-2.0 (weights); see the data for its own",
        metrics={"val_by_set": figures(probabilities, val, names)},
    )
    library.save(options.out, card, network)
    return f"{card.id} {card.version} written to {options.out}"


def listed(names: list[str], abouts: list[finish.About], key: str) -> str:
    """What the descriptions of all sets say on one point."""
    return "; ".join(f"{name}: {about.data.get(key, 'not stated')}" for name, about in zip(names, abouts, strict=True))


def joined(parts: list[Pictures]) -> Pictures:
    """Several sets as one, each keeping its group."""
    offsets = np.cumsum([0, *(len(part.pictures) for part in parts[:-1])])
    return replace(
        parts[0],
        pictures=np.concatenate([part.pictures for part in parts]),
        rows=np.concatenate([part.rows + offset for part, offset in zip(parts, offsets, strict=True)]),
        labels=np.concatenate([part.labels for part in parts]),
        groups=np.concatenate([part.groups for part in parts]),
    )


def figures(probabilities: np.ndarray, val: Pictures, names: list[str]) -> dict[str, object]:
    """Of each set on val: accuracy and AUROC among its own classes, and how many are told to be of that set at all."""
    table: dict[str, object] = {}
    sets = np.array([val.groups[np.flatnonzero(val.labels == label)[0]] for label in range(probabilities.shape[1])])
    for index, name in enumerate(names):
        rows, columns = val.groups == index, np.flatnonzero(sets == index)
        own = probabilities[rows][:, columns]
        own = own / own.sum(1, keepdims=True)
        labels = val.labels[rows] - columns[0]
        table[name] = {
            "n": int(rows.sum()),
            "accuracy": float((own.argmax(1) == labels).mean()),
            "auroc": metrics.auroc(own, labels),
            "told_apart": float((sets[probabilities[rows].argmax(1)] == index).mean()),
        }
    return table
