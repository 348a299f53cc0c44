"""The history of worker pods in the metadata database, one row per pod, for pages that show a pod after its deletion.

Schedulers write it; API servers and ``crosswind`` read it. A row takes less than 2 kB and is kept for as long as logs
(``[crosswind] archive_days``).
"""

from __future__ import annotations

import datetime
import json
import math
import time
from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any
from uuid import UUID

from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.utils.sqlalchemy import UtcDateTime
from sqlalchemy import Column, Index, Integer, String, Table, Text, delete, select
from sqlalchemy.orm import Session

from crosswind.engine.pod_history import EndedPod, PodRecord, detail_json, pod_record
from crosswind.provider.row_writer import RowWriter
from crosswind.provider.tables import (
    METADATA,
    insert_rows,
    make_tables,
    read_rows,
)

__all__ = ["PODS", "DatabasePodHistory", "read_pods"]

PODS = Table(
    "crosswind_pod",
    METADATA,
    Column("pod", String(64), primary_key=True),
    Column("ti_id", String(36), nullable=False, index=True),
    Column("dag_id", String(250), nullable=False),
    Column("task_id", String(250), nullable=False),
    Column("run_id", String(250), nullable=False),
    Column("map_index", Integer, nullable=False),
    Column("try_number", Integer, nullable=False),
    Column("launch", Integer, nullable=False),
    Column("cluster", String(250), nullable=False),
    Column("namespace", String(63), nullable=False),
    Column("name", String(253), nullable=False),
    Column("node", String(253), nullable=False),
    Column("queue", String(250), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("exit_code", Integer),
    Column("ended_at", UtcDateTime, nullable=False, index=True),
    Column("detail", Text, nullable=False),
    Index("crosswind_pod_of_task", "dag_id", "task_id"),
)

_COLUMNS = tuple(str(column.name) for column in PODS.columns if column.name != "detail")
_column_values = attrgetter(*_COLUMNS)
_MAX_WAITING = 5_000
"""Pods that may wait for a database that is away; each holds some kB of its last state."""
_COLLECT_S = 1.0
"""Nobody needs the row of a pod at once, and at a hundred pods a second each statement has a hundred of them."""
_CLEAN_EVERY = 3600.0
_CLEAN_BATCH = 500
"""Old rows that one transaction deletes, so that none holds its locks for long."""


class DatabasePodHistory:
    """Implements ``crosswind.engine.pod_history.PodHistory``. ``days``: how long rows are kept; 0: forever."""

    def __init__(self, days: float) -> None:
        self._days = days
        self._writer = RowWriter("rows of pods", self._insert, _describe, _MAX_WAITING, _COLLECT_S)
        self._cleaned_at = -math.inf  # not 0: the monotonic clock begins at the machine's boot

    def put(self, ended: EndedPod) -> None:
        """Queue the row of a pod. Never blocks."""
        self._writer.put(ended)

    def close(self, timeout: float = 5.0) -> None:
        """Write the rows that wait, for at most ``timeout`` seconds."""
        self._writer.close(timeout)

    # --- in the writer's thread ---------------------------------------------------------------------------------------

    def _insert(self, session: Session, pods: Sequence[EndedPod]) -> None:
        make_tables(PODS)
        records = {record.pod: record for record in map(pod_record, pods)}
        times = _task_times(session, {record.ti_id for record in records.values() if record.ti_id})
        # A pod that two schedulers followed, one after the other, has one row: the later one's.
        session.execute(delete(PODS).where(PODS.c.pod.in_(records)))
        insert_rows(session, PODS, [_row(record, times.get(record.ti_id, {})) for record in records.values()])
        self._clean(session)

    def _clean(self, session: Session) -> None:
        if self._days <= 0 or time.monotonic() - self._cleaned_at < _CLEAN_EVERY:
            return
        before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=self._days)
        old = session.scalars(select(PODS.c.pod).where(PODS.c.ended_at < before).limit(_CLEAN_BATCH)).all()
        session.execute(delete(PODS).where(PODS.c.pod.in_(old)))
        if len(old) < _CLEAN_BATCH:  # otherwise the next write deletes further rows
            self._cleaned_at = time.monotonic()


def _row(record: PodRecord, known: Mapping[str, float]) -> dict[str, Any]:
    times = {**record.detail.get("times", {}), **known}
    detail = {**record.detail, "times": dict(sorted(times.items(), key=itemgetter(1)))}
    return {**dict(zip(_COLUMNS, _column_values(record), strict=True)), "detail": detail_json(detail)}


def _task_times(session: Session, ti_ids: Collection[str]) -> dict[str, dict[str, float]]:
    """Return when Airflow queued each task instance, and when its worker reported it RUNNING, by id.

    A task instance that has had another try since is in the history table.
    """
    times: dict[str, dict[str, float]] = {}
    for model, id_column in (
        (TaskInstance, TaskInstance.id),
        (TaskInstanceHistory, TaskInstanceHistory.task_instance_id),
    ):
        missing = [UUID(ti_id) for ti_id in ti_ids if ti_id not in times]
        if not missing:
            break
        query = select(id_column, model.queued_dttm, model.start_date).where(id_column.in_(missing))
        for ti_id, queued, running in session.execute(query):
            moments = {"queued": queued, "running": running}
            times[str(ti_id)] = {name: round(at.timestamp(), 3) for name, at in moments.items() if at is not None}
    return times


def _describe(ended: EndedPod) -> str:
    return f"The row of pod {ended.run.pod_path}"


def read_pods(ti_ids: Collection[str]) -> list[PodRecord]:
    """Return the records of task instances' pods, the oldest first; none where no scheduler has made the table yet.

    Raises SQLAlchemy's errors.
    """
    query = select(PODS).where(PODS.c.ti_id.in_(ti_ids)).order_by(PODS.c.ended_at)
    rows = read_rows(query, PODS)
    return [PodRecord(**{**row, "detail": json.loads(row["detail"])}) for row in rows]
