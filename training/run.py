"""`python -m training run`: a labelled set in, weights.safetensors and card.json out."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medfusion import cluster, conformal, corruptions, evaluate, library, metrics
from medfusion.errors import ConfigError
from medfusion.evaluate import Measurement
from medfusion.inference import looks_grey, to_probabilities
from medfusion.labelled import LabelledSet, read_labelled
from medfusion.library import Model
from medfusion.network import MedFusionNet
from medfusion.router import FOUNDATION
from medfusion.sources import at_hand
from medfusion.types import InputSpec, ModelCard, OperatingPoint, Task
from training import blend, compare, finish, loop, reference, sanity, soup
from training.cluster import train as on_cluster
from training.config import TrainConfig
from training.datasets import Pictures, decode, pictures_of, with_splits
from training.folds import Crossed, cross_validate
from training.plan import Plan, read_plan
from training.readme import readme
from training.search import search
from training.watch import Pin, Watch

RUNS = Path("runs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line: where data comes from and goes to, and one option for each setting of TrainConfig."""
    parser.add_argument("--data", required=True, help="zip or folder of CLASS/FILE pictures, or the address of a zip")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights.safetensors and card.json")
    parser.add_argument("--config", type=Path, help="settings of a run, as the Fine-tune page saves them")
    parser.add_argument("--about", type=Path, help="JSON that describes the data: see training/about")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of this run")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder for checkpoints and curves (default: runs)")
    for setting in fields(TrainConfig):
        flag = "--" + setting.name.replace("_", "-")
        default = f"{FOUNDATION} where it is installed" if setting.name == "start" else setting.default
        parser.add_argument(flag, type=type(setting.default), help=f"default: {default}")


def run(options: argparse.Namespace) -> str:
    """Train, calibrate, measure val and test once, and write the model. Returns what was written, in words.

    On the Ray cluster that RAY_ADDRESS names, if it names one: then all folders must lie in storage that it shares.
    """
    plan, source = plan_from(options), at_hand(options.data)
    command = "python -m training " + shlex.join(portable(sys.argv[1:]))
    folder = options.runs / options.out.name
    if cluster.is_wanted():
        if not options.resume:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        places = source.absolute(), folder.absolute(), options.out.absolute()
        on_cluster(partial(make_or_go_on, plan, *places, command), folder)
    else:
        make(plan, source, folder, options.out, command, options.resume)
    return f"{plan.model_id} {library.read_card(options.out).version} written to {options.out}"


def make_or_go_on(plan: Plan, source: Path, folder: Path, out: Path, command: str) -> None:
    """make, from the last epoch if there is one: that is how work comes to a second machine."""
    make(plan, source, folder, out, command, resume=(folder / "checkpoints" / f"{loop.LAST}.ckpt").exists())


@dataclass(frozen=True, eq=False)
class Made:
    """A new model, and what it answered to the cases of val and, where there are any, of test."""

    model: Model
    val: Measurement
    test: Measurement | None


