"""Gives a task whose pod the cluster took another try, without using up a retry. Called in the engine's threads.

Airflow core offers no function for this. A try is replaced under the lock of its row: the try goes into the history,
the row gets a new id, no state, and one more of ``max_tries``. With the new id, Airflow accepts no state of the old
worker, should it still live. Nothing fails, so no callback and no e-mail is sent.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.sqlalchemy import UtcDateTime
from airflow.utils.state import DagRunState, TaskInstanceState
from sqlalchemy import Column, Integer, RowMapping, String, Table, delete, insert, select, tuple_
from sqlalchemy.orm import Session, lazyload

from crosswind.engine.column_text import storable
from crosswind.engine.losses import LostTry
from crosswind.engine.state import Workload
from crosswind.provider.tables import METADATA, DatabaseUnavailable, WriteForbidden, explained_errors, make_tables
from crosswind.provider.task_rows import TaskInstanceRef, TaskKey, key_of, key_of_row, lock_rows, start_next_tries

__all__ = ["LOSSES", "InfraRetries", "LostTries"]

log = logging.getLogger(__name__)

InfraRetries = Callable[[Mapping[str, object] | None, str], int]
"""Returns ``infra_retries`` of a task, from its ``executor_config`` and its queue. May raise ``ConfigError``."""

LOSSES = Table(
    "crosswind_loss",
    METADATA,
    Column("task", String(64), primary_key=True),
    Column("dag_id", String(250), nullable=False),
    Column("task_id", String(250), nullable=False),
    Column("run_id", String(250), nullable=False),
    Column("map_index", Integer, nullable=False),
    Column("losses", Integer, nullable=False),
    Column("max_tries", Integer, nullable=False),
    Column("clear_number", Integer, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False, index=True),
)
"""How often in a row the cluster took a task instance's pod. ``task`` is a digest of the key: on MySQL four columns are
too long for a key of their own, and their collation may ignore case.

