"""Implements what the engine asks the metadata database, on Airflow's models. Called in the engine's threads.

Sessions are not scoped: a scoped session belongs to its thread, and the engine's threads come and go.
"""

from __future__ import annotations

import datetime
import functools
import json
import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from airflow.configuration import conf
from airflow.jobs.job import Job, JobState
from airflow.models.callback import Callback, CallbackKey
from airflow.models.connection_test import ACTIVE_STATES, ConnectionTestRequest
from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.utils.session import create_session
from airflow.utils.sqlalchemy import UtcDateTime
from airflow.utils.state import CallbackState, TaskInstanceState
from sqlalchemy import Column, Row, Select, String, Table, and_, delete, insert, select, tuple_, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import InstrumentedAttribute, Session, lazyload

from crosswind.engine.column_text import storable
from crosswind.engine.database import POSITION_MAX_AGE_S, DatabaseState, WatchPosition
from crosswind.engine.losses import LossPolicy, LostTry
from crosswind.engine.state import WORKER_LABEL, Workload
from crosswind.engine.worker_pod import WorkerTask
from crosswind.provider.lost_tries import InfraRetries, LostTries
from crosswind.provider.tables import METADATA, WriteForbidden, explained_errors, make_tables
from crosswind.provider.task_rows import TaskInstanceRef, TaskKey, key_of, lock_rows, start_next_tries

__all__ = [
    "CALLBACK_TASK",
    "CONNECTION_TEST_DAG",
    "AirflowMetadataDatabase",
    "CallbackRef",
    "TaskInstanceRef",
    "database_state_of",
]

log = logging.getLogger(__name__)

_DATABASE_STATES = {
    TaskInstanceState.QUEUED: DatabaseState.QUEUED,
    TaskInstanceState.RUNNING: DatabaseState.RUNNING,
    TaskInstanceState.RESTARTING: DatabaseState.RESTARTING,
}

_CALLBACK_STATES = {
    CallbackState.QUEUED: DatabaseState.QUEUED,  # also while it runs: its worker reports nothing to Airflow
    CallbackState.SUCCESS: DatabaseState.SETTLED,
    CallbackState.FAILED: DatabaseState.SETTLED,
}

CALLBACK_TASK, CONNECTION_TEST_DAG = "callback", "connection-test"
"""Task and DAG in the annotations of pods whose workload is not a task instance; the run is its database id."""

_IDS_PER_QUERY, _KEYS_PER_QUERY = 500, 200
"""A key has four parts, and SQLite takes 999 parameters in its default build before 3.32."""

_KEY = TaskInstance.dag_id, TaskInstance.task_id, TaskInstance.run_id, TaskInstance.map_index
_COLUMNS = (
    TaskInstance.id,
    TaskInstance.state,
    TaskInstance.external_executor_id,
    TaskInstance.queued_by_job_id,
    TaskInstance.try_number,
    # Whether a worker has started it since it was queued last. Core leaves the columns of an earlier try in the row, so
    # that their values alone show nothing. ``start_date`` is not evidence: marking sets it, too, and a try that resumes
    # after a deferral keeps it. An adoption sets a missing ``last_heartbeat_at``, but never ``hostname``.
    and_(TaskInstance.hostname != "", TaskInstance.last_heartbeat_at >= TaskInstance.queued_dttm).label("started"),
)


@dataclass(frozen=True, slots=True)
class CallbackRef:
    """Identifies a callback that the engine runs."""

    callback_id: UUID


def database_state_of(
    ref: TaskInstanceRef,
    job_id: int | None,
    state: str | None,
    external_id: str | None,
    queued_by: int | None,
    started: bool | None = False,
) -> DatabaseState:
    """Return what a task instance's row says about the pod of ``ref``.

    ``started``: a worker has started the row since it was queued last.

    A row that belongs to another pod (queued again after a deferral, which changes the external id) or to another
    scheduler is settled for this pod. So a pod that lost the race to start the task instance is never reported.
    """
    if None not in (ref.external_id, external_id) and ref.external_id != external_id:
        return DatabaseState.SETTLED
    settled = DatabaseState.SETTLED_AFTER_START if started else DatabaseState.SETTLED
    if None not in (job_id, queued_by) and queued_by not in (job_id, ref.former_job):
        return settled
    return _DATABASE_STATES.get(TaskInstanceState(state), settled) if state else settled