def make(
    plan: Plan, source: Path, folder: Path, out: Path, command: str, resume: bool = False, watch: Watch | None = None
) -> Made:
    """From a labelled set to a model in out. folder: of the run, for checkpoints and decoded pictures.

    command: what makes the model again, for its card. watch: is told how it goes.
    """
    started = time.perf_counter()

    def tell(phase: str) -> None:
        if watch:
            watch.journal.tell("phase", text=phase)

    about, config = plan.about, plan.settings
    tell("Reading pictures")
    data = with_splits(read_labelled(source).without(plan.left_out))
    classes = about.classes or data.classes
    task = task_of(data.several, len(classes))
    spec = InputSpec(config.side_px, config.side_px)
    pictures = decode(data, spec, folder / "pictures.npy")
    train, val = (pictures_of(data, pictures, split, classes, spec) for split in ("train", "val"))
    config = config.settled(len(train))
    card = ModelCard(
        id=plan.model_id,
        title=about.title,
        version=today(),
        size=config.size,
        task=task,
        classes=classes,
        modality=about.modality,
        dicom_modalities=about.dicom_modalities,
        colour=not looks_grey(pictures[0]) if about.colour is None else about.colour,
        input=spec,
        temperature=1.0,
        operating_point=OperatingPoint((1.0,) * len(classes), ""),
        weights_sha256="",
        intended_use=about.intended_use,
        limits=about.limits,
        data=dict(about.data) | {"file": source.name, "splits": data.counts(), "left_out": len(plan.left_out)},
        license=about.license,
    )
    shared = replace(config, minutes=config.minutes / (1 + config.folds + bool(config.trials)))
    searched: dict[str, object] = {}
    if config.trials:
        shared, searched = search(shared, train, val, classes, task, folder, watch)
        config = replace(shared, minutes=config.minutes)
    crossed = cross_validate(data, pictures, classes, task, spec, shared, folder, watch) if config.folds else None
    if watch:
        watch.pin = pin(card, val)

    tell("Training")
    network = soup.fit_all(train, val, classes, task, shared, folder, resume, watch)
    tell("Choosing weights, calibration and operating point")
    mixed = blend.blend(network, soup.members(folder, config), config, classes, val, task)
    network.load_state_dict(library.stored(network), strict=False)  # what is calibrated is what users will load
    card = calibrated(card, network, val, config, crossed)
    card = replace(
        card,
        training=dict(card.training)
        | {
            "command": command,
            "seed": config.seed,
            "epoch": mixed.epoch,
            "share_of_training": mixed.share,  # the rest of the weights is the start's
            "averaged_seeds": list(mixed.seeds),
            "config": asdict(config),
            **({"search": searched} if searched else {}),
            "versions": finish.versions(),
            "elapsed_s": round(time.perf_counter() - started),
        },
    )
    card = library.save(out, card, network)
    tell("Learning which pictures the model knows")
    reference.write_if_possible(out, train, val, config.augmentation)
    model = library.load(str(out.resolve()), "cpu")
    sane = sanity.figures(model, train, val, config, tell if watch else None)
    tell("Measuring on held-out pictures")
    more: dict[str, object] = {"cross_validation": crossed.figures} if crossed else {}
    if config.seeds > 1:
        parts = {"val": val, "test": pictures_of(data, pictures, "test", classes, spec)}
        parts = {split: part for split, part in parts.items() if len(part)}
        more["seeds"] = soup.figures(network, soup.members(folder, config), parts, task)
    return measured(out, model, data, {"sanity": sane} | more)


def calibrated(
    card: ModelCard, network: MedFusionNet, val: Pictures, config: TrainConfig, crossed: Crossed | None
) -> ModelCard:
    """With temperature, operating point and thresholds of sets, from the answers of a cross-validation or of val.

    The offsets of the classes go into the bias of the network's last layer; the card tells their sum.
    """
    moved = torch.tensor(card.class_offsets or [0.0] * len(card.classes))
    if crossed:
        found, probabilities, labels = crossed.calibration, crossed.probabilities, crossed.labels
        add_offsets(network, found.offsets - moved, card.task)  # networks of folds have none yet
        moved, point = found.offsets, crossed.operating_point
    else:
        found, labels = finish.calibration(*blend.seen(network, val, config, card.task), len(val), config), val.labels
        add_offsets(network, found.offsets, card.task)
        moved = moved + found.offsets
        probabilities = to_probabilities(loop.scores(network, val, card.task), card.task, found.temperature).numpy()
        point = finish.operating_point(probabilities, labels, card.task, finish.weighting(moved, config))
    return replace(
        card,
        class_offsets=tuple(moved.tolist()) if moved.any() else (),
        temperature=found.temperature,
        operating_point=point,
        set_thresholds=() if card.task == "multilabel" else conformal.thresholds(probabilities, labels),
    )


