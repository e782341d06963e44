"""Read a labelled set: a zip or folder of CLASS/FILE pictures, with or without manifest.csv. Never writes anything.

manifest.csv has the columns path and label, and may have patient_id and split (train, val, test); evaluation makes
subgroups of any other. Without it the folder names are the labels and every picture counts as its own patient.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from medfusion.errors import DataError, PatientOverlap, ScanError
from medfusion.imaging import display, read_scan
from medfusion.preprocess import squash
from medfusion.types import InputSpec

MANIFEST = "manifest.csv"
COLUMNS = ("path", "label", "patient_id", "split")
SPLITS = ("train", "val", "test")
MAX_FILES = 200_000
MAX_FILE_BYTES = 256 * 2**20
READABLE = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom", ""}


@dataclass(frozen=True)
class Case:
    path: str  # inside the zip or folder
    label: str
    patient_id: str
    split: str = ""  # "" while none is given
    more: tuple[tuple[str, str], ...] = ()  # the manifest's other columns, name and value


@dataclass(frozen=True)
class LabelledSet:
    source: Path
    cases: tuple[Case, ...]
    classes: tuple[str, ...]

    def subset(self, split: str) -> LabelledSet:
        """Only the cases of one split; the classes stay those of the whole set."""
        return replace(self, cases=tuple(case for case in self.cases if case.split == split))

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of cases by split and class."""
        table: dict[str, dict[str, int]] = {}
        for case in self.cases:
            row = table.setdefault(case.split, dict.fromkeys(self.classes, 0))
            row[case.label] += 1
        return table

    @property
    def has_splits(self) -> bool:
        return any(case.split for case in self.cases)

    def labels(self, classes: tuple[str, ...] | None = None) -> np.ndarray:
        """(n,) int64 indices into classes (default: this set's own)."""
        order = classes or self.classes
        unknown = sorted({case.label for case in self.cases} - set(order))
        if unknown:
            raise DataError(
                f"The data has the label {unknown[0]!r}, unknown to the model. Its classes: {', '.join(order)}."
            )
        return np.array([order.index(case.label) for case in self.cases], dtype=np.int64)


def read_labelled(source: Path) -> LabelledSet:
    """List the cases of a zip or folder without decoding any picture.

    Raises DataError when there are none, when a listed file is missing, or when a column is unknown, and
    PatientOverlap when the given split separates pictures of one patient.
    """
    names = list(_names(source))
    if not names:
        raise DataError(f"{source.name} holds no files. Put one folder of pictures for each class into it.")
    if len(names) > MAX_FILES:
        raise DataError(f"{source.name} holds {len(names)} files; at most {MAX_FILES} are read. Split it.")
    manifest = next((name for name in names if PurePosixPath(name).name == MANIFEST), None)
    cases = _from_manifest(source, manifest, set(names)) if manifest else _from_folders(names)
    if not cases:
        raise DataError(f"{source.name} holds no pictures in class folders. Put one folder for each class into it.")
    _refuse_overlap(cases)
    return LabelledSet(source, tuple(cases), tuple(sorted({case.label for case in cases})))


def read_pictures(data: LabelledSet, spec: InputSpec, into: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Decode case by case to (h, w, 3) uint8 of the model's size, through the same reader as an upload.

    into: an (n, h, w, 3) uint8 array to fill on the way. Raises DataError that names an unreadable file.
    """
    for index, (case, content) in enumerate(read_files(data)):
        try:
            picture = squash(display(read_scan(content, case.path)), spec)
        except ScanError as error:
            raise DataError(f"{case.path}: {error} Mend or remove this file.") from error
        if into is not None:
            into[index] = picture
        yield picture


def read_files(data: LabelledSet) -> Iterator[tuple[Case, bytes]]:
    """Each case with the bytes of its file. Raises DataError that names a file that cannot be unpacked."""
    archive = zipfile.ZipFile(data.source) if data.source.is_file() else None
    try:
        for case in data.cases:
            yield case, _read(archive, case.path) if archive else (data.source / case.path).read_bytes()
    finally:
        if archive:
            archive.close()


def _names(source: Path) -> Iterator[str]:
    if source.is_dir():
        yield from (path.relative_to(source).as_posix() for path in sorted(source.rglob("*")) if path.is_file())
        return
    try:
        with zipfile.ZipFile(source) as archive:
            yield from (info.filename for info in archive.infolist() if not info.is_dir())
    except FileNotFoundError as error:
        raise DataError(f"There is no file or folder {source.name!r}. Check the path.") from error
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{source.name} is neither a folder nor a readable zip file. Zip it again.") from error


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > MAX_FILE_BYTES:
        raise DataError(f"{name} unpacks to over {MAX_FILE_BYTES >> 20} MB. Remove it.")
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, RuntimeError, OSError) as error:  # damaged, or encrypted
        raise DataError(f"{name} cannot be unpacked ({error}). Zip the set again, without a password.") from error


def _from_manifest(source: Path, manifest: str, names: set[str]) -> list[Case]:
    rows = _rows(source, manifest)
    if not rows or not {"path", "label"} <= set(rows[0]):
        raise DataError(
            f"{MANIFEST} needs the columns path and label, separated by commas; patient_id and split are optional."
        )
    base = PurePosixPath(manifest).parent
    cases = []
    for line, row in enumerate(rows, start=2):
        if not row["path"] or not row["label"]:
            raise DataError(f"{MANIFEST}, line {line}: path or label is empty. Fill both in or drop the line.")
        path = (base / row["path"]).as_posix()
        if path not in names:
            raise DataError(f"{MANIFEST}, line {line}: {row['path']!r} is not there. Add it or drop the line.")
        split = row.get("split") or ""
        if split and split not in SPLITS:
            raise DataError(f"{MANIFEST}, line {line}: split {split!r} is unknown. Use {', '.join(SPLITS)}.")
        more = tuple((name, value or "") for name, value in row.items() if name and name not in COLUMNS)
        cases.append(Case(path, row["label"], row.get("patient_id") or path, split, more))
    return cases


def _rows(source: Path, manifest: str) -> list[dict[str, str]]:
    """The lines of the manifest by column. Raises DataError when it is not CSV in UTF-8."""
    if source.is_dir():
        content = (source / manifest).read_bytes()
    else:
        with zipfile.ZipFile(source) as archive:
            content = _read(archive, manifest)
    try:
        return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{MANIFEST} is not readable as CSV in UTF-8. Save it as 'CSV UTF-8' again.") from error


def _from_folders(names: list[str]) -> list[Case]:
    pictures = [
        PurePosixPath(name)
        for name in names
        if PurePosixPath(name).suffix.lower() in READABLE and not PurePosixPath(name).name.startswith(".")
    ]
    inside = [path for path in pictures if len(path.parts) > 1 and "__MACOSX" not in path.parts]
    return [Case(path.as_posix(), path.parent.name, path.as_posix()) for path in inside]


def _refuse_overlap(cases: list[Case]) -> None:
    sides: dict[str, set[str]] = {}
    for case in cases:
        sides.setdefault(case.patient_id, set()).add(case.split)
    shared = sorted(patient for patient, splits in sides.items() if len(splits) > 1)
    if shared:
        raise PatientOverlap(
            f"{len(shared)} patients are in more than one split of {MANIFEST}. Keep each patient on one side."
        )
