"""`inspect`: one line a file, `ok` with what it is, or `error` with the cause and the remedy."""

from __future__ import annotations

import argparse
from pathlib import Path

from medfusion.commands.files import read_file, walk, write_json, write_line
from medfusion.errors import ScanError
from medfusion.types import Scan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a file, or a folder to walk")
    parser.add_argument("--json", action="store_true", help="print a JSON list for machines")


def run(arguments: argparse.Namespace) -> int:
    """Returns 1 when a file cannot be read, else 0."""
    entries = []
    for path in walk(arguments.paths):
        entry = inspect(path)
        entries.append(entry)
        if not arguments.json:
            write_line(str(entry["status"]), str(path), str(entry.get("error") or in_words(entry)))
    if arguments.json:
        write_json(entries)
    return int(any(entry["status"] == "error" for entry in entries))


def inspect(path: Path) -> dict[str, object]:
    """What a file is, as JSON holds it; identity is not read."""
    try:
        return {"path": str(path), "status": "ok", **describe(read_file(path))}
    except ScanError as error:
        return {"path": str(path), "status": "error", "error": str(error)}


def describe(scan: Scan) -> dict[str, object]:
    return {
        "format": scan.file_format,
        "width_px": scan.width_px,
        "height_px": scan.height_px,
        "frames": scan.frame_count,
        "channels": 1 if scan.is_grey else 3,
        "dtype": str(scan.frames.dtype),
        "modality": scan.modality,
        "body_part": scan.body_part,
        "laterality": scan.laterality,
        "orientation": scan.orientation,
        "spacing_mm": scan.spacing_mm,
        "transfer_syntax": scan.transfer_syntax,
        "notes": scan.notes,
        "sha256": scan.sha256,
    }


def in_words(entry: dict[str, object]) -> str:
    frames = "1 frame" if entry["frames"] == 1 else f"{entry['frames']} frames"
    words = [
        f"{entry['width_px']}x{entry['height_px']}",
        entry["modality"] or "-",
        frames,
        entry["format"],
        entry["transfer_syntax"],
    ]
    return "  ".join(str(word) for word in words if word)
