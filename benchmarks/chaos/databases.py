"""A real PostgreSQL as Airflow's metadata database of this process, for the duration of a scenario."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy
from airflow import settings
from airflow.models.base import Base
from airflow.utils.db import import_all_models
from benchmarks.postgresql import start_server

__all__ = ["ChaosDatabase", "environment", "postgresql"]

_open: list[ChaosDatabase] = []


class ChaosDatabase:
    """The server, and connections of the scenario beside those of Airflow."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.url = server.get_uri().replace("postgresql:", "postgresql+psycopg2:")
        self.engine = sqlalchemy.create_engine(self.url, pool_pre_ping=True)

    def stop(self) -> None:
        """Stop the server without waiting for its clients."""
        self._server.stop()

    def start(self) -> None:
        """Start the server again, at the same address."""
        self._server.ensure_postgres_running()

    def end_connections(self) -> int:
        """End all connections except the scenario's at once; return their number."""
        statement = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        with self.engine.begin() as connection:
            ended = connection.execute(sqlalchemy.text(f"{statement} AND backend_type = 'client backend'"))
            return int(ended.scalar_one())

    def clear(self) -> None:
        """Remove the rows of the last scenario."""
        tables = "task_instance, dag_run, log, job"
        with self.engine.begin() as connection:
            connection.execute(sqlalchemy.text(f"TRUNCATE {tables} CASCADE"))


@contextlib.contextmanager
def postgresql() -> Iterator[ChaosDatabase]:
    """Start a server with Airflow's tables for this process's Airflow; a nested context yields the outer server."""
    if _open:
        yield _open[-1]
        return
    # a short path, because that of a Unix socket is limited to 107 bytes
    with tempfile.TemporaryDirectory(prefix="cw-pg-") as folder, environment({"XDG_RUNTIME_DIR": folder}):
        server = start_server(Path(folder) / "data")
        try:
            database = ChaosDatabase(server)
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
    """Configure Airflow to use a database, and restore the previous configuration."""
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
    """Set environment variables inside the context."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
