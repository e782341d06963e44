"""`listen`: take what modalities and archives send, until the process is ended. Peers come from pacs.toml."""

from __future__ import annotations

import argparse

from medfusion.pacs import listener


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass  # all of it is configuration: who may send is for no command line


def run(arguments: argparse.Namespace) -> int:
    listener.main(listener.to_stderr)
    return 0
