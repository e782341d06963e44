"""`python -m training run`: a labelled set in, weights.safetensors and card.json out."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from medfusion import conformal, corruptions, evaluate, library, metrics
from medfusion.inference import looks_grey, to_probabilities
from medfusion.labelled import LabelledSet, read_labelled
from medfusion.library import Model
from medfusion.types import InputSpec, ModelCard, Task
from training import finish, loop, reference, sanity
from training.config import STARTS, TrainConfig
from training.datasets import decode, pictures_of, with_splits
from training.readme import readme

RUNS = Path("runs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line: where data comes from and goes to, and one option for each setting of TrainConfig."""
    parser.add_argument("--data", type=Path, required=True, help="zip or folder of CLASS/FILE pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights.safetensors and card.json")
    parser.add_argument("--about", type=Path, help="JSON that describes the data: see training/about")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of this run")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder for checkpoints and curves (default: runs)")
    for setting in fields(TrainConfig):
        flag = "--" + setting.name.replace("_", "-")
        parser.add_argument(flag, type=type(setting.default), help=f"default: {setting.default}")


def run(options: argparse.Namespace) -> str:
    """Train, calibrate, measure val and test once, and write the model. Returns what was written, in words."""
    started = time.perf_counter()
    about = finish.read_about(options.about, options.out.name)
    config = config_from(options, about)
    data = with_splits(read_labelled(options.data), config.seed)
    classes = about.classes or data.classes
    task: Task = "binary" if len(classes) == 2 else "multiclass"
    spec = InputSpec(config.side_px, config.side_px)
    folder = options.runs / options.out.name
    pictures = decode(data, spec, folder / "pictures.npy")
    train, val = (pictures_of(data, pictures, split, classes, spec) for split in ("train", "val"))

    network, trained = loop.started(config, classes, task)
    network = loop.fit(network, train, val, task, config, folder, options.resume, trained=trained)
    share = loop.blend(network, config.start, classes, val, task) if config.start not in STARTS else 1.0
    scores = loop.scores(network, val, task)
    temperature = finish.fit_temperature(scores, torch.from_numpy(val.labels))
    probabilities = to_probabilities(scores, task, temperature).numpy()
    before = metrics.expected_calibration_error(to_probabilities(scores, task).numpy(), val.labels)
    card = ModelCard(
        id=options.out.name,
        title=about.title,
        version=datetime.now(UTC).strftime("%Y.%m.%d"),
        size=config.size,
        task=task,
        classes=classes,
        modality=about.modality,
        dicom_modalities=about.dicom_modalities,
        colour=not looks_grey(pictures[0]) if about.colour is None else about.colour,
        input=spec,
        temperature=temperature,
        operating_point=finish.operating_point(probabilities, val.labels, task),
        set_thresholds=conformal.thresholds(probabilities, val.labels),
        weights_sha256="",
        intended_use=about.intended_use,
        limits=about.limits,
        data=dict(about.data) | {"file": options.data.name, "splits": data.counts()},
        training={
            "command": "python -m training " + shlex.join(portable(sys.argv[1:])),
            "seed": config.seed,
            "share_of_training": share,  # the rest of the weights is the start's
            "config": asdict(config),
            "versions": finish.versions(),
            "elapsed_s": round(time.perf_counter() - started),
        },
        license=about.license,
    )
    card = library.save(options.out, card, network)
    reference.write_if_possible(options.out, train, val, config.augmentation)
    model = library.load(str(options.out.resolve()), "cpu")
    card = measured(options.out, model, data, before, sanity.figures(model, train, val, config))
    return f"{card.id} {card.version} written to {options.out}"


def config_from(options: argparse.Namespace, about: finish.About) -> TrainConfig:
    """The description's augmentation and the command line's settings, over the defaults."""
    given = {f.name: getattr(options, f.name) for f in fields(TrainConfig) if getattr(options, f.name) is not None}
    return TrainConfig(**({"augmentation": about.augmentation} | given))


def measured(folder: Path, model: Model, data: LabelledSet, ece_before: float, sane: Mapping[str, object]) -> ModelCard:
    """Write the card again with the figures of val and test, made from the weights as users will load them."""
    parts = {split: data.subset(split) for split in ("val", "test")}
    figures: dict[str, object] = {"val_ece_before_temperature": ece_before}
    figures |= {split: evaluate.evaluate_cases(model, part) for split, part in parts.items() if part.cases}
    figures |= {"robustness": corruptions.robustness(model, parts["val"]), "sanity": sane}
    card = library.save(folder, replace(model.card, metrics=figures), model.network)
    (folder / "README.md").write_text(readme(card), encoding="utf-8")
    return card


def portable(arguments: list[str]) -> list[str]:
    """Command-line arguments without the folders of this machine; a resumed run is the same run."""
    arguments = [word for word in arguments if word != "--resume"]
    return [Path(word).name if Path(word).is_absolute() or ".." in Path(word).parts else word for word in arguments]
