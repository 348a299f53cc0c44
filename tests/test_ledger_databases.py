"""The ledger on real databases, and as MySQL would be asked."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from airflow import settings
from airflow.jobs.job import Job
from airflow.models.base import Base
from airflow.models.callback import Callback
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.db import import_all_models
from sqlalchemy import Engine, event, insert
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import Session, sessionmaker
from tests.databases import DATABASES

from crosswind.ledger import CallbackClaim, DatabaseLedger, TaskClaim
from crosswind.pods.workers import WorkerTask
from crosswind.runs.workloads import Standing, Workload

MANY = 2_500
ME, SIBLING = 7, 8


@pytest.fixture(scope="module", params=DATABASES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A database with Airflow's tables."""
    import_all_models()
    with request.param(tmp_path_factory.mktemp("database")) as engine:
        Base.metadata.create_all(engine)
        yield engine
        engine.dispose()


@pytest.fixture
def session(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """The database as Airflow's own; its rows go with the test."""
    maker = sessionmaker(engine, expire_on_commit=False)
    monkeypatch.setattr(settings, "NonScopedSession", maker)
    with maker() as session:
        yield session
        for table in (TaskInstance.__table__, DagRun.__table__, Callback.__table__, Job.__table__):
            session.execute(table.delete())
        session.commit()


def add_tasks(session: Session, rows: list[dict[str, Any]]) -> None:
    session.add(DagRun(dag_id="dag", run_id="run", run_type="manual", state="running"))
    session.flush()
    common = {
        "task_id": "task",
        "dag_id": "dag",
        "run_id": "run",
        "try_number": 1,
        "max_tries": 0,
        "pool": "default_pool",
        "pool_slots": 1,
        "span_status": "not_started",
    }
    values = [common | {"map_index": index} | row for index, row in enumerate(rows)]
    session.execute(insert(TaskInstance.__table__), values)
    session.commit()


def workload(claim: object) -> Workload:
    unique = str(uuid.uuid4())
    return Workload(unique, WorkerTask("dag", "task", "run", 1, unique), 1.0, None, claim=claim)


def task(session_row: dict[str, Any], external_id: str = "mine") -> Workload:
    return workload(TaskClaim(session_row["id"], external_id))


def row(state: str | None, external_id: str = "mine", queued_by: int | None = ME) -> dict[str, Any]:
    return {
        "id": uuid.uuid4(),
        "state": state,
        "external_executor_id": external_id,
        "queued_by_job_id": queued_by,
    }


def test_each_row_is_read_as_it_stands_and_a_missing_one_is_left_out(session: Session) -> None:
    expected = {
        Standing.QUEUED: row("queued"),
        Standing.RUNNING: row("running", queued_by=None),
        Standing.RESTARTING: row("restarting"),
    }
    settled = [row("success"), row(None), row("running", external_id="another"), row("queued", queued_by=SIBLING)]
    add_tasks(session, [*expected.values(), *settled])
    asked = {task(one): standing for standing, one in expected.items()}
    asked |= {task(one): Standing.SETTLED for one in settled}
    assert DatabaseLedger(ME).standings([*asked, task({"id": uuid.uuid4()})]) == asked


def test_callbacks_are_settled_when_they_are_over_or_gone(session: Session) -> None:
    rows = {state: uuid.uuid4() for state in ("pending", "queued", "running", "success", "failed")}
    session.execute(
        insert(Callback.__table__),
        [
            {
                "id": callback_id,
                "type": "executor",
                "fetch_method": "import_path",
                "data": {},
                "state": state,
                "priority_weight": 1,
                "created_at": datetime.datetime.now(datetime.UTC),
            }
            for state, callback_id in rows.items()
        ],
    )
    session.commit()
    asked = {workload(CallbackClaim(callback_id)): state for state, callback_id in rows.items()}
    gone = workload(CallbackClaim(uuid.uuid4()))
    found = DatabaseLedger(ME).standings([*asked, gone])
    over = {one for one, standing in found.items() if standing is Standing.SETTLED}
    assert over == {gone, *(one for one, state in asked.items() if state in ("success", "failed"))}


def test_any_number_of_tasks_is_asked_about_in_one_call(session: Session) -> None:
    rows = [row("running" if index % 2 else "success") for index in range(MANY)]
    add_tasks(session, rows)
    ledger = DatabaseLedger(ME)
    found = ledger.standings([task(one) for one in rows])
    assert len(found) == MANY
    assert sum(standing is Standing.RUNNING for standing in found.values()) == MANY / 2
    assert ledger.owners(one["id"] for one in rows) == {one["id"]: (ME, 1) for one in rows}


def test_owners_tell_the_job_and_the_try(session: Session) -> None:
    mine, nobodys = row("running") | {"try_number": 3}, row("queued", queued_by=None)
    add_tasks(session, [mine, nobodys])
    assert DatabaseLedger(None).owners([mine["id"], nobodys["id"], uuid.uuid4()]) == {
        mine["id"]: (ME, 3),
        nobodys["id"]: (None, 1),
    }


def test_only_running_schedulers_that_beat_are_alive(session: Session) -> None:
    now = datetime.datetime.now(datetime.UTC)
    ancient = now - datetime.timedelta(hours=1)
    common = {"hostname": "host", "unixname": "airflow", "executor_class": "crosswind"}
    jobs = [("SchedulerJob", "running", now), ("SchedulerJob", "running", ancient)]
    jobs += [("SchedulerJob", "failed", now), ("TriggererJob", "running", now)]
    session.execute(
        insert(Job.__table__),
        [
            common | {"id": number, "job_type": kind, "state": state, "latest_heartbeat": beat}
            for number, (kind, state, beat) in enumerate(jobs, start=ME)
        ],
    )
    session.commit()
    assert DatabaseLedger(ME).living() == {str(ME)}


TASK_QUERY = """SELECT task_instance.id, task_instance.state, task_instance.external_executor_id, \
task_instance.queued_by_job_id FROM task_instance WHERE task_instance.id IN (%s, %s)"""
CALLBACK_QUERY = "SELECT callback.id, callback.state FROM callback WHERE callback.id IN (%s)"
OWNER_QUERY = """SELECT task_instance.id, task_instance.queued_by_job_id, task_instance.try_number \
FROM task_instance WHERE task_instance.id IN (%s)"""
LIVING_QUERY = """SELECT job.id FROM job WHERE job.job_type = %s AND job.state = %s AND job.latest_heartbeat >= %s"""


def test_what_mysql_would_be_asked(session: Session) -> None:
    asked = []

    @event.listens_for(Session, "do_orm_execute")
    def note(state: Any) -> None:
        compiled = state.statement.compile(dialect=mysql.dialect(), compile_kwargs={"render_postcompile": True})
        asked.append(" ".join(str(compiled).split()))

    ledger = DatabaseLedger(ME)
    try:
        ledger.standings([task(row(None)), task(row(None)), workload(CallbackClaim(uuid.uuid4()))])
        ledger.owners([uuid.uuid4()])
        ledger.living()
    finally:
        event.remove(Session, "do_orm_execute", note)
    assert asked == [TASK_QUERY, CALLBACK_QUERY, OWNER_QUERY, LIVING_QUERY]
