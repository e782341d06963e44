"""The processes that decode for this one: started when needed, kept, and replaced when a file ends one."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
from functools import cache
from typing import Any

from medfusion import errors, places
from medfusion.apart import messages
from medfusion.apart.messages import ASKED, DONE, NO_MEMORY, READY, WAITING
from medfusion.errors import DamagedFile, ScanError, ScanTooLarge
from medfusion.records import keys
from medfusion.types import Limits

MOST = 2  # at once: decoding takes a core, and each may take the memory of a large scan
START_S = 600.0  # imports take a second; on a machine that swaps, minutes
LET_IN = (
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
)  # no passwords for a decoder that is taken over
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # they would only take memory
# glibc gives blocks of this size back after each file, and asking for them again takes longer than filling them
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**26)}
TOO_LONG = "This file takes too long to decode. Export it again at a lower resolution, or as PNG."
GAVE_UP = "This file is so damaged that it ended the program that decodes it. Export or copy it again."
NOT_STARTED = "The program that decodes files does not start. Run `python -m medfusion doctor`."


@cache
def _pool_of(process: int) -> Pool:
    return Pool()


def pool() -> Pool:
    """The one of this process: a fork must not talk over its parent's sockets."""
    return _pool_of(os.getpid())


class Pool:
    """Up to MOST workers. Safe between threads: each request has a worker to itself, or waits for one."""

    def __init__(self) -> None:
        self.free: list[Worker] = []
        self.room = threading.BoundedSemaphore(MOST)
        self.lock = threading.Lock()
        atexit.register(self.close)

    def prepare(self) -> None:
        """Have one that is free, unless all are busy."""
        if self.room.acquire(blocking=False):
            worker = self.take()
            with self.lock:
                self.free.append(worker)
            self.room.release()

    def call(self, task: str, limits: Limits, /, **arguments: Any) -> Any:
        """What the task returns. Raises its error, or ScanError where a file ends the worker."""
        asked = {"task": task, "arguments": arguments, "settings": settings(), "limits": limits}
        with self.room:
            worker = self.take()
            try:
                told = worker.ask(asked, limits)
            except BaseException:  # an interrupted exchange cannot go on
                worker.end()
                raise
            with self.lock:
                self.free.append(worker)
        if "error" in told:
            raise error_named(told["error"], told["words"])
        return told["value"]

    def take(self) -> Worker:
        with self.lock:
            while self.free:
                worker = self.free.pop()
                if worker.process.poll() is None:
                    return worker
                worker.end()
        return Worker()

    def close(self) -> None:
        with self.lock:
            while self.free:
                self.free.pop().end()


def settings() -> dict[str, str]:
    """What the tasks read of the environment. Sent with each request, for it may have changed since the start."""
    return {
        "MEDFUSION_HOME": str(places.home()),
        "MEDFUSION_KEY_FILE": str(keys.path().absolute()),
        "MEDFUSION_KEEP_IDENTITY": os.environ.get("MEDFUSION_KEEP_IDENTITY", ""),
    }


def error_named(name: str, words: str) -> errors.MedFusionError:
    kind = getattr(errors, name, None)
    known = isinstance(kind, type) and issubclass(kind, errors.MedFusionError)
    return kind(words) if known else DamagedFile(GAVE_UP)  # type: ignore[misc]


class Worker:
    """One process, the socket that wakes it, and the two files that its requests and replies lie in."""

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair()
        self.request, self.reply = messages.open_nameless(), messages.open_nameless()
        self.is_ready = False
        handed = (theirs.fileno(), self.request, self.reply)
        environment = {name: os.environ[name] for name in LET_IN if name in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "medfusion.apart.worker", *map(str, handed)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,  # decoders quote headers
            pass_fds=handed, cwd=places.PROJECT, start_new_session=True,
            env=environment | ONE_THREAD | KEPT_MEMORY | {"PYTHONPATH": str(places.PROJECT)},
        )  # fmt: skip
        theirs.close()

    def ask(self, asked: dict[str, Any], limits: Limits) -> dict[str, Any]:
        """Raises ScanError when the process ends with this request."""
        messages.write(self.request, asked)
        if not self.is_ready:
            self.is_ready = self.hear(START_S) == READY
        if not self.is_ready:
            raise ScanError(NOT_STARTED)
        try:
            self.channel.sendall(ASKED)
            said = self.hear(2 * WAITING * limits.max_seconds)
        except TimeoutError as error:
            raise DamagedFile(TOO_LONG) from error
        except OSError as error:
            raise DamagedFile(GAVE_UP) from error
        if said != DONE:
            self.process.kill()  # it is at its end, unless the file has taken it over
            raise blame(self.process.wait())
        try:
            told = messages.read(self.reply)
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedFile(GAVE_UP) from error
        if not isinstance(told, dict) or not {"value", "error"} & told.keys():
            raise DamagedFile(GAVE_UP)
        return told

    def hear(self, limit_s: float) -> bytes:
        """What the process says next; nothing when it has ended."""
        self.channel.settimeout(limit_s)
        return self.channel.recv(1)

    def end(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.wait()
        os.close(self.request)
        os.close(self.reply)


def blame(status: int) -> ScanError:
    """What a file did whose decoding ended with this exit status."""
    if status in (-signal.SIGPROF, -signal.SIGALRM):
        return DamagedFile(TOO_LONG)
    if status == -signal.SIGKILL:  # by the system, for want of memory
        return ScanTooLarge(NO_MEMORY)
    return DamagedFile(GAVE_UP)
