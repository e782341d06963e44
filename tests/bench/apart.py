"""What a process of its own costs: reading a file there and here, once both are warm."""

from __future__ import annotations

import io
from functools import partial

import numpy as np
from PIL import Image

from medfusion import apart, imaging
from tests.bench.table import Row, median_s
from tests.core.dicom_files import dicom, ramp

REPEATS = 41


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
        Row(
            f"{name}, decoded apart and here",
            median_s(partial(apart.read_scan, data), REPEATS, warm_up=3),
            median_s(partial(imaging.read_scan, data), REPEATS, warm_up=3),
        )
        for name, data in files.items()
    ]
