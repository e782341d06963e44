"""`python -m medfusion COMMAND`: what the pages do, for scripts. Each command is one entry of COMMANDS.

Output goes to stdout. An error that the user can mend goes to stderr as one sentence, with exit code 2.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from medfusion.errors import MedFusionError

RESEARCH_USE = "For research use only: not a medical device, not for diagnosis or treatment."


@dataclass(frozen=True)
class Command:
    """A subcommand and its module, which has add_arguments(parser) and run(arguments) -> exit code.

    The module is imported only when its command is called: inspecting files must not wait for PyTorch.
    """

    help: str
    module: str


COMMANDS = {
    "inspect": Command("say what files are and whether they can be read", "medfusion.commands.inspect"),
    "predict": Command("answer scans with a model", "medfusion.commands.predict"),
    "explain": Command("write the maps of evidence for a scan", "medfusion.commands.explain"),
    "evaluate": Command("measure a model on a labelled set", "medfusion.commands.evaluate"),
    "report": Command("write the answer to a scan as PDF, JSON and DICOM", "medfusion.commands.report"),
    "verify": Command("make the figures of a report again, and compare", "medfusion.commands.verify"),
    "pacs": Command("find, fetch and send by the archives of the configuration", "medfusion.commands.pacs"),
    "listen": Command("take what archives and modalities send to us", "medfusion.commands.listen"),
    "account": Command("say who may sign in, and with which role", "medfusion.commands.account"),
    "doctor": Command("check whether this installation is sound", "medfusion.commands.doctor"),
    "audit": Command("verify or list the audit log of the records", "medfusion.commands.audit"),
    "backup": Command("write all records to one zip", "medfusion.commands.backup"),
    "restore": Command("put a backup into a new installation", "medfusion.commands.restore"),
    "forget": Command("remove a patient's cases, or old ones", "medfusion.commands.forget"),
}


def build_parser(chosen: str) -> argparse.ArgumentParser:
    """The parser with all commands by name, and the arguments of the chosen one."""
    parser = argparse.ArgumentParser(prog="python -m medfusion", description="MedFusionNet.", epilog=RESEARCH_USE)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        sentence = command.help.capitalize() + "."
        subparser = subparsers.add_parser(name, help=command.help, description=sentence, epilog=RESEARCH_USE)
        if name == chosen:
            module = import_module(command.module)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    parsed = build_parser(words[0] if words else "").parse_args(words)
    try:
        return parsed.run(parsed)
    except MedFusionError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except BrokenPipeError:  # the reader of our output left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
