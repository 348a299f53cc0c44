"""Rows of task instances: which one a workload has, how to lock it, and how to begin its next try."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

from airflow.models.hitl import HITLDetail
from airflow.models.hitl_history import HITLDetailHistory
from airflow.models.taskinstance import TaskInstance, uuid7
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.models.taskreschedule import TaskReschedule
from airflow.utils.sqlalchemy import with_row_locks
from airflow.utils.state import State, TaskInstanceState
from sqlalchemy import RowMapping, Select, delete, insert, select, tuple_
from sqlalchemy.orm import Session

from crosswind.engine.state import Workload

__all__ = [
    "TaskInstanceRef",
    "TaskKey",
    "key_of",
    "key_of_row",
    "lock_rows",
    "prepare_for_next_try",
    "start_next_tries",
]

TaskKey: TypeAlias = tuple[str, str, str, int]
"""DAG, task, run and map index."""


@dataclass(frozen=True, slots=True)
class TaskInstanceRef:
    """Identifies a task instance that the engine runs."""

    ti_id: UUID
    external_id: str | None
    """The external executor id that Airflow has pre-assigned, None if it has not."""
    former_job: int | None = None
    """The job from which the task was adopted: the row names it until core commits the adoption."""


def key_of(workload: Workload) -> TaskKey:
    """Return the key of a workload's row, which stays the same for all its tries."""
    return workload.task.row_key


def key_of_row(ti: TaskInstance) -> TaskKey:
    """Return the key of a row."""
    return ti.dag_id, ti.task_id, ti.run_id, ti.map_index


def lock_rows(query: Select[Any], session: Session) -> Select[Any]:
    """Make a query lock the task instances that it reads and skip those that another transaction has locked.

    Airflow locks no rows on MariaDB, which has no FOR UPDATE OF: an update would then wait for a row that core has
    locked, for 50 s by default. MariaDB skips locked rows since 10.6; without OF the joined rows are locked, too.
    """
    dialect = session.get_bind().dialect
    if getattr(dialect, "is_mariadb", False) and (dialect.server_version_info or (0,)) >= (10, 6):
        return query.with_for_update(skip_locked=True)
    return with_row_locks(query, of=TaskInstance, session=session, skip_locked=True)


def start_next_tries(tis: Sequence[TaskInstance], session: Session) -> None:
    """Reset task instances as ``SchedulerJobRunner.adopt_or_reset_orphaned_tasks`` resets each.

    The lost try is added to the maximum, so that it uses up no retry. A row that was cleared while it ran already has
    its new id, and its past try in the history. The reschedules of a sensor go on under the new id: its timeout counts
    from the first of them, and core deletes them.

    It takes a handful of statements for all of them. Each one waits for the interpreter's lock, which the scheduler's
    loop holds nearly always while a node takes hundreds of pods.
    """
    replaced = {ti.id: ti for ti in tis if ti.state != TaskInstanceState.RESTARTING}
    if replaced:
        reschedules = _reschedules(replaced, session)
        prepare_for_next_try(replaced, session)
        session.flush()  # the rows refer to the new ids
        if rows := [{**row, "ti_id": replaced[row["ti_id"]].id} for row in reschedules]:
            session.execute(insert(TaskReschedule), rows)
    for ti in tis:
        ti.max_tries = max(ti.max_tries + 1, ti.try_number)
        ti.state = None
        ti.queued_by_job_id = None
        ti.external_executor_id = None
        ti.clear_next_method_args()


def _reschedules(ti_ids: Collection[UUID], session: Session) -> Sequence[RowMapping]:
    times = TaskReschedule.start_date, TaskReschedule.end_date, TaskReschedule.reschedule_date
    query = select(TaskReschedule.ti_id, *times, TaskReschedule.duration).where(TaskReschedule.ti_id.in_(ti_ids))
    return session.execute(query.order_by(TaskReschedule.id)).mappings().all()


def prepare_for_next_try(tis: Mapping[UUID, TaskInstance], session: Session) -> None:
    """Do for all of them, by id, what ``TaskInstance.prepare_db_for_next_try`` does for one; a test compares both."""
    recorded = _recorded_tries(tis.values(), session)
    unrecorded = {ti_id: ti for ti_id, ti in tis.items() if (key_of_row(ti), ti.try_number) not in recorded}
    details = session.scalars(select(HITLDetail).where(HITLDetail.ti_id.in_(unrecorded))).all()
    session.execute(delete(TaskReschedule).where(TaskReschedule.ti_id.in_(tis)))
    session.add_all(HITLDetailHistory(detail) for detail in details)
    now = datetime.datetime.now(datetime.UTC)
    for ti in unrecorded.values():
        ended = ti.state in State.finished
        if not ended and ti.end_date is None:
            ti.end_date = now
            ti.set_duration()
        session.add(TaskInstanceHistory(ti, state=ti.state if ended else TaskInstanceState.FAILED))
    for ti in tis.values():
        ti.id = uuid7()


def _recorded_tries(tis: Collection[TaskInstance], session: Session) -> set[tuple[TaskKey, int]]:
    """Return those tries of these task instances that are in the history already."""
    table = TaskInstanceHistory
    columns = table.dag_id, table.task_id, table.run_id, table.map_index, table.try_number
    keys = [(*key_of_row(ti), ti.try_number) for ti in tis]
    return {((*row[:4],), row[4]) for row in session.execute(select(*columns).where(tuple_(*columns).in_(keys)))}
