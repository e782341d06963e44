"""`audit`: whether the log of the records is what was written, and its newest entries."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from medfusion.commands.files import write_json, write_line
from medfusion.records import audit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("verify", "list"), help="verify: find tampering; list: the newest entries")
    parser.add_argument("--newest", type=int, default=50, metavar="N", help="entries to list (default: 50)")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def run(arguments: argparse.Namespace) -> int:
    """Returns 1 when the log was tampered with, else 0."""
    if arguments.what == "list":
        found = audit.entries(max(1, arguments.newest))
        if arguments.json:
            write_json([asdict(entry) | {"at": entry.at.isoformat()} for entry in found])
        for entry in [] if arguments.json else found:
            when = entry.at.isoformat(timespec="seconds")
            write_line(str(entry.number), f"{when}  {entry.actor or '-'}", f"{entry.action}: {entry.subject}")
        return 0
    number, faults = audit.verify()
    if arguments.json:
        write_json({"entries": number, "faults": faults})
    else:
        write_line("bad" if faults else "ok", f"{number} entries", " ".join(faults) or "Each is as it was written.")
    return int(bool(faults))
