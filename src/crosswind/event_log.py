"""Task events ("pod waits", "pod failed") on their way to Airflow's table ``log``, which the UI and the REST API show.

Core's own way is to collect ``Log`` objects and hand them to ``bulk_save_objects`` as a generator. In Airflow 3.3 with
SQLAlchemy 2 they are freed before the INSERT, so that each row lacks its columns and is refused. So events never enter
core's queue: a core that is repaired would write each of them twice.
"""

from __future__ import annotations

import datetime
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from airflow.models.log import Log
from airflow.models.taskinstancekey import TaskInstanceKey
from sqlalchemy.orm import Session

from crosswind.runs.texts import storable
from crosswind.tables import write_rows

__all__ = ["EventLog"]

log = logging.getLogger(__name__)

_MOST = 20_000
"""Events that wait for a database that is away; 20,000 pods that wait for one quota are that many."""
_AT_ONCE = 500
_GATHER = 0.2
"""Seconds to wait for more to write together."""
_AWAY = 5.0
"""Seconds until a database that is away is tried again."""
_EVENT_CHARS, _EXTRA_BYTES = 60, 65_535
"""What the columns take: VARCHAR(60), and TEXT of MySQL."""


@dataclass(frozen=True, slots=True)
class _Event:
    at: datetime.datetime
    event: str
    extra: str
    key: TaskInstanceKey


class EventLog:
    """Writes events in a thread of its own, which starts with the first of them. ``put`` waits for nothing."""

    def __init__(self, most: int = _MOST) -> None:
        self._events: deque[_Event] = deque()
        self._most = most
        self._lost = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    def __len__(self) -> int:
        """Events that are not written yet."""
        return len(self._events)

    def put(self, event: str, extra: str, key: TaskInstanceKey) -> None:
        """Have an event written; of very many that wait, the newest are dropped, which is logged."""
        row = _Event(
            datetime.datetime.now(datetime.UTC),
            storable(event, most_chars=_EVENT_CHARS),
            storable(extra, most_bytes=_EXTRA_BYTES),
            key,
        )
        with self._changed:
            if len(self._events) >= self._most:
                self._lost += 1
                return
            self._events.append(row)
            if self._thread is None or not self._thread.is_alive():  # a process that was forked has no thread either
                self._closing = False
                self._thread = threading.Thread(target=self._work, name="crosswind-event-log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self, timeout: float = 5.0) -> None:
        """Write what waits, for at most ``timeout`` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)
        if self._events:
            log.warning("%d task events were not written: the metadata database did not answer", len(self._events))

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._events:
                    if self._closing:
                        return
                    self._changed.wait()
            if not self._closing:
                time.sleep(_GATHER)
            self._tell_lost()
            try:
                self._write()
            except Exception as error:
                log.warning("%d task events wait for the metadata database: %s", len(self._events), error)
                with self._changed:
                    if self._closing:
                        return
                    self._changed.wait_for(lambda: self._closing, _AWAY)

    def _write(self) -> None:
        with self._changed:
            batch = [self._events[index] for index in range(min(_AT_ONCE, len(self._events)))]
        left = list(batch)
        try:
            write_rows(left, _insert, _drop)
        finally:
            with self._changed:
                for _ in range(len(batch) - len(left)):
                    self._events.popleft()

    def _tell_lost(self) -> None:
        with self._changed:
            lost, self._lost = self._lost, 0
        if lost:
            log.error("%d task events were dropped: %d waited for the metadata database already", lost, self._most)


def _insert(session: Session, events: Sequence[_Event]) -> None:
    rows = [Log(event=one.event, task_instance=one.key, extra=one.extra) for one in events]
    for row, one in zip(rows, events, strict=True):
        row.dttm = one.at
    session.add_all(rows)


def _drop(event: _Event, error: Exception) -> None:
    log.error("The event %r of %s is left out, the metadata database refuses it: %s", event.event, event.key, error)
