"""Values between two processes, in a file without a name: JSON for what is small, raw bytes for arrays.

Never pickle: what comes from a decoder that a file has taken over must not run here.
"""

from __future__ import annotations

import json
import math
import os
import struct
import tempfile
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from medfusion.types import Identity, Limits, Scan, Stripped, VoiLut, Window

KINDS = {kind.__name__: kind for kind in (Identity, Limits, Scan, Stripped, VoiLut, Window)}
DTYPES = {"bool", "uint8", "uint16", "int16", "int32", "float32"}
READY, ASKED, DONE = b"r", b"a", b"d"  # what goes over the socket, and only wakes
WAITING = 4  # times as long as it may compute: on a busy machine a process also waits for its turn
NO_MEMORY = "There is not enough memory to decode this file. Export it at a lower resolution."
HEAD = struct.Struct("<Q")  # bytes of the JSON that follows
KEPT = 2**25  # memory that is there already takes a third of the time
CHUNK = 2**30  # the system writes no more than 2 GB at once


def open_nameless() -> int:
    """A file in memory, or elsewhere than on Linux one that is gone from the disk as soon as it is open."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("medfusion")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def write(file: int, value: Any) -> None:
    """Replace what the file holds."""
    blobs: list[memoryview] = []
    head = json.dumps(to_json(value, blobs)).encode()
    position = 0
    for part in (memoryview(HEAD.pack(len(head)) + head), *blobs):
        for start in range(0, len(part), CHUNK):
            position += write_all(file, part[start : start + CHUNK], position)


def write_all(file: int, part: memoryview, position: int) -> int:
    done = 0
    while done < len(part):
        done += os.pwrite(file, part[done:], position + done)
    return done


def read(file: int) -> Any:
    """What `write` wrote. Raises ValueError on anything else. The file gives back what it holds beyond KEPT bytes."""
    (length,) = HEAD.unpack(read_all(file, HEAD.size, 0).data)
    tree = json.loads(bytes(read_all(file, length, HEAD.size)))
    value = Reader(file, HEAD.size + length).value(tree)
    os.ftruncate(file, min(KEPT, os.fstat(file).st_size))
    return value


def read_all(file: int, length: int, position: int) -> np.ndarray:
    """(length,) uint8. Raises ValueError where the file holds less."""
    if not 0 <= length <= os.fstat(file).st_size - position:
        raise ValueError("cut off")
    held = np.empty(length, np.uint8)
    view, done = held.data, 0
    while done < length:
        done += os.preadv(file, [view[done : done + CHUNK]], position + done)
    return held


def to_json(value: Any, blobs: list[memoryview]) -> Any:
    """Tuples become lists; arrays and bytes become their place among the blobs."""
    if isinstance(value, np.ndarray):
        if str(value.dtype) not in DTYPES:
            raise TypeError(f"Arrays of {value.dtype} do not travel.")
        blobs.append(np.ascontiguousarray(value).data.cast("B") if value.size else memoryview(b""))
        return {"array": str(value.dtype), "shape": list(value.shape)}
    if isinstance(value, bytes):
        blobs.append(memoryview(value))
        return {"bytes": len(value)}
    if is_dataclass(value):
        held = {field.name: to_json(getattr(value, field.name), blobs) for field in fields(value)}
        return {"kind": type(value).__name__, "fields": held}
    if isinstance(value, dict):
        return {"dict": {key: to_json(one, blobs) for key, one in value.items()}}
    if isinstance(value, list | tuple):
        return [to_json(one, blobs) for one in value]
    return value


class Reader:
    """Takes blobs from the file in the order in which they were written."""

    def __init__(self, file: int, position: int) -> None:
        self.file, self.position = file, position

    def value(self, tree: Any) -> Any:
        if isinstance(tree, list):
            return tuple(self.value(one) for one in tree)
        if not isinstance(tree, dict):
            return tree
        if "array" in tree:
            if tree["array"] not in DTYPES:
                raise ValueError("no such array")
            dtype, shape = np.dtype(tree["array"]), tuple(map(int, tree["shape"]))
            return self.take(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)
        if "bytes" in tree:
            return bytes(self.take(tree["bytes"]))
        if "kind" in tree:
            return KINDS[tree["kind"]](**{name: self.value(one) for name, one in tree["fields"].items()})
        return {key: self.value(one) for key, one in tree["dict"].items()}

    def take(self, length: int) -> np.ndarray:
        held = read_all(self.file, length, self.position)
        self.position += length
        return held
