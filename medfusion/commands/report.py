"""`report`: the answer to one scan with its maps as JSON, PDF, and DICOM objects for the archive."""

from __future__ import annotations

import argparse
from pathlib import Path

from medfusion import router
from medfusion.apart import read_scan
from medfusion.commands.explain import target_of
from medfusion.commands.files import frame_index, read_bytes, write_line
from medfusion.commands.predict import load
from medfusion.errors import ExplanationError
from medfusion.explain import EXPLAINERS, explain
from medfusion.explain.record import Tests
from medfusion.report import Report, write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="PATH", help="the scan")
    parser.add_argument("--model", required=True, metavar="ID", help="the model to ask, by id or folder")
    parser.add_argument("--method", default="gradcam,lime", metavar="NAMES", help=f"of: {', '.join(EXPLAINERS)}")
    parser.add_argument("--frame", type=int, default=1, metavar="N", help="the frame to read, from 1 (default: 1)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files")
    parser.add_argument("--device", help="where to compute, such as cpu or cuda (default: the GPU where there is one)")


def run(arguments: argparse.Namespace) -> int:
    content = read_bytes(arguments.path)
    frame = arguments.frame - 1
    report = made(content, arguments.model, frame, arguments.method, arguments.device, arguments.path.name)
    for warning in report.prediction.warnings:
        write_line("warning", arguments.path.name, warning)
    for path in write(arguments.out, report):
        write_line("ok", str(path))
    return 0


def made(content: bytes, model_id: str, frame: int, method: str, device: str | None, name: str = "") -> Report:
    """The answer to one frame, counted from 0, with the maps of these methods. Raises ScanError, ExplanationError."""
    methods = [one.strip() for one in method.split(",")]
    if unknown := [one for one in methods if one not in EXPLAINERS]:
        raise ExplanationError(f"There is no method {unknown[0]!r}. Choose one of: {', '.join(EXPLAINERS)}.")
    scan, model = read_scan(content, name), load(model_id, device)
    frame_index(scan, frame + 1)
    prediction = router.predict(model, scan, frame)
    target = target_of(prediction, None)
    maps = [explain(model, scan, target, one, frame, 0) for one in methods]
    return Report(content, scan, model, prediction, maps, Tests())
