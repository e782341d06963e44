"""`backup`: all records, their files and the key of this installation in one zip."""

from __future__ import annotations

import argparse
from pathlib import Path

from medfusion.commands.files import write_line
from medfusion.records.backup import backup


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the zip to write; it holds the key: keep it safe")


def run(arguments: argparse.Namespace) -> int:
    write_line("ok", str(arguments.file), f"{backup(arguments.file)} cases")
    return 0
