"""The metadata database as the engine sees it, and the tasks' log files. Called in the engine's threads."""

from __future__ import annotations

import datetime
import functools
import json
import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from airflow.configuration import conf
from airflow.jobs.job import Job, JobState
from airflow.models.callback import Callback, CallbackKey
from airflow.models.connection_test import ACTIVE_STATES, ConnectionTestRequest
from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.sqlalchemy import UtcDateTime, with_row_locks
from airflow.utils.state import CallbackState, TaskInstanceState
from sqlalchemy import Column, Row, Select, String, Table, delete, insert, select, tuple_, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import InstrumentedAttribute, Session, lazyload

from crosswind.pods.workers import WorkerTask
from crosswind.runs.texts import storable
from crosswind.runs.workloads import WORKER_LABEL, Position, Standing, Workload
from crosswind.tables import METADATA, make_tables

__all__ = ["CALLBACK_TASK", "CONNECTION_TEST_DAG", "CallbackClaim", "DatabaseLedger", "TaskClaim", "standing_of"]

log = logging.getLogger(__name__)

_STANDINGS = {
    TaskInstanceState.QUEUED: Standing.QUEUED,
    TaskInstanceState.RUNNING: Standing.RUNNING,
    TaskInstanceState.RESTARTING: Standing.RESTARTING,
}


CALLBACK_TASK, CONNECTION_TEST_DAG = "callback", "connection-test"
"""What pods of workloads that are no task instances have as task and as DAG; their run is the id in the database."""

_LARGEST, _LARGEST_KEYS = 500, 200
"""Ids, and keys of four parts, per query: SQLite's smallest usual build takes 999 parameters."""