def today() -> str:
    """The version of a model that is made, or answers otherwise, from now on."""
    return datetime.now(UTC).strftime("%Y.%m.%d")


def add_offsets(network: MedFusionNet, offsets: Tensor, task: Task) -> None:
    """Have the class logits of a network be higher by so much (K,), to half precision, in which it is stored."""
    if offsets.any():
        by = offsets[1:] - offsets[:1] if task == "binary" else offsets
        network.head.bias.data = (network.head.bias.data + by.to(network.head.bias)).half().to(network.head.bias)


def task_of(several: bool, classes: int) -> Task:
    if several:
        return "multilabel"
    return "binary" if classes == 2 else "multiclass"


def pin(card: ModelCard, val: Pictures) -> Pin:
    """Draws the map of one case of val, of the class that is looked for, by the network as it is."""
    target = 1 if card.task == "binary" else 0
    first = int(np.flatnonzero(metrics.holds(val.labels, target))[0])
    picture = np.asarray(val.pictures[val.rows[first]])

    def draw(network: nn.Module, path: Path) -> None:
        assert isinstance(network, MedFusionNet)
        compare.draw(Model(card, network, torch.device("cpu")), picture, card.classes[target], path)

    return draw


def plan_from(options: argparse.Namespace) -> Plan:
    """The settings of --config, or the foundation and the description's augmentation; the command line's over both."""
    given = {f.name: getattr(options, f.name) for f in fields(TrainConfig) if getattr(options, f.name) is not None}
    model_id = options.out.name
    if options.config is None:
        about = finish.read_about(options.about, model_id)
        usual = {"augmentation": about.augmentation, "start": usual_start(options.size or TrainConfig.size)}
        return Plan(model_id, TrainConfig(**(usual | given)), about)
    try:
        plan = read_plan(options.config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{options.config.name} cannot be read ({error}). Check the path.") from error
    about = finish.read_about(options.about, model_id) if options.about else plan.about
    return Plan(model_id, replace(plan.settings, **given), about, plan.left_out)


def usual_start(size: str) -> str:
    """The foundation model, where it is installed and of that size."""
    sizes = {card.id: card.size for card in library.list_cards() if card.role == "foundation"}
    return FOUNDATION if sizes.get(FOUNDATION) == size else TrainConfig.start


def measured(folder: Path, model: Model, data: LabelledSet, known: Mapping[str, object]) -> Made:
    """Write the card again with the figures of val and test, made from the weights as users will load them."""
    parts = {split: data.subset(split) for split in ("val", "test")}
    found = {split: evaluate.measure(model, part) for split, part in parts.items() if part.cases}
    figures: dict[str, object] = {
        f"{split}_ece_before_temperature": metrics.expected_calibration_error(
            uncalibrated(one.probabilities, model.card), one.labels
        )
        for split, one in found.items()
    }
    figures |= {split: one.figures for split, one in found.items()}
    if "robustness" not in known:
        figures["robustness"] = corruptions.robustness(model, parts["val"])
    figures |= known
    card = library.save(folder, replace(model.card, metrics=figures), model.network)
    (folder / "README.md").write_text(readme(card), encoding="utf-8")
    return Made(replace(model, card=card), found["val"], found.get("test"))


def uncalibrated(probabilities: np.ndarray, card: ModelCard) -> np.ndarray:
    """(n, K) what the probabilities of a model were without its temperature."""
    told = torch.from_numpy(probabilities)
    scores = told.logit() if card.task == "multilabel" else told.log()
    return to_probabilities(scores, card.task, 1 / card.temperature).numpy()


def portable(arguments: list[str]) -> list[str]:
    """Command-line arguments without the folders of this machine; a resumed run is the same run."""
    arguments = [word for word in arguments if word != "--resume"]
    return [Path(word).name if Path(word).is_absolute() or ".." in Path(word).parts else word for word in arguments]