def _save_position(position: WatchPosition, session: Session) -> None:
    key = {
        "executor": position.executor,
        "server": _server_column(position.server),
        "namespace": position.namespace or "",
    }
    values = {"version": position.version, "updated_at": datetime.datetime.now(datetime.UTC)}
    same_key = [POSITIONS.c[name] == value for name, value in key.items()]
    updated = session.execute(update(POSITIONS).where(*same_key).values(values))
    if not updated.rowcount:  # type: ignore[attr-defined]
        session.execute(insert(POSITIONS).values(key | values))


POSITIONS = Table(
    "crosswind_watch_position",
    METADATA,
    Column("executor", String(63), primary_key=True),
    Column("server", String(255), primary_key=True),
    Column("namespace", String(63), primary_key=True),
    Column("version", String(64), nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)
"""How far each executor's watches have come; namespace "" is one watch of all namespaces."""

_POSITION_MAX_AGE = datetime.timedelta(seconds=POSITION_MAX_AGE_S)


class _TaskRow(Protocol):
    """The columns of a task instance that are read, ``_COLUMNS``."""

    id: UUID
    state: str | None
    external_executor_id: str | None
    queued_by_job_id: int | None
    try_number: int
    started: bool | None
    """None where a column that decides is NULL."""


class AirflowMetadataDatabase:
    """Implements ``crosswind.engine.database.MetadataDatabase``.

    ``job_id``: the scheduler's job, None outside a scheduler. ``renew``: from a workload's subject and JSON to the JSON
    with a new token. ``infra_retries``: the option for a task; None: its default for all.
    """

    def __init__(
        self,
        job_id: int | None,
        renew: Callable[[str, bytes], bytes] | None = None,
        infra_retries: InfraRetries | None = None,
    ) -> None:
        self._job_id = job_id
        self._renew = renew
        self._lost_tries = LostTries(job_id, infra_retries or (lambda config, queue: LossPolicy().retries))
        self._positions_stored: bool | None = None
        """Whether the table of positions exists; None before the first attempt to create it."""

    def workload_states(self, workloads: Collection[Workload]) -> Mapping[Workload, DatabaseState]:
        """Ask for task instances and callbacks, one query each."""
        tasks = [workload for workload in workloads if isinstance(workload.ref, TaskInstanceRef)]
        callbacks = [workload for workload in workloads if isinstance(workload.ref, CallbackRef)]
        states = self._task_states(tasks) if tasks else {}
        return {**states, **(self._callback_states(callbacks) if callbacks else {})}

    def _task_states(self, workloads: list[Workload]) -> dict[Workload, DatabaseState]:
        """Read the rows by id, and missing ones by key: clearing a running task gives its row another id."""
        with create_session(scoped=False) as session:
            ids = [workload.ref.ti_id for workload in workloads]
            by_id = {row[0]: row for row in _rows(session, select(*_COLUMNS), TaskInstance.id, ids)}
            missing = [workload for workload in workloads if workload.ref.ti_id not in by_id]
            by_key = _rows_by_key(session, missing) if missing else {}
            states = {workload: self._task_state(workload, by_id, by_key) for workload in workloads}
            restarting = [workload for workload, state in states.items() if state is DatabaseState.RESTARTING]
            if restarting:
                states |= dict.fromkeys(_unserialized(session, restarting), DatabaseState.UNSERIALIZED)
            return states

    def hosts(self, workloads: Collection[Workload]) -> Mapping[Workload, str]:
        """Ask for task instances; other workloads are left out."""
        tasks = {workload.ref.ti_id: workload for workload in workloads if isinstance(workload.ref, TaskInstanceRef)}
        query = select(TaskInstance.id, TaskInstance.hostname).where(TaskInstance.state == TaskInstanceState.RUNNING)
        with create_session(scoped=False) as session:
            return {tasks[row[0]]: row[1] or "" for row in _rows(session, query, TaskInstance.id, list(tasks))}

    def _task_state(
        self, workload: Workload, by_id: Mapping[UUID, _TaskRow], by_key: Mapping[TaskKey, _TaskRow]
    ) -> DatabaseState:
        ref: TaskInstanceRef = workload.ref
        row = by_id.get(ref.ti_id)
        if row is None:
            row = by_key.get(key_of(workload))
            if row is None:
                return DatabaseState.DELETED
            if not _was_cleared_while_running(row, workload):
                # Of a try that ended or was cleared: until the next one is queued, the row has the times of this one.
                return database_state_of(ref, None, None, row.external_executor_id, None, row.started)
        queued_by = row.queued_by_job_id
        return database_state_of(ref, self._job_id, row.state, row.external_executor_id, queued_by, row.started)

    def _callback_states(self, workloads: list[Workload]) -> dict[Workload, DatabaseState]:
        ids = [workload.ref.callback_id for workload in workloads]
        with create_session(scoped=False) as session:
            rows = {row[0]: row[1] for row in _rows(session, select(Callback.id, Callback.state), Callback.id, ids)}
        return {
            workload: _CALLBACK_STATES.get(rows[workload.ref.callback_id], DatabaseState.RUNNING)
            if workload.ref.callback_id in rows
            else DatabaseState.DELETED
            for workload in workloads
        }

    def live_executors(self) -> Collection[str]:
        """Return the job ids of the schedulers whose heartbeat is recent."""
        threshold = conf.getint("scheduler", "scheduler_health_check_threshold")
        since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=threshold)
        query = select(Job.id).where(
            Job.job_type == "SchedulerJob", Job.state == JobState.RUNNING, Job.latest_heartbeat >= since
        )
        with create_session(scoped=False) as session:
            return {str(job_id) for job_id in session.scalars(query)}

    def owners(self, ti_ids: Iterable[UUID]) -> dict[UUID, tuple[int | None, int, str | None]]:
        """Return the job that queued each task instance, its try number and its queue, by the task instance's id."""
        query = select(TaskInstance.id, TaskInstance.queued_by_job_id, TaskInstance.try_number, TaskInstance.queue)
        with create_session(scoped=False) as session:
            return {row[0]: (row[1], row[2], row[3]) for row in _rows(session, query, TaskInstance.id, list(ti_ids))}

    def keep_queued(self, ti_ids: Sequence[UUID]) -> None:
        """Restart the clock of ``task_queued_timeout`` for queued task instances."""
        now = datetime.datetime.now(datetime.UTC)
        with create_session(scoped=False) as session:
            for ids in _batches(ti_ids):
                still_queued = TaskInstance.id.in_(ids) & (TaskInstance.state == TaskInstanceState.QUEUED)
                session.execute(update(TaskInstance).where(still_queued).values(queued_dttm=now))

    def reschedule(self, workloads: Collection[Workload]) -> Collection[Workload]:
        """Reset task instances as core resets orphaned ones: Airflow schedules them again, under a new id.

        Those are left out whose row is locked, is not ours (yet), or has reached another state meanwhile.
        """
        query = (
            select(TaskInstance)
            .options(lazyload(TaskInstance.dag_run))  # a joined DAG run would be locked too
            .where(
                TaskInstance.queued_by_job_id == self._job_id,
                TaskInstance.state.in_(_UNFINISHED),
            )
        )
        callbacks = [workload for workload in workloads if isinstance(workload.ref, CallbackRef)]
        rescheduled = self._reschedule_callbacks(callbacks) if callbacks else []
        by_id = {workload.ref.ti_id: workload for workload in workloads if isinstance(workload.ref, TaskInstanceRef)}
        with create_session(scoped=False) as session:
            existing = {row[0] for row in _rows(session, select(TaskInstance.id), TaskInstance.id, list(by_id))}
            missing = [workload for ti_id, workload in by_id.items() if ti_id not in existing]
            rows = _rows_by_key(session, missing) if missing else {}
            for workload in missing:
                row = rows.get(key_of(workload))
                if row is not None and _was_cleared_while_running(row, workload):
                    by_id[row.id] = workload
            for ids in _batches(list(by_id)):
                ours = query.where(TaskInstance.id.in_(ids))
                tis = session.scalars(lock_rows(ours, session)).all()
                rescheduled += [by_id[ti.id] for ti in tis]
                start_next_tries(tis, session)
        return rescheduled

    def replace_lost(self, messages: Mapping[Workload, str]) -> Mapping[Workload, LostTry]:
        """Give task instances whose pods the cluster took another try: see ``LostTries.replace``."""
        return self._lost_tries.replace(messages)

    def count_losses(self, workloads: Collection[Workload]) -> Mapping[Workload, int]:
        """Return the losses in a row of task instances, those with none left out."""
        return self._lost_tries.counts(workloads)

    def _reschedule_callbacks(self, workloads: Sequence[Workload]) -> list[Workload]:
        """Have core queue callbacks again that no worker has started."""
        with create_session(scoped=False) as session:
            for ids in _batches([workload.ref.callback_id for workload in workloads]):
                still_queued = Callback.id.in_(ids) & (Callback.state == CallbackState.QUEUED)
                session.execute(update(Callback).where(still_queued).values(state=CallbackState.PENDING))
        return list(workloads)

    def orphaned_workloads(
        self, pods: Mapping[str, Mapping[str, str]], ours: Collection[str]
    ) -> Mapping[str, Workload | None]:
        """Return the callbacks that have not ended, and None for each pod whose workload has ended or was deleted.

        Core gives the task instances of a dead scheduler to another one, but not its callbacks. A connection test needs
        no adoption: its worker reports by itself, and core ends one that takes too long.
        """
        task_ids, callback_ids, test_ids = _ids_by_kind(pods)
        with create_session(scoped=False) as session:
            tasks = _states(session, TaskInstance.id, TaskInstance.state, task_ids)
            callbacks = _states(session, Callback.id, Callback.state, callback_ids)
            tests = _states(session, ConnectionTestRequest.id, ConnectionTestRequest.state, test_ids)
            earlier = _earlier_tries(session, [ti_id for ti_id in task_ids.values() if ti_id not in tasks])
        ids = {**task_ids, **callback_ids, **test_ids}
        known = {*tasks, *earlier, *callbacks, *tests}
        unfinished = {ti_id for ti_id, state in tasks.items() if state in _UNFINISHED}
        unfinished |= {test_id for test_id, state in tests.items() if state in _UNFINISHED_TEST}
        workloads: dict[str, Workload | None] = {
            uid: None for uid in pods if ids.get(uid) not in unfinished and (uid in ours or ids.get(uid) in known)
        }
        for uid, callback_id in callback_ids.items():
            if callbacks.get(callback_id) in (CallbackState.QUEUED, CallbackState.RUNNING):
                workloads[uid] = self._callback(callback_id, pods[uid])
        return workloads

    def _callback(self, callback_id: UUID, annotations: Mapping[str, str]) -> Workload:
        """Return a callback that another executor launched, as a workload that is adopted by its pod."""
        run_id = str(callback_id)
        task = WorkerTask(
            annotations.get("dag_id", ""), CALLBACK_TASK, run_id, 1, unique_id=run_id, labels=WORKER_LABEL
        )
        renew = functools.partial(self._renew, run_id) if self._renew else None
        key, ref = CallbackKey(run_id), CallbackRef(callback_id)
        return Workload(key, task, float("inf"), None, exit_decides=True, ref=ref, renew=renew)

    def executor_configs(self, workloads: Collection[Workload]) -> Mapping[Workload, Mapping[str, object] | None]:
        """Read the configs of task instances by id, and missing ones by key: a clear gives the row another id."""
        configs: dict[Workload, Mapping[str, object] | None] = {
            workload: None for workload in workloads if isinstance(workload.ref, CallbackRef)
        }
        by_id = {workload.ref.ti_id: workload for workload in workloads if isinstance(workload.ref, TaskInstanceRef)}
        with create_session(scoped=False) as session:
            known = _executor_configs(session, list(by_id))
            missing = [workload for ti_id, workload in by_id.items() if ti_id not in known]
            renewed = {row.id: key for key, row in _rows_by_key(session, missing).items()} if missing else {}
            by_key = {renewed[ti_id]: config for ti_id, config in _executor_configs(session, list(renewed)).items()}
        configs |= {by_id[ti_id]: config for ti_id, config in known.items()}
        return configs | {workload: by_key[key_of(workload)] for workload in missing if key_of(workload) in by_key}

    def save_positions(self, positions: Collection[WatchPosition]) -> None:
        """Save positions. If the database's user may not, no further ones are saved, which is logged once."""
        if not self._has_position_table():
            return
        try:
            with explained_errors(POSITIONS), create_session(scoped=False) as session:
                for position in positions:
                    _save_position(position, session)
        except WriteForbidden as error:
            self._give_up_positions(error)

    def load_positions(self, server: str, max_age: float) -> Collection[WatchPosition]:
        """Return the positions of the last ``max_age`` seconds; delete those that are a week old."""
        if not self._has_position_table():
            return ()
        now, table = datetime.datetime.now(datetime.UTC), POSITIONS
        since = now - datetime.timedelta(seconds=max_age)
        query = select(table).where(table.c.server == _server_column(server), table.c.updated_at >= since)
        try:
            with explained_errors(POSITIONS), create_session(scoped=False) as session:
                session.execute(delete(table).where(table.c.updated_at < now - _POSITION_MAX_AGE))
                rows = session.execute(query).mappings().all()
        except WriteForbidden as error:
            self._give_up_positions(error)
            return ()
        return [WatchPosition(row["executor"], server, row["namespace"] or None, row["version"]) for row in rows]

    def _has_position_table(self) -> bool:
        if self._positions_stored is None:
            try:
                make_tables(POSITIONS)
                self._positions_stored = True
            except WriteForbidden as error:
                self._give_up_positions(error)
        return bool(self._positions_stored)

    def _give_up_positions(self, error: WriteForbidden) -> None:
        self._positions_stored = False
        log.warning("The next scheduler will list this scheduler's pods instead of continuing its watches: %s", error)

    def write_task_log(self, workload: Workload, message: str) -> None:
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
        with path.open("a", encoding="utf-8") as task_log:
            task_log.write(json.dumps(line) + "\n")


