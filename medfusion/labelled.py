"""Read a labelled set: a zip or folder of CLASS/FILE pictures, with or without manifest.csv, or a CSV by itself.

The CSV has the columns path and label, and may have patient_id and split (train, val, test); evaluation makes subgroups
of any other. Where a picture may have several labels or none, columns `label:NAME` of 0 and 1 stand for label. Without
a CSV the folders tell: see folders.py. Where neither names patients, DICOM headers do, as a hash of their number; else
every picture counts as its own patient.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from medfusion.apart import read_scan
from medfusion.errors import DataError, PatientOverlap, ScanError
from medfusion.folders import places_of
from medfusion.imaging import display, patient_number
from medfusion.preprocess import squash
from medfusion.sources import Source, open_source
from medfusion.types import InputSpec

MANIFEST = "manifest.csv"
COLUMNS = ("path", "label", "patient_id", "split")
SEVERAL = "label:"  # begins the name of a column of 0 and 1
SPLITS = ("train", "val", "test")
SUFFIXES_OF_DICOM = {".dcm", ".dicom", ""}
HEAD_BYTES = 64 * 1024  # of a DICOM file: patients stand among its first elements
NAMED = 3  # patients that a sentence gives an example of
READABLE = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom", ""}


@dataclass(frozen=True)
class Case:
    path: str  # inside the zip or folder
    labels: tuple[str, ...]  # one, unless the set has columns label:NAME
    patient_id: str
    split: str = ""  # "" while none is given
    more: tuple[tuple[str, str], ...] = ()  # the CSV's other columns, name and value

    @property
    def label(self) -> str:
        """In words: of several labels all."""
        return " + ".join(self.labels) or "none"


@dataclass(frozen=True)
class LabelledSet:
    source: Path
    cases: tuple[Case, ...]
    classes: tuple[str, ...]
    several: bool = False  # whether a case may have several labels, or none

    def subset(self, split: str) -> LabelledSet:
        """Only the cases of one split; the classes stay those of the whole set."""
        return replace(self, cases=tuple(case for case in self.cases if case.split == split))

    def without(self, left_out: Collection[str]) -> LabelledSet:
        """All cases but those of some paths. The classes stay those of the whole set."""
        gone = set(left_out)
        return replace(self, cases=tuple(case for case in self.cases if case.path not in gone))

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of cases by split and class; where there are several labels, a case counts for each of its own."""
        table: dict[str, dict[str, int]] = {}
        for case in self.cases:
            row = table.setdefault(case.split, dict.fromkeys(self.classes, 0))
            for label in case.labels:
                row[label] += 1
        return table

    @property
    def has_splits(self) -> bool:
        return any(case.split for case in self.cases)

    def labels(self, classes: tuple[str, ...] | None = None) -> np.ndarray:
        """(n,) int64 indices into classes (default: this set's own); of several labels (n, K) int64, 1 for those."""
        order = classes or self.classes
        unknown = sorted({label for case in self.cases for label in case.labels} - set(order))
        if unknown:
            raise DataError(
                f"The data has the label {unknown[0]!r}, unknown to the model. Its classes: {', '.join(order)}."
            )
        if self.several:
            return np.array([[name in case.labels for name in order] for case in self.cases], dtype=np.int64)
        return np.array([order.index(case.label) for case in self.cases], dtype=np.int64)


def read_labelled(path: Path) -> LabelledSet:
    """List the cases of a zip, folder or CSV without decoding any picture.

    Raises DataError when there are none, when a listed file is missing, when a column is unknown, or when a zip or a
    link is not safe to read, and PatientOverlap when the given split separates pictures of one patient.
    """
    with open_source(path) as source:
        if path.suffix.lower() == ".csv" and path.is_file():
            names, table = [], path.name
        else:
            names = source.names()
            if not names:
                raise DataError(f"{path.name} holds no files. Put one folder of pictures for each class into it.")
            table = next((name for name in names if PurePosixPath(name).name == MANIFEST), "")
        cases, classes = _from_table(source, table) if table else (_from_folders(names), ())
        if not cases:
            raise DataError(f"{path.name} holds no pictures in class folders. Put one folder for each class into it.")
        cases = _with_patients(source, cases)
    _refuse_overlap(cases)
    found = tuple(sorted({label for case in cases for label in case.labels}))
    return LabelledSet(path, tuple(cases), classes or found, bool(classes))


