"""The database on real databases, and as MySQL would be asked."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from airflow.jobs.job import Job
from airflow.models.base import Base
from airflow.models.callback import Callback
from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from airflow.utils.db import import_all_models
from kubernetes.client import models as k8s
from sqlalchemy import Engine, delete, event, insert, select, update
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateTable
from tests.databases import DATABASES_AND_MARIADB, read_only, use_as_airflows

from crosswind.engine.database import DatabaseState, WatchPosition
from crosswind.engine.state import Workload
from crosswind.engine.worker_pod import WorkerTask
from crosswind.provider import tables
from crosswind.provider.metadata_db import POSITIONS, AirflowMetadataDatabase, CallbackRef, TaskInstanceRef
from crosswind.provider.tables import make_tables

MANY = 2_500
ME, SIBLING = 7, 8


@pytest.fixture(scope="module", params=DATABASES_AND_MARIADB)
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
    maker = use_as_airflows(engine, monkeypatch)
    with maker() as session:
        yield session
        session.rollback()
        make_tables()
        history = TaskInstanceHistory.__table__
        for table in (history, TaskInstance.__table__, DagRun.__table__, Callback.__table__, Job.__table__, POSITIONS):
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


def workload(ref: object) -> Workload:
    unique = str(uuid.uuid4())
    return Workload(unique, WorkerTask("dag", "task", "run", 1, unique), 1.0, None, ref=ref)


def task(session_row: dict[str, Any], external_id: str = "mine") -> Workload:
    return workload(TaskInstanceRef(session_row["id"], external_id))


def row(state: str | None, external_id: str = "mine", queued_by: int | None = ME) -> dict[str, Any]:
    return {
        "id": uuid.uuid4(),
        "state": state,
        "external_executor_id": external_id,
        "queued_by_job_id": queued_by,
    }


def test_each_row_is_read_as_it_stands_and_a_missing_one_is_told(session: Session) -> None:
    expected = {
        DatabaseState.QUEUED: row("queued"),
        DatabaseState.RUNNING: row("running", queued_by=None),
        DatabaseState.UNSERIALIZED: row("restarting"),
    }
    settled = [row("success"), row(None), row("running", external_id="another"), row("queued", queued_by=SIBLING)]
    add_tasks(session, [*expected.values(), *settled])
    asked = {task(one): standing for standing, one in expected.items()}
    asked |= {task(one): DatabaseState.SETTLED for one in settled}
    deleted = task({"id": uuid.uuid4()})
    assert AirflowMetadataDatabase(ME).workload_states([*asked, deleted]) == asked | {deleted: DatabaseState.DELETED}


QUEUED_AT = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
BEFORE, AFTER = QUEUED_AT - datetime.timedelta(minutes=5), QUEUED_AT + datetime.timedelta(seconds=5)
QUEUED = {"queued_dttm": QUEUED_AT}
STARTED = {**QUEUED, "hostname": "pod", "start_date": AFTER, "last_heartbeat_at": AFTER}
EARLIER_TRY = {"hostname": "earlier-pod", "start_date": BEFORE, "last_heartbeat_at": BEFORE}


@pytest.mark.parametrize(
    ("columns", "settled"),
    [
        (STARTED, DatabaseState.SETTLED_AFTER_START),
        ({**STARTED, "end_date": AFTER}, DatabaseState.SETTLED_AFTER_START),
        ({**EARLIER_TRY, **QUEUED, "last_heartbeat_at": AFTER}, DatabaseState.SETTLED_AFTER_START),  # after a deferral
        (QUEUED, DatabaseState.SETTLED),
        ({**QUEUED, **EARLIER_TRY}, DatabaseState.SETTLED),
        # Core sets the missing times of a row that never started when it is marked, and when it is adopted.
        ({**QUEUED, "hostname": "", "start_date": AFTER, "end_date": AFTER}, DatabaseState.SETTLED),
        ({**QUEUED, "hostname": "", "last_heartbeat_at": AFTER}, DatabaseState.SETTLED),
        ({**STARTED, "queued_dttm": None}, DatabaseState.SETTLED),  # core takes back a task that is stuck in queued
        ({**STARTED, "external_executor_id": "another"}, DatabaseState.SETTLED),
    ],
)
def test_a_settled_row_shows_whether_a_worker_has_started_it(
    session: Session, columns: dict[str, Any], settled: DatabaseState
) -> None:
    states = ("success", "failed", "skipped", "deferred", "scheduled", "up_for_reschedule", None)
    rows = [row(state) | columns for state in states]
    add_tasks(session, rows)
    asked = [task(one) for one in rows]
    assert AirflowMetadataDatabase(ME).workload_states(asked) == dict.fromkeys(asked, settled)


@pytest.mark.parametrize(
    ("columns", "settled"),
    [
        ({**STARTED, "state": "up_for_retry"}, DatabaseState.SETTLED_AFTER_START),
        ({**STARTED, "state": "scheduled", "try_number": 2}, DatabaseState.SETTLED_AFTER_START),
        ({**STARTED, "state": None, "external_executor_id": None}, DatabaseState.SETTLED_AFTER_START),  # cleared later
        ({**QUEUED, "state": None, "external_executor_id": None}, DatabaseState.SETTLED),  # cleared while it waited
        ({**STARTED, "state": "running", "external_executor_id": "another", "try_number": 2}, DatabaseState.SETTLED),
    ],
)
def test_a_row_under_its_next_id_shows_whether_a_worker_has_started_the_try_before(
    session: Session, columns: dict[str, Any], settled: DatabaseState
) -> None:
    add_tasks(session, [row("failed") | {"map_index": -1} | columns])
    workload = task({"id": uuid.uuid4()})
    assert AirflowMetadataDatabase(ME).workload_states([workload]) == {workload: settled}


@pytest.fixture
def serialized(session: Session) -> Iterator[None]:
    with DAG("dag", schedule=None) as dag:
        EmptyOperator(task_id="task")
    session.add(DagBundleModel(name="tests"))
    session.flush()
    session.add(DagModel(dag_id="dag", bundle_name="tests"))
    session.flush()
    SerializedDagModel.write_dag(LazyDeserializedDAG.from_dag(dag), "tests", session=session)
    session.commit()
    yield
    for model in (TaskInstance, DagRun, SerializedDagModel, DagVersion, DagModel, DagBundleModel):
        session.execute(delete(model))
    session.commit()


@pytest.mark.usefixtures("serialized")
@pytest.mark.parametrize(
    ("now", "standing"),
    [
        ({}, DatabaseState.RESTARTING),
        ({"try_number": 2}, DatabaseState.SETTLED),
        ({"external_executor_id": "another"}, DatabaseState.SETTLED),
        ({"external_executor_id": None}, DatabaseState.SETTLED),
        ({"queued_by_job_id": SIBLING}, DatabaseState.SETTLED),
        ({"task_id": "removed"}, DatabaseState.UNSERIALIZED),
        *(({"state": state}, DatabaseState.SETTLED) for state in (None, "scheduled", "queued", "running", "failed")),
    ],
)
def test_a_row_with_another_id_is_found_by_its_key(
    session: Session, now: dict[str, Any], standing: DatabaseState
) -> None:
    add_tasks(session, [row("restarting") | {"map_index": -1} | now])
    asked = task({"id": uuid.uuid4()})
    asked = replace(asked, task=replace(asked.task, task_id=now.get("task_id", "task")))
    assert AirflowMetadataDatabase(ME).workload_states([asked]) == {asked: standing}


def test_many_rows_with_other_ids_are_found_in_one_call(session: Session) -> None:
    rows = [row("scheduled") for _ in range(MANY)]
    add_tasks(session, rows)
    asked = [task({"id": uuid.uuid4()}) for _ in rows]
    asked = [replace(one, task=replace(one.task, map_index=index)) for index, one in enumerate(asked)]
    assert set(AirflowMetadataDatabase(ME).workload_states(asked).values()) == {DatabaseState.SETTLED}


def test_the_host_of_a_worker_is_known_while_its_task_runs(session: Session) -> None:
    rows = [row(state) | {"hostname": f"pod-{state}"} for state in ("running", "queued", "success")]
    add_tasks(session, rows)
    asked = [task(one) for one in rows]
    assert AirflowMetadataDatabase(ME).hosts(asked) == {asked[0]: "pod-running"}


@pytest.mark.parametrize(("retries", "tries"), [(0, 1), (1, 2), (3, 4)])
def test_a_try_that_is_lost_costs_no_retry(session: Session, retries: int, tries: int) -> None:
    add_tasks(session, [row("running") | {"max_tries": retries}])
    (ti_id,) = session.scalars(select(TaskInstance.id))
    AirflowMetadataDatabase(ME).reschedule([task({"id": ti_id})])
    assert session.scalars(select(TaskInstance.max_tries)).all() == [tries]


def test_a_cleared_row_is_scheduled_again_under_the_id_that_it_has(session: Session) -> None:
    cleared = row("restarting") | {"map_index": -1, "max_tries": 1}
    add_tasks(session, [cleared])
    asked = task({"id": uuid.uuid4()})
    assert AirflowMetadataDatabase(ME).reschedule([asked]) == [asked]
    columns = (TaskInstance.id, TaskInstance.state, TaskInstance.max_tries, TaskInstance.external_executor_id)
    assert [tuple(one) for one in session.execute(select(*columns))] == [(cleared["id"], None, 2, None)]
    assert session.scalars(select(TaskInstanceHistory.task_id)).all() == []


def test_pods_that_wait_are_wanted_while_their_row_waits_or_runs(session: Session) -> None:
    wanted, unwanted = [row("queued"), row("running")], [row("failed"), row(None), row("scheduled")]
    add_tasks(session, [*wanted, *unwanted])
    pods = {str(one["id"]): {"task_instance_id": str(one["id"])} for one in (*wanted, *unwanted)}
    gone = str(uuid.uuid4())
    pods |= {gone: {"task_instance_id": gone}, "odd": {"task_instance_id": "not an id"}, "bare": {}}
    database, ended = AirflowMetadataDatabase(ME), [str(one["id"]) for one in unwanted]
    assert database.orphaned_workloads(pods, ()) == dict.fromkeys(ended), "others are of another deployment"
    assert database.orphaned_workloads(pods, pods.keys()) == dict.fromkeys([*ended, gone, "odd", "bare"])


def test_the_pod_of_an_earlier_try_need_not_start(session: Session) -> None:
    retried = row("running")
    add_tasks(session, [retried])
    database, pods = AirflowMetadataDatabase(ME), {"earlier": {"task_instance_id": str(retried["id"])}}
    assert database.orphaned_workloads(pods, ()) == {}
    database.reschedule([task(retried)])
    assert database.orphaned_workloads(pods, ()) == {"earlier": None}


def add_callbacks(session: Session, *states: str) -> dict[str, uuid.UUID]:
    rows = {state: uuid.uuid4() for state in states}
    common = {"type": "executor", "fetch_method": "import_path", "data": {}, "priority_weight": 1}
    common["created_at"] = datetime.datetime.now(datetime.UTC)
    values = [common | {"id": callback_id, "state": state} for state, callback_id in rows.items()]
    session.execute(insert(Callback.__table__), values)
    session.commit()
    return rows


def test_callbacks_whose_end_is_not_known_are_adopted_by_their_pods(session: Session) -> None:
    rows = add_callbacks(session, "queued", "running", "success", "failed")
    pods = {state: {"dag_id": "d", "task_id": "callback", "run_id": str(one)} for state, one in rows.items()}
    pods |= {"gone": {"dag_id": "d", "task_id": "callback", "run_id": str(uuid.uuid4())}}
    pods |= {"a test": {"dag_id": "connection-test", "task_id": "c", "run_id": str(uuid.uuid4())}}
    database = AirflowMetadataDatabase(ME, lambda subject, payload: payload + subject.encode())
    found = database.orphaned_workloads(pods, ("gone", "a test"))
    assert {name for name, workload in found.items() if workload is None} == {"success", "failed", "gone", "a test"}
    assert database.orphaned_workloads(pods, ()).keys() == rows.keys(), "others are of another deployment"
    adopted = found["queued"]
    assert adopted is not None
    assert (str(adopted.key), adopted.ref, adopted.exit_decides) == (
        str(rows["queued"]),
        CallbackRef(rows["queued"]),
        True,
    )
    assert adopted.renew is not None
    assert adopted.renew(b"of ") == b"of " + str(rows["queued"]).encode()


def test_a_callback_without_a_trace_of_its_pod_is_queued_once_more(session: Session) -> None:
    rows = add_callbacks(session, "queued", "success")
    asked = [workload(CallbackRef(one)) for one in rows.values()]
    assert AirflowMetadataDatabase(ME).reschedule(asked) == asked
    assert sorted(session.scalars(select(Callback.state))) == ["pending", "success"]


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
    asked = {workload(CallbackRef(callback_id)): state for state, callback_id in rows.items()}
    gone = workload(CallbackRef(uuid.uuid4()))
    found = AirflowMetadataDatabase(ME).workload_states([*asked, gone])
    assert found.pop(gone) is DatabaseState.DELETED
    assert {asked[one]: state for one, state in found.items()} == {
        "pending": DatabaseState.RUNNING,
        "queued": DatabaseState.QUEUED,
        "running": DatabaseState.RUNNING,
        "success": DatabaseState.SETTLED,
        "failed": DatabaseState.SETTLED,
    }


def test_any_number_of_tasks_is_asked_about_in_one_call(session: Session) -> None:
    rows = [row("running" if index % 2 else "success") for index in range(MANY)]
    add_tasks(session, rows)
    database = AirflowMetadataDatabase(ME)
    found = database.workload_states([task(one) for one in rows])
    assert len(found) == MANY
    assert sum(standing is DatabaseState.RUNNING for standing in found.values()) == MANY / 2
    assert database.owners(one["id"] for one in rows) == {one["id"]: (ME, 1, None) for one in rows}


def test_owners_tell_the_job_the_try_and_the_queue(session: Session) -> None:
    mine, nobodys = (
        row("running") | {"try_number": 3, "queue": "gpu"},
        row("queued", queued_by=None) | {"queue": "default"},
    )
    add_tasks(session, [mine, nobodys])
    assert AirflowMetadataDatabase(None).owners([mine["id"], nobodys["id"], uuid.uuid4()]) == {
        mine["id"]: (ME, 3, "gpu"),
        nobodys["id"]: (None, 1, "default"),
    }


def test_configs_are_read_by_id_or_key_and_one_that_is_broken_is_left_out(session: Session) -> None:
    override = {"pod_override": k8s.V1Pod(metadata=k8s.V1ObjectMeta(namespace="elsewhere"))}
    rows = [row("running") | {"executor_config": config} for config in (override, None, {}, override)]
    add_tasks(session, rows)
    session.execute(update(TaskInstance).where(TaskInstance.id == rows[2]["id"]).values(executor_config=BROKEN))
    session.commit()
    asked = [task(one) for one in rows[:3]]
    cleared = task({"id": uuid.uuid4()})
    cleared = replace(cleared, task=replace(cleared.task, map_index=3))
    callback, deleted = workload(CallbackRef(uuid.uuid4())), task({"id": uuid.uuid4()})
    configs = AirflowMetadataDatabase(ME).executor_configs([*asked, cleared, callback, deleted])
    assert configs.keys() == {*asked[:2], cleared, callback}
    assert (configs[asked[1]], configs[callback]) == (None, None)
    for found in (configs[asked[0]], configs[cleared]):
        assert found is not None
        assert found["pod_override"].metadata.namespace == "elsewhere"  # type: ignore[attr-defined]


class Broken:
    """What an author has pickled, and what cannot be unpickled here."""

    def __reduce__(self) -> tuple[Any, ...]:
        return divmod, (1, 0)


BROKEN = {"other": Broken()}


def states(session: Session) -> dict[int, Any]:
    columns = select(TaskInstance.map_index, TaskInstance.state, TaskInstance.queued_by_job_id, TaskInstance.id)
    return {row[0]: row[1:] for row in session.execute(columns)}


def test_what_is_ours_and_not_over_is_scheduled_again_under_a_new_id(session: Session) -> None:
    ours = [row("queued"), row("running")]
    others = [row("running", queued_by=SIBLING), row("success"), row("deferred")]
    add_tasks(session, [*ours, *others])
    asked = [task(one) for one in (*ours, *others, {"id": uuid.uuid4()})]
    assert set(AirflowMetadataDatabase(ME).reschedule(asked)) == set(asked[:2])
    after = states(session)
    assert [after[index][:2] for index in (0, 1)] == [(None, None)] * 2
    assert {after[0][2], after[1][2]}.isdisjoint(one["id"] for one in ours)
    assert [after[index] for index in (2, 3, 4)] == [
        (one["state"], one["queued_by_job_id"], one["id"]) for one in others
    ]
    tried = session.scalars(select(TaskInstanceHistory.task_instance_id)).all()
    assert set(tried) == {one["id"] for one in ours}, "the try that was given up stays in the history"


def test_rows_that_core_has_locked_are_left_for_later(session: Session, engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        return  # has no locks of rows, and Airflow asks for none there
    locked, free = row("queued"), row("queued")
    add_tasks(session, [locked, free])
    with Session(engine) as core:
        core.execute(select(TaskInstance.id).where(TaskInstance.id == locked["id"]).with_for_update())
        asked = [task(locked), task(free)]
        assert AirflowMetadataDatabase(ME).reschedule(asked) == [asked[1]]


def at(version: str, *, executor: str = "7", server: str = "https://a", namespace: str | None = "n") -> WatchPosition:
    return WatchPosition(executor, server, namespace, version)


def test_positions_are_kept_and_the_newest_of_each_watch_is_read(session: Session) -> None:
    first = AirflowMetadataDatabase(ME)
    first.save_positions([at("1"), at("1", namespace=None)])
    first.save_positions([at("2")])
    AirflowMetadataDatabase(SIBLING).save_positions([at("9", executor="8"), at("9", executor="8", server="https://b")])
    found = AirflowMetadataDatabase(SIBLING).load_positions("https://a", 60.0)
    assert sorted(found, key=repr) == sorted([at("2"), at("1", namespace=None), at("9", executor="8")], key=repr)


def test_positions_that_are_old_are_left_out_and_then_forgotten(session: Session) -> None:
    database = AirflowMetadataDatabase(ME)
    database.save_positions([at("1"), at("2", executor="8")])
    for executor, days in (("7", 1), ("8", 8)):
        then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
        session.execute(update(POSITIONS).where(POSITIONS.c.executor == executor).values(updated_at=then))
    session.commit()
    assert database.load_positions("https://a", 3600.0) == []
    assert session.scalars(select(POSITIONS.c.executor)).all() == ["7"]
    assert database.load_positions("https://a", 7 * 86_400.0) == [at("1")]


def test_schedulers_that_start_at_once_make_the_table_once(session: Session, engine: Engine) -> None:
    POSITIONS.drop(engine, checkfirst=True)
    tables._known_tables.clear()
    databases = [AirflowMetadataDatabase(number) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda database: database.save_positions([at("1", executor=str(id(database)))]), databases))
    assert len(databases[0].load_positions("https://a", 60.0)) == 4


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("first", ["save", "load"])
def test_where_the_table_cannot_be_created_or_written_positions_are_done_without_which_is_logged_once(
    session: Session, engine: Engine, exists: bool, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    tables._known_tables.clear()
    make_tables()
    if not exists:
        POSITIONS.drop(engine)
        tables._known_tables.clear()
    with read_only(engine) as reader, pytest.MonkeyPatch.context() as patch:
        use_as_airflows(reader, patch)
        database = AirflowMetadataDatabase(ME)
        if first == "save":
            database.save_positions([at("1")])
        assert database.load_positions("https://a", 60.0) == ()
        database.save_positions([at("2")])
    (message,) = [record.message for record in caplog.records if record.name == "crosswind.provider.metadata_db"]
    assert f"crosswind_watch_position cannot be {'written' if exists else 'created'}" in message
    assert ("rights to read and write" if exists else "right to create tables") in message


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
    assert AirflowMetadataDatabase(ME).live_executors() == {str(ME)}


TASK_QUERY = """SELECT task_instance.id, task_instance.state, task_instance.external_executor_id, \
task_instance.queued_by_job_id, task_instance.try_number, task_instance.hostname != %s AND \
task_instance.last_heartbeat_at >= task_instance.queued_dttm AS started FROM task_instance \
WHERE task_instance.id IN (%s, %s)"""
KEY_QUERY = """(task_instance.dag_id, task_instance.task_id, task_instance.run_id, task_instance.map_index) \
IN ((%s, %s, %s, %s), (%s, %s, %s, %s))"""
CALLBACK_QUERY = "SELECT callback.id, callback.state FROM callback WHERE callback.id IN (%s)"
OWNER_QUERY = """SELECT task_instance.id, task_instance.queued_by_job_id, task_instance.try_number, \
task_instance.queue \
FROM task_instance WHERE task_instance.id IN (%s)"""
AGAIN_QUERY = """WHERE task_instance.queued_by_job_id = %s AND task_instance.state IN (%s, %s, %s) \
AND task_instance.id IN (%s)"""
REMEMBER = """UPDATE crosswind_watch_position SET version=%s, updated_at=%s WHERE \
crosswind_watch_position.executor = %s AND crosswind_watch_position.server = %s AND \
crosswind_watch_position.namespace = %s"""
REMEMBER_FIRST = """INSERT INTO crosswind_watch_position (executor, server, namespace, version, updated_at) \
VALUES (%s, %s, %s, %s, %s)"""
FORGET = "DELETE FROM crosswind_watch_position WHERE crosswind_watch_position.updated_at < %s"
POSITION_QUERY = """SELECT crosswind_watch_position.executor, crosswind_watch_position.server, \
crosswind_watch_position.namespace, crosswind_watch_position.version, crosswind_watch_position.updated_at \
FROM crosswind_watch_position WHERE crosswind_watch_position.server = %s AND \
crosswind_watch_position.updated_at >= %s"""
TABLE = """CREATE TABLE crosswind_watch_position ( executor VARCHAR(63) NOT NULL, server VARCHAR(255) NOT NULL, \
namespace VARCHAR(63) NOT NULL, version VARCHAR(64) NOT NULL, updated_at TIMESTAMP(6) NOT NULL, \
PRIMARY KEY (executor, server, namespace) )"""
LIVING_QUERY = """SELECT job.id FROM job WHERE job.job_type = %s AND job.state = %s AND job.latest_heartbeat >= %s"""


def test_what_mysql_would_be_asked(session: Session) -> None:
    asked = []

    @event.listens_for(Session, "do_orm_execute")
    def note(state: Any) -> None:
        compiled = state.statement.compile(dialect=mysql.dialect(), compile_kwargs={"render_postcompile": True})
        asked.append(" ".join(str(compiled).split()))

    database = AirflowMetadataDatabase(ME)
    try:
        database.workload_states([task(row(None)), task(row(None)), workload(CallbackRef(uuid.uuid4()))])
        database.owners([uuid.uuid4()])
        database.live_executors()
        database.reschedule([task(row(None))])
        database.save_positions([at("1")])
        database.load_positions("https://a", 60.0)
    finally:
        event.remove(Session, "do_orm_execute", note)
    assert asked.pop(1).endswith(KEY_QUERY)
    assert asked[:4] == [TASK_QUERY, CALLBACK_QUERY, OWNER_QUERY, LIVING_QUERY]
    assert AGAIN_QUERY in asked[6]
    assert asked[7:] == [REMEMBER, REMEMBER_FIRST, FORGET, POSITION_QUERY]
    assert " ".join(str(CreateTable(POSITIONS).compile(dialect=mysql.dialect())).split()) == TABLE
