"""Where a picture lies in the patient, and how long things in it are. Pure numbers: no picture, no file."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medfusion.types import Scan

OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "H": "F", "F": "H"}
LEANS = math.sin(math.radians(15))  # a direction that leans by less is called straight
RULER_SHARE = 0.3  # of the width, at most


@dataclass(frozen=True)
class Edges:
    """Which side of the patient lies at each edge of the picture, in the letters of DICOM (PS3.3 C.7.6.1.1.1)."""

    left: str
    right: str
    top: str
    bottom: str


@dataclass(frozen=True)
class Ruler:
    """A round length that fits the picture. Five parts, in text such as "50 mm"."""

    length_px: float
    text: str


def edges(orientation: tuple[str, ...] | None) -> Edges | None:
    """Letters for the four edges; None where the file does not say, or uses letters of animals.

    orientation: towards which side of the patient the rows run (to the right), and the columns (down).
    """
    if orientation is None or len(orientation) != 2:
        return None
    right, bottom = orientation
    if not right or not bottom or not set(right + bottom) <= set(OPPOSITE):
        return None
    return Edges(opposite(right), right, opposite(bottom), bottom)


def opposite(letters: str) -> str:
    """The other end of a direction: "LA" and "RP"."""
    return "".join(OPPOSITE[letter] for letter in letters)


def direction(cosines: list[float]) -> str:
    """Letters of a direction, the main one first: x grows to the Left, y to the Posterior, z to the Head."""
    order = sorted(range(3), key=lambda axis: -abs(cosines[axis]))
    leaning = [axis for number, axis in enumerate(order) if number == 0 or abs(cosines[axis]) > LEANS]
    return "".join("LPH"[axis] if cosines[axis] > 0 else "RAF"[axis] for axis in leaning)


def distance(first: tuple[float, float], second: tuple[float, float], scan: Scan) -> float:
    """Between two places (x, y) in pixels: in millimetres where the spacing is known, else in pixels."""
    rows_mm, columns_mm = scan.spacing_mm or (1.0, 1.0)
    return math.hypot((second[0] - first[0]) * columns_mm, (second[1] - first[1]) * rows_mm)


def unit(scan: Scan) -> str:
    """What a distance in this picture is in."""
    if scan.spacing_mm is None:
        return "px"
    return {"body": "mm", "detector": "mm at the detector", "film": "mm on the film"}[scan.spacing_at]


def ruler(scan: Scan) -> Ruler:
    """A ruler of 1, 2 or 5 times a power of ten, at most RULER_SHARE of the width."""
    per_px = scan.spacing_mm[1] if scan.spacing_mm else 1.0
    most = RULER_SHARE * scan.width_px * per_px
    power = 10.0 ** math.floor(math.log10(most))
    length = next(step * power for step in (5, 2, 1) if step * power <= most * (1 + 1e-9))
    return Ruler(length / per_px, f"{length:g} {unit(scan)}")