_KEY = TaskInstance.dag_id, TaskInstance.task_id, TaskInstance.run_id, TaskInstance.map_index
_COLUMNS = (
    TaskInstance.id,
    TaskInstance.state,
    TaskInstance.external_executor_id,
    TaskInstance.queued_by_job_id,
    TaskInstance.try_number,
)


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
    """Implements ``crosswind.runs.workloads.Ledger``.

    ``job_id``: the scheduler's job, None outside a scheduler. ``renew``: returns a workload's JSON, given its subject,
    with a new token.
    """

    def __init__(self, job_id: int | None, renew: Callable[[str, bytes], bytes] | None = None) -> None:
        self._job_id = job_id
        self._renew = renew
        self._tables: bool | None = None

    def standings(self, workloads: Collection[Workload]) -> Mapping[Workload, Standing]:
        """Ask for task instances and callbacks, one query each."""
        tasks = [workload for workload in workloads if isinstance(workload.claim, TaskClaim)]
        callbacks = [workload for workload in workloads if isinstance(workload.claim, CallbackClaim)]
        found = self._tasks(tasks) if tasks else {}
        return {**found, **(self._callbacks(callbacks) if callbacks else {})}

    def _tasks(self, workloads: list[Workload]) -> dict[Workload, Standing]:
        """Read the rows by id; those that are missing by key: a clear gives the row of a running task another id."""
        with create_session(scoped=False) as session:
            ids = [workload.claim.ti_id for workload in workloads]
            by_id = {row[0]: row for row in _rows(session, select(*_COLUMNS), TaskInstance.id, ids)}
            missing = [workload for workload in workloads if workload.claim.ti_id not in by_id]
            by_key = _rows_by_key(session, missing) if missing else {}
            found = {workload: self._standing(workload, by_id, by_key) for workload in workloads}
            if restarting := [one for one, standing in found.items() if standing is Standing.RESTARTING]:
                found |= dict.fromkeys(_unserialized(session, restarting), Standing.UNSERIALIZED)
            return found

    def _standing(self, workload: Workload, by_id: Mapping[UUID, Any], by_key: Mapping[_Key, Any]) -> Standing:
        claim: TaskClaim = workload.claim
        if (row := by_id.get(claim.ti_id)) is not None:
            return standing_of(claim, self._job_id, row.state, row.external_executor_id, row.queued_by_job_id)
        if (row := by_key.get(_key_of(workload))) is None:
            return Standing.DELETED
        if not _is_the_cleared(row, workload):
            return Standing.SETTLED
        return standing_of(claim, self._job_id, row.state, row.external_executor_id, row.queued_by_job_id)

    def _callbacks(self, workloads: list[Workload]) -> dict[Workload, Standing]:
        ids = [workload.claim.callback_id for workload in workloads]
        with create_session(scoped=False) as session:
            rows = {row[0]: row[1] for row in _rows(session, select(Callback.id, Callback.state), Callback.id, ids)}
        standings = {CallbackState.SUCCESS: Standing.SETTLED, CallbackState.FAILED: Standing.SETTLED}
        return {
            workload: standings.get(rows[workload.claim.callback_id], Standing.RUNNING)
            if workload.claim.callback_id in rows
            else Standing.DELETED
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
        with create_session(scoped=False) as session:
            return {row[0]: (row[1], row[2], row[3]) for row in _rows(session, query, TaskInstance.id, list(ti_ids))}

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
        query = (
            select(TaskInstance)
            .options(lazyload(TaskInstance.dag_run))  # else joined, and its row locked too
            .where(
                TaskInstance.queued_by_job_id == self._job_id,
                TaskInstance.state.in_(_WANTED),
            )
        )
        callbacks = [workload for workload in workloads if isinstance(workload.claim, CallbackClaim)]
        done = self._callbacks_again(callbacks) if callbacks else []
        with create_session(scoped=False) as session:
            by_id = {one.claim.ti_id: one for one in workloads if isinstance(one.claim, TaskClaim)}
            living = {row[0] for row in _rows(session, select(TaskInstance.id), TaskInstance.id, list(by_id))}
            cleared = [workload for ti_id, workload in by_id.items() if ti_id not in living]
            rows = _rows_by_key(session, cleared) if cleared else {}
            for workload in cleared:
                row = rows.get(_key_of(workload))
                if row is not None and _is_the_cleared(row, workload):
                    by_id[row.id] = workload
            for part in _parts(list(by_id)):
                ours = query.where(TaskInstance.id.in_(part))
                locked = with_row_locks(ours, of=TaskInstance, session=session, skip_locked=True)
                for ti in session.scalars(locked):
                    done.append(by_id[ti.id])
                    _reset(ti, session)
        return done

    def _callbacks_again(self, workloads: Sequence[Workload]) -> list[Workload]:
        """Have core queue callbacks once more that nobody has started to run."""
        with create_session(scoped=False) as session:
            for part in _parts([workload.claim.callback_id for workload in workloads]):
                still = Callback.id.in_(part) & (Callback.state == CallbackState.QUEUED)
                session.execute(update(Callback).where(still).values(state=CallbackState.PENDING))
        return list(workloads)

    def left_behind(self, pods: Mapping[str, Mapping[str, str]]) -> Mapping[str, Workload | None]:
        """Find the callbacks whose end is not known yet, and what nobody wants to start any more.

        Core gives the task instances of a scheduler that is gone to another one, but not its callbacks. A connection
        test needs nobody: its worker reports by itself, and core ends one that takes too long.
        """
        tasks, callbacks, tests = _sorted(pods)
        with create_session(scoped=False) as session:
            states = _states(session, TaskInstance.id, TaskInstance.state, tasks)
            told = _states(session, Callback.id, Callback.state, callbacks)
            tested = _states(session, ConnectionTestRequest.id, ConnectionTestRequest.state, tests)
        found: dict[str, Workload | None] = {
            uid: None for uid, ti_id in tasks.items() if states.get(ti_id) not in _WANTED
        }
        found |= {uid: None for uid, test in tests.items() if tested.get(test) not in _TESTED}
        for uid, callback in callbacks.items():
            open_ = told.get(callback) in (CallbackState.QUEUED, CallbackState.RUNNING)
            found[uid] = self._callback(callback, pods[uid]) if open_ else None
        return found

    def _callback(self, callback: UUID, facts: Mapping[str, str]) -> Workload:
        """Return a callback that another executor launched, to be adopted by its pod."""
        dag_id, run_id = facts.get("dag_id", ""), str(callback)
        task = WorkerTask(dag_id, CALLBACK_TASK, run_id, 1, unique_id=run_id, labels=WORKER_LABEL)
        claim, renew = CallbackClaim(callback), functools.partial(self._renew, run_id) if self._renew else None
        key = CallbackKey(run_id)
        return Workload(key, task, float("inf"), None, exit_decides=True, claim=claim, renew=renew)

    def remember(self, positions: Collection[Position]) -> None:
        """Keep positions; where no table can be made they are not kept, which is told once."""
        if not self._has_positions():
            return
        now, table = datetime.datetime.now(datetime.UTC), POSITIONS
        with create_session(scoped=False) as session:
            for position in positions:
                key = {
                    "executor": position.executor,
                    "server": _server(position.server),
                    "namespace": position.namespace or "",
                }
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
        query = select(table).where(table.c.server == _server(server), table.c.updated_at >= since)
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
            "event": storable(message),
        }
        os.makedirs(path.parent, exist_ok=True)
        with path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")


