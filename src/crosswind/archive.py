"""Logs of pods that are gone, in the metadata database: written by the scheduler, read by API servers."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from uuid import UUID

from airflow.utils.session import create_session
from airflow.utils.sqlalchemy import UtcDateTime
from sqlalchemy import BigInteger, Column, String, Table, delete, insert, select

from crosswind.runs.archiving import ArchiveAway, ArchiveClosed, PodLog
from crosswind.tables import METADATA, Blob, answers, is_passing, make_tables

__all__ = ["DatabaseArchive", "read_logs"]

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

_TRIES, _PAUSE = 3, 0.2
"""Times that one log is tried when a lock or a deadlock may be to blame; seconds in between."""
_AT_ONCE = 500
"""Old logs that are removed in one transaction, so that none takes long."""


_PERMISSION = (
    "the table {table} cannot be made: {error}. Give the database's user the right to create tables, make it by hand,"
    " or set [crosswind] archive_logs = never"
)


class DatabaseArchive:
    """Implements ``crosswind.runs.archiving.Archive``."""

    def store(self, logs: Sequence[PodLog]) -> None:
        """Write logs, in place of earlier ones of the same pods."""
        _make_tables()
        now = datetime.datetime.now(datetime.UTC)
        latest = {one.pod: one for one in logs}
        rows = [
            {
                "pod": one.pod,
                "ti_id": one.ti_id,
                "name": one.name,
                "stored_at": now,
                "size": one.size,
                "content": one.content,
            }
            for one in latest.values()
        ]
        tries = _TRIES if len(rows) == 1 else 1
        for left in reversed(range(tries)):
            try:
                with create_session(scoped=False) as session:
                    session.execute(delete(_LOGS).where(_LOGS.c.pod.in_(latest)))
                    session.execute(insert(_LOGS), rows)
                return
            except Exception as error:
                if is_passing(error) and not answers():
                    raise ArchiveAway(str(error)) from error
                if not left or not is_passing(error):
                    raise
                time.sleep(_PAUSE)

    def clean(self, days: float) -> None:
        """Remove logs that were stored more than so many days ago."""
        _make_tables()
        before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
        while True:
            with create_session(scoped=False) as session:
                old = session.scalars(select(_LOGS.c.pod).where(_LOGS.c.stored_at < before).limit(_AT_ONCE)).all()
                session.execute(delete(_LOGS).where(_LOGS.c.pod.in_(old)))
            if len(old) < _AT_ONCE:
                return


def _make_tables() -> None:
    try:
        make_tables()
    except Exception as error:
        if not answers():
            raise ArchiveAway(str(error)) from error
        raise ArchiveClosed(_PERMISSION.format(table=_LOGS.name, error=getattr(error, "orig", error))) from error


def read_logs(ti_id: UUID | str) -> list[PodLog]:
    """Return the logs of a task instance's pods, in the order in which they ended; raises SQLAlchemy's errors."""
    query = select(_LOGS).where(_LOGS.c.ti_id == str(ti_id)).order_by(_LOGS.c.stored_at)
    with create_session(scoped=False) as session:
        return [PodLog(row.pod, row.ti_id, row.name, row.size, row.content) for row in session.execute(query)]
