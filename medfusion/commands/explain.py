"""`explain`: the maps of one scan as arrays, with all that is needed to make them again."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from importlib import metadata
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

import medfusion
from medfusion import inference
from medfusion.commands.files import read_file, write_line
from medfusion.commands.predict import load
from medfusion.errors import ConfigError, ExplanationError, ScanError
from medfusion.explain import EXPLAINERS, describe, explain
from medfusion.explain.agreement import agreement
from medfusion.library import Model
from medfusion.types import Explanation, Scan

PACKAGES = ("torch", "numpy", "lime", "grad-cam", "captum", "scikit-image", "openvino")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="PATH", help="the scan")
    parser.add_argument("--model", required=True, metavar="ID", help="the model to ask, by id or folder")
    parser.add_argument(
        "--method", default="gradcam,lime", metavar="NAMES", help=f"with commas between: {', '.join(EXPLAINERS)}"
    )
    parser.add_argument("--target", metavar="CLASS", help="the class to explain (default: the answer)")
    parser.add_argument("--frame", type=int, default=1, metavar="N", help="the frame to read, from 1 (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of methods that draw numbers (default: 0)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for METHOD.npz and JSON")
    parser.add_argument("--device", help="where to compute, such as cpu or cuda (default: the GPU where there is one)")


def run(arguments: argparse.Namespace) -> int:
    """Write METHOD.npz (heatmap, signed, raw) for each method, and explanation.json."""
    methods = list(dict.fromkeys(name.strip() for name in arguments.method.split(",")))
    unknown = [name for name in methods if name not in EXPLAINERS]
    if unknown:
        raise ExplanationError(f"There is no method {unknown[0]!r}. Choose one of: {', '.join(EXPLAINERS)}.")
    scan = read_file(arguments.path)
    if not 1 <= arguments.frame <= scan.frame_count:
        raise ScanError(f"This scan has {scan.frame_count} frames. Give --frame 1 to {scan.frame_count}.")
    model = load(arguments.model, arguments.device)
    target = target_of(model, scan, arguments.frame - 1, arguments.target)
    made = [explain(model, scan, target, name, arguments.frame - 1, arguments.seed) for name in methods]
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        for found in made:
            np.savez_compressed(
                arguments.out / f"{found.method}.npz", heatmap=found.heatmap, signed=found.signed, raw=found.raw
            )
        text = json.dumps(account(model, made, arguments.seed), indent=2, ensure_ascii=False) + "\n"
        (arguments.out / "explanation.json").write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The maps cannot be written ({error.strerror}). Choose another folder.") from error
    for found in made:
        write_line("ok", str(arguments.out / f"{found.method}.npz"), describe(found))
    return 0


def target_of(model: Model, scan: Scan, frame: int, name: str | None) -> int:
    """The class asked for, else the answer, else the most probable class."""
    classes = model.card.classes
    if name is not None and name not in classes:
        raise ExplanationError(f"The model has no class {name!r}. Choose one of: {', '.join(classes)}.")
    if name is None:
        prediction = inference.predict(model, scan, frame)
        name = prediction.answers[0] if prediction.answers else classes[int(np.argmax(prediction.probabilities))]
    return classes.index(name)


def account(model: Model, made: list[Explanation], seed: int) -> dict[str, object]:
    """Everything that the maps depend on, and what they say. No name of a file or a patient."""
    first = made[0]
    return {
        "target": first.target_name,
        "scan_sha256": first.scan_sha256,
        "frame": first.frame + 1,
        "model": {"id": first.model_id, "version": first.model_version, "weights_sha256": model.card.weights_sha256},
        "device": model.device.type,
        "threads": torch.get_num_threads(),
        "seed": seed,
        "methods": {
            found.method: {
                "settings": dict(found.settings),
                "seed": found.seed,
                "elapsed_s": round(found.elapsed_s, 4),
                "fit": found.fit,
                "has_positive_evidence": found.has_positive_evidence,
                "in_words": describe(found),
            }
            for found in made
        },
        "agreement": {
            f"{one.method},{other.method}": {
                name: None if math.isnan(value) else round(value, 4)
                for name, value in asdict(agreement(one, other)).items()
            }
            for one, other in combinations(made, 2)
        },
        "versions": {"medfusion": medfusion.__version__} | {name: metadata.version(name) for name in PACKAGES},
    }