``max_tries`` is what the loss left in the task instance's row, ``clear_number`` that of its DAG run. A clear changes
one of them or both, an ordinary retry neither: so a person who clears has the count begin anew."""

_NOT_COUNTED = f"the database's user may not create or write the table {LOSSES.name}, which counts losses"
_EVENT = "pod lost"
_EXTRA_BYTES = 65_535
_ROWS_PER_TRANSACTION = 100
_KEEP = datetime.timedelta(days=30)
_CLEAN_BATCH = 500
_DIGESTS_PER_QUERY = 500
_LIVING = (TaskInstanceState.QUEUED, TaskInstanceState.RUNNING)


@dataclass(frozen=True, slots=True)
class _Loss:
    """A try whose row is locked, and the decision about it."""

    ti: TaskInstance
    answer: LostTry
    limit: int = 0
    clear_number: int = 0
    counted: bool = False
    """Whether the task instance has a row in ``crosswind_loss``."""


class LostTries:
    """Replaces lost tries, and counts them. ``job_id``: the scheduler's job, None outside a scheduler."""

    def __init__(self, job_id: int | None, infra_retries: InfraRetries) -> None:
        self._job_id = job_id
        self._infra_retries = infra_retries
        self._cleaned = False
        self._reported = ""

    def replace(self, messages: Mapping[Workload, str]) -> dict[Workload, LostTry]:
        """Replace the tries of these workloads; ``messages`` says of each, in a sentence, how its pod was lost.

        Those are left out whose row is locked, is not ours (yet), or has reached another state: what a person or
        another scheduler set wins. Raises ``DatabaseUnavailable`` while the database does not answer.
        """
        results: dict[Workload, LostTry] = {}
        pending = list(messages)
        while pending:
            batch, pending = pending[:_ROWS_PER_TRANSACTION], pending[_ROWS_PER_TRANSACTION:]
            results |= self._replace_batch({workload: messages[workload] for workload in batch})
        return results

    def _replace_batch(self, messages: Mapping[Workload, str]) -> dict[Workload, LostTry]:
        """Replace tries in one transaction; one that the database refuses must not hold up the others."""
        try:
            return self._replace(messages)
        except WriteForbidden as error:  # for ever: the tries end as failed ones, their pods are gone
            self._report(error)
            return dict.fromkeys(messages, LostTry(0, _NOT_COUNTED))
        except DatabaseUnavailable:
            raise
        except Exception:
            if len(messages) == 1:
                raise
        results: dict[Workload, LostTry] = {}
        for workload, message in messages.items():
            try:
                results |= self._replace({workload: message})
            except DatabaseUnavailable:
                raise
            except Exception:
                log.exception("The lost try of %s could not be replaced, retrying", key_of(workload))
        return results

    def _replace(self, messages: Mapping[Workload, str]) -> dict[Workload, LostTry]:
        by_id = {workload.ref.ti_id: workload for workload in messages if isinstance(workload.ref, TaskInstanceRef)}
        query = (
            select(TaskInstance)
            .options(lazyload(TaskInstance.dag_run))  # a joined DAG run would be locked too
            .where(
                TaskInstance.id.in_(by_id),
                TaskInstance.queued_by_job_id == self._job_id,
                TaskInstance.state.in_(_LIVING),
            )
        )
        make_tables(LOSSES)
        with explained_errors(LOSSES), create_session(scoped=False) as session:
            _lock_sqlite(session)
            tis = session.scalars(lock_rows(query, session)).all()
            ours = [ti for ti in tis if ti.external_executor_id == by_id[ti.id].ref.external_id]
            losses = list(self._judge(ours, session))
            results = {by_id[loss.ti.id]: loss.answer for loss in losses}
            lost = [(loss, messages[by_id[loss.ti.id]]) for loss in losses if not loss.answer.refusal]
            _start_next_tries(lost, session)
            self._clean(session)
        return results

    def _judge(self, tis: Sequence[TaskInstance], session: Session) -> Iterator[_Loss]:
        """Yield what becomes of each task instance whose row is locked; those whose DAG run is queued are left out."""
        if not tis:
            return
        runs = _runs({(ti.dag_id, ti.run_id) for ti in tis}, session)
        counts = _counts({key_of_row(ti) for ti in tis}, session)
        for ti in tis:
            state, clear_number = runs.get((ti.dag_id, ti.run_id), ("gone", 0))
            if state == DagRunState.QUEUED:
                continue
            if state != DagRunState.RUNNING:
                yield _Loss(ti, LostTry(0, f"its DAG run is {state}"))
                continue
            count = counts.get(_digest(key_of_row(ti)))
            losses, limit = _in_a_row(count, ti.max_tries, clear_number) + 1, self._limit(ti)
            answer = LostTry(losses, _exhausted(losses, limit) if losses > limit else "")
            yield _Loss(ti, answer, limit, clear_number, count is not None)

    def _limit(self, ti: TaskInstance) -> int:
        try:
            return self._infra_retries(ti.executor_config, ti.queue or "default")
        except Exception as error:  # the pod was composed of it, or its author has broken it since
            log.warning("infra_retries of %s cannot be read, so it gets no further try: %s", ti.key, error)
            return 0

    def counts(self, workloads: Collection[Workload]) -> dict[Workload, int]:
        """Return how many losses in a row each workload's task instance has had; those without any are left out."""
        try:
            make_tables(LOSSES)
            return self._counts_of(workloads)
        except WriteForbidden as error:
            self._report(error)
            return {}

    def _counts_of(self, workloads: Collection[Workload]) -> dict[Workload, int]:
        loss_counts: dict[Workload, int] = {}
        with explained_errors(LOSSES), create_session(scoped=False) as session:
            counts = _counts({key_of(workload) for workload in workloads}, session)
            for workload in workloads:
                if (count := counts.get(_digest(key_of(workload)))) is None:
                    continue
                row = session.execute(
                    select(TaskInstance.max_tries, DagRun.clear_number)
                    .join(DagRun, (DagRun.dag_id == TaskInstance.dag_id) & (DagRun.run_id == TaskInstance.run_id))
                    .where(TaskInstance.id == workload.ref.ti_id)
                ).one_or_none()
                if row is not None and (losses := _in_a_row(count, *row)):
                    loss_counts[workload] = losses
        return loss_counts

    def _report(self, error: WriteForbidden) -> None:
        if (problem := str(error)) != self._reported:  # once, not once per loss
            log.error("Tries that the cluster takes cost retries: %s", problem)
            self._reported = problem

    def _clean(self, session: Session) -> None:
        """Delete old rows, once in the life of a scheduler: losses are few, and so are their rows."""
        if not self._cleaned:
            before = datetime.datetime.now(datetime.UTC) - _KEEP
            old = session.scalars(select(LOSSES.c.task).where(LOSSES.c.updated_at < before).limit(_CLEAN_BATCH)).all()
            session.execute(delete(LOSSES).where(LOSSES.c.task.in_(old)))
            self._cleaned = len(old) < _CLEAN_BATCH


