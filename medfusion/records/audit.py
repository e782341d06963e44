"""The audit log: who did what, when. Each entry's hash holds the one before it, so no entry can change unseen.

The hash is keyed (HMAC-SHA-256) with a key of this installation that lies outside of the database: who can write the
database alone cannot write a chain that holds. The end of the chain is noted outside, too, so that a cut end is seen.
"""

from __future__ import annotations

import hmac
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import event, select
from sqlalchemy.orm import Session

from medfusion import places
from medfusion.records import keys
from medfusion.records.database import session
from medfusion.records.tables import AuditRow

FIRST = "0" * 64


@dataclass(frozen=True)
class Entry:
    number: int
    at: datetime
    actor: str
    action: str
    subject: str
    details: dict[str, object]


def add(opened: Session, actor: str, action: str, subject: str, **details: object) -> None:
    """Append an entry within the transaction of what it tells of: both are kept, or neither."""
    number, chain = opened.info.get("audit-end") or end_of(opened)
    row = AuditRow(
        number=number + 1, at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        actor=actor, action=action, subject=subject, details=json.dumps(details, ensure_ascii=False, sort_keys=True),
    )  # fmt: skip
    row.chain = chained(chain, row)
    opened.add(row)
    if "audit-end" not in opened.info:
        event.listen(opened, "after_commit", note_end, once=True)
    opened.info["audit-end"] = (row.number, row.chain)


def end_of(opened: Session) -> tuple[int, str]:
    """The last entry's number and chain, which hold until the end of this transaction."""
    hold(opened)
    last = opened.scalars(select(AuditRow).order_by(AuditRow.number.desc()).limit(1)).first()
    return (last.number, last.chain) if last else (0, FIRST)


def hold(opened: Session) -> None:
    """Wait for the writer before this one, until the end of the transaction."""
    if opened.get_bind().dialect.name != "sqlite":  # SQLite has one writer at a time by itself
        opened.connection().exec_driver_sql("LOCK TABLE audit IN EXCLUSIVE MODE")


def chained(before: str, row: AuditRow) -> str:
    told = json.dumps([before, row.number, row.at, row.actor, row.action, row.subject, row.details])
    return keys.sign(told, "audit")


def end_path() -> Path:
    return places.home() / "audit.end"


def note_end(opened: Session) -> None:
    """Note how far the log goes, outside of the database. It may lag behind after a power cut, but never runs ahead."""
    number, chain = opened.info.pop("audit-end")
    path = end_path()
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):  # the entry itself is kept
        fresh.write_text(json.dumps({"number": number, "chain": chain}), encoding="utf-8")
        fresh.replace(path)


def entries(newest: int = 200) -> list[Entry]:
    """The newest entries, the last one first."""
    with session() as opened:
        rows = opened.scalars(select(AuditRow).order_by(AuditRow.number.desc()).limit(newest)).all()
    return [
        Entry(row.number, datetime.fromisoformat(row.at), row.actor, row.action, row.subject, json.loads(row.details))
        for row in rows
    ]


def verify() -> tuple[int, list[str]]:
    """How many entries there are, and a sentence for each place where the log was tampered with."""
    faults, before, number = [], FIRST, 0
    chains: dict[int, str] = {}
    with session() as opened:
        for row in opened.scalars(select(AuditRow).order_by(AuditRow.number).execution_options(yield_per=1000)):
            if row.number != number + 1:
                faults.append(f"Entries {number + 1} to {row.number - 1} are missing.")
            elif not hmac.compare_digest(row.chain, chained(before, row)):
                faults.append(f"Entry {row.number} is not what was written, or an entry before it was removed.")
            before, number = row.chain, row.number
            chains[number] = row.chain
    try:
        end = json.loads(end_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        end = None
    if end is None and number:
        faults.append("The note of the log's end is gone: entries may have been cut off.")
    elif end and end["number"] > number:
        faults.append(f"The log ends at entry {number}; {end['number']} had been written.")
    elif end and chains.get(end["number"]) != end["chain"]:
        faults.append(f"Entry {end['number']} is not the one that was noted outside of the database.")
    return number, faults
