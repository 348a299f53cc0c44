"""Logs of pods that are gone, in the metadata database: schedulers write them, API servers read them."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator, Sequence
from uuid import UUID

from airflow.utils.session import create_session
from airflow.utils.sqlalchemy import UtcDateTime
from sqlalchemy import BigInteger, Column, String, Table, delete, insert, select

from crosswind.engine.log_archiver import LogStoreForbidden, LogStoreUnavailable, PodLog
from crosswind.provider.tables import (
    METADATA,
    Blob,
    DatabaseUnavailable,
    WriteForbidden,
    explained_errors,
    is_transient,
    make_tables,
    read_rows,
)

__all__ = ["DatabaseLogStore", "read_logs"]

_LOGS = Table(
    "crosswind_pod_log",
    METADATA,
    Column("pod", String(64), primary_key=True),
    Column("ti_id", String(36), nullable=False, index=True),
    Column("name", String(320), nullable=False),
    Column("stored_at", UtcDateTime, nullable=False, index=True),
    Column("size", BigInteger, nullable=False),
    Column("content", Blob, nullable=False),
)

_LOG_ATTEMPTS, _LOG_RETRY_S = 3, 0.2
"""Attempts to write a single log when a lock or a deadlock may be the cause, and seconds in between."""

_DELETE_BATCH_SIZE = 500
"""Old logs that one transaction deletes, so that none holds its locks for long."""

_ALTERNATIVE = ", or set [crosswind] archive_logs = never"


class DatabaseLogStore:
    """Implements ``crosswind.engine.log_archiver.LogStore``; its methods block."""

    def store(self, logs: Sequence[PodLog]) -> None:
        """Write logs, each in place of an earlier one of the same pod.

        Raises ``LogStoreUnavailable`` when the database does not answer, ``LogStoreForbidden`` when the table cannot be
        created or written for want of a right, and SQLAlchemy's errors.
        """
        with _store_errors():
            make_tables(_LOGS)
        now = datetime.datetime.now(datetime.UTC)
        latest = {pod_log.pod: pod_log for pod_log in logs}
        rows = [
            {
                "pod": pod_log.pod,
                "ti_id": pod_log.ti_id,
                "name": pod_log.name,
                "stored_at": now,
                "size": pod_log.size,
                "content": pod_log.content,
            }
            for pod_log in latest.values()
        ]
        # The caller splits a batch that fails and stores each log by itself, so only that attempt is repeated.
        attempts = _LOG_ATTEMPTS if len(rows) == 1 else 1
        for attempts_left in reversed(range(attempts)):
            try:
                with _store_errors(), create_session(scoped=False) as session:
                    session.execute(delete(_LOGS).where(_LOGS.c.pod.in_(latest)))
                    session.execute(insert(_LOGS), rows)
                return
            except Exception as error:
                if not attempts_left or not is_transient(error):
                    raise
                time.sleep(_LOG_RETRY_S)

    def delete_older_than(self, days: float) -> None:
        """Delete logs that were stored more than ``days`` ago."""
        with _store_errors():
            make_tables(_LOGS)
        oldest = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
        while True:
            with create_session(scoped=False) as session:
                expired = session.scalars(
                    select(_LOGS.c.pod).where(_LOGS.c.stored_at < oldest).limit(_DELETE_BATCH_SIZE)
                ).all()
                session.execute(delete(_LOGS).where(_LOGS.c.pod.in_(expired)))
            if len(expired) < _DELETE_BATCH_SIZE:
                return


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    """Raise the errors of ``crosswind.engine.log_archiver`` in place of those of ``crosswind.provider.tables``."""
    try:
        with explained_errors(_LOGS):
            yield
    except WriteForbidden as error:
        raise LogStoreForbidden(f"{error}{_ALTERNATIVE}") from error
    except DatabaseUnavailable as error:
        raise LogStoreUnavailable(str(error)) from error


def read_logs(ti_id: UUID | str) -> list[PodLog]:
    """Return the logs of a task instance's pods, in the order in which they ended. Raises SQLAlchemy's errors."""
    query = select(_LOGS).where(_LOGS.c.ti_id == str(ti_id)).order_by(_LOGS.c.stored_at)
    rows = read_rows(query, _LOGS)
    return [PodLog(row["pod"], row["ti_id"], row["name"], row["size"], row["content"]) for row in rows]
