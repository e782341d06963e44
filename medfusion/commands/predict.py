"""`predict`: calibrated probabilities and the answer of one model for many files, without a browser."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from medfusion import conformal, inference, library, router, triage
from medfusion.apart import read_scan
from medfusion.commands.files import frame_index, read_file, walk, write_json, write_line
from medfusion.errors import ConfigError, ScanError
from medfusion.imaging import display
from medfusion.library import Model
from medfusion.types import Prediction, Scan

AUTO = "auto"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a file, or a folder to walk; with --out also a zip")
    parser.add_argument(
        "--model", required=True, metavar="ID", help="the model to ask, by id or folder; auto picks one for each file"
    )
    parser.add_argument(
        "--frame", type=int, metavar="N", help="the frame to read, from 1 (default: all, to answer the most suspicious)"
    )
    parser.add_argument("--device", help="where to compute, such as cpu or cuda (default: the GPU where there is one)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="answer one zip or folder of any size, on a Ray cluster where RAY_ADDRESS is set; goes on where it was",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list for machines")


def run(arguments: argparse.Namespace) -> int:
    """Returns 1 when a file is not answered, else 0."""
    if arguments.frame is not None and arguments.frame < 1:
        raise ConfigError("Frames are counted from 1. Give --frame 1 or more.")
    if arguments.out:
        return run_archive(arguments)
    answerer = Answerer(arguments.model, arguments.device, arguments.frame)
    entries = []
    for path in walk(list(map(Path, arguments.paths))):
        entry = answerer.answer(path)
        entries.append(entry)
        if not arguments.json:
            write_line(str(entry["status"]), str(path), str(entry.get("error") or in_words(entry)))
    if arguments.json:
        write_json(entries)
    return int(any(entry["status"] != "ok" for entry in entries))


def run_archive(arguments: argparse.Namespace) -> int:
    from medfusion.commands import archive  # it needs this module

    if len(arguments.paths) != 1:
        raise ConfigError("With --out, one zip or folder is answered at a time. Name one.")
    failed = archive.score(arguments.paths[0], arguments.out, arguments.model, arguments.device, arguments.frame)
    return int(failed > 0)


class Answerer:
    """Answers files with one model, or with the one that each file is for.

    frame counts from 1. None: of several frames the most suspicious one is answered, as on the worklist.
    """

    def __init__(self, model_id: str, device: str | None, frame: int | None) -> None:
        self.chosen = None if model_id == AUTO else model_id
        self.device, self.frame = device, frame
        self.models: dict[str, Model] = {}
        self.router = router.load()
        if self.chosen:
            self.model(self.chosen)  # a wrong id is told before any file is read
        elif self.router is None:
            raise ConfigError("No installed model can tell which one a picture is for. Name one with --model.")

    def model(self, model_id: str) -> Model:
        if model_id not in self.models:
            self.models[model_id] = load(model_id, self.device)
        return self.models[model_id]

    def answer(self, path: Path) -> dict[str, object]:
        """One file's entry, as JSON holds it: ok with the answer, refused with the reason, or error."""
        return self.answer_scan(str(path), lambda: read_file(path))

    def answer_bytes(self, name: str, content: bytes) -> dict[str, object]:
        """The same for a file that was read already."""
        return self.answer_scan(name, lambda: read_scan(content, PurePosixPath(name).name))

    def answer_scan(self, named: str, read: Callable[[], Scan]) -> dict[str, object]:
        entry: dict[str, object] = {"path": named}
        try:
            scan = read()
            frame = scan.frame_count // 2 if self.frame is None else frame_index(scan, self.frame)
            route = self.router.route(display(scan, frame)) if self.router else None
        except ScanError as error:
            return entry | {"status": "error", "error": str(error)}
        model_id = self.chosen or (route and route.model_id)
        if route:
            entry["route"] = asdict(route)
        if not model_id:
            return entry | {"status": "refused", "error": route.reason if route else ""}
        model = self.model(model_id)
        if self.frame is None and scan.frame_count > 1:
            risks = triage.risk_along(model, scan)
            entry["risk_along"] = [round(risk, 4) for risk in risks]
            frame = risks.index(max(risks))
        prediction = inference.predict(model, scan, frame, route)
        return entry | {"status": "ok", **describe(prediction)}


def load(model_id: str, device: str | None) -> Model:
    try:
        return library.load(model_id, device)
    except (RuntimeError, AssertionError) as error:  # torch's ways to say that there is no such device
        raise ConfigError(f"The device {device!r} cannot be used here. Leave --device out, or give cpu.") from error


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
        "override": prediction.override,
        "elapsed_s": round(prediction.elapsed_s, 4),
    }


def in_words(entry: dict) -> str:
    chances = ", ".join(f"{name} {share:.1%}" for name, share in entry["probabilities"].items())
    answers = " + ".join(entry["answers"]) or "none"
    if conformal.abstains(entry["plausible"]):
        answers = f"abstains, else {answers}"
    model = f"[{entry['model_id']} {entry['model_version']}]"
    if along := entry.get("risk_along"):
        model = f"{model}  frame {entry['frame']} of {len(along)}"
    return "  ".join([answers, f"({chances})", model, *entry["warnings"]])
