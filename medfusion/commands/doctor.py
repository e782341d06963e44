"""`doctor`: whether this installation is sound, a line for each check; the System page shows the same."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from medfusion import doctor
from medfusion.commands.files import write_json, write_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def run(arguments: argparse.Namespace) -> int:
    """Returns 1 when something is broken, else 0."""
    found = {}
    for name in doctor.names():
        found[name] = doctor.check(name)
        if not arguments.json:
            write_line(found[name].state, name, found[name].found)
    if arguments.json:
        write_json({name: asdict(one) for name, one in found.items()})
    return int(any(one.state == "error" for one in found.values()))
