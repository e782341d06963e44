"""Cross-validation for small sets: every case of training and validation is answered by a network that never saw it.

Patients stay on one side, classes are spread evenly (scikit-learn's StratifiedGroupKFold), the test part is not used.
Each fold trains to its last epoch, so nothing is chosen on the cases that it then answers.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from medfusion import library, metrics
from medfusion.errors import ConfigError
from medfusion.inference import answer_indices, to_probabilities
from medfusion.labelled import LabelledSet, fingerprint
from medfusion.types import InputSpec, ModelCard, OperatingPoint, Task
from training import finish, loop
from training.balance import rarest_label
from training.config import STARTS, TrainConfig
from training.datasets import Pictures, pictures_of
from training.finish import Calibration
from training.watch import Watch

RESULT = "cross_validation.json"
NAMED = ("accuracy", "balanced_accuracy", "auroc")


@dataclass(frozen=True, eq=False)
class Crossed:
    """Answers of all folds together, in the order of the cases. figures: see `measured`."""

    scores: Tensor  # class logits (n, K)
    labels: np.ndarray  # (n,) or (n, K)
    calibration: Calibration
    probabilities: np.ndarray  # (n, K), calibrated
    operating_point: OperatingPoint
    figures: Mapping[str, object]


def cross_validate(
    data: LabelledSet,
    pictures: np.ndarray,
    classes: tuple[str, ...],
    task: Task,
    spec: InputSpec,
    config: TrainConfig,
    folder: Path,
    watch: Watch | None = None,
) -> Crossed:
    """Train and answer fold by fold. folder: of the run; a fold that is finished there, of the same pictures,
    labels and settings, is not trained again.

    Raises ConfigError when the start has seen the cases, and when the run is stopped on the way: there is no model yet
    to keep.
    """
    if config.start not in STARTS and has_seen(library.read_card(library.find(config.start)), data):
        raise ConfigError(
            f"{Path(config.start).name} has learned from {data.source.name}: no fold of it is unseen. "
            "Take imagenet or another start, or 0 folds."
        )
    fold_of = divided(data, config)
    members = np.flatnonzero(fold_of >= 0)
    labels = data.labels(classes)
    scores = torch.zeros(len(data.cases), len(classes))
    keep_only(folder / "folds", made_from(data, labels, fold_of, spec, config))
    for fold in range(config.folds):
        own, kept = np.flatnonzero(fold_of == fold), folder / "folds" / f"{fold}.npy"
        if watch:
            watch.journal.tell("phase", text=f"Cross-validation, fold {fold + 1} of {config.folds}")
        if not kept.exists():
            cases = zip(data.cases, fold_of, strict=True)
            sides = {-1: "test", fold: "val"}
            part = replace(data, cases=tuple(replace(case, split=sides.get(int(f), "train")) for case, f in cases))
            train, val = (pictures_of(part, pictures, split, classes, spec) for split in ("train", "val"))
            train_and_answer(train, val, classes, task, config, kept, watch)
        scores[own] = torch.from_numpy(np.load(kept))
    patients = [data.cases[index].patient_id for index in members]
    found = measured(scores[members], labels[members], fold_of[members], classes, task, patients, config)
    (folder / RESULT).write_text(json.dumps(found.figures, indent=1, ensure_ascii=False), encoding="utf-8")
    return found


def made_from(data: LabelledSet, labels: np.ndarray, fold_of: np.ndarray, spec: InputSpec, config: TrainConfig) -> str:
    """What a fold is made from, pictures, labels, sides and settings, as a SHA-256."""
    settings = json.dumps([asdict(spec), asdict(config)])
    parts = (fingerprint(data).encode(), labels.tobytes(), fold_of.tobytes(), settings.encode())
    return hashlib.sha256(b"".join(parts)).hexdigest()


def keep_only(folder: Path, source: str) -> None:
    """Drop the folds in folder unless they were made from this source."""
    stamp = folder / "made_from"
    if not (stamp.exists() and stamp.read_text() == source):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        stamp.write_text(source)


def has_seen(card: ModelCard, data: LabelledSet) -> bool:
    """Whether a model was made from a file of this name, as far as its commands tell."""
    return data.source.name in shlex.split(str(card.training.get("command", "")))


def divided(data: LabelledSet, config: TrainConfig) -> np.ndarray:
    """(n,) the fold of each case, -1 for those of test."""
    pool = np.flatnonzero([case.split != "test" for case in data.cases])
    patients = np.array([data.cases[index].patient_id for index in pool])
    if len(set(patients)) < config.folds:
        raise ConfigError(f"{config.folds} folds need as many patients; there are {len(set(patients))}. Take fewer.")
    labels = data.labels()[pool]
    fewest = min(int(metrics.holds(labels, k).sum()) for k in range(len(data.classes)))
    if fewest < config.folds:
        raise ConfigError(f"The rarest class has {fewest} cases for {config.folds} folds. Take fewer, or add cases.")
    strata = rarest_label(labels)
    fold_of = np.full(len(data.cases), -1)
    folds = StratifiedGroupKFold(config.folds, shuffle=True, random_state=config.seed)
    for number, (_, chosen) in enumerate(folds.split(patients, strata, patients)):
        fold_of[pool[chosen]] = number
    return fold_of


def train_and_answer(
    train: Pictures,
    own: Pictures,
    classes: tuple[str, ...],
    task: Task,
    config: TrainConfig,
    kept: Path,
    watch: Watch | None,
) -> None:
    """Write the class logits of one fold, by a network that was trained on the others, to kept."""
    folder = kept.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    quiet = Watch(folder, watch.stop) if watch else None  # its curves are not those of the run
    resume = (folder / "checkpoints" / f"{loop.LAST}.ckpt").exists()
    whole = replace(config, patience=config.epochs)
    network, trained = loop.started(config, classes, task)
    network = loop.fit(network, train, own, task, whole, folder, resume, trained=trained, watch=quiet)
    if watch and watch.stop.exists():
        raise ConfigError(
            "The run was stopped during cross-validation, before there was a model to keep. Go on if you like."
        )
    network.load_state_dict(loop.weights_of(folder, loop.LAST))
    np.save(folder / "scores.npy", loop.scores(network.eval(), own, task).numpy())
    (folder / "scores.npy").replace(kept)
    shutil.rmtree(folder)


def measured(
    scores: Tensor,
    labels: np.ndarray,
    fold_of: np.ndarray,
    classes: tuple[str, ...],
    task: Task,
    patients: list[str],
    config: TrainConfig,
) -> Crossed:
    """Calibration and operating point from the answers of all folds, and what they come to.

    figures: `folds`, by figure the value of each, and their `mean` and `spread` (standard deviation); `pooled`, the
    report on all cases together.
    """
    found = finish.calibration(scores, torch.from_numpy(labels), len(labels), config)
    probabilities = to_probabilities(scores + found.offsets, task, found.temperature).numpy()
    weighting = finish.weighting(found.offsets, config)
    point = finish.operating_point(probabilities, labels, task, weighting, "cross-validation")
    answers = np.zeros_like(labels)
    for index, row in enumerate(probabilities):
        told = answer_indices(row, point, task)
        answers[index] = np.isin(np.arange(len(classes)), told) if task == "multilabel" else told[0]
    each: dict[str, list[float]] = {name: [] for name in NAMED}
    for fold in np.unique(fold_of):
        p, y, a = (values[fold_of == fold] for values in (probabilities, labels, answers))
        each["accuracy"].append(float((a == y).mean()))
        each["balanced_accuracy"].append(metrics.balanced_accuracy(a, y))
        each["auroc"].append(metrics.auroc(p, y))
    figures = {
        "folds": each,
        "mean": {name: float(np.nanmean(values)) for name, values in each.items()},
        "spread": {name: float(np.nanstd(values, ddof=1)) for name, values in each.items()},
        "pooled": metrics.report(probabilities, labels, answers, classes, patients),
    }
    return Crossed(scores, labels, found, probabilities, point, figures)
