"""Is this installation sound? One check each for decoders, device, models, answers, database, log, disk and key."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

import medfusion
from medfusion import library, places, worklist
from medfusion.access import ADMINISTRATOR, needs
from medfusion.errors import MedFusionError
from medfusion.pacs import config

ARCHIVE = "archive "  # begins the name of its check
LITTLE_BYTES = 2 * 2**30  # free disk under which there is a warning
PACKAGES = ("streamlit", "torch", "openvino", "pydicom", "lightning", "sqlalchemy", "numpy")
SYNTAXES = {  # what `inspect` and the pages must be able to read
    "JPEG Baseline": "1.2.840.10008.1.2.4.50",
    "JPEG Lossless": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.91",
    "HTJ2K": "1.2.840.10008.1.2.4.201",
    "RLE": "1.2.840.10008.1.2.5",
}


@dataclass(frozen=True)
class Finding:
    """What a check found, in a sentence, and what to do where it is not ok."""

    state: Literal["ok", "warning", "error"]
    found: str


def names() -> list[str]:
    """All checks: CHECKS, and one for each archive and the listener of the configuration."""
    try:
        settings = config.read()
    except MedFusionError:
        return [*CHECKS]  # that of the archives says why
    return [*CHECKS, *(ARCHIVE + name for name in settings.archives)]


@needs(ADMINISTRATOR)
def check(name: str) -> Finding:
    """Run one of names(). What it raises is a finding, too."""
    try:
        return CHECKS[name]() if name in CHECKS else archive(name.removeprefix(ARCHIVE))
    except MedFusionError as error:
        return Finding("error", str(error))
    except Exception as error:  # a check of a broken installation may fail in every way there is
        return Finding("error", f"The check itself failed ({type(error).__name__}). Install the requirements again.")


def versions() -> Finding:
    parts = [f"MedFusionNet {medfusion.__version__}", f"Python {platform.python_version()}"]
    return Finding("ok", ", ".join(parts + [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]))


def decoders() -> Finding:
    from pydicom.pixels import get_decoder

    missing = [name for name, syntax in SYNTAXES.items() if not get_decoder(syntax).is_available]
    if missing:
        return Finding("error", f"DICOM cannot be read as {', '.join(missing)}. Install the requirements again.")
    return Finding("ok", f"DICOM with {', '.join(SYNTAXES)} and without compression; PNG, JPEG, TIFF")


def reader() -> Finding:
    from medfusion import apart
    from medfusion.samples import sample_bytes

    apart.read_scan(content := sample_bytes("synthetic-chest"))
    started = time.perf_counter()
    apart.read_scan(content)
    return Finding(
        "ok", f"A process of its own decodes files, this one in {1000 * (time.perf_counter() - started):.0f} ms"
    )


def device() -> Finding:
    import torch

    memory = f"{psutil.virtual_memory().total / 2**30:.0f} GB of memory, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return Finding("ok", f"{card.name} with {card.total_memory / 2**30:.0f} GB; {memory}")
    return Finding("ok", f"No GPU: answers and training use the processor. {memory}")


def models() -> Finding:
    cards, problems = library.list_cards(), library.problems()
    if problems:
        return Finding("error", " ".join(problems))
    if not cards:
        return Finding("warning", "No model is installed. Promote one, or set MEDFUSION_MODELS.")
    for card in cards:
        library.load(card.id, "cpu")  # checks the weights against the card
    return Finding("ok", f"{len(cards)} models, each with the weights that its card names")


def answers() -> Finding:
    from medfusion import inference
    from medfusion.samples import read_sample

    card = next((card for card in library.list_cards() if card.role == "diagnosis"), None)
    if card is None:
        return Finding("warning", "There is no model to ask.")
    model, scan = library.load(card.id), read_sample("synthetic-chest")
    inference.predict(model, scan)
    started = time.perf_counter()
    inference.predict(model, scan)
    return Finding("ok", f"{card.id} answers in {1000 * (time.perf_counter() - started):.0f} ms")


def database() -> Finding:
    from medfusion.records.database import is_sqlite

    counts = worklist.counts()
    kind = "SQLite in this installation" if is_sqlite() else "PostgreSQL, by MEDFUSION_DATABASE_URL"
    return Finding("ok", f"{kind}: {sum(counts.values())} cases, {counts.get(worklist.WAITING, 0)} waiting")


def log() -> Finding:
    from medfusion.records import audit

    number, faults = audit.verify()
    return Finding("error", " ".join(faults)) if faults else Finding("ok", f"{number} entries, each as it was written")


def disk() -> Finding:
    places.make_home()
    free = shutil.disk_usage(places.home()).free
    said = f"{free / 2**30:.0f} GB free where records, sets and runs lie"
    return Finding("ok", said) if free >= LITTLE_BYTES else Finding("warning", f"Only {said}. Free some space.")


def key() -> Finding:
    from medfusion.records import keys

    keys.sign("", "")
    if is_open(keys.path()):
        return Finding("error", f"{keys.path().name} can be read by others. Run `chmod 600` on it.")
    return Finding("ok", "The key of pseudonyms and log is there, for its owner only. Keep a backup.")


def is_open(path: Path) -> bool:
    """Whether others on this machine can read a secret."""
    return os.name == "posix" and path.exists() and bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def retention() -> Finding:
    days = worklist.kept_days()
    kept = "as they come" if os.environ.get("MEDFUSION_KEEP_IDENTITY") == "1" else "without identity"
    if days is None:
        return Finding("ok", f"Cases stay until they are removed, {kept}. MEDFUSION_RETENTION_DAYS sets a limit.")
    return Finding("ok", f"Cases are removed after {days:g} days; files are kept {kept}")


def archives() -> Finding:
    """Whether the configuration holds, and whether a listener that it has is there."""
    from medfusion.pacs import listener

    settings = config.read()
    if not settings.archives and not settings.listener:
        return Finding("ok", "No archive (PACS) is configured: nothing is sent or fetched, and nobody is listened to.")
    said = f"{len(settings.archives)} configured"
    seen = sorted(path.name for path in config.secret_files(settings) if is_open(path))
    if seen:
        return Finding("error", f"{', '.join(seen)} can be read by others. Run `chmod 600` on it.")
    if settings.listener is None:
        return Finding("ok", f"{said}, no listener")
    where = f"{settings.listener.aet} on {settings.listener.address}:{settings.listener.port}"
    if places.is_running(listener.ACTOR):
        return Finding("ok", f"{said}; a listener runs as {where}")
    return Finding("warning", f"{said}; the listener {where} does not run. Start it: `python -m medfusion listen`.")


def archive(name: str) -> Finding:
    from medfusion.pacs import archives

    return Finding("ok", archives.echo(name))


CHECKS: dict[str, Callable[[], Finding]] = {
    "versions": versions,
    "decoders": decoders,
    "reader": reader,
    "device": device,
    "models": models,
    "answers": answers,
    "database": database,
    "audit log": log,
    "disk": disk,
    "key": key,
    "retention": retention,
    "archives": archives,
}
