"""All records in one zip, and back: tables as lines of JSON, files of the cases, and the key of this installation.

The zip suits any database: a backup of SQLite can be restored to PostgreSQL.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Table, func, insert, select, text
from sqlalchemy.orm import Session

from medfusion import places
from medfusion.errors import RecordsError
from medfusion.records import audit, keys
from medfusion.records.database import MIGRATIONS, session
from medfusion.records.tables import Base, CaseRow, Time

ABOUT, KEY, END = "about.json", "site.key", "audit.end"
VERSION = 1
MANY = 500  # rows inserted at once


def backup(path: Path) -> int:
    """Write everything to a zip that only its owner can read. Returns the number of cases. Raises RecordsError."""
    fresh = path.with_name(f".{path.name}.part")
    try:
        with (
            open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file,  # noqa: PTH123
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as into,
        ):
            with session() as opened:
                if opened.get_bind().dialect.name == "postgresql":
                    opened.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
                for table in Base.metadata.sorted_tables:
                    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows_of(opened, table))
                    into.writestr(f"tables/{table.name}.jsonl", "".join(lines))
                files = opened.scalars(select(CaseRow.file)).all()
            for name in files:
                held = places.cases() / name[:2] / name
                if held.exists():  # a case that was removed meanwhile has none
                    into.write(held, f"cases/{name}", zipfile.ZIP_STORED)
            into.writestr(KEY, keys.key(keys.path()))
            if audit.end_path().exists():
                into.write(audit.end_path(), END)
            tables = sorted(revision.name for revision in (MIGRATIONS / "versions").glob("*.py"))[-1]
            into.writestr(ABOUT, json.dumps({"version": VERSION, "tables": tables, "cases": len(files)}))
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise RecordsError(f"The backup cannot be written ({error.strerror}). Choose another place.") from error
    return len(files)


def restore(path: Path) -> int:
    """Put a backup into an installation without records. Returns the number of cases. Raises RecordsError."""
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read(ABOUT))
            if about["version"] != VERSION:
                raise RecordsError(f"{path.name} is of a newer version. Upgrade first.")
            put_key(archive.read(KEY))
            with session(writes=True) as opened:
                for table in Base.metadata.sorted_tables:
                    if opened.scalar(select(func.count()).select_from(table)):
                        raise RecordsError("There are records here already. Restore into a new MEDFUSION_HOME.")
                for name in archive.namelist():
                    if name.startswith("cases/"):
                        put_file(name.removeprefix("cases/"), archive.read(name))
                for table in Base.metadata.sorted_tables:
                    put_rows(opened, table, archive.read(f"tables/{table.name}.jsonl").decode().splitlines())
            if END in archive.namelist():
                places.write_whole(audit.end_path(), archive.read(END))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise RecordsError(
            f"{path.name} is no backup, or is damaged ({type(error).__name__}). Name another."
        ) from error
    faults = audit.verify()[1]
    if faults:
        raise RecordsError(f"The audit log of this backup does not hold: {faults[0]} Restore an older one.")
    return int(about["cases"])


def rows_of(opened: Session, table: Table) -> Iterator[dict[str, Any]]:
    for row in opened.execute(select(table).order_by(*table.primary_key)).mappings():
        yield {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in row.items()
        }  # fmt: skip


def put_rows(opened: Session, table: Table, lines: list[str]) -> None:
    times = [column.name for column in table.columns if isinstance(column.type, Time)]
    for start in range(0, len(lines), MANY):
        rows = [json.loads(line) for line in lines[start : start + MANY]]
        for row in rows:
            row |= {name: datetime.fromisoformat(row[name]) for name in times if row[name]}
        opened.execute(insert(table), rows)
    key = table.primary_key.columns.values()[0]
    if opened.get_bind().dialect.name == "postgresql" and key.name == "id" and table.name != "runs":
        counter = f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), max(id)) FROM {table.name}"
        opened.execute(text(counter))


def put_file(name: str, content: bytes) -> None:
    """Names come from the zip: only those that cases have are taken."""
    if len(name) != hashlib.sha256().digest_size * 2 or not name.isalnum():
        raise ValueError(name)
    places.write_whole(places.cases() / name[:2] / name, content)


def put_key(held: bytes) -> None:
    at = keys.path()
    if at.exists() and at.read_bytes() != held:
        raise RecordsError(f"This installation has another key ({at.name}). Restore into a new MEDFUSION_HOME.")
    if not at.exists():
        places.write_whole(at, held)
        at.chmod(0o600)
    keys.key.cache_clear()
