"""`python -m training calibrate`: fit temperature, operating point and prediction sets of a model anew.

On val, or on a cross-validation of the way in which the model was made. Of the weights only the bias of the last layer
may change, by an offset for each class. For models that were made before the way of calibrating changed, and for the
pictures of another place, whose figures then are those of the card.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from medfusion import library
from medfusion.labelled import LabelledSet, read_labelled
from training.datasets import decode, pictures_of, with_splits
from training.folds import cross_validate
from training.plan import settings_of
from training.run import calibrated, measured, portable, today


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="the model, by id or folder")
    parser.add_argument("--data", type=Path, required=True, help="a labelled zip or folder of the same classes")
    parser.add_argument("--out", type=Path, help="folder of the model so calibrated (default: in place of the old one)")
    parser.add_argument(
        "--folds", type=int, help="train so many networks as the model was, and calibrate on what each never saw"
    )
    parser.add_argument("--start", help="of these networks: imagenet or a model (default: that of the model)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of pictures and folds (default: runs)")


def run(options: argparse.Namespace) -> str:
    """Write the card and its README.md with all figures of val and test. Returns both temperatures, in words."""
    found = library.find(options.model)
    folder = options.out or found
    model = library.load(str(found.resolve()), "cpu")
    card = replace(model.card, id=folder.name)
    data, kept = with_splits(read_labelled(options.data)), options.runs / card.id
    pictures = decode(data, card.input, kept / "pictures.npy")
    val = pictures_of(data, pictures, "val", card.classes, card.input)
    settings = settings_of(card)
    crossed = None
    if options.folds:
        made: Mapping[str, str] = card.training.get("config", {})  # type: ignore[assignment]
        start = options.start or made.get("start", settings.start)
        config = replace(settings, start=start, folds=options.folds)
        crossed = cross_validate(data, pictures, card.classes, card.task, card.input, config, kept)
    told = calibrated(card, model.network, val, settings, crossed)
    command = with_last_line(str(card.training.get("command", "")))
    told = replace(told, version=today(), training=dict(told.training) | {"command": command})
    is_own = all(card.data.get(key) == value for key, value in data_of(data).items())
    elsewhere = {} if is_own else {"calibrated_on": data.source.name}
    told = replace(told, data={key: card.data[key] for key in card.data if key != "calibrated_on"} | elsewhere)
    if folder != found:
        shutil.copytree(found, folder, dirs_exist_ok=True)
    is_same = library.save(folder, told, model.network).weights_sha256 == card.weights_sha256
    holds = {"sanity": True, "seeds": is_own, "robustness": is_own and is_same}
    known = {name: card.metrics[name] for name, still in holds.items() if still and name in card.metrics}
    model = library.load(str(folder.resolve()), "cpu")
    measured(folder, model, data, known | ({"cross_validation": crossed.figures} if crossed else {}))
    return f"Temperature of {card.id}: {card.temperature:.3f} before, {told.temperature:.3f} now."


def data_of(data: LabelledSet) -> dict[str, object]:
    return {"file": data.source.name, "splits": data.counts()}


def with_last_line(command: str) -> str:
    """The commands that made the model, and this one."""
    line = "python -m training " + shlex.join(portable(sys.argv[1:]))
    return command if command.endswith(line) else f"{command}\n{line}".strip()
