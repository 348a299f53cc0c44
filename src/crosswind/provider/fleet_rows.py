"""The snapshot of the pods in flight in the metadata database: schedulers write it, pages and commands read it."""

from __future__ import annotations

import datetime
import json
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from airflow.utils.session import create_session
from airflow.utils.sqlalchemy import UtcDateTime
from sqlalchemy import Column, Float, Integer, Select, String, Table, Text, delete, insert, select

from crosswind.engine.column_text import storable
from crosswind.engine.fleet_snapshot import PodInFlight, SnapshotChanges
from crosswind.provider.tables import METADATA, explained_errors, insert_rows, make_tables, read_rows

__all__ = [
    "EXECUTORS",
    "FLEET",
    "DatabaseSnapshot",
    "ExecutorSnapshot",
    "executor_key",
    "read_executors",
    "read_fleet",
    "read_in_flight",
]

_MAX_NAME_CHARS = 63

FLEET = Table(
    "crosswind_pod_in_flight",
    METADATA,
    Column("unique_id", String(64), primary_key=True),
    Column("executor", String(_MAX_NAME_CHARS), nullable=False, index=True),
    Column("ti_id", String(36), nullable=False, index=True),
    Column("dag_id", String(250), nullable=False, index=True),
    Column("task_id", String(250), nullable=False),
    Column("run_id", String(250), nullable=False),
    Column("map_index", Integer, nullable=False),
    Column("try_number", Integer, nullable=False),
    Column("queue", String(250), nullable=False),
    Column("namespace", String(63), nullable=False),
    Column("name", String(253), nullable=False),
    Column("phase", String(16), nullable=False, index=True),
    Column("reason", String(64), nullable=False),
    Column("since", Float(53), nullable=False),
    Column("launch", Integer, nullable=False),
    Column("node", String(253), nullable=False),
    Column("created", Float(53), nullable=False),
    Column("started", Float(53), nullable=False),
)

EXECUTORS = Table(
    "crosswind_executor",
    METADATA,
    Column("executor", String(_MAX_NAME_CHARS), primary_key=True),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("gauges", Text, nullable=False),
)

_FORGET_AFTER = datetime.timedelta(hours=1)
"""How long to show, as stale, the pods of an executor that has stopped reporting, unless another one adopts them."""
_FORGET_EVERY_S = 600.0
_POD_COLUMNS = tuple(PodInFlight.__slots__)
_column_values = attrgetter(*_POD_COLUMNS)

_BATCH_SIZE = 400
"""Rows per statement: SQLite takes 999 parameters, and deletes by that many ids."""


def executor_key(job_id: str, team: str) -> str:
    """Return the name of an executor in the tables of snapshots and views.

    A scheduler has an executor for each team, all of one job. An id and a team's name, of at most 50 characters, fit
    into the column.
    """
    return storable(f"{job_id}#{team}", most_chars=_MAX_NAME_CHARS) if team else job_id


@dataclass(frozen=True, slots=True)
class ExecutorSnapshot:
    """The last report of an executor."""

    executor: str
    seen_at: datetime.datetime
    gauges: Mapping[str, float]

    def is_stale(self, now: datetime.datetime) -> bool:
        """Whether its pods may have changed since: a living executor reports every two seconds."""
        return now - self.seen_at > datetime.timedelta(seconds=10)


class DatabaseSnapshot:
    """Implements ``crosswind.engine.fleet_snapshot.SnapshotStore`` for one executor. ``executor``: its key."""

    def __init__(self, executor: str) -> None:
        self._executor = executor
        self._forgot_at = -math.inf
        self._is_first = True

    def apply(self, changes: SnapshotChanges, gauges: Mapping[str, float]) -> None:
        """Store changes, and that the executor is alive. A pod that was adopted changes its executor."""
        make_tables(FLEET, EXECUTORS)
        ids = [*changes.gone, *(pod.unique_id for pod in changes.changed)]
        now = datetime.datetime.now(datetime.UTC)
        with explained_errors(FLEET), create_session(scoped=False) as session:
            if self._is_first:  # an earlier process of the same executor may have left rows
                session.execute(delete(FLEET).where(FLEET.c.executor == self._executor))
            for start in range(0, len(ids), _BATCH_SIZE):
                session.execute(delete(FLEET).where(FLEET.c.unique_id.in_(ids[start : start + _BATCH_SIZE])))
            for start in range(0, len(changes.changed), _BATCH_SIZE):
                insert_rows(session, FLEET, [self._row(pod) for pod in changes.changed[start : start + _BATCH_SIZE]])
            session.execute(delete(EXECUTORS).where(EXECUTORS.c.executor == self._executor))
            session.execute(
                insert(EXECUTORS), {"executor": self._executor, "seen_at": now, "gauges": json.dumps(dict(gauges))}
            )
            if time.monotonic() - self._forgot_at > _FORGET_EVERY_S:
                dead = select(EXECUTORS.c.executor).where(EXECUTORS.c.seen_at < now - _FORGET_AFTER)
                names = session.scalars(dead).all()
                session.execute(delete(FLEET).where(FLEET.c.executor.in_(names)))
                session.execute(delete(EXECUTORS).where(EXECUTORS.c.executor.in_(names)))
                self._forgot_at = time.monotonic()
        self._is_first = False

    def _row(self, pod: PodInFlight) -> dict[str, Any]:
        return {**dict(zip(_POD_COLUMNS, _column_values(pod), strict=True)), "executor": self._executor}


def read_executors() -> list[ExecutorSnapshot]:
    """Return the last report of each executor. Raises SQLAlchemy's errors."""
    rows = read_rows(select(EXECUTORS).order_by(EXECUTORS.c.executor), EXECUTORS)
    return [ExecutorSnapshot(row["executor"], row["seen_at"], json.loads(row["gauges"])) for row in rows]


def read_in_flight(ti_ids: Collection[str]) -> list[tuple[str, PodInFlight]]:
    """Return the pods in flight of task instances with their executors. Raises SQLAlchemy's errors."""
    return _pods(select(FLEET).where(FLEET.c.ti_id.in_(ti_ids)).order_by(FLEET.c.since))


def read_fleet(dag_ids: Sequence[str] | None = None) -> list[tuple[str, PodInFlight]]:
    """Return the pods in flight with their executors, those in a phase for longest first; raises SQLAlchemy's errors.

    ``dag_ids``: only of these DAGs; None for all.
    """
    query: Any = select(FLEET).order_by(FLEET.c.since)
    if dag_ids is not None:
        query = query.where(FLEET.c.dag_id.in_(dag_ids))
    return _pods(query)


def _pods(query: Select[Any]) -> list[tuple[str, PodInFlight]]:
    rows = read_rows(query, FLEET)
    return [(row["executor"], PodInFlight(**{name: row[name] for name in _POD_COLUMNS})) for row in rows]
