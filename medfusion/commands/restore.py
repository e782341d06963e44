"""`restore`: a backup into an installation that has no records yet."""

from __future__ import annotations

import argparse
from pathlib import Path

from medfusion.commands.files import write_line
from medfusion.records.backup import restore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="a zip that `backup` wrote")


def run(arguments: argparse.Namespace) -> int:
    write_line("ok", str(arguments.file), f"{restore(arguments.file)} cases")
    return 0
