"""`explain`: the maps of one scan as arrays and pictures, how far they can be believed, and how to make them again."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from medfusion import router
from medfusion.apart import read_mask
from medfusion.commands.files import frame_index, read_bytes, read_file, write_line
from medfusion.commands.predict import load
from medfusion.errors import ConfigError, ExplanationError
from medfusion.explain import EXPLAINERS, describe, explain, make_ready, record, refusal
from medfusion.explain.faithfulness import faithfulness
from medfusion.explain.shortcuts import shortcuts
from medfusion.explain.stability import SEEDS, stability
from medfusion.explain.truth import against, in_words
from medfusion.imaging import display
from medfusion.library import Model
from medfusion.types import Explanation, Prediction, Scan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, nargs="?", metavar="PATH", help="the scan (with --replay not needed)")
    parser.add_argument("--model", metavar="ID", help="the model to ask, by id or folder (with --replay not needed)")
    parser.add_argument(
        "--method", default="gradcam,lime", metavar="NAMES", help=f"with commas between: {', '.join(EXPLAINERS)}"
    )
    parser.add_argument("--target", metavar="CLASS", help="the class to explain (default: the answer)")
    parser.add_argument("--frame", type=int, default=1, metavar="N", help="the frame to read, from 1 (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of methods that draw numbers (default: 0)")
    parser.add_argument(
        "--mask", type=Path, metavar="FILE", help="your own mask of the scan: score the maps against it"
    )
    parser.add_argument("--quick", action="store_true", help="leave out the tests of the maps")
    parser.add_argument(
        "--replay", type=Path, metavar="FILE", help="make the maps of an explanation.json again, and compare them"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for METHOD.npz and JSON")
    parser.add_argument("--device", help="where to compute, such as cpu or cuda (default: the GPU where there is one)")


def run(arguments: argparse.Namespace) -> int:
    """Write the maps, their tests and explanation.json; or make the maps of such a file again and compare.

    Returns 1 when one of the methods is refused for this model; the others' maps are there all the same.
    """
    methods = list(dict.fromkeys(name.strip() for name in arguments.method.split(",")))
    unknown = [name for name in methods if name not in EXPLAINERS]
    if unknown:
        raise ExplanationError(f"There is no method {unknown[0]!r}. Choose one of: {', '.join(EXPLAINERS)}.")
    if arguments.replay:
        return compare(arguments)
    if not (arguments.path and arguments.model):
        raise ConfigError("A scan and a model are needed. Give PATH and --model ID.")
    scan = read_file(arguments.path)
    frame = frame_index(scan, arguments.frame)
    model = load(arguments.model, arguments.device)
    prediction = router.predict(model, scan, frame)
    target = target_of(prediction, arguments.target)
    refused = {name: reason for name in methods if (reason := refusal(model.card, name))}
    if len(refused) == len(methods):
        raise ExplanationError(refused[methods[0]])
    make_ready(model)  # so that the first map does not seem slow
    made = [explain(model, scan, target, name, frame, arguments.seed) for name in methods if name not in refused]
    found = record.Tests() if arguments.quick else tests(model, scan, made)
    if arguments.mask:
        mask = read_mask(read_bytes(arguments.mask), scan, frame)
        found = replace(found, overlaps={one.method: against(one.heatmap, mask) for one in made})
    record.write(arguments.out, model, scan, made, found, prediction)
    for warning in prediction.warnings:
        write_line("warning", arguments.path.name, warning)
    for one in made:
        scored = [in_words(found.overlaps[one.method])] if arguments.mask else []
        write_line("ok", str(arguments.out / f"{one.method}.npz"), describe(one), *scored)
    for name, reason in refused.items():
        write_line("refused", name, reason)
    return int(bool(refused))


def tests(model: Model, scan: Scan, made: list[Explanation]) -> record.Tests:
    """How far each map can be believed."""
    stable = {}
    for found in made:
        if found.seed is not None:
            others = [
                explain(model, scan, found.target_index, found.method, found.frame, found.seed + more)
                for more in range(1, SEEDS)
            ]
            stable[found.method] = stability([found, *others])
    return record.Tests(
        {found.method: faithfulness(model, scan, found) for found in made},
        stable,
        {found.method: shortcuts(model, scan, found) for found in made},
    )


def compare(arguments: argparse.Namespace) -> int:
    """Returns 1 when a map differs from the one that was written, else 0."""
    account = record.read_account(arguments.replay)
    scan = read_file(arguments.path) if arguments.path else None
    model = load(arguments.model or account.model_id, arguments.device)
    replayed = record.replay(account, model, scan)
    picture = display(scan, account.frame) if scan else record.read_seen(account)
    made = [found for found, _ in replayed.values()]
    record.write_files(arguments.out, model, scan or record.unseen(account), picture, made, record.Tests())
    for name, (_, same) in replayed.items():
        write_line("same" if same else "differs", str(arguments.out / f"{name}.npz"))
    return int(not all(same for _, same in replayed.values()))


def target_of(prediction: Prediction, name: str | None) -> int:
    """The class asked for, else the answer, else the most probable class."""
    classes = prediction.classes
    if name is not None and name not in classes:
        raise ExplanationError(f"The model has no class {name!r}. Choose one of: {', '.join(classes)}.")
    if name is None:
        name = prediction.answers[0] if prediction.answers else classes[int(np.argmax(prediction.probabilities))]
    return classes.index(name)
