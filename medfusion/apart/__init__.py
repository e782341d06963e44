"""Untrusted files are parsed and decoded in a process of their own, with bounds on memory and time.

Whatever a file does to its decoder, the program that asked goes on: it gets a Scan or one sentence. The process lives
on from file to file, so a file costs a few milliseconds more than decoding it here; see `pool.py`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medfusion.apart.pool import pool
from medfusion.types import DEFAULT_LIMITS, Limits, Scan, Stripped

__all__ = ["patient_of", "prepare", "read_mask", "read_scan", "strip"]


def prepare() -> None:
    """Start the process now, without waiting for it, so that the first file does not wait either."""
    pool().prepare()


def read_scan(data: bytes, name: str = "", limits: Limits = DEFAULT_LIMITS, with_identity: bool = False) -> Scan:
    """Decode one file, as `imaging.read_scan` does. Raises ScanError; the name stays in this process."""
    scan: Scan = pool().call("read_scan", limits, data=data, limits=limits, with_identity=with_identity)
    return replace(scan, name=name)


def read_mask(data: bytes, scan: Scan, frame: int = 0, limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    """(H, W) bool: where one frame of a scan is marked, as `imaging.read_mask` says. Raises ScanError."""
    shape = scan.frame_count, scan.height_px, scan.width_px
    mask: np.ndarray = pool().call("read_mask", limits, data=data, shape=shape, frame=frame, limits=limits)
    return mask


def strip(content: bytes, limits: Limits = DEFAULT_LIMITS) -> Stripped:
    """The same picture without identity, as `privacy.strip` says. Raises ScanError."""
    stripped: Stripped = pool().call("strip", limits, content=content, limits=limits)
    return stripped


def patient_of(content: bytes, limits: Limits = DEFAULT_LIMITS) -> str:
    """The pseudonym of the patient that a file names, as `privacy.patient_of` says. Raises ScanError."""
    named: str = pool().call("patient_of", limits, content=content)
    return named
