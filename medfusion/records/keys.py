"""The key of this installation: for pseudonyms that mean nothing elsewhere, and for the audit log."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from functools import cache
from pathlib import Path

from medfusion import places
from medfusion.errors import RecordsError

BYTES = 32


def path() -> Path:
    return Path(os.environ.get("MEDFUSION_KEY_FILE") or places.home() / "site.key")


def sign(text: str, purpose: str) -> str:
    """Keyed hash of a text, 64 hex digits; another one for each purpose."""
    return hmac.new(key(path()), f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()


def pseudonym(text: str, purpose: str) -> str:
    """The same text is the same pseudonym here, and nobody without the key can tell from which text. "" stays ""."""
    return sign(text, purpose)[:20] if text else ""


@cache
def key(at: Path) -> bytes:
    """Read, or made at the first use. Only its owner can read it. Raises RecordsError."""
    try:
        at.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = at.with_name(f".{at.name}.{secrets.token_hex(4)}")
        if not at.exists():
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
                file.write(secrets.token_bytes(BYTES))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(fresh, at)  # the first of two processes wins
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        held = at.read_bytes()
    except OSError as error:
        raise RecordsError(
            f"The key of this installation cannot be read ({error.strerror}). Check {at.name}."
        ) from error
    if len(held) != BYTES:
        raise RecordsError(f"{at.name} is not the key of this installation. Restore it from the backup.")
    return held
