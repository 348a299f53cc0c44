"""Writes rows to the metadata database from a thread of its own, so that the engine never waits for the database.

There is one ``RowWriter`` per table. It owns a daemon thread, which starts with the first row and ends when ``close``
has written the rows that wait, or at its timeout. While the database does not answer, rows wait. A row that the
database refuses is logged and dropped, and delays no other row. While its user may not write the table, all rows are
dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from sqlalchemy.orm import Session

from crosswind.provider.tables import WriteForbidden, write_rows

__all__ = ["RowWriter"]

log = logging.getLogger(__name__)

Row = TypeVar("Row")

_MAX_WAITING = 20_000
"""Rows that may wait for a database that does not answer: 20,000 pods that wait for one quota cause as many events."""
_BATCH_SIZE = 500
"""Rows per transaction."""
_COLLECT_S = 0.2
"""How long the thread waits for further rows, to write them in one transaction."""
_RETRY_S = 5.0
"""Seconds until the next attempt when the database does not answer."""
_FORBIDDEN_RETRY_S = 600.0
"""Seconds for which rows are dropped when the database's user may not write them."""


class RowWriter(Generic[Row]):
    """Writes rows in batches.

    ``what``: the rows' name in the plural, for messages. ``insert``: writes rows in a session. ``describe``: names a
    row, for the message that the database refuses it. ``max_waiting``: rows that may wait; further ones are dropped,
    and their number is logged. ``collect_s``: seconds from a row until it is written with those that came meanwhile; a
    full batch is written at once, so that the rows of a burst do not pile up.
    """

    def __init__(
        self,
        what: str,
        insert: Callable[[Session, Sequence[Row]], None],
        describe: Callable[[Row], str],
        max_waiting: int = _MAX_WAITING,
        collect_s: float = _COLLECT_S,
    ) -> None:
        self._what, self._insert, self._describe, self._max_waiting = what, insert, describe, max_waiting
        self._collect_s = collect_s
        self._rows: deque[Row] = deque()
        self._dropped = 0
        self._forbidden_until = 0.0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def __len__(self) -> int:
        """Return the number of rows that are not written yet."""
        return len(self._rows)

    def put(self, row: Row) -> None:
        """Queue a row. Never blocks."""
        with self._changed:
            if time.monotonic() < self._forbidden_until:
                return
            if len(self._rows) >= self._max_waiting:
                self._dropped += 1
                return
            self._rows.append(row)
            if self._thread is None or not self._thread.is_alive():  # a fork of the scheduler has no thread
                self._closing.clear()
                name = f"crosswind-{self._what.replace(' ', '-')}"
                self._thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._thread.start()
            if len(self._rows) in (1, _BATCH_SIZE):  # at a thousand rows a second each would wake the thread
                self._changed.notify_all()

    def close(self, timeout: float = 5.0) -> None:
        """Write the rows that wait, for at most ``timeout`` seconds, and end the thread."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)
        if self._rows:
            log.warning("%d %s were not written: the metadata database did not answer", len(self._rows), self._what)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._rows:
                    if self._closing.is_set():
                        return
                    self._changed.wait()
                self._changed.wait_for(self._is_due, self._collect_s)
            self._report_dropped()
            try:
                self._write()
            except WriteForbidden as error:
                with self._changed:
                    self._rows.clear()
                    self._forbidden_until = time.monotonic() + _FORBIDDEN_RETRY_S
                minutes = _FORBIDDEN_RETRY_S / 60
                log.error("No %s are stored; retrying in %g minutes: %s", self._what, minutes, error)
            except Exception as error:  # a dead thread would lose all further rows
                log.warning("%d %s wait for the metadata database: %s", len(self._rows), self._what, error)
                if self._closing.is_set():
                    return
                self._closing.wait(_RETRY_S)  # ``close`` ends the pause: the database may answer again

    def _is_due(self) -> bool:
        return len(self._rows) >= _BATCH_SIZE or self._closing.is_set()

    def _write(self) -> None:
        with self._changed:
            batch = [self._rows[index] for index in range(min(_BATCH_SIZE, len(self._rows)))]
        remaining = list(batch)
        try:
            write_rows(remaining, self._insert, self._refused)
        finally:  # write_rows may raise after it has written some of the rows
            with self._changed:
                for _ in range(len(batch) - len(remaining)):
                    self._rows.popleft()

    def _refused(self, row: Row, error: Exception) -> None:
        log.error("%s is not stored, because the metadata database refuses it: %s", self._describe(row), error)

    def _report_dropped(self) -> None:
        with self._changed:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            log.error(
                "%d %s were dropped: %d waited for the metadata database already",
                dropped,
                self._what,
                self._max_waiting,
            )
