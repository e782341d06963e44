"""`forget`: remove the cases of a patient, or those that are older than the site keeps them."""

from __future__ import annotations

import argparse

from medfusion import worklist
from medfusion.commands.files import write_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--patient", metavar="ID", help="the id in the files, or the pseudonym on the worklist")
    which.add_argument("--older-than", type=float, metavar="DAYS", help="all that were added so long ago")


def run(arguments: argparse.Namespace) -> int:
    if arguments.patient:
        removed = worklist.remove_patient(arguments.patient, "command")
    else:
        removed = worklist.expire(max(0.0, arguments.older_than), "command")
    write_line("ok", "", f"{removed} cases removed, with their files, answers and reads")
    return 0
