"""Where this installation keeps what it makes: models of its own, labelled sets, runs.

MEDFUSION_HOME names the folder, by default .data beside app.py; MEDFUSION_MODELS another one for the site's models.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from filelock import FileLock, Timeout

PROJECT = Path(__file__).resolve().parent.parent


def home() -> Path:
    return Path(os.environ.get("MEDFUSION_HOME") or PROJECT / ".data").absolute()


def make_home() -> None:
    """For its owner only, because it holds scans; one that is there already keeps its mode."""
    home().mkdir(mode=0o700, parents=True, exist_ok=True)


def site_models() -> Path:
    """The site's own models: links into `versions`, or plain folders that were put there by hand."""
    return Path(os.environ.get("MEDFUSION_MODELS") or home() / "models").absolute()


def versions() -> Path:
    """Every version of a promoted model, as MODEL/VERSION."""
    return site_models().parent / f"{site_models().name}-versions"


def labelled_sets() -> Path:
    return home() / "sets"


def cases() -> Path:
    """Files of the worklist, without identity unless the site keeps it, under names of our own."""
    return home() / "cases"


def runs() -> Path:
    return home() / "runs"


def shared_folders() -> list[Path]:
    """Folders of labelled sets that the administrator lets the pages read: MEDFUSION_FOLDERS, as in PATH."""
    return [Path(name) for name in os.environ.get("MEDFUSION_FOLDERS", "").split(os.pathsep) if name]


def lock(name: str) -> FileLock:
    """What the one process of this name holds while it runs: scorer, listener. It falls with the process."""
    return FileLock(home() / f"{name}.lock")


def is_running(name: str) -> bool:
    held = lock(name)
    try:
        with held.acquire(timeout=0):
            return False
    except Timeout:
        return True


def write_whole(path: Path, content: bytes) -> None:
    """Under its name a file is there with all its bytes or not at all, whatever is killed when."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
