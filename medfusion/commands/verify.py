"""`verify`: make the answer and the maps of a report again, and say of each figure whether it holds."""

from __future__ import annotations

import argparse
from pathlib import Path

from medfusion.commands.files import read_file, write_line
from medfusion.commands.predict import load
from medfusion.report import model_of, verify


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("report", type=Path, metavar="REPORT", help="a report.json")
    parser.add_argument("scan", type=Path, metavar="SCAN", help="the file that it tells of")
    parser.add_argument("--model", metavar="ID", help="by id or folder (default: the one that the report names)")
    parser.add_argument("--device", help="where to compute, such as cpu or cuda (default: the GPU where there is one)")


def run(arguments: argparse.Namespace) -> int:
    """Returns 1 when a figure does not hold, else 0."""
    model = load(arguments.model or model_of(arguments.report), arguments.device)
    found = verify(arguments.report, model, read_file(arguments.scan))
    for name, holds in found:
        write_line("holds" if holds else "differs", name)
    return int(not all(holds for _, holds in found))
