"""The metadata database as the engine sees it, and the tasks' log files. Called in the engine's threads."""

from __future__ import annotations

import datetime
import json
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from airflow.configuration import conf
from airflow.jobs.job import Job, JobState
from airflow.models.callback import Callback
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.sqlalchemy import UtcDateTime, with_row_locks
from airflow.utils.state import CallbackState, TaskInstanceState
from sqlalchemy import Column, Row, Select, String, Table, delete, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import InstrumentedAttribute, Session, lazyload

from crosswind.runs.workloads import Position, Standing, Workload
from crosswind.tables import METADATA, make_tables

__all__ = ["CallbackClaim", "DatabaseLedger", "TaskClaim", "standing_of"]

log = logging.getLogger(__name__)

_STANDINGS = {
    TaskInstanceState.QUEUED: Standing.QUEUED,
    TaskInstanceState.RUNNING: Standing.RUNNING,
    TaskInstanceState.RESTARTING: Standing.RESTARTING,
}


_LARGEST = 500
"""Ids per query: SQLite's smallest usual build takes 999 parameters."""


@dataclass(frozen=True, slots=True)
class TaskClaim:
    """A task instance that we run. ``external_id``: what Airflow gave us for it, or None.

    ``former``: the job from which we adopted it, which the row names until core has committed that; else None.
    """

    ti_id: UUID
    external_id: str | None
    former: int | None = None


@dataclass(frozen=True, slots=True)
class CallbackClaim:
    """A callback that we run."""

    callback_id: UUID


def standing_of(
    claim: TaskClaim, job_id: int | None, state: str | None, external_id: str | None, queued_by: int | None
) -> Standing:
    """Say how a task instance stands for a pod that is over.

    A row that meanwhile belongs to another pod (queued again after a deferral: another external id) or another
    scheduler is settled as far as this pod is concerned. So a pod that lost the race for ``/run`` is never reported.
    """
    if None not in (claim.external_id, external_id) and claim.external_id != external_id:
        return Standing.SETTLED
    if None not in (job_id, queued_by) and queued_by not in (job_id, claim.former):
        return Standing.SETTLED
    return _STANDINGS.get(TaskInstanceState(state), Standing.SETTLED) if state else Standing.SETTLED


