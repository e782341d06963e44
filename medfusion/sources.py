"""Where the files of a labelled set lie: a zip, a folder, or a CSV that names files beside it. Nothing is ever written.

Zips come from anywhere, so each is looked through before any file is unpacked, and files are unpacked in memory only,
one at a time and never under the names that they carry. Links may not lead out of the folders that were opened.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

import fsspec

from medfusion import places
from medfusion.errors import DataError

MAX_FILES = 200_000
MAX_CONTENTS_BYTES = 2**25  # of a zip: 200,000 names of 120 letters
TAIL_BYTES = 2**17  # where a zip says how long its table of contents is
MAX_FILE_BYTES = 256 * 2**20
MAX_TOTAL_BYTES = 64 * 2**30
BOMB_BYTES, BOMB_RATIO = 2**30, 100  # unpacking to more, and to as many times its own size, is no set of pictures
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # Python unpacks the others without a bound on memory
# what zipfile raises on files that are damaged
NOT_UNPACKED = (zipfile.BadZipFile, OSError, RuntimeError, ValueError, EOFError, struct.error, zlib.error)
DRIVE = re.compile(r"[A-Za-z]:")
LITTER = {"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"}  # what operating systems add of their own


class Source(Protocol):
    def names(self) -> list[str]:
        """All files, with / between folders. Raises DataError on names or files that no honest set has."""

    def has(self, name: str) -> bool: ...

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises DataError that names it."""

    def head(self, name: str, count: int) -> bytes:
        """Its first bytes, no more of it being read or unpacked. Raises DataError that names it."""

    def stamp(self, name: str) -> str:
        """Another once the file has changed: its size with checksum or time. Reads nothing; "" if it is not there."""


def at_hand(address: str) -> Path:
    """A path as it is; a zip behind any address that fsspec knows as a copy, fetched anew when it has changed there."""
    if "://" not in address:
        return Path(address)
    kept = places.home() / "fetched" / hashlib.sha256(address.encode()).hexdigest()[:16]
    caching = {"cache_storage": str(kept), "same_names": True, "check_files": True}
    try:
        return Path(fsspec.open_local(f"filecache::{address}", filecache=caching))
    except (ImportError, OSError, ValueError) as error:  # a protocol that fsspec does not know is a ValueError
        raise DataError(f"{address} cannot be fetched ({error}). Check the address.") from error


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a zip, a folder, or the folder of a CSV. Raises DataError when it is none of these."""
    if path.is_dir():
        yield Folder(path)
    elif path.suffix.lower() == ".csv" and path.is_file():
        yield Folder(path.parent)
    else:
        try:
            file = path.open("rb")
        except OSError as error:
            raise DataError(f"There is no file or folder {path.name!r}. Check the path.") from error
        with file, zipped(path.name, file, f"{path.name} is neither a folder nor a readable zip file.") as archive:
            yield archive


@contextmanager
def opened_zip(called: str, content: bytes) -> Iterator[Source]:
    """The same for a zip in memory."""
    with zipped(called, io.BytesIO(content), f"{called} is not a readable zip file.") as archive:
        yield archive


@contextmanager
def zipped(called: str, file: BinaryIO, unreadable: str) -> Iterator[Zip]:
    check_contents(called, file)
    try:
        archive = zipfile.ZipFile(file)
    except NOT_UNPACKED as error:
        raise DataError(f"{unreadable} Zip it again.") from error
    with archive:
        yield Zip(called, archive)


def check_contents(called: str, file: BinaryIO) -> None:
    """Refuse a table of contents that would fill the memory. zipfile reads all of it before it says how long it is."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - TAIL_BYTES))
    tail = file.read()
    stated = [
        int.from_bytes(tail[match.end() + offset : match.end() + offset + width], "little")
        for mark, offset, width in ((b"PK\5\6", 8, 4), (b"PK\6\6", 36, 8))  # APPNOTE.TXT 4.3.16 and 4.3.14
        for match in re.finditer(re.escape(mark), tail)
    ]
    if any(MAX_CONTENTS_BYTES < length <= size for length in stated):
        raise DataError(f"{called} lists more files than are read; at most {MAX_FILES} are. Split it.")


