"""`python -m training check`: is a labelled set fit to train on? Everything that can be told before any training.

Near duplicates are found by a perceptual hash of the picture as the model sees it (DCT, 256 bits; Zauner 2010, section
3.2.1): in public sets of ultrasound, CT, fundus and histology pictures, other cases differ in over 16 bits.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medfusion.apart import read_scan
from medfusion.errors import DataError, ScanError
from medfusion.imaging import display
from medfusion.labelled import Case, LabelledSet, files_of, read_labelled
from medfusion.preprocess import squash
from medfusion.sources import at_hand
from medfusion.types import InputSpec
from training.datasets import with_splits
from training.kinds import Kinds, guess, spread
from training.sheets import SHEET, Sheets, side_by_side, thumb

READING = 0.95  # of the progress; the rest is the search for copies, where there are many files
ALIKE_BITS = 10  # of 256: at most so many differ between near duplicates
HASH_SIDE = 16
MIXED = 0.2  # share of pictures of a second kind: worth a word
UNEQUAL = 3  # times as many cases in the largest class as in the smallest: worth a word
NAMED = 5  # files that a sentence names at most
DRAWN = 12  # groups of copies that are drawn
COPIES = "copies"  # the folder of these drawings, beside the sheets


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
    kinds: dict[str, int] = field(default_factory=dict)  # of pictures, in words: see kinds.py
    kind: str = ""  # the model that was trained on such pictures
    modalities: dict[str, int] = field(default_factory=dict)  # as DICOM headers say
    planned: dict[str, dict[str, int]] = field(default_factory=dict)  # counts of the split that a run will make
    several: bool = False  # whether a picture may have several labels, or none: counts are those of labels


@dataclass(frozen=True)
class Seen:
    """One readable picture."""

    case: Case
    bits: np.ndarray  # perceptual hash, packed
    size_px: tuple[int, int]
    modality: str  # as its DICOM header says, else ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, help="zip or folder of CLASS/FILE pictures, or the address of a zip")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="folder for one sheet of pictures a class")


def run(options: argparse.Namespace) -> str:
    """Print what was found. Raises DataError with all that must be mended."""
    found = preflight(read_labelled(at_hand(options.data)), sheets=options.sheets)
    if options.json:
        sys.stdout.write(json.dumps(asdict(found), indent=2, ensure_ascii=False) + "\n")
    if found.blocks:
        raise DataError(" ".join(found.blocks))
    return "" if options.json else in_words(found)


def preflight(
    data: LabelledSet,
    progress: Callable[[float], None] | None = None,
    left_out: Sequence[str] = (),
    sheets: Path | None = None,
) -> Preflight:
    """Look at every file of a set. progress may raise Cancelled.

    left_out: files that training will not use, either. sheets: a folder for a sheet of pictures a class, and for
    copies/NUMBER.webp, the first groups of copies in their order.
    """
    data = data.without(left_out)
    if not data.cases:
        raise DataError("All files of this set are left out. Upload a mended set.")
    seen, unreadable, drawn = [], {}, Sheets(data.classes)
    looked_at: list[np.ndarray] = []
    chosen = spread(len(data.cases))
    for number, (case, read) in enumerate(files_of(data)):
        if progress:
            progress(READING * number / len(data.cases))
        try:
            scan = read_scan(read(), case.path)
            picture = display(scan)
        except (ScanError, DataError) as error:
            unreadable[case.path] = str(error)
            continue
        modality = scan.modality or ""
        seen.append(Seen(case, hashed(picture), picture.shape[1::-1], modality))
        drawn.add(case, picture)
        if number in chosen:
            looked_at.append(squash(picture, InputSpec()))
    if sheets:
        drawn.write(sheets)
    if not seen:
        raise DataError(f"No file of this set can be read. The first: {next(iter(unreadable.values()))}")
    compared = (lambda part: progress(READING + (1 - READING) * part)) if progress else None
    groups = alike(np.stack([one.bits for one in seen]), compared)
    duplicates = [[seen[index].case for index in group] for group in groups]
    if sheets:
        draw_copies(data, duplicates[:DRAWN], sheets / COPIES)
    planned, few = divided(data, seen)
    blocking = [*two_labels(duplicates), *on_both_sides(duplicates, data.has_splits)]
    blocks = [
        *(f"{path}: {reason} Mend or remove this file." for path, reason in list(unreadable.items())[:NAMED]),
        *blocking,
        *few,
    ]
    if len(unreadable) > NAMED:
        blocks.insert(NAMED, f"{len(unreadable) - NAMED} more files cannot be read.")
    sizes = sorted((one.size_px for one in seen), key=lambda size: size[0] * size[1])
    copies = [[case.path for case in group] for group in duplicates]
    kinds = guess(looked_at)
    advised = [*advice(data, [] if blocking else duplicates), *mixed(kinds)]
    return Preflight(
        len(data.cases), data.counts(), sizes[0], sizes[-1], unreadable, copies, blocks,
        [*unreadable, *spare(duplicates)], list(left_out), advised, kinds.counts,
        kinds.model_id, dict(Counter(one.modality for one in seen if one.modality)), planned, data.several,
    )  # fmt: skip


def hashed(picture: np.ndarray) -> np.ndarray:
    """The perceptual hash of a display picture, packed."""
    bits = imagehash.phash(Image.fromarray(picture), hash_size=HASH_SIDE).hash
    return np.packbits(bits.ravel()).view(np.uint64)


def alike(bits: np.ndarray, progress: Callable[[float], None] | None = None) -> list[list[int]]:
    """Groups of two or more rows that differ in at most ALIKE_BITS from another of their group. bits: (n, words)."""
    pairs: list[tuple[int, int]] = []
    for first in range(len(bits)):
        if progress and first % 100 == 0:
            progress(1 - (1 - first / len(bits)) ** 2)  # each row is compared with those after it
        others = np.flatnonzero(np.bitwise_count(bits[first + 1 :] ^ bits[first]).sum(axis=1) <= ALIKE_BITS)
        pairs += [(first, first + 1 + int(other)) for other in others]
    if not pairs:
        return []
    rows, columns = np.array(pairs).T
    linked = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(len(bits), len(bits)))
    _, group_of = connected_components(linked, directed=False)
    return [np.flatnonzero(group_of == group).tolist() for group in np.unique(group_of[rows])]


def draw_copies(data: LabelledSet, duplicates: Sequence[Sequence[Case]], folder: Path) -> None:
    """NUMBER.webp for each group, its first pictures in one row: are they really the same?"""
    if not duplicates:
        return
    folder.mkdir(exist_ok=True)
    rows = [group[: SHEET[0]] for group in duplicates]
    wanted = replace(data, cases=tuple(case for row in rows for case in row))
    thumbs = {case.path: thumb(display(read_scan(read(), case.path))) for case, read in files_of(wanted)}
    for number, row in enumerate(rows, start=1):
        side_by_side([thumbs[case.path] for case in row], len(row)).save(folder / f"{number}.webp", quality=85)


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


def divided(data: LabelledSet, seen: list[Seen]) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Counts of the split that a run will use, or none and what is missing for one."""
    readable = replace(data, cases=tuple(one.case for one in seen))
    try:
        return with_splits(readable).counts(), []
    except DataError as error:
        return {}, [str(error)]