def _was_cleared_while_running(row: _TaskRow, workload: Workload) -> bool:
    """Return whether a row with the workload's key, but another id, is the workload's own after a clear while it ran.

    Such a clear keeps the try number and the external id. Any other row of the key is new: the task was cleared while
    it waited, or its row was deleted and created again.
    """
    ref: TaskInstanceRef = workload.ref
    same = row.try_number == workload.task.try_number and row.external_executor_id == ref.external_id
    return bool(same and row.state == TaskInstanceState.RESTARTING)


def _unserialized(session: Session, workloads: Iterable[Workload]) -> list[Workload]:
    """Return the workloads whose task core does not find in the serialized DAG. Searches as core does."""
    bag, missing = DBDagBag(load_op_links=False), []
    for workload in workloads:
        task = workload.task
        run = session.scalar(select(DagRun).where(DagRun.dag_id == task.dag_id, DagRun.run_id == task.run_id))
        try:
            dag = bag.get_dag_for_run(dag_run=run, session=session) if run is not None else None
        except SQLAlchemyError:
            raise
        except Exception:
            log.exception("The DAG %s cannot be deserialized", task.dag_id)  # core fails in the same way
            dag = None
        if dag is None or not dag.has_task(task.task_id):
            missing.append(workload)
    return missing


