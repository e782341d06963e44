"""`python -m training check`: is a labelled set fit to train on? Everything that can be told before any training.

Near duplicates are found by a perceptual hash of the picture as the model sees it (DCT, 256 bits; Zauner 2010, section
3.2.1): in public sets of ultrasound, CT, fundus and histology pictures, other cases differ in over 16 bits.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medfusion.errors import DataError, ScanError
from medfusion.imaging import display, read_scan
from medfusion.labelled import Case, LabelledSet, files_of, read_labelled
from medfusion.sources import at_hand
from training.datasets import with_splits

ALIKE_BITS = 10  # of 256: at most so many differ between near duplicates
HASH_SIDE = 16
UNEQUAL = 3  # times as many cases in the largest class as in the smallest: worth a word
NAMED = 5  # files that a sentence names at most
SHEET = (6, 4)  # pictures across and down
THUMB_PX = 128


@dataclass(frozen=True)
class Preflight:
    """What was found. blocks must be mended before training; advice need not."""

    pictures: int  # that were looked at
    counts: dict[str, dict[str, int]]  # by split, then class; split "" where none is given
    smallest_px: tuple[int, int]  # width and height of the smallest and the largest picture
    largest_px: tuple[int, int]
    unreadable: dict[str, str]  # path: reason
    duplicates: list[list[str]] = field(default_factory=list)  # groups of pictures that are the same or nearly so
    blocks: list[str] = field(default_factory=list)
    spare: list[str] = field(default_factory=list)  # pictures without which nothing but their number can block
    left_out: list[str] = field(default_factory=list)  # that were not looked at
    advice: list[str] = field(default_factory=list)
    several: bool = False  # whether a picture may have several labels, or none: counts are those of labels


@dataclass(frozen=True)
class Seen:
    """One readable picture."""

    case: Case
    bits: np.ndarray  # perceptual hash, packed
    size_px: tuple[int, int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, help="zip or folder of CLASS/FILE pictures, or the address of a zip")
    parser.add_argument("--seed", type=int, default=0, help="of the split that training would make (default: 0)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="folder for one sheet of pictures a class")


def run(options: argparse.Namespace) -> str:
    """Print what was found. Raises DataError with all that must be mended."""
    data = read_labelled(at_hand(options.data))
    if options.sheets:
        write_sheets(data, options.sheets)
    found = preflight(data, options.seed)
    if options.json:
        sys.stdout.write(json.dumps(asdict(found), indent=2, ensure_ascii=False) + "\n")
    if found.blocks:
        raise DataError(" ".join(found.blocks))
    return "" if options.json else in_words(found)


def preflight(
    data: LabelledSet, seed: int = 0, progress: Callable[[float], None] | None = None, left_out: Sequence[str] = ()
) -> Preflight:
    """Look at every file of a set. seed: of the split, where none is given. progress may raise Cancelled.

    left_out: files that training will not use, either.
    """
    data = data.without(left_out)
    if not data.cases:
        raise DataError(f"All files of {data.source.name} are left out. Upload a mended set.")
    seen, unreadable = [], {}
    for number, (case, read) in enumerate(files_of(data)):
        if progress:
            progress(number / len(data.cases))
        try:
            seen.append(look(case, read()))
        except (ScanError, DataError) as error:
            unreadable[case.path] = str(error)
    if not seen:
        raise DataError(f"No file of {data.source.name} can be read. The first: {next(iter(unreadable.values()))}")
    groups = alike(np.stack([one.bits for one in seen]))
    duplicates = [[seen[index].case for index in group] for group in groups]
    blocks = [
        *(f"{path}: {reason} Mend or remove this file." for path, reason in list(unreadable.items())[:NAMED]),
        *two_labels(duplicates),
        *on_both_sides(duplicates, data.has_splits),
        *too_few(data, seen, seed),
    ]
    if len(unreadable) > NAMED:
        blocks.insert(NAMED, f"{len(unreadable) - NAMED} more files cannot be read.")
    sizes = sorted((one.size_px for one in seen), key=lambda size: size[0] * size[1])
    copies = [[case.path for case in group] for group in duplicates]
    return Preflight(
        len(data.cases), data.counts(), sizes[0], sizes[-1], unreadable, copies, blocks,
        [*unreadable, *spare(duplicates)], list(left_out), advice(data, duplicates), data.several,
    )  # fmt: skip


def look(case: Case, content: bytes) -> Seen:
    picture = display(read_scan(content, case.path))
    bits = imagehash.phash(Image.fromarray(picture), hash_size=HASH_SIDE).hash
    packed = np.packbits(bits.ravel()).view(np.uint64)
    return Seen(case, packed, picture.shape[1::-1])


def alike(bits: np.ndarray) -> list[list[int]]:
    """Groups of two or more rows that differ in at most ALIKE_BITS from another of their group. bits: (n, words)."""
    pairs = [
        (first, first + 1 + int(other))
        for first in range(len(bits))
        for other in np.flatnonzero(np.bitwise_count(bits[first + 1 :] ^ bits[first]).sum(axis=1) <= ALIKE_BITS)
    ]
    if not pairs:
        return []
    rows, columns = np.array(pairs).T
    linked = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(len(bits), len(bits)))
    _, group_of = connected_components(linked, directed=False)
    return [np.flatnonzero(group_of == group).tolist() for group in np.unique(group_of[rows])]


def two_labels(duplicates: Iterable[list[Case]]) -> list[str]:
    for group in duplicates:
        if len({case.label for case in group}) > 1:
            return [f"The same picture has two labels: {listed(group)}. Decide for one."]
    return []


def on_both_sides(duplicates: list[list[Case]], has_splits: bool) -> list[str]:
    """Copies that are, or could come to be, in training and outside of it."""
    if not has_splits:
        loose = [group for group in duplicates if len({case.patient_id for case in group}) > 1]
        if not loose:
            return []
        return [
            f"{len(loose)} pictures are there more than once, or nearly, under different patients: {listed(loose[0])}. "
            "A split could put them on both sides. Keep one of each, or give copies the same patient_id."
        ]
    shared = [group for group in duplicates if len({case.split for case in group}) > 1]
    if not shared:
        return []
    return [
        f"{len(shared)} pictures are on more than one side of the split, as copies or nearly: {listed(shared[0])}. "
        "Keep all copies on one side, or remove them: what was learned by heart would be measured as skill."
    ]


def spare(duplicates: list[list[Case]]) -> list[str]:
    """What to leave out so that each picture has one label and lies on one side.

    Of copies with two labels all, for nobody knows which is right; of others all but the first, one of training before
    one of validation or test.
    """
    found = []
    for group in duplicates:
        order = sorted(group, key=lambda case: case.split != "train")
        two = len({case.label for case in group}) > 1
        found += [case.path for case in (order if two else order[1:])]
    return found


def too_few(data: LabelledSet, seen: list[Seen], seed: int) -> list[str]:
    readable = replace(data, cases=tuple(one.case for one in seen))
    try:
        with_splits(readable, seed)
    except DataError as error:
        return [str(error)]
    return []


def advice(data: LabelledSet, duplicates: list[list[Case]]) -> list[str]:
    found = []
    counts = np.array([sum(label in case.labels for case in data.cases) for label in data.classes])
    if counts.max() >= UNEQUAL * max(1, counts.min()):
        rare, common = data.classes[int(counts.argmin())], data.classes[int(counts.argmax())]
        found.append(
            f"{common!r} has {counts.max() / max(1, counts.min()):.0f} times as many cases as {rare!r}. Class "
            "weights are the default; read sensitivity and balanced accuracy, not accuracy, and add rare cases."
        )
    if not any(case.patient_id != case.path for case in data.cases):
        found.append("No patient is named, so each picture counts as one. Add patient_id to manifest.csv.")
    if duplicates:
        found.append(f"{len(duplicates)} pictures are there more than once, or nearly: {listed(duplicates[0])}.")
    return found


def listed(group: list[Case]) -> str:
    names = [case.path for case in group[:NAMED]]
    return ", ".join(names) + (f" and {len(group) - NAMED} more" if len(group) > NAMED else "")


def in_words(found: Preflight) -> str:
    lines = [
        f"{name or 'not split yet'}: " + ", ".join(f"{count} {label}" for label, count in row.items())
        for name, row in found.counts.items()
    ]
    small, large = ("×".join(map(str, size)) for size in (found.smallest_px, found.largest_px))
    return "\n".join([*lines, f"pictures of {small} to {large} px", *found.advice, "Fit to train on."])


def write_sheets(data: LabelledSet, folder: Path) -> None:
    """CLASS.webp for each class: its first readable pictures, small, side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    across, down = SHEET
    for number, label in enumerate(data.classes):
        few = replace(data, cases=tuple(case for case in data.cases if label in case.labels))
        sheet, placed = Image.new("RGB", (across * THUMB_PX, down * THUMB_PX)), 0
        for case, read in files_of(few):
            try:
                small = Image.fromarray(display(read_scan(read(), case.path))).convert("RGB")
            except (ScanError, DataError):
                continue
            small.thumbnail((THUMB_PX, THUMB_PX))
            sheet.paste(small, (placed % across * THUMB_PX, placed // across * THUMB_PX))
            placed += 1
            if placed == across * down:
                break
        sheet.save(folder / f"{number + 1}-{as_file_name(label)}.webp", quality=85)


def as_file_name(label: str) -> str:
    """What any file system takes of a label."""
    return "".join(letter for letter in label if letter.isalnum() or letter in " -_()")[:40]