def advice(data: LabelledSet, duplicates: list[list[Case]]) -> list[str]:
    found = []
    counts = np.array([sum(label in case.labels for case in data.cases) for label in data.classes])
    if counts.max() >= UNEQUAL * max(1, counts.min()):
        rare, common = data.classes[int(counts.argmin())], data.classes[int(counts.argmax())]
        found.append(
            f"{common!r} has {counts.max() / max(1, counts.min()):.0f} times as many cases as {rare!r}. Rare "
            "ones are drawn more often by default; read sensitivity and balanced accuracy, not accuracy, and add some."
        )
    if not any(case.patient_id != case.path for case in data.cases):
        found.append("No patient is named, so each picture counts as one. Add patient_id to manifest.csv.")
    if data.has_splits and not any(case.split == "test" for case in data.cases):
        found.append(
            "No case is held out as test, so the new model will be measured on val, by which it is chosen, and look "
            "better than it is. Give some cases the split test, or no split at all."
        )
    if duplicates:
        found.append(f"{len(duplicates)} pictures are there more than once, or nearly: {listed(duplicates[0])}.")
    return found


def mixed(kinds: Kinds) -> list[str]:
    """A word where the pictures are of several kinds that are known here."""
    known = {words: number for words, number in kinds.counts.items() if words}
    if len(known) < 2 or sorted(known.values())[-2] < MIXED * sum(kinds.counts.values()):
        return []
    return [f"The pictures look like several kinds: {', '.join(known)}. A model learns one kind best."]


def in_words_of_kind(found: Preflight) -> str:
    """What the pictures look like, in words; "" where nothing was looked at."""
    if not found.kinds:
        return ""
    total = sum(found.kinds.values())
    known = [f"{words} ({number} of {total} looked at)" for words, number in found.kinds.items() if words]
    return (
        f"They look like: {', '.join(known)}." if known else "They look like no kind of picture that models here know."
    )


def listed(group: list[Case]) -> str:
    names = [case.path for case in group[:NAMED]]
    return ", ".join(names) + (f" and {len(group) - NAMED} more" if len(group) > NAMED else "")


def in_words(found: Preflight) -> str:
    lines = [
        f"{name or 'not split yet'}: " + ", ".join(f"{count} {label}" for label, count in row.items())
        for name, row in found.counts.items()
    ]
    small, large = ("×".join(map(str, size)) for size in (found.smallest_px, found.largest_px))
    kind = in_words_of_kind(found)
    shown = [*lines, f"pictures of {small} to {large} px", *([kind] if kind else []), *found.advice]
    return "\n".join([*shown, "Fit to train on."])
