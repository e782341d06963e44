"""`account`: who may sign in, and with which role. The first account switches the login on."""

from __future__ import annotations

import argparse
import getpass
import sys

from medfusion import access
from medfusion.commands.files import write_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("add", "remove", "list"), help="add also changes role and password")
    parser.add_argument("name", nargs="?", default="", help="of the account; an e-mail address where OIDC signs in")
    parser.add_argument("--role", choices=access.ROLES, default=access.READER, help="default: reader")
    parser.add_argument("--oidc", action="store_true", help="no password: the identity provider signs this one in")


def run(arguments: argparse.Namespace) -> int:
    if arguments.what == "list":
        for person in access.list_accounts():
            write_line(person.name, person.role)
    elif arguments.what == "remove":
        access.remove(arguments.name)
        write_line("ok", arguments.name, "removed")
    else:
        access.keep(arguments.name, arguments.role, None if arguments.oidc else asked())
        write_line("ok", arguments.name, arguments.role)
    return 0


def asked() -> str:
    """From the keyboard without an echo, or the first line of a pipe."""
    return getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
