"""Every test of the records runs on SQLite and on a real PostgreSQL, which is started from the system's packages."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
import sqlalchemy

from medfusion.records import database, keys

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@pytest.fixture(scope="session")
def postgres():
    """The address of a PostgreSQL server of our own, without databases."""
    found = shutil.which("initdb") or (str(PROGRAMS[-1]) if PROGRAMS else None)
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    as_root = os.geteuid() == 0
    if as_root and not shutil.which("runuser"):
        pytest.skip("PostgreSQL does not run as root, and there is no runuser")
    folder = Path(tempfile.mkdtemp(prefix="medfusion-postgres-"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(program: str, *arguments: str) -> subprocess.CompletedProcess:
        command = [str(Path(found).with_name(program)), *arguments]
        return subprocess.run(
            ["runuser", "-u", "postgres", "--", *command] if as_root else command,
            capture_output=True, text=True, timeout=120, cwd=folder,
        )  # fmt: skip

    if as_root:
        shutil.chown(folder, "postgres")
    folder.chmod(0o700)
    made = call("initdb", "-D", str(folder / "data"), "-U", "medfusion", "-A", "trust", "-E", "UTF8")
    if made.returncode:
        shutil.rmtree(folder)
        pytest.skip(f"PostgreSQL could not be set up: {made.stderr.strip()[-200:]}")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    started = call("pg_ctl", "-D", str(folder / "data"), "-l", str(folder / "log"), "-w", "-o", options, "start")
    assert started.returncode == 0, (folder / "log").read_text()
    yield f"postgresql://medfusion@127.0.0.1:{port}"
    call("pg_ctl", "-D", str(folder / "data"), "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def home(request, tmp_path, monkeypatch):
    """An installation without records."""
    monkeypatch.setenv("MEDFUSION_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MEDFUSION_KEEP_IDENTITY", raising=False)
    monkeypatch.delenv("MEDFUSION_DATABASE_URL", raising=False)
    if request.param == "postgresql":
        monkeypatch.setenv("MEDFUSION_DATABASE_URL", new_database(request.getfixturevalue("postgres")))
    address = database.address()
    yield tmp_path / "home"
    database.engine(address, os.getpid()).dispose()
    database.engine.cache_clear()
    keys.key.cache_clear()


def new_database(server: str) -> str:
    name = f"test{os.urandom(6).hex()}"
    engine = sqlalchemy.create_engine(
        server.replace("postgresql", "postgresql+psycopg") + "/postgres", isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return f"{server}/{name}"
