"""The process that decodes: `python -m medfusion.apart.worker SOCKET REQUEST REPLY`, three open files of its parent.

It answers one request after the other until its parent closes the socket. A request that takes too much time is ended
by the system, so that a decoder that never returns ends, too; one that takes too much memory gets none.
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from medfusion.apart import messages
from medfusion.apart.messages import ASKED, DONE, NO_MEMORY, READY, WAITING
from medfusion.errors import DamagedFile, MedFusionError, ScanTooLarge
from medfusion.types import Limits

TASKS = {  # name in a request → module and function
    "read_scan": ("medfusion.imaging", "read_scan"),
    "read_mask": ("medfusion.imaging", "read_mask"),
    "strip": ("medfusion.privacy", "strip"),
    "patient_of": ("medfusion.privacy", "patient_of"),
}


def main(channel: socket.socket, request: int, reply: int) -> None:
    for module, _ in TASKS.values():
        importlib.import_module(module)
    expendable()
    channel.sendall(READY)
    while channel.recv(1) == ASKED:
        answer(request, reply)
        channel.sendall(DONE)


def answer(request: int, reply: int) -> None:
    """Do what was asked; the reply holds its value, or the class and the sentence of its error."""
    asked = messages.read(request)
    os.environ.update(asked["settings"])
    try:
        with bounded(asked["limits"]):
            value = {"value": run(asked["task"], asked["arguments"])}
        messages.write(reply, value)
    except MedFusionError as error:
        messages.write(reply, {"error": type(error).__name__, "words": str(error)})


def run(task: str, arguments: dict[str, Any]) -> Any:
    module, function = TASKS[task]
    try:
        return getattr(importlib.import_module(module), function)(**arguments)
    except MedFusionError:
        raise
    except MemoryError:
        raise ScanTooLarge(NO_MEMORY) from None
    except Exception as error:  # RecursionError among them: untrusted data fail in every way there is
        raise DamagedFile("This file is damaged and cannot be read. Export or copy it again.") from error


def expendable() -> None:
    """Where the machine's memory runs out, this process is the one to go; it leaves no picture of a patient behind."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextmanager
def bounded(limits: Limits) -> Iterator[None]:
    """So much more memory than is held now; the system ends this process after so many seconds of computing."""
    bound_memory(held_bytes() + limits.max_memory_bytes)
    signal.setitimer(signal.ITIMER_PROF, limits.max_seconds)
    signal.setitimer(signal.ITIMER_REAL, WAITING * limits.max_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        bound_memory(resource.RLIM_INFINITY)


def bound_memory(most_bytes: int) -> None:
    with suppress(OSError, ValueError):  # macOS has no such bound
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, resource.RLIM_INFINITY))


def held_bytes() -> int:
    return psutil.Process().memory_info().vms


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3]))
