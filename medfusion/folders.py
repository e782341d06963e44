"""What folders say where no CSV does: of which class a picture is, of which patient, and on which side of the split.

Folders around all pictures say nothing. `train`, `val` and `test` are the split, above the classes or below them. Of
what is left, the folder of a picture is its class where the same classes lie in each folder above (two sites, say), or
where there is none above; else the outermost is the class, and a folder in it is a patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
Parts = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """What the folders of one picture say. patient, split: "" where they say nothing."""

    label: str
    patient: str
    split: str


def places_of(names: Sequence[str]) -> list[Place]:
    """For each name, all of which lie in folders, what its folders say."""
    parts = without_shared([PurePosixPath(name).parts[:-1] for name in names])
    splits = [""] * len(parts)
    for end in (0, -1):
        if all(len(one) > 1 and one[end].lower() in SPLIT_NAMES for one in parts):
            splits = [SPLIT_NAMES[one[end].lower()] for one in parts]
            parts = without_shared([one[1:] if end == 0 else one[:-1] for one in parts])
            break
    if classes_are_innermost(parts):
        return [Place(one[-1], "", split) for one, split in zip(parts, splits, strict=True)]
    tell = len({one[1] for one in parts if len(one) > 1}) > 1  # one name in all classes is no patient
    return [
        Place(one[0], one[1] if tell and len(one) > 1 else "", split) for one, split in zip(parts, splits, strict=True)
    ]


def without_shared(parts: list[Parts]) -> list[Parts]:
    """Without the folders that lie around all pictures; one folder at least is left to each."""
    while len({one[0] for one in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [one[1:] for one in parts]
    return parts


def classes_are_innermost(parts: list[Parts]) -> bool:
    """Whether several classes lie in each of the folders above them, or there are no folders above."""
    if all(len(one) == 1 for one in parts):
        return True
    inside: dict[Parts, set[str]] = {}
    for one in parts:
        inside.setdefault(one[:-1], set()).add(one[-1])
    every = set().union(*inside.values())
    return len(every) > 1 and all(found == every for found in inside.values())
