"""Trying again, after a pause that doubles, where an archive did not answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from medfusion.errors import ArchiveUnreachable
from medfusion.pacs.config import Archive

T = TypeVar("T")
LONGEST_WAIT_S = 60.0


def tried(archive: Archive, work: Callable[[], T]) -> T:
    """What work returns. Raises its last ArchiveUnreachable after all tries; any other error at once."""
    for number in range(1, archive.tries):
        try:
            return work()
        except ArchiveUnreachable:
            time.sleep(min(LONGEST_WAIT_S, archive.wait_s * 2 ** (number - 1)))
    return work()
