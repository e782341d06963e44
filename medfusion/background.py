"""Processes whose work may take its time."""

import os

YIELDING = 10  # of 19: a reader who waits for an answer comes first


def give_way() -> None:
    """Let others go before this process, where the operating system knows how."""
    if hasattr(os, "nice"):
        os.nice(YIELDING)
