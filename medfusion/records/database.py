"""The database of the records: a SQLite file of this installation, or the server that MEDFUSION_DATABASE_URL names.

SQLite writes ahead (WAL) and waits for the disk at each commit: what was committed survives a power cut.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session

from medfusion import places
from medfusion.errors import RecordsError

log = logging.getLogger(__name__)

BUSY_S = 30  # how long one writer waits for another
MIGRATIONS = Path(__file__).parent / "migrations"


def address() -> str:
    return os.environ.get("MEDFUSION_DATABASE_URL") or f"sqlite:///{places.home() / 'records.db'}"


def is_sqlite() -> bool:
    return address().startswith("sqlite")


@contextmanager
def session(writes: bool = False) -> Iterator[Session]:
    """One transaction: kept as a whole at the end of the block, or not at all. Raises RecordsError."""
    try:
        with Session(engine(address(), os.getpid()), expire_on_commit=False) as opened, opened.begin():
            opened.connection(execution_options={"writes": writes})
            yield opened
    except SQLAlchemyError as error:
        raise RecordsError(
            f"The records cannot be reached ({cause(error)}). Check the disk, or the database."
        ) from error


@cache
def engine(url: str, process: int) -> Engine:
    """Connected, with all tables as this version wants them. A process that forked makes its own."""
    try:
        places.make_home()
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() == "sqlite":
            Path(parsed.database or "").absolute().parent.mkdir(parents=True, exist_ok=True)
            made = sqlalchemy.create_engine(parsed, connect_args={"timeout": BUSY_S})
            event.listen(made, "connect", prepare)
            event.listen(made, "begin", begin)
        else:
            made = sqlalchemy.create_engine(parsed, pool_pre_ping=True)
        migrate(made)
        return made
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise RecordsError(
            "MEDFUSION_DATABASE_URL is no address of a database that is supported. "
            "Write postgresql://USER@HOST/NAME, or unset it for SQLite."
        ) from error
    except (SQLAlchemyError, OSError) as error:
        raise RecordsError(
            f"The records cannot be opened ({cause(error)}). Check the disk, or the database."
        ) from error


def prepare(connection, _: object) -> None:  # type: ignore[no-untyped-def]  # any driver's connection
    connection.isolation_level = None  # transactions begin where SQLAlchemy begins them
    for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
        connection.execute(f"PRAGMA {setting}")


def wipe() -> None:
    """Rows that were removed go from the database's files, too; where somebody reads just now, with the next removal.

    From SQLite's write-ahead log, and from PostgreSQL's tables and indexes, which are written anew: a plain VACUUM
    leaves the bytes of a row where it stood. PostgreSQL's own log (WAL) is for its server to write over.
    """
    opened = engine(address(), os.getpid())
    if is_sqlite():
        with closing(opened.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return
    try:
        with opened.connect().execution_options(isolation_level="AUTOCOMMIT") as connected:
            connected.detach()  # the setting goes with it
            connected.exec_driver_sql(f"SET lock_timeout = {int(1000 * BUSY_S)}")
            connected.exec_driver_sql("VACUUM (FULL) cases, answers, explanations, reads")
    except SQLAlchemyError as error:
        log.warning("Removed rows are still in the files of the database (%s).", cause(error))


def begin(connection: Connection) -> None:
    """Who will write waits for the writer before it from the start: a reader could not become a writer later."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def migrate(made: Engine) -> None:
    """Bring the tables to this version. One process at a time does it."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    newest = ScriptDirectory.from_config(config).get_current_head()
    if version(made) == newest:
        return
    with FileLock(places.home() / "migrate.lock"):
        if version(made) == newest:
            return
        with made.execution_options(writes=True).begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def version(made: Engine) -> str | None:
    with made.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def cause(error: Exception) -> str:
    """The kind of failure without its values, which may tell of a patient or hold a password."""
    origin = getattr(error, "orig", None)
    return type(origin or error).__name__
