"""`python -m training calibrate`: fit temperature, operating point and prediction sets of a model anew, on val.

The weights stay what they are. For models that were made before the way of calibrating changed, and for the val part of
another place.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from medfusion import conformal, library
from medfusion.inference import to_probabilities
from medfusion.labelled import read_labelled
from training import blend, finish, loop
from training.datasets import parts_of, with_splits
from training.plan import settings_of
from training.run import measured, portable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="the model, by id or folder")
    parser.add_argument("--data", type=Path, required=True, help="a labelled zip or folder of the same classes")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the decoded pictures")


def run(options: argparse.Namespace) -> str:
    """Write the card and its README.md with all figures of val and test. Returns both temperatures, in words."""
    folder = library.find(options.model)
    model = library.load(str(folder.resolve()), "cpu")
    card = model.card
    _, val = parts_of(card, options.data, options.runs)
    temperature = blend.temperature(model.network, val, settings_of(card), card.task)
    probabilities = to_probabilities(loop.scores(model.network, val, card.task), card.task, temperature).numpy()
    told = replace(
        card,
        temperature=temperature,
        operating_point=finish.operating_point(probabilities, val.labels, card.task),
        training=dict(card.training) | {"command": with_last_line(str(card.training.get("command", "")))},
        set_thresholds=() if card.task == "multilabel" else conformal.thresholds(probabilities, val.labels),
    )
    data = with_splits(read_labelled(options.data))
    known = {name: value for name, value in card.metrics.items() if name in ("robustness", "sanity", "seeds")}
    library.save(folder, told, model.network)
    measured(folder, library.load(str(folder.resolve()), "cpu"), data, known)
    return f"Temperature of {card.id}: {card.temperature:.3f} before, {temperature:.3f} now."


def with_last_line(command: str) -> str:
    """The commands that made the model, and this one."""
    line = "python -m training " + shlex.join(portable(sys.argv[1:]))
    return command if command.endswith(line) else f"{command}\n{line}".strip()