POSITIONS = Table(
    "crosswind_watch_position",
    METADATA,
    Column("executor", String(63), primary_key=True),
    Column("server", String(255), primary_key=True),
    Column("namespace", String(63), primary_key=True),
    Column("version", String(64), nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)
"""How far each executor's watches have come; namespace "" is all of them."""

_FORGOTTEN = datetime.timedelta(days=7)


class DatabaseLedger:
    """Implements ``crosswind.runs.workloads.Ledger``. ``job_id``: the scheduler's job, None outside a scheduler."""

    def __init__(self, job_id: int | None) -> None:
        self._job_id = job_id
        self._tables: bool | None = None

    def standings(self, workloads: Collection[Workload]) -> Mapping[Workload, Standing]:
        """Ask for task instances and callbacks, one query each."""
        tasks = [workload for workload in workloads if isinstance(workload.claim, TaskClaim)]
        callbacks = [workload for workload in workloads if isinstance(workload.claim, CallbackClaim)]
        found = self._tasks(tasks) if tasks else {}
        return {**found, **(self._callbacks(callbacks) if callbacks else {})}

    def _tasks(self, workloads: list[Workload]) -> dict[Workload, Standing]:
        query = select(
            TaskInstance.id, TaskInstance.state, TaskInstance.external_executor_id, TaskInstance.queued_by_job_id
        )
        ids = [workload.claim.ti_id for workload in workloads]
        rows = {row[0]: row[1:] for row in _rows(query, TaskInstance.id, ids)}
        return {
            workload: standing_of(workload.claim, self._job_id, *rows[workload.claim.ti_id])
            for workload in workloads
            if workload.claim.ti_id in rows
        }

    def _callbacks(self, workloads: list[Workload]) -> dict[Workload, Standing]:
        ids = [workload.claim.callback_id for workload in workloads]
        rows = {row[0]: row[1] for row in _rows(select(Callback.id, Callback.state), Callback.id, ids)}
        over = (CallbackState.SUCCESS, CallbackState.FAILED)
        return {
            workload: Standing.SETTLED if rows.get(workload.claim.callback_id, over[0]) in over else Standing.RUNNING
            for workload in workloads
        }

    def living(self) -> Collection[str]:
        """Return the job ids of the schedulers that are alive."""
        threshold = conf.getint("scheduler", "scheduler_health_check_threshold")
        since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=threshold)
        query = select(Job.id).where(
            Job.job_type == "SchedulerJob", Job.state == JobState.RUNNING, Job.latest_heartbeat >= since
        )
        with create_session(scoped=False) as session:
            return {str(job_id) for job_id in session.scalars(query)}

    def owners(self, ti_ids: Iterable[UUID]) -> dict[UUID, tuple[int | None, int, str | None]]:
        """Return for task instances the job that queued each, its try number and its queue."""
        query = select(TaskInstance.id, TaskInstance.queued_by_job_id, TaskInstance.try_number, TaskInstance.queue)
        return {row[0]: (row[1], row[2], row[3]) for row in _rows(query, TaskInstance.id, list(ti_ids))}

    def keep_queued(self, ti_ids: Sequence[UUID]) -> None:
        """Let the time that queued task instances count as waiting (``task_queued_timeout``) begin anew."""
        now = datetime.datetime.now(datetime.UTC)
        with create_session(scoped=False) as session:
            for part in _parts(ti_ids):
                still = TaskInstance.id.in_(part) & (TaskInstance.state == TaskInstanceState.QUEUED)
                session.execute(update(TaskInstance).where(still).values(queued_dttm=now))

    def again(self, workloads: Collection[Workload]) -> Collection[Workload]:
        """Do to task instances what core does to those that nobody adopts: scheduled once more, under a new id.

        Left out are those whose row is locked, is not ours (yet), or has come further meanwhile.
        """
        by_id = {workload.claim.ti_id: workload for workload in workloads}
        query = (
            select(TaskInstance)
            .options(lazyload(TaskInstance.dag_run))  # else joined, and its row locked too
            .where(
                TaskInstance.queued_by_job_id == self._job_id,
                TaskInstance.state.in_((TaskInstanceState.QUEUED, TaskInstanceState.RUNNING)),
            )
        )
        done = []
        with create_session(scoped=False) as session:
            for part in _parts(list(by_id)):
                ours = query.where(TaskInstance.id.in_(part))
                locked = with_row_locks(ours, of=TaskInstance, session=session, skip_locked=True)
                for ti in session.scalars(locked):
                    done.append(by_id[ti.id])
                    _reset(ti, session)
        return done

    def remember(self, positions: Collection[Position]) -> None:
        """Keep positions; where no table can be made they are not kept, which is told once."""
        if not self._has_positions():
            return
        now, table = datetime.datetime.now(datetime.UTC), POSITIONS
        with create_session(scoped=False) as session:
            for position in positions:
                key = {"executor": position.executor, "server": position.server, "namespace": position.namespace or ""}
                value = {"version": position.version, "updated_at": now}
                here = [table.c[name] == part for name, part in key.items()]
                if not session.execute(update(table).where(*here).values(value)).rowcount:  # type: ignore[attr-defined]
                    session.execute(insert(table).values(key | value))

    def positions(self, server: str, within: float) -> Collection[Position]:
        """Return what was kept in the last ``within`` seconds; forget what is a week old."""
        if not self._has_positions():
            return ()
        now, table = datetime.datetime.now(datetime.UTC), POSITIONS
        since = now - datetime.timedelta(seconds=within)
        query = select(table).where(table.c.server == server, table.c.updated_at >= since)
        with create_session(scoped=False) as session:
            session.execute(delete(table).where(table.c.updated_at < now - _FORGOTTEN))
            rows = session.execute(query).mappings()
            return [Position(row["executor"], server, row["namespace"] or None, row["version"]) for row in rows]

    def _has_positions(self) -> bool:
        if self._tables is None:
            try:
                make_tables()
                self._tables = True
            except DBAPIError as error:
                with create_session(scoped=False) as session:
                    session.execute(select(1))  # raises when it is the database that is away
                self._tables = False
                log.warning(
                    "The table %s cannot be made, so a scheduler that follows this one lists its pods instead of going "
                    "on where it stopped. Give the database's user the right to create tables. (%s)",
                    POSITIONS.name,
                    error.orig,
                )
        return self._tables

    def report(self, workload: Workload, message: str) -> None:
        """Add a line to the task's own log in ``[logging] base_log_folder``."""
        if not workload.log_path:
            return
        path = Path(conf.get_mandatory_value("logging", "base_log_folder"), workload.log_path)
        line = {
            "timestamp": datetime.datetime.now(datetime.UTC).isoformat(),
            "level": "error",
            "logger": "crosswind",
            "event": message,
        }
        os.makedirs(path.parent, exist_ok=True)
        with path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")


def _reset(ti: TaskInstance, session: Session) -> None:
    """Do what ``SchedulerJobRunner.adopt_or_reset_orphaned_tasks`` does to what is not adopted."""
    ti.prepare_db_for_next_try(session=session)
    ti.state = None
    ti.queued_by_job_id = None
    ti.external_executor_id = None
    ti.clear_next_method_args()


def _rows(
    query: Select[*tuple[Any, ...]], column: InstrumentedAttribute[Any], ids: Sequence[UUID]
) -> list[Row[*tuple[Any, ...]]]:
    """Return the rows of a query whose ``column`` is one of these ids, however many."""
    with create_session(scoped=False) as session:
        return [row for part in _parts(ids) for row in session.execute(query.where(column.in_(part)))]


def _parts(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    return (ids[start : start + _LARGEST] for start in range(0, len(ids), _LARGEST))
