"""`predict`: calibrated probabilities and the answer of one model for many files, without a browser."""

from __future__ import annotations

import argparse
from pathlib import Path

from medfusion import inference, library
from medfusion.commands.files import read_file, walk, write_json, write_line
from medfusion.errors import ConfigError, ScanError
from medfusion.library import Model
from medfusion.types import Prediction

FEW = 32  # files that are answered sooner than the network is compiled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a file, or a folder to walk")
    parser.add_argument("--model", required=True, metavar="ID", help="the model to ask, by id or folder")
    parser.add_argument("--frame", type=int, default=1, metavar="N", help="the frame to read, from 1 (default: 1)")
    parser.add_argument("--device", help="where to compute, such as cpu or cuda (default: the GPU where there is one)")
    parser.add_argument("--json", action="store_true", help="print a JSON list for machines")


def run(arguments: argparse.Namespace) -> int:
    """Returns 1 when a file cannot be answered, else 0."""
    if arguments.frame < 1:
        raise ConfigError("Frames are counted from 1. Give --frame 1 or more.")
    model = load(arguments.model, arguments.device)
    entries = []
    for count, path in enumerate(walk(arguments.paths)):
        if count == FEW:
            model.backend.get()
        entry = answer(model, path, arguments.frame)
        entries.append(entry)
        if not arguments.json:
            write_line(str(entry["status"]), str(path), str(entry.get("error") or in_words(entry)))
    if arguments.json:
        write_json(entries)
    return int(any(entry["status"] == "error" for entry in entries))


def load(model_id: str, device: str | None) -> Model:
    try:
        return library.load(model_id, device)
    except (RuntimeError, AssertionError) as error:  # torch's ways to say that there is no such device
        raise ConfigError(f"The device {device!r} cannot be used here. Leave --device out, or give cpu.") from error


def answer(model: Model, path: Path, frame: int) -> dict[str, object]:
    """One file's entry, as JSON holds it. frame counts from 1."""
    try:
        scan = read_file(path)
        if frame > scan.frame_count:
            raise ScanError(f"This scan has {scan.frame_count} frames, not {frame}. Give a smaller --frame.")
        prediction = inference.predict(model, scan, frame - 1)
    except ScanError as error:
        return {"path": str(path), "status": "error", "error": str(error)}
    return {"path": str(path), "status": "ok", **describe(prediction)}


def describe(prediction: Prediction) -> dict[str, object]:
    return {
        "probabilities": dict(zip(prediction.classes, prediction.probabilities, strict=True)),
        "answers": prediction.answers,
        "plausible": prediction.plausible,
        "operating_point": {
            "thresholds": dict(zip(prediction.classes, prediction.operating_point.thresholds, strict=True)),
            "rule": prediction.operating_point.rule,
        },
        "model_id": prediction.model_id,
        "model_version": prediction.model_version,
        "frame": prediction.frame + 1,
        "scan_sha256": prediction.scan_sha256,
        "warnings": prediction.warnings,
        "elapsed_s": round(prediction.elapsed_s, 4),
    }


def in_words(entry: dict) -> str:
    chances = ", ".join(f"{name} {share:.1%}" for name, share in entry["probabilities"].items())
    answers = " + ".join(entry["answers"]) or "none"
    model = f"[{entry['model_id']} {entry['model_version']}]"
    return "  ".join([answers, f"({chances})", model, *entry["warnings"]])