def read_pictures(data: LabelledSet, spec: InputSpec, into: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Decode case by case to (h, w, 3) uint8 of the model's size, through the same reader as an upload.

    into: an (n, h, w, 3) uint8 array to fill on the way. Raises DataError that names an unreadable file.
    """
    for index, (case, read) in enumerate(files_of(data)):
        try:
            picture = squash(display(read_scan(read(), case.path)), spec)
        except ScanError as error:
            raise DataError(f"{case.path}: {error} Mend or remove this file.") from error
        if into is not None:
            into[index] = picture
        yield picture


def files_of(data: LabelledSet) -> Iterator[tuple[Case, Callable[[], bytes]]]:
    """Each case with what reads its file, which raises DataError where the file cannot be unpacked."""
    with open_source(data.source) as source:
        for case in data.cases:
            yield case, partial(source.read, case.path)


def fingerprint(data: LabelledSet) -> str:
    """Of which files the cases are and in what state, as a SHA-256 of their paths and stamps. No file is read."""
    with open_source(data.source) as source:
        lines = "\n".join(f"{case.path} {source.stamp(case.path)}" for case in data.cases)
    return hashlib.sha256(lines.encode()).hexdigest()


def _from_table(source: Source, table: str) -> tuple[list[Case], tuple[str, ...]]:
    """The cases of a CSV, and its classes where they have columns of their own."""
    rows, called = _rows(source, table), PurePosixPath(table).name
    columns = [name for name in rows[0] if name] if rows else []
    classes = tuple(name.removeprefix(SEVERAL) for name in columns if name.startswith(SEVERAL))
    if "path" not in columns or ("label" in columns) == bool(classes):
        raise DataError(
            f"{called} needs the columns path and label; patient_id and split are optional. Where a picture may have "
            f"several labels, use columns {SEVERAL}NAME of 0 and 1 in place of label."
        )
    base = PurePosixPath(table).parent
    cases = []
    for line, row in enumerate(rows, start=2):
        where = f"{called}, line {line}"
        if not row["path"] or not (classes or row["label"]):
            raise DataError(f"{where}: path or label is empty. Fill both in or drop the line.")
        path = (base / row["path"]).as_posix()
        if not source.has(path):
            raise DataError(f"{where}: {row['path']!r} is not there. Add it or drop the line.")
        split = row.get("split") or ""
        if split and split not in SPLITS:
            raise DataError(f"{where}: split {split!r} is unknown. Use {', '.join(SPLITS)}.")
        labels = tuple(name for name in classes if _holds(row[SEVERAL + name], name, where)) or (
            (row["label"],) if not classes else ()
        )
        more = tuple(
            (name, row[name] or "") for name in columns if name not in COLUMNS and not name.startswith(SEVERAL)
        )
        cases.append(Case(path, labels, row.get("patient_id") or path, split, more))
    return cases, classes


def _holds(value: str | None, name: str, where: str) -> bool:
    if value not in ("0", "1"):
        raise DataError(f"{where}: {SEVERAL}{name} is {value or ''!r}. Write 1 where the label holds, else 0.")
    return value == "1"


def _rows(source: Source, table: str) -> list[dict[str, str]]:
    """The lines of a CSV by column, separated as its first line is. Raises DataError when it is not CSV in UTF-8."""
    try:
        text = source.read(table).decode("utf-8-sig")
        first = text.partition("\n")[0]
        return list(csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=first.count), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        called = PurePosixPath(table).name
        raise DataError(f"{called} is not readable as CSV in UTF-8. Save it as 'CSV UTF-8' again.") from error


def _from_folders(names: list[str]) -> list[Case]:
    pictures = [
        PurePosixPath(name)
        for name in names
        if PurePosixPath(name).suffix.lower() in READABLE and not PurePosixPath(name).name.startswith(".")
    ]
    inside = [path.as_posix() for path in pictures if len(path.parts) > 1]
    told = places_of(inside) if inside else []
    return [Case(name, (one.label,), one.patient or name, one.split) for name, one in zip(inside, told, strict=True)]


def _with_patients(source: Source, cases: list[Case]) -> list[Case]:
    """Cases whose patient nobody named, by the number in their DICOM header. One number in all files says nothing."""
    told = {case.path: _patient(source, case) for case in cases if case.patient_id == case.path}
    if len(set(told.values()) - {""}) < 2:
        return cases
    return [replace(case, patient_id=told.get(case.path) or case.patient_id) for case in cases]


def _patient(source: Source, case: Case) -> str:
    if PurePosixPath(case.path).suffix.lower() not in SUFFIXES_OF_DICOM:
        return ""
    try:
        number = patient_number(source.head(case.path, HEAD_BYTES))
    except DataError:  # it is told of when it is read whole
        return ""
    return f"DICOM {hashlib.sha256(number.encode()).hexdigest()[:16]}" if number else ""


def _refuse_overlap(cases: list[Case]) -> None:
    sides: dict[str, dict[str, Case]] = {}
    for case in cases:
        sides.setdefault(case.patient_id, {}).setdefault(case.split, case)
    shared = [sorted(found.values(), key=lambda case: case.path) for found in sides.values() if len(found) > 1]
    if shared:
        examples = "; ".join(
            " and ".join(f"{case.path} ({case.split or 'none'})" for case in each) for each in shared[:NAMED]
        )
        more = f"; and {len(shared) - NAMED} more" if len(shared) > NAMED else ""
        count = "1 patient is" if len(shared) == 1 else f"{len(shared)} patients are"
        raise PatientOverlap(
            f"{count} in more than one split: {examples}{more}. Keep all pictures of a patient on one side."
        )


def _sided(case: Case) -> str:
    return f"{case.path} ({case.split or 'no split'})"
