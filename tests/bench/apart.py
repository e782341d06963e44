"""What a process of its own costs: reading a file there and here, once both are warm.

Seconds of computing in all processes together: on a busy machine elapsed time tells of the others.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import psutil
from PIL import Image

from medfusion import apart, imaging
from tests.bench.table import Row
from tests.core.dicom_files import dicom, ramp

REPEATS, WARM = 60, 3


def reading() -> list[Row]:
    """Both columns are this project's: apart, and in the process that asks."""
    noise = np.random.default_rng(0).integers(0, 4096, (2000, 2000)).astype(np.uint16)
    png = io.BytesIO()
    Image.fromarray((noise >> 4).astype(np.uint8)).save(png, "PNG")
    files = {
        "DICOM 2000x2000": dicom(noise, BitsStored=12, HighBit=11),
        "PNG 2000x2000": png.getvalue(),
        "DICOM 64x64": dicom(ramp(64, 64)),
    }
    return [
        Row(f"{name}, decoded apart and here", computing_s(apart.read_scan, data), computing_s(imaging.read_scan, data))
        for name, data in files.items()
    ]


def computing_s(read: Callable[[bytes], object], data: bytes) -> float:
    """A file's share of the processor time of this process and those that decode for it."""
    for _ in range(WARM):
        read(data)
    before = spent_s()
    for _ in range(REPEATS):
        read(data)
    return (spent_s() - before) / REPEATS


def spent_s() -> float:
    here = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in [here, *here.children()])
