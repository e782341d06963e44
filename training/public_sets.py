"""Public sets of MedMNIST (Yang et al. 2023) as labelled zips: `python -m training medmnist`.

Downloaded from where the medmnist package says and checked against its MD5. A copy in MEDMNIST_ROOT, by default the
folder medmnist of this installation, or where the package itself keeps its own, is used without any network. Any other
file of that form, as .npz, is a set as well. Patients are not named in these sets.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shutil
import struct
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import cv2
import numpy as np

from medfusion import places
from medfusion.errors import DataError
from medfusion.labelled import MANIFEST, SEVERAL, SPLITS
from medfusion.sources import MAX_FILE_BYTES, MAX_FILES
from training import sets

PX = (28, 64, 128, 224)
CHUNK = 2**20
MOST_CLASSES = 1000
# what reading arrays from a zip raises that holds none, or not these
NO_ARRAYS = (zipfile.BadZipFile, zlib.error, struct.error, KeyError, ValueError, IndexError, EOFError, RuntimeError)
TIMEOUT_S = 60
Progress = Callable[[float], object]  # called with the part done, 0..1; may raise Cancelled


@dataclass(frozen=True)
class PublicSet:
    name: str  # of the medmnist package
    says: str  # what it shows, and from where
    licence: str
    pictures: int
    classes: tuple[str, ...]
    several: bool  # whether a picture may have several of them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="of a set: pneumoniamnist, breastmnist, …")
    parser.add_argument("--size", type=int, default=224, choices=PX, help="side of its pictures (default: 224)")
    parser.add_argument("--out", type=Path, required=True, help="zip to write")


def run(options: argparse.Namespace) -> str:
    chosen = find_public(options.name)
    write_zip(fetch(chosen.name, options.size), chosen, options.out)
    return f"{chosen.pictures} pictures written to {options.out}"


def list_public() -> list[PublicSet]:
    """Sets of flat pictures that are not too large to be read as one, the smallest first: it is the quickest to try."""
    found = [public(name, info) for name, info in catalogue().items() if not name.endswith("3d")]
    return sorted((one for one in found if one.pictures <= MAX_FILES), key=lambda one: one.pictures)


def find_public(name: str) -> PublicSet:
    """Raises DataError when there is none of that name."""
    known = list_public()
    found = next((one for one in known if one.name == name), None)
    if found is None:
        raise DataError(f"MedMNIST has no set {name!r} to train on. Choose from: {', '.join(s.name for s in known)}.")
    return found


def catalogue() -> dict[str, Any]:
    """What the package knows of each set."""
    from medmnist import INFO  # takes seconds

    known: dict[str, Any] = INFO
    return known


def public(name: str, info: dict[str, Any]) -> PublicSet:
    classes = tuple(info["label"][str(number)] for number in range(len(info["label"])))
    several = info["task"].startswith("multi-label")
    pictures = sum(info["n_samples"].values())
    return PublicSet(name, info["description"], info["license"], pictures, distinct(classes), several)


def distinct(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Grades that are mere numbers say so."""
    return tuple(f"grade {name}" if name.isdigit() else name for name in classes)


def fetch(name: str, size_px: int, progress: Progress | None = None) -> Path:
    """The package's own file: a local copy, or downloaded now. Raises DataError when it is not what it should be."""
    info, flag = catalogue()[name], "" if size_px == PX[0] else f"_{size_px}"
    folder = Path(os.environ.get("MEDMNIST_ROOT") or places.home() / "medmnist")
    path, wanted = folder / f"{name}{flag}.npz", info[f"MD5{flag}"]
    for copy in (path, Path.home() / ".medmnist" / path.name):
        if copy.is_file():
            if md5(copy) != wanted:
                raise DataError(
                    f"{copy.name} in {copy.parent.name} is damaged or another version. Remove it and try again, or "
                    "upload it as a set of your own."
                )
            return copy
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        download(info[f"url{flag}"], part, progress)
        if md5(part) != wanted:
            raise DataError(f"{path.name} did not arrive whole. Try again.")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def download(address: str, into: Path, progress: Progress | None) -> None:
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer, into.open("wb") as file:
            total = int(answer.headers.get("Content-Length") or 0)
            if total + sets.SPARE_BYTES > shutil.disk_usage(into.parent).free:
                raise DataError(f"The set takes {total >> 20} MB and the disk has less left. Free some space.")
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                if progress and total:
                    progress(min(1.0, file.tell() / total))
    except OSError as error:  # no network, no such host, broken off
        name, reason = into.name.split(".")[0], getattr(error, "reason", error)
        raise DataError(
            f"{name}.npz could not be downloaded from {urlsplit(address).hostname} "
            f"({getattr(reason, 'strerror', None) or reason}). Check the network, or have your administrator put the "
            "file into the folder medmnist of this installation, or where MEDMNIST_ROOT says."
        ) from error


