"""Files on disk for the commands: folders are walked, and a file that cannot be read becomes an entry, not an end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from medfusion.apart import read_scan
from medfusion.errors import ScanError
from medfusion.imaging.limits import check_bytes
from medfusion.types import Limits, Scan


def walk(paths: list[Path]) -> Iterator[Path]:
    """The files themselves, and those in folders at any depth by name, without hidden ones.

    Raises ScanError when a folder holds no file.
    """
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and not is_hidden(file.relative_to(path))]
        if not files:
            raise ScanError("This folder holds no files. Name a folder with scans in it.")
        yield from files


def is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def read_file(path: Path) -> Scan:
    """Raises ScanError, also for a file that is not there."""
    return read_scan(read_bytes(path), name=path.name)


def frame_index(scan: Scan, frame: int) -> int:
    """From a frame counted from 1, as on the command line. Raises ScanError where the scan has none such."""
    if not 1 <= frame <= scan.frame_count:
        counted = "1 frame" if scan.frame_count == 1 else f"{scan.frame_count} frames"
        upto = "" if scan.frame_count == 1 else f" to {scan.frame_count}"
        raise ScanError(f"This scan has {counted}. Give --frame 1{upto}.")
    return frame - 1


def read_bytes(path: Path) -> bytes:
    """Raises ScanError for a file that is not there or larger than may be read."""
    try:
        check_bytes(path.stat().st_size, Limits())
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ScanError("There is no such file. Check the path.") from error
    except OSError as error:
        raise ScanError(f"This file cannot be opened ({error.strerror}). Check its permissions.") from error


def write_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=True) + "\n")


def write_line(*parts: str) -> None:
    """One line for one file, whatever its name holds: an undecodable byte or a newline must not break the output."""
    line = "  ".join(part for part in parts if part).encode("utf-8", "replace").decode("utf-8")
    printable = "".join(char if char.isprintable() else "?" for char in line)
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(printable.encode(encoding, "replace").decode(encoding) + "\n")