def _reset(ti: TaskInstance, session: Session) -> None:
    """Do what ``SchedulerJobRunner.adopt_or_reset_orphaned_tasks`` does to what is not adopted.

    The try that is lost is one more than the task's retries allow for, so that it costs none of them. A row that was
    cleared while it ran has its new id, and its past try in the history, already.
    """
    if ti.state != TaskInstanceState.RESTARTING:
        ti.prepare_db_for_next_try(session=session)
    ti.max_tries = max(ti.max_tries + 1, ti.try_number)
    ti.state = None
    ti.queued_by_job_id = None
    ti.external_executor_id = None
    ti.clear_next_method_args()


_Key = tuple[str, str, str, int]


def _key_of(workload: Workload) -> _Key:
    task = workload.task
    return task.dag_id, task.task_id, task.run_id, task.map_index


def _is_the_cleared(row: Any, workload: Workload) -> bool:
    """Whether a row of the workload's key, but with another id, is its own after a clear while it ran.

    Such a clear keeps the try number and the external id. Any other row of that key is a new one: cleared while the
    task waited, or deleted and made again.
    """
    claim: TaskClaim = workload.claim
    same = row.try_number == workload.task.try_number and row.external_executor_id == claim.external_id
    return bool(same and row.state == TaskInstanceState.RESTARTING)


def _unserialized(session: Session, workloads: Iterable[Workload]) -> list[Workload]:
    """Return the workloads whose task core will not find, looking for it as core does."""
    bag, missing = DBDagBag(load_op_links=False), []
    for workload in workloads:
        task = workload.task
        run = session.scalar(select(DagRun).where(DagRun.dag_id == task.dag_id, DagRun.run_id == task.run_id))
        try:
            dag = bag.get_dag_for_run(dag_run=run, session=session) if run is not None else None
        except SQLAlchemyError:
            raise
        except Exception:
            log.exception("The DAG %s cannot be deserialized", task.dag_id)  # core's own attempt fails alike
            dag = None
        if dag is None or not dag.has_task(task.task_id):
            missing.append(workload)
    return missing


_WANTED = TaskInstanceState.QUEUED, TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING
_TESTED = tuple(state.value for state in ACTIVE_STATES)


def _sorted(
    pods: Mapping[str, Mapping[str, str]],
) -> tuple[dict[str, UUID], dict[str, UUID], dict[str, UUID]]:
    """Return the ids of task instances, of callbacks and of connection tests, by the uids of their pods."""
    tasks, callbacks, tests = {}, {}, {}
    for uid, facts in pods.items():
        ti_id, run_id = (_uuid(facts.get(name, "")) for name in ("task_instance_id", "run_id"))
        if ti_id is not None:
            tasks[uid] = ti_id
        elif run_id is not None and facts.get("task_id") == CALLBACK_TASK:
            callbacks[uid] = run_id
        elif run_id is not None and facts.get("dag_id") == CONNECTION_TEST_DAG:
            tests[uid] = run_id
    return tasks, callbacks, tests


def _states(
    session: Session, column: InstrumentedAttribute[Any], state: InstrumentedAttribute[Any], ids: Mapping[str, UUID]
) -> dict[UUID, Any]:
    return {row[0]: row[1] for row in _rows(session, select(column, state), column, list(ids.values()))}


def _server(address: str) -> str:
    return storable(address, most_chars=255)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _rows(
    session: Session, query: Select[*tuple[Any, ...]], column: InstrumentedAttribute[Any], ids: Sequence[UUID]
) -> list[Row[*tuple[Any, ...]]]:
    """Return the rows of a query whose ``column`` is one of these ids, however many."""
    return [row for part in _parts(ids) for row in session.execute(query.where(column.in_(part)))]


def _rows_by_key(session: Session, workloads: Sequence[Workload]) -> dict[_Key, Any]:
    keys = [_key_of(workload) for workload in workloads]
    parts = (keys[start : start + _LARGEST_KEYS] for start in range(0, len(keys), _LARGEST_KEYS))
    query = select(*_COLUMNS, *_KEY)
    rows = (row for part in parts for row in session.execute(query.where(tuple_(*_KEY).in_(part))))
    return {(row.dag_id, row.task_id, row.run_id, row.map_index): row for row in rows}


def _parts(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    return (ids[start : start + _LARGEST] for start in range(0, len(ids), _LARGEST))
