"""Small pictures side by side: a sheet for each class, so that a wrong label is seen, and a row for copies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from medfusion.labelled import Case

SHEET = (6, 4)  # pictures across and down
THUMB_PX = 128


class Sheets:
    """Takes pictures as they are decoded for something else, and keeps what fits on the sheets."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.thumbs: dict[str, list[Image.Image]] = {label: [] for label in classes}

    def add(self, case: Case, picture: np.ndarray) -> None:
        """picture: (H, W) or (H, W, 3) uint8."""
        wanting = [label for label in case.labels if len(self.thumbs[label]) < SHEET[0] * SHEET[1]]
        if wanting:
            small = thumb(picture)
            for label in wanting:
                self.thumbs[label].append(small)

    def write(self, folder: Path) -> None:
        """NUMBER-CLASS.webp for each class, in their order."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, (label, thumbs) in enumerate(self.thumbs.items(), start=1):
            side_by_side(thumbs, SHEET[0]).save(folder / f"{number}-{as_file_name(label)}.webp", quality=85)


def thumb(picture: np.ndarray) -> Image.Image:
    """picture: (H, W) or (H, W, 3) uint8."""
    small = Image.fromarray(picture).convert("RGB")
    small.thumbnail((THUMB_PX, THUMB_PX))
    return small


def side_by_side(thumbs: Sequence[Image.Image], across: int) -> Image.Image:
    """As many rows as it takes, on black."""
    rows = max(1, -(-len(thumbs) // across))
    sheet = Image.new("RGB", (across * THUMB_PX, rows * THUMB_PX))
    for place, small in enumerate(thumbs):
        left, top = place % across * THUMB_PX, place // across * THUMB_PX
        sheet.paste(small, (left + (THUMB_PX - small.width) // 2, top + (THUMB_PX - small.height) // 2))
    return sheet


def as_file_name(label: str) -> str:
    """What any file system takes of a label."""
    return "".join(letter for letter in label if letter.isalnum() or letter in " -_()")[:40]