def md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def keep_public(name: str, size_px: int, progress: Progress | None = None) -> sets.StoredSet:
    """Fetch a set and store it like an uploaded one. Of the progress, the first half is the download."""
    chosen = find_public(name)
    path = fetch(name, size_px, (lambda done: progress(done / 2)) if progress else None)
    places.home().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=places.home()) as folder:
        made = Path(folder) / "set.zip"
        write_zip(path, chosen, made, (lambda done: progress(0.5 + done / 2)) if progress else None)
        with made.open("rb") as file:
            return sets.keep(f"{name} {size_px} px (MedMNIST)", file, made.stat().st_size, origin_of(chosen))


def keep_file(name: str, upload: BinaryIO, size: int) -> sets.StoredSet:
    """Store an uploaded file of the form of MedMNIST as a labelled set. Raises DataError when it is none."""
    sets.room_for(name, size)
    places.home().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=places.home()) as folder:
        given, made = Path(folder) / PurePath(name).name, Path(folder) / "set.zip"
        with given.open("wb") as into:
            shutil.copyfileobj(upload, into)
        write_zip(given, own_set(given), made)
        with made.open("rb") as file:
            return sets.keep(name, file, made.stat().st_size)


def own_set(path: Path) -> PublicSet:
    """What a file of that form says of itself: labels are numbers, so classes are numbered."""
    with opened(path) as archive:
        labels = [labels_of(archive, split) for split in SPLITS]
        columns = labels[0].shape[1]
        count = columns if columns > 1 else 1 + max(int(part.max(initial=0)) for part in labels)
    if count > MOST_CLASSES:
        raise DataError(f"{path.name} has {count} classes; at most {MOST_CLASSES} are read. Check its labels.")
    classes = tuple(f"class {number}" for number in range(count))
    return PublicSet(path.stem, "", "", sum(map(len, labels)), classes, columns > 1)


def origin_of(chosen: PublicSet) -> dict[str, str]:
    """For the card of a model that is trained on it."""
    said = {"source": f"{chosen.name} of MedMNIST. {chosen.says}", "licence": chosen.licence}
    return said | {"citation": "Yang et al., MedMNIST v2, Scientific Data 10:41, 2023", "patient_id": "not stated"}


def write_zip(source: Path, chosen: PublicSet, out: Path, progress: Progress | None = None) -> None:
    """PNG pictures with a manifest: the splits of the package. Reads a picture at a time, whatever the set's size."""
    columns = [SEVERAL + name for name in chosen.classes] if chosen.several else ["label"]
    rows, done = [",".join(["path", "split", *map(quoted, columns)])], 0
    try:
        with opened(source) as archive, zipfile.ZipFile(out, "w") as into:  # PNGs shrink no further
            for split in SPLITS:
                labels = labels_of(archive, split)
                for number, (picture, label) in enumerate(zip(pictures(archive, split), labels, strict=True)):
                    path = f"{split}/{number}.png"
                    into.writestr(path, png(picture))
                    told = [str(int(one)) for one in label] if chosen.several else [chosen.classes[int(label[0])]]
                    rows.append(",".join([path, split, *map(quoted, told)]))
                    done += 1
                    if progress and done % 100 == 0:
                        progress(min(1.0, done / chosen.pictures))
            into.writestr(MANIFEST, "\n".join(rows))
    except BaseException:
        with suppress(OSError):
            out.unlink(missing_ok=True)
        raise


@contextmanager
def opened(source: Path) -> Iterator[zipfile.ZipFile]:
    """An .npz, which is a zip of arrays. What is wrong with it becomes a DataError that names it."""
    try:
        with zipfile.ZipFile(source) as archive:
            yield archive
    except NO_ARRAYS as error:
        raise DataError(
            f"{source.name} is no file of MedMNIST ({error}). It needs train_images, train_labels and the same of val "
            "and test."
        ) from error


def labels_of(archive: zipfile.ZipFile, split: str) -> np.ndarray:
    """(n, 1) class numbers, or (n, K) of 0 and 1."""
    name = f"{split}_labels.npy"
    if archive.getinfo(name).file_size > MAX_FILE_BYTES:
        raise ValueError(f"its {name} is too large")
    labels = np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
    if (
        labels.dtype.kind not in "iu"
        or labels.ndim not in (1, 2)
        or len(labels) > MAX_FILES
        or labels.min(initial=0) < 0
    ):
        raise ValueError(f"its {name} is {labels.dtype} of shape {labels.shape}")
    return labels.reshape(len(labels), -1)


def pictures(archive: zipfile.ZipFile, split: str) -> Iterator[np.ndarray]:
    """The (h, w) or (h, w, 3) uint8 pictures of one split, one after the other."""
    with archive.open(f"{split}_images.npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, kind = read(file)
        size = int(np.prod(shape[1:]))
        flat = len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)
        if kind != np.uint8 or by_columns or not flat or shape[0] > MAX_FILES or not 0 < size <= MAX_FILE_BYTES:
            raise ValueError(f"its pictures are {kind} of shape {shape}")
        for _ in range(shape[0]):
            yield np.frombuffer(file.read(size), np.uint8).reshape(shape[1:])


def png(picture: np.ndarray) -> bytes:
    ordered = picture if picture.ndim == 2 else np.ascontiguousarray(picture[..., ::-1])  # OpenCV has blue first
    return bytes(cv2.imencode(".png", ordered)[1])


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