class Folder:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.open = [folder.resolve() for folder in (root, *places.shared_folders())]

    def names(self) -> list[str]:
        found = [path.relative_to(self.root).as_posix() for path in sorted(self.root.rglob("*")) if path.is_file()]
        kept = [name for name in found if not litter(name)]
        for name in kept:
            self.path(name)
        return few(self.root.name, kept)

    def has(self, name: str) -> bool:
        try:
            return self.path(name).is_file()
        except OSError:  # no name that a file could have
            return False

    def read(self, name: str) -> bytes:
        try:
            path = self.path(name)
            if path.stat().st_size > MAX_FILE_BYTES:
                raise DataError(f"{name} has over {MAX_FILE_BYTES >> 20} MB. Remove it.")
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{name} cannot be read ({error.strerror}). Check the file.") from error

    def head(self, name: str, count: int) -> bytes:
        try:
            with self.path(name).open("rb") as file:
                return file.read(count)
        except OSError as error:
            raise DataError(f"{name} cannot be read ({error.strerror}). Check the file.") from error

    def stamp(self, name: str) -> str:
        try:
            told = self.path(name).stat()
        except OSError:
            return ""
        return f"{told.st_size} {told.st_mtime_ns}"

    def path(self, name: str) -> Path:
        """Raises DataError when a name, or the link under it, leads out of the folders that may be read."""
        path = self.root / name
        try:
            real = path.resolve()
        except (OSError, RuntimeError, ValueError) as error:  # too long, links in a ring, a zero byte
            raise DataError(f"{name[:100]!r} cannot name a file. Check the name.") from error
        if not any(real.is_relative_to(folder) for folder in self.open):
            raise DataError(f"{name!r} leads out of {self.root.name}. Put the file itself there.")
        return path


class Zip:
    def __init__(self, called: str, archive: zipfile.ZipFile) -> None:
        self.called, self.archive = called, archive

    def names(self) -> list[str]:
        files = [
            info for info in self.archive.infolist() if not info.filename.endswith("/") and not litter(info.filename)
        ]
        names: set[str] = set()
        for info in files:
            if info.filename in names:
                raise DataError(f"{self.called} holds {info.filename!r} twice. Zip the set again.")
            names.add(info.filename)
            if reason := unfit(info):
                raise DataError(f"{self.called}: {info.filename!r} {reason}")
        total, packed = sum(info.file_size for info in files), sum(info.compress_size for info in files)
        if total > MAX_TOTAL_BYTES or total > max(BOMB_BYTES, BOMB_RATIO * packed):
            raise DataError(
                f"{self.called} would unpack to {total / 2**30:.1f} GB, {total // max(1, packed)} times its size. "
                f"Zip pictures only, in parts of up to {MAX_TOTAL_BYTES >> 30} GB."
            )
        return few(self.called, [info.filename for info in files])

    def has(self, name: str) -> bool:
        return name in self.archive.NameToInfo

    def read(self, name: str) -> bytes:
        return self.head(name, self.archive.getinfo(name).file_size)

    def head(self, name: str, count: int) -> bytes:
        info = self.archive.getinfo(name)
        if reason := unfit(info):
            raise DataError(f"{name!r} {reason}")
        try:
            with self.archive.open(info) as file:  # archive.read would unpack more than the header says
                return file.read(min(count, info.file_size))
        except NOT_UNPACKED as error:
            raise DataError(f"{name} cannot be unpacked because it is damaged. Zip the set again.") from error

    def stamp(self, name: str) -> str:
        info = self.archive.NameToInfo.get(name)
        return f"{info.file_size} {info.CRC}" if info else ""


def few(called: str, names: list[str]) -> list[str]:
    if len(names) > MAX_FILES:
        raise DataError(f"{called} holds {len(names)} files; at most {MAX_FILES} are read. Split it.")
    return names


def litter(name: str) -> bool:
    return not LITTER.isdisjoint(PurePosixPath(name).parts)


def unfit(info: zipfile.ZipInfo) -> str:
    """Why a file in a zip is not unpacked, and what to do; "" when it may be."""
    parts = info.filename.replace("\\", "/").split("/")
    if ".." in parts or not parts[0] or DRIVE.match(parts[0]):
        return "would lie outside of it. Zip the folder itself again, with paths inside of it."
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a link, not a file. Zip the set again with the files themselves."
    if info.flag_bits & 1:
        return "is locked by a password. Zip the set again without one."
    if info.compress_type not in PACKED:
        return "is packed in a way that is not read here. Zip the set again as a usual zip (Deflate)."
    if info.file_size > MAX_FILE_BYTES:
        return f"unpacks to over {MAX_FILE_BYTES >> 20} MB. Remove it."
    return ""