_UNFINISHED = TaskInstanceState.QUEUED, TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING
_UNFINISHED_TEST = tuple(state.value for state in ACTIVE_STATES)


def _ids_by_kind(
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


def _earlier_tries(session: Session, ids: Sequence[UUID]) -> set[UUID]:
    """Return those ids that task instances had before their current try: each try has its own."""
    column = TaskInstanceHistory.task_instance_id
    return {row[0] for row in _rows(session, select(column), column, ids)}


def _server_column(address: str) -> str:
    return storable(address, most_chars=255)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _rows(
    session: Session, query: Select[*tuple[Any, ...]], column: InstrumentedAttribute[Any], ids: Sequence[UUID]
) -> list[Row[*tuple[Any, ...]]]:
    """Return the rows of a query whose ``column`` is one of ``ids``; several queries for many ids."""
    return [row for batch in _batches(ids) for row in session.execute(query.where(column.in_(batch)))]


def _rows_by_key(session: Session, workloads: Sequence[Workload]) -> dict[TaskKey, _TaskRow]:
    keys = [key_of(workload) for workload in workloads]
    batches = (keys[start : start + _KEYS_PER_QUERY] for start in range(0, len(keys), _KEYS_PER_QUERY))
    query = select(*_COLUMNS, *_KEY)
    rows = (row for batch in batches for row in session.execute(query.where(tuple_(*_KEY).in_(batch))))
    return {(row.dag_id, row.task_id, row.run_id, row.map_index): row for row in rows}


def _executor_configs(session: Session, ids: Sequence[UUID]) -> dict[UUID, Mapping[str, object] | None]:
    """Return the configs that can be read, by the task instance's id."""
    query = select(TaskInstance.id, TaskInstance.executor_config)
    try:
        return {row[0]: row[1] for row in _rows(session, query, TaskInstance.id, ids)}
    except SQLAlchemyError:
        raise
    except Exception as error:  # pickled by another version of the kubernetes package, say; the others can be read
        if len(ids) == 1:
            log.warning("The executor_config of task instance %s cannot be read: %s", ids[0], error)
            return {}
    configs: dict[UUID, Mapping[str, object] | None] = {}
    for ti_id in ids:
        configs |= _executor_configs(session, [ti_id])
    return configs


def _batches(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    return (ids[start : start + _IDS_PER_QUERY] for start in range(0, len(ids), _IDS_PER_QUERY))