def _exhausted(losses: int, limit: int) -> str:
    if not limit:
        return "infra_retries is 0 for it"
    return f"it is loss {losses} in a row, and infra_retries is {limit}"


def _lock_sqlite(session: Session) -> None:
    """Let nobody write between the check of a row and its change: SQLite has no locks of rows."""
    if session.get_bind().dialect.name == "sqlite":
        session.connection().exec_driver_sql("BEGIN IMMEDIATE")


def _runs(keys: Collection[tuple[str, str]], session: Session) -> dict[tuple[str, str], tuple[str, int]]:
    """Return state and clear number of DAG runs."""
    query = select(DagRun.dag_id, DagRun.run_id, DagRun.state, DagRun.clear_number)
    rows = session.execute(query.where(tuple_(DagRun.dag_id, DagRun.run_id).in_(keys)))
    return {(row[0], row[1]): (row[2], row[3]) for row in rows}


def _counts(keys: Collection[TaskKey], session: Session) -> dict[str, RowMapping]:
    """Return the stored rows of task instances, by their digests."""
    counts: dict[str, RowMapping] = {}
    digests = [_digest(key) for key in keys]
    for start in range(0, len(digests), _DIGESTS_PER_QUERY):
        batch = digests[start : start + _DIGESTS_PER_QUERY]
        rows = session.execute(select(LOSSES).where(LOSSES.c.task.in_(batch))).mappings()
        counts |= {row["task"]: row for row in rows}
    return counts


def _in_a_row(count: RowMapping | None, max_tries: int, clear_number: int) -> int:
    """Return the losses in a row of a task instance before this one, 0 after a clear."""
    goes_on = count is not None and (count["max_tries"], count["clear_number"]) == (max_tries, clear_number)
    return count["losses"] if count is not None and goes_on else 0


def _start_next_tries(losses: Sequence[tuple[_Loss, str]], session: Session) -> None:
    """Replace tries, count them, and write why; each loss with a sentence that says how the pod was lost."""
    if not losses:
        return
    lost = [(loss, loss.ti.key, message) for loss, message in losses]
    start_next_tries([loss.ti for loss, _ in losses], session)
    _store([loss for loss, _ in losses], session)
    for loss, key, message in lost:
        count = f"(loss {loss.answer.losses} of {loss.limit})"
        extra = f"{message} — Airflow schedules the task again, without using up a retry {count}"
        session.add(Log(event=_EVENT, task_instance=key, extra=storable(extra, most_bytes=_EXTRA_BYTES)))


def _store(losses: Sequence[_Loss], session: Session) -> None:
    now, names = datetime.datetime.now(datetime.UTC), ("dag_id", "task_id", "run_id", "map_index")
    rows = [
        {
            **dict(zip(names, key_of_row(loss.ti), strict=True)),
            "task": _digest(key_of_row(loss.ti)),
            "losses": loss.answer.losses,
            "max_tries": loss.ti.max_tries,
            "clear_number": loss.clear_number,
            "updated_at": now,
        }
        for loss in losses
    ]
    # Only rows that exist: on MySQL, the deletion of a missing row locks the gap in which another scheduler inserts.
    if counted := [row["task"] for row, loss in zip(rows, losses, strict=True) if loss.counted]:
        session.execute(delete(LOSSES).where(LOSSES.c.task.in_(counted)))
    session.execute(insert(LOSSES), rows)


def _digest(key: TaskKey) -> str:
    return hashlib.sha256("\0".join(map(str, key)).encode()).hexdigest()
