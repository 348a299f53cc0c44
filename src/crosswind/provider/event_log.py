"""Task events ("pod waits", "pod failed") for Airflow's table ``log``, which the UI and the REST API show.

Core collects ``Log`` objects of an executor and passes them to ``bulk_save_objects`` as a generator. With SQLAlchemy 2
they are garbage before the INSERT (Airflow 3.3), so each row lacks its columns and is refused. Therefore these events
never enter core's queue; if they did, a core with that bug fixed would write each event twice.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from airflow.models.log import Log
from airflow.models.taskinstancekey import TaskInstanceKey
from sqlalchemy.orm import Session

from crosswind.engine.column_text import storable
from crosswind.provider.row_writer import RowWriter

__all__ = ["EventLog"]

_EVENT_CHARS, _EXTRA_BYTES = 60, 65_535
"""Sizes of the columns: VARCHAR(60), and TEXT in MySQL."""


@dataclass(frozen=True, slots=True)
class _TaskEvent:
    time: datetime.datetime
    name: str
    extra: str
    key: TaskInstanceKey


class EventLog:
    """Writes task events in a thread of its own; ``put`` never waits for the database.

    ``max_waiting``: events that may wait; newer ones are dropped, which is logged. A crash of the scheduler loses those
    that wait.
    """

    def __init__(self, max_waiting: int = 20_000) -> None:
        self._writer = RowWriter("task events", _insert, _describe, max_waiting)

    def __len__(self) -> int:
        """Return the number of events that are not written yet."""
        return len(self._writer)

    def put(self, event: str, extra: str, key: TaskInstanceKey) -> None:
        """Queue an event."""
        self._writer.put(
            _TaskEvent(
                datetime.datetime.now(datetime.UTC),
                storable(event, most_chars=_EVENT_CHARS),
                storable(extra, most_bytes=_EXTRA_BYTES),
                key,
            )
        )

    def close(self, timeout: float = 5.0) -> None:
        """Write the events that wait, for at most ``timeout`` seconds, and end the thread."""
        self._writer.close(timeout)


def _insert(session: Session, events: Sequence[_TaskEvent]) -> None:
    rows = [Log(event=event.name, task_instance=event.key, extra=event.extra) for event in events]
    for row, event in zip(rows, events, strict=True):
        row.dttm = event.time
    session.add_all(rows)


def _describe(event: _TaskEvent) -> str:
    return f"The event {event.name!r} of {event.key}"
