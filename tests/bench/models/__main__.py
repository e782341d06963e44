"""`python -m tests.bench.models --data FOLDER`: run the trials that the tables in --out lack. Takes hours; resumable.

FOLDER holds the sets of the shipped models, whose cards say where they come from: chest_xray.zip and so on (SETS), each
with CLASS/FILE pictures and a manifest.csv. `--out tests/bench/models/results` adds to the tables of the README.

All trials of a run have one budget: the same pictures drawn, the same augmentation, schedule and input size. The best
epoch is that of the smallest loss on val. Answers are the most probable class, uncalibrated.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from medfusion import metrics
from medfusion.errors import MedFusionError
from medfusion.inference import to_probabilities
from medfusion.labelled import LabelledSet, read_labelled
from medfusion.types import InputSpec, Task
from tests.bench.models import networks, report
from tests.bench.models.trials import EXPERIMENTS, FOUNDATIONS, Trial, trials
from training import balance, finish, foundation, loop
from training.config import TrainConfig
from training.datasets import Pictures, decode, pictures_of, with_splits
from training.memory import keep_memory

OUT = Path("runs/bench/results")
ROUNDS = 5  # validations in a trial
BATCH = 16
SETS = ("chest_xray", "brain_mri", "breast_ultrasound", "retina", "chest_ct", "lung_histology")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.bench.models", description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with the zips of all sets, chest_xray.zip and so on"
    )
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS), help="default: all")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--drawn", type=int, default=3200, help="training pictures drawn in a trial (default: 3200)")
    parser.add_argument("--side-px", type=int, default=64, help="side of the input (default: 64)")
    parser.add_argument(
        "--workers", type=int, default=0, help="processes that augment, whose seconds do not count (default: 0)"
    )
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder of the tables and plots (default: {OUT})")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"), help="folder of pictures and checkpoints")
    options = parser.parse_args(arguments)
    keep_memory()
    try:
        for experiment in options.only:
            wanted = [trial for trial in trials(experiment, options.seeds) if trial.data in options.sets]
            run_all(wanted, options.out / f"{experiment}.csv", options)
        costs(options.out / "networks.csv")
        report.write(options.out)
    except MedFusionError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def run_all(wanted: Iterable[Trial], table: Path, options: argparse.Namespace) -> None:
    """Append a row for each trial that the table lacks at this budget."""
    budget = {"drawn": options.drawn, "side_px": options.side_px}
    known = read(table)
    for trial in wanted:
        key = {name: str(value) for name, value in (asdict(trial) | budget).items()}
        if any(key.items() <= row.items() for row in known):
            continue
        sys.stderr.write(f"{trial}\n")
        append(table, key | run(trial, options))


def run(trial: Trial, options: argparse.Namespace) -> dict[str, object]:
    """Train once, and measure val and test."""
    about = finish.read_about(foundation.ABOUT / f"{trial.data.replace('_', '-')}.json", trial.data)
    spec = InputSpec(options.side_px, options.side_px)
    data = with_splits(read_labelled(options.data / f"{trial.data}.zip"), 0)
    pictures = decode(data, spec, options.runs / f"{trial.data}-{options.side_px}.npy")
    train, val, test = (pictures_of(data, pictures, split, data.classes, spec) for split in ("train", "val", "test"))
    train = thinned(train, data, trial)
    task: Task = "binary" if len(data.classes) == 2 else "multiclass"
    config = TrainConfig(
        start="scratch", epochs=ROUNDS, patience=ROUNDS, frozen_stages=0, train_px=options.side_px,
        side_px=options.side_px, batch_size=BATCH, balance=trial.balance, average_decay=0.98,
        augmentation=about.augmentation, seed=trial.seed, workers=options.workers,
    )  # fmt: skip
    start = str(without(trial.data, options, FOUNDATIONS[trial.start])) if trial.start in FOUNDATIONS else trial.start
    outputs = 1 if task == "binary" else len(data.classes)
    network = networks.make(trial.network, outputs, options.side_px, start, trial.seed)
    started = time.process_time()  # other work may share the processor
    network = loop.fit(
        network, train, val, task, config, options.runs / "trial",
        draws=balance.draws(
            train.labels, options.drawn / ROUNDS, config.class_weighting if trial.balance == "sampler" else 0
        ),
        trained=networks.trained_parts(trial.network, network, trial.start),
    )  # fmt: skip
    found: dict[str, object] = {"cases": len(train), "processor_s": round(time.process_time() - started)}
    for name, part in (("val", val), ("test", test)):
        probabilities = to_probabilities(loop.scores(network, part, task), task).numpy()
        answers = probabilities.argmax(1)
        found |= {
            f"{name}_accuracy": round(float((answers == part.labels).mean()), 4),
            f"{name}_balanced_accuracy": round(metrics.balanced_accuracy(answers, part.labels), 4),
            f"{name}_auroc": round(metrics.auroc(probabilities, part.labels), 4),
        }
    return found


def thinned(train: Pictures, data: LabelledSet, trial: Trial) -> Pictures:
    """A share of each class, by patient; the shares of one seed hold each other. Rarity thins the second class."""
    patients = np.array([case.patient_id for case in data.cases])[train.rows]
    rank = {patient: i for i, patient in enumerate(np.random.default_rng(trial.seed).permutation(np.unique(patients)))}
    order = np.argsort([rank[patient] for patient in patients], kind="stable")
    kept: list[int] = []
    for label in np.unique(train.labels):
        own = order[train.labels[order] == label]
        count = round(trial.share * len(own))
        if trial.rarity and label == 1:
            count = (train.labels == 0).sum() // trial.rarity
        kept += own[:count].tolist()
    chosen = np.sort(kept)
    return replace(train, rows=train.rows[chosen], labels=train.labels[chosen], groups=train.groups[chosen])


def without(left_out: str, options: argparse.Namespace, times: int = 1) -> Path:
    """A foundation trained on all sets but one, each with so many times the budget of a trial."""
    drawn = times * options.drawn
    folder = options.runs / f"without-{left_out}-{options.side_px}-{drawn}"
    if (folder / "card.json").exists():
        return folder
    given = argparse.Namespace(**dict.fromkeys(TrainConfig.__dataclass_fields__))
    sets = [name for name in SETS if name != left_out]
    given.data = [options.data / f"{name}.zip" for name in sets]
    given.draws = [drawn // ROUNDS] * len(sets)
    given.out, given.resume, given.runs = folder, False, options.runs
    given.epochs, given.patience, given.frozen_stages, given.average_decay = ROUNDS, ROUNDS, 1, 0.997
    given.train_px = given.side_px = options.side_px
    foundation.run(given)
    return folder


def costs(table: Path) -> None:
    known = {row["network"] for row in read(table)}
    for name in (networks.OURS, *networks.RIVALS):
        if name not in known:
            append(table, {"network": name} | {key: round(v, 3) for key, v in networks.cost(name).items()})


def read(table: Path) -> list[dict[str, str]]:
    if not table.exists():
        return []
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def append(table: Path, row: dict[str, object]) -> None:
    table.parent.mkdir(parents=True, exist_ok=True)
    fresh = not table.exists()
    with table.open("a", encoding="utf-8", newline="") as file:
        lines = csv.DictWriter(file, row)
        if fresh:
            lines.writeheader()
        lines.writerow(row)


if __name__ == "__main__":
    sys.exit(main())
