"""Labelled sets that were uploaded to this installation: each a folder with the zip and what the check found.

A zip is never unpacked: its files are read one by one where they lie, as medfusion/sources.py says.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from medfusion import places
from medfusion.errors import DataError
from medfusion.labelled import LabelledSet, read_labelled
from training import jobs
from training.preflight import COPIES, Preflight, preflight

NAME, ORIGIN, ZIP = "name.txt", "origin.json", "data.zip"
FOUND, LEFT_OUT, SHEETS = "preflight.json", "left_out.json", "sheets"
SPARE_BYTES = 2**30  # left on the disk for the run


@dataclass(frozen=True)
class StoredSet:
    id: str
    name: str  # as the user named the file: shown on the page, never logged
    source: Path
    folder: Path | None  # None for a set in a folder of the administrator, which is only read
    found: Preflight | None  # None while it has not been checked
    origin: Mapping[str, str] = field(default_factory=dict)  # source, licence, citation where they are known


def keep(name: str, upload: BinaryIO, size: int, origin: Mapping[str, str] | None = None) -> StoredSet:
    """Store an uploaded zip. Raises DataError when it is no labelled set, or the disk is too full; then it is gone."""
    room_for(name, size)
    folder = places.labelled_sets() / f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    folder.mkdir(parents=True)
    try:
        with (folder / ZIP).open("wb") as into:
            shutil.copyfileobj(upload, into)
        listed(folder / ZIP, name)
        (folder / ORIGIN).write_text(json.dumps(dict(origin or {})), encoding="utf-8")
        (folder / NAME).write_text(name, encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder)
        raise
    return read(folder)


def room_for(name: str, size: int) -> None:
    """Raises DataError where the disk cannot take a file of so many bytes."""
    free = shutil.disk_usage(existing(places.home())).free
    if size + SPARE_BYTES > free:
        raise DataError(f"{name} takes {size >> 20} MB and the disk has {free >> 20} MB left. Free some space.")


def existing(path: Path) -> Path:
    return path if path.exists() else existing(path.parent)


def listed(source: Path, name: str) -> LabelledSet:
    """The cases of a set; its errors call it by the name that the user knows."""
    try:
        return read_labelled(source)
    except DataError as error:
        raise type(error)(str(error).replace(source.name, name)) from error


def read(folder: Path) -> StoredSet:
    name = (folder / NAME).read_text(encoding="utf-8")
    origin = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    return StoredSet(folder.name, name, folder / ZIP, folder, found_in(folder), origin)


def found_in(folder: Path) -> Preflight | None:
    try:
        raw = json.loads((folder / FOUND).read_text(encoding="utf-8"))
        sizes = {name: tuple(raw[name]) for name in ("smallest_px", "largest_px")}
        return Preflight(**(raw | sizes))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def list_sets() -> list[StoredSet]:
    """Uploaded sets, the newest first, then what lies in the administrator's folders."""
    own = [read(path.parent) for path in sorted(places.labelled_sets().glob(f"*/{NAME}"), reverse=True)]
    return [*own, *(shared(path) for path in shared_sources())]


def shared_sources() -> list[Path]:
    """Zips, CSV files and folders that lie directly in the folders that the administrator allows, but no links out."""
    allowed = [folder for folder in places.shared_folders() if folder.is_dir()]
    return [
        path
        for folder in allowed
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and (path.is_dir() or path.suffix.lower() in (".zip", ".csv"))
        if any(path.resolve().is_relative_to(one.resolve()) for one in allowed)
    ]


def shared(source: Path) -> StoredSet:
    path = hashlib.sha256(os.fsencode(source)).hexdigest()  # two folders may have one name
    folder = places.labelled_sets() / f"shared-{path[:16]}"
    return StoredSet(folder.name, f"{source.parent.name}/{source.name}", source, None, found_in(folder))


def find(set_id: str) -> StoredSet:
    """Raises DataError when it is gone."""
    found = next((one for one in list_sets() if one.id == set_id), None)
    if found is None:
        raise DataError("This set is not there any more. Choose or upload another one.")
    return found


def folder_of(set_id: str) -> Path:
    """Where what is known of a set is kept. Raises DataError when it is gone."""
    stored = find(set_id)
    return stored.folder or places.labelled_sets() / stored.id


def check(set_id: str, progress: Callable[[float], None] | None = None) -> Preflight:
    """Look at every file of a set and keep what was found, with a sheet of pictures for each class.

    Files that were left out stay out: see leave_out.
    """
    stored = find(set_id)
    data = listed(stored.source, stored.name)
    folder, out = folder_of(set_id), left_out(set_id)
    shutil.rmtree(folder / SHEETS, ignore_errors=True)
    found = preflight(data, progress=progress, left_out=out, sheets=folder / SHEETS)
    (folder / FOUND).write_text(json.dumps(asdict(found), ensure_ascii=False), encoding="utf-8")
    return found


def left_out(set_id: str) -> list[str]:
    try:
        return list(json.loads((folder_of(set_id) / LEFT_OUT).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return []


def leave_out(set_id: str, paths: list[str]) -> None:
    """Do not use some files of a set any more; with none given, use all again. The files themselves stay."""
    folder = folder_of(set_id)
    folder.mkdir(parents=True, exist_ok=True)
    kept = left_out(set_id) if paths else []
    (folder / LEFT_OUT).write_text(json.dumps([*kept, *paths], ensure_ascii=False), encoding="utf-8")
    forget_check(set_id)


def forget_check(set_id: str) -> None:
    """The next visit looks at every file again."""
    (folder_of(set_id) / FOUND).unlink(missing_ok=True)


def sheets(set_id: str) -> list[Path]:
    """One picture a class, in the order of the classes."""
    found = (folder_of(set_id) / SHEETS).glob("*.webp")
    return sorted(found, key=lambda path: int(path.name.split("-")[0]))


def copies(set_id: str) -> list[Path]:
    """One picture for each of the first groups of copies, in the order of the groups."""
    found = (folder_of(set_id) / SHEETS / COPIES).glob("*.webp")
    return sorted(found, key=lambda path: int(path.stem))


def delete(set_id: str) -> None:
    """Remove an uploaded set. Raises DataError while a run needs it, or when it is the administrator's."""
    stored = find(set_id)
    if stored.folder is None:
        raise DataError("This set lies in a folder of the administrator. Ask for its removal there.")
    jobs.free_source(stored.source)
    shutil.rmtree(stored.folder)
