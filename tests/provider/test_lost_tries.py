"""The replacement of lost tries on real databases."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from airflow.models import taskinstance
from airflow.models.base import Base
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.hitl_history import HITLDetailHistory
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.models.taskreschedule import TaskReschedule
from airflow.utils.db import import_all_models
from sqlalchemy import Engine, Table, create_engine, event, insert, inspect, select, text, update
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session
from tests.databases import DATABASES_AND_MARIADB, use_as_airflows

from crosswind.engine.losses import LostTry
from crosswind.engine.state import Workload
from crosswind.engine.worker_pod import WorkerTask
from crosswind.errors import ConfigError
from crosswind.provider import tables, task_rows
from crosswind.provider.lost_tries import LOSSES, LostTries
from crosswind.provider.tables import make_tables
from crosswind.provider.task_rows import TaskInstanceRef

ME, SIBLING = 7, 8
LIMIT = 3


@pytest.fixture(scope="module", params=DATABASES_AND_MARIADB)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    import_all_models()
    with request.param(tmp_path_factory.mktemp("database")) as engine:
        Base.metadata.create_all(engine)
        yield engine
        engine.dispose()


@pytest.fixture
def session(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    with use_as_airflows(engine, monkeypatch)() as session:
        yield session
        session.rollback()
        make_tables()
        for model in (TaskReschedule, TaskInstanceHistory, TaskInstance, DagRun, Log):
            session.execute(model.__table__.delete())
        session.execute(LOSSES.delete())
        session.commit()


def add_run(session: Session, state: str = "running") -> None:
    session.add(DagRun(dag_id="dag", run_id="run", run_type="manual", state=state))
    session.commit()


def add_task(session: Session, map_index: int = -1, **values: Any) -> uuid.UUID:
    ti_id = uuid.uuid4()
    row = {
        "id": ti_id,
        "task_id": "task",
        "dag_id": "dag",
        "run_id": "run",
        "map_index": map_index,
        "try_number": 1,
        "max_tries": 0,
        "pool": "default_pool",
        "pool_slots": 1,
        "span_status": "not_started",
        "state": "running",
        "external_executor_id": "mine",
        "queued_by_job_id": ME,
        "queue": "default",
        **values,
    }
    session.execute(insert(TaskInstance.__table__), [row])
    session.commit()
    return ti_id


def workload(ti_id: uuid.UUID, external_id: str | None = "mine", map_index: int = -1) -> Workload:
    task = WorkerTask("dag", "task", "run", 1, str(uuid.uuid4()), map_index=map_index)
    return Workload(task.unique_id, task, 1.0, None, ref=TaskInstanceRef(ti_id, external_id))


def tries(job_id: int = ME, limit: int = LIMIT) -> LostTries:
    return LostTries(job_id, lambda config, queue: limit)


def lose(session: Session, job_id: int = ME, limit: int = LIMIT) -> LostTry | None:
    """Lose the pod of the only task instance, as it stands; return what becomes of its try."""
    ti_id, external = session.execute(select(TaskInstance.id, TaskInstance.external_executor_id)).one()
    asked = workload(ti_id, external)
    answer = tries(job_id, limit).replace({asked: "the node went away"}).get(asked)
    session.commit()
    return answer


def run_again(session: Session) -> None:
    """Do what the scheduler and a worker do with a task instance that has no state."""
    values = {"state": "running", "external_executor_id": "mine", "queued_by_job_id": ME}
    session.execute(update(TaskInstance).values(**values, try_number=TaskInstance.try_number + 1))
    session.commit()


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_lost_try_goes_into_the_history_and_the_row_is_scheduled_under_a_new_id(session: Session, state: str) -> None:
    add_run(session)
    kept = {"pool": "small", "pool_slots": 2, "queue": "spot", "priority_weight": 7}
    ti_id = add_task(session, state=state, next_method="resume", next_kwargs={}, **kept)
    assert lose(session) == LostTry(1)
    (ti,) = session.scalars(select(TaskInstance))
    assert ti.id != ti_id
    assert (ti.state, ti.external_executor_id, ti.queued_by_job_id, ti.next_method) == (None, None, None, None)
    assert (ti.try_number, ti.max_tries) == (1, 1)
    assert {name: getattr(ti, name) for name in kept} == kept
    assert session.execute(
        select(TaskInstanceHistory.task_instance_id, TaskInstanceHistory.try_number, TaskInstanceHistory.state)
    ).all() == [(ti_id, 1, "failed")]
    (row,) = session.scalars(select(Log))
    assert (row.event, row.dag_id, row.task_id, row.run_id, row.map_index, row.try_number) == (
        *("pod lost", "dag", "task", "run", -1, 1),
    )
    assert row.extra == (
        "the node went away — Airflow schedules the task again, without using up a retry (loss 1 of 3)"
    )


@pytest.mark.parametrize("retries", [0, 2])
def test_losses_leave_the_budget_of_retries_as_it_was(session: Session, retries: int) -> None:
    add_run(session)
    add_task(session, max_tries=retries)
    for losses in range(1, LIMIT + 1):
        assert lose(session) == LostTry(losses)
        run_again(session)
    (ti,) = session.scalars(select(TaskInstance))
    assert ti.max_tries - ti.try_number == retries - 1


WON_BY_OTHERS: dict[str, dict[str, Any]] = {
    "marked success": {"state": "success"},
    "marked failed": {"state": "failed"},
    "cleared": {"state": None, "external_executor_id": None},
    "cleared while it runs": {"state": "restarting"},
    "deferred": {"state": "deferred"},
    "queued again": {"state": "queued", "external_executor_id": "another"},
    "of a sibling": {"queued_by_job_id": SIBLING},
}


@pytest.mark.parametrize("name", WON_BY_OTHERS)
def test_what_a_person_or_another_scheduler_set_wins(session: Session, name: str) -> None:
    add_run(session)
    ti_id = add_task(session, **WON_BY_OTHERS[name])
    assert tries().replace({workload(ti_id): "gone"}) == {}
    (ti,) = session.scalars(select(TaskInstance))
    values = {"state": "running", "external_executor_id": "mine", "queued_by_job_id": ME} | WON_BY_OTHERS[name]
    assert (ti.id, ti.max_tries) == (ti_id, 0)
    assert {key: getattr(ti, key) for key in values} == values


def test_a_row_that_has_another_id_or_is_deleted_is_left_alone(session: Session) -> None:
    add_run(session)
    add_task(session)
    assert tries().replace({workload(uuid.uuid4()): "gone"}) == {}
    assert session.scalars(select(TaskInstance.max_tries)).all() == [0]


def test_a_task_of_a_run_that_has_ended_gets_no_further_try(session: Session) -> None:
    add_run(session, "failed")
    add_task(session)
    assert lose(session) == LostTry(0, "its DAG run is failed")
    assert session.scalars(select(TaskInstance.state)).all() == ["running"]


def test_a_task_of_a_run_that_is_queued_waits_for_it(session: Session) -> None:
    add_run(session, "queued")
    add_task(session)
    assert lose(session) is None


def test_a_loss_beyond_the_limit_is_refused_with_the_limit(session: Session) -> None:
    add_run(session)
    add_task(session)
    for _ in range(LIMIT):
        lose(session)
        run_again(session)
    refused = lose(session)
    assert refused == LostTry(4, "it is loss 4 in a row, and infra_retries is 3")
    assert session.scalars(select(TaskInstance.state)).all() == ["running"]


def test_a_task_that_must_not_run_twice_gets_no_further_try(session: Session) -> None:
    add_run(session)
    add_task(session)
    assert lose(session, limit=0) == LostTry(1, "infra_retries is 0 for it")


def test_the_limit_is_that_of_the_tasks_own_config_and_queue(session: Session) -> None:
    add_run(session)
    config = {"crosswind": {"infra_retries": 1}}
    ti_id = add_task(session, queue="spot", executor_config=config)
    asked: list[tuple[Mapping[str, object] | None, str]] = []

    def limit(config: Mapping[str, object] | None, queue: str) -> int:
        asked.append((config, queue))
        return 1

    LostTries(ME, limit).replace({workload(ti_id): "gone"})
    assert asked == [(config, "spot")]


def test_a_config_that_cannot_be_read_gives_no_further_try(session: Session) -> None:
    def broken(config: Mapping[str, object] | None, queue: str) -> int:
        raise ConfigError("broken")

    add_run(session)
    asked = workload(add_task(session))
    assert LostTries(ME, broken).replace({asked: "gone"})[asked].refusal == "infra_retries is 0 for it"


def test_a_retry_of_the_tasks_own_goes_on_with_the_count(session: Session) -> None:
    add_run(session)
    add_task(session, max_tries=5)
    lose(session)
    run_again(session)
    (ti,) = session.scalars(select(TaskInstance))
    ti.prepare_db_for_next_try(session=session)  # what core does when a task fails and has retries
    session.commit()
    run_again(session)
    assert lose(session) == LostTry(2)


@pytest.mark.parametrize("clear", ["task", "while it runs"])
def test_a_clear_begins_the_count_anew(session: Session, clear: str) -> None:
    add_run(session)
    add_task(session)
    lose(session)
    run_again(session)
    lose(session)
    run_again(session)
    (ti,) = session.scalars(select(TaskInstance))
    ti.prepare_db_for_next_try(session=session)
    if clear == "task":
        ti.max_tries = ti.try_number  # plus the task's retries, which are none
    else:
        session.execute(update(DagRun).values(clear_number=DagRun.clear_number + 1))
    session.commit()
    run_again(session)
    assert lose(session) == LostTry(1)


def test_a_count_is_found_by_the_workload_that_is_launched_next(session: Session) -> None:
    add_run(session)
    add_task(session)
    lose(session)
    ti_id = session.scalars(select(TaskInstance.id)).one()
    run_again(session)
    unlost = workload(add_task(session, map_index=5), map_index=5)
    launched = workload(ti_id)
    assert tries().counts([launched, unlost]) == {launched: 1}


def test_the_reschedules_of_a_sensor_go_on_under_the_new_id(session: Session) -> None:
    add_run(session)
    ti_id = add_task(session)
    first = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    moments = [first + datetime.timedelta(minutes=minute) for minute in range(4)]
    for start, end in itertools.pairwise(moments):
        session.add(TaskReschedule(ti_id, start, end, end))
        session.flush()
    session.commit()
    assert lose(session) == LostTry(1)
    new_id = session.scalars(select(TaskInstance.id)).one()
    columns = TaskReschedule.ti_id, TaskReschedule.start_date, TaskReschedule.end_date, TaskReschedule.duration
    rows = session.execute(select(*columns).order_by(TaskReschedule.id)).all()
    assert rows == [(new_id, start, end, 60) for start, end in itertools.pairwise(moments)]


def all_rows(session: Session) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of all of Airflow's tables by name, without ids that are made up and the time of a change."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for table in Base.metadata.sorted_tables:
        left_out = {"updated_at", "end_date", "duration"} | (set() if table.name == "task_instance" else {"id"})
        columns = [column for column in table.columns if column.name not in left_out]
        found = session.execute(select(*columns)).mappings().all()
        rows[table.name] = sorted((dict(row) for row in found), key=str)
    return rows


@pytest.mark.parametrize("state", ["queued", "running", "success"])
def test_many_tries_go_into_the_history_as_core_puts_one(
    session: Session, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """``prepare_db_for_next_try`` takes five statements a try; ours a handful for all, with the same result."""
    add_run(session)
    new_ids = [uuid.UUID(int=number) for number in range(1, 4)]
    results = []
    moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    old_ids = [uuid.UUID(int=number) for number in range(101, 104)]
    for ours in (False, True):
        session.expunge_all()
        for model in (HITLDetailHistory, HITLDetail, TaskReschedule, TaskInstanceHistory, TaskInstance):
            session.execute(model.__table__.delete())
        session.commit()
        for index, ti_id in enumerate(old_ids):
            add_task(session, index, id=ti_id, state=state, start_date=moment, hostname="pod", executor_config={"a": 1})
        session.add(HITLDetail(ti_id=old_ids[0], options=["yes"], subject="?", params={}, created_at=moment))
        session.add(TaskReschedule(old_ids[1], moment, moment, moment))
        tis = session.scalars(select(TaskInstance).order_by(TaskInstance.map_index)).all()
        session.add(TaskInstanceHistory(tis[2], state="failed"))  # recorded before, as after a clear
        session.commit()
        module = task_rows if ours else taskinstance
        monkeypatch.setattr(module, "uuid7", iter(new_ids).__next__)
        if ours:
            task_rows.prepare_for_next_try({ti.id: ti for ti in tis}, session)
        else:
            for ti in tis:
                ti.prepare_db_for_next_try(session=session)
        session.flush()
        assert [ti.end_date is None for ti in tis] == [state == "success", state == "success", True]
        results.append(all_rows(session))
        session.commit()
    core, crosswind = results
    assert len(core["task_instance_history"]) == 3
    assert len(core["hitl_detail_history"]) == 1
    assert core == crosswind


def test_many_losses_take_as_many_questions_as_one(session: Session, engine: Engine) -> None:
    """A busy scheduler makes each statement of another thread wait: only those that write may grow with the losses."""
    add_run(session)
    make_tables()  # it looks for the tables, once in a database's life
    counts = []
    for number in (1, 12):
        ids = [add_task(session, map_index=100 * number + index) for index in range(number)]
        asked = [workload(ti_id, map_index=100 * number + index) for index, ti_id in enumerate(ids)]
        statements: list[str] = []

        @event.listens_for(engine, "before_cursor_execute")
        def note(connection: Any, cursor: Any, statement: str, *_: Any, into: list[str] = statements) -> None:
            if statement.startswith("SELECT"):
                into.append(statement)

        try:
            lost = tries()
            lost._cleaned = True
            assert len(lost.replace(dict.fromkeys(asked, "gone"))) == number
        finally:
            event.remove(engine, "before_cursor_execute", note)
        counts.append(len(statements))
    assert counts[0] == counts[1], statements


def test_mapped_tasks_are_lost_one_by_one(session: Session) -> None:
    add_run(session)
    ids = [add_task(session, map_index=index) for index in range(4)]
    asked = [workload(ids[index], map_index=index) for index in (1, 3)]
    assert tries().replace(dict.fromkeys(asked, "gone")) == dict.fromkeys(asked, LostTry(1))
    states = session.execute(select(TaskInstance.map_index, TaskInstance.state).order_by(TaskInstance.map_index)).all()
    assert states == [(0, "running"), (1, None), (2, "running"), (3, None)]


def test_of_two_schedulers_that_lose_one_try_the_second_does_nothing(session: Session, engine: Engine) -> None:
    add_run(session)
    ids = [add_task(session, map_index=index) for index in range(20)]
    asked = [workload(ti_id, map_index=index) for index, ti_id in enumerate(ids)]
    start = threading.Barrier(2)

    def replace(_: int) -> dict[Workload, LostTry]:
        start.wait()
        return tries().replace(dict.fromkeys(asked, "gone"))

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(replace, range(2))
    assert first.keys().isdisjoint(second)
    assert {**first, **second}.keys() <= set(asked)
    left = [one for one in asked if one not in {**first, **second}]
    assert tries().replace(dict.fromkeys(left, "gone")).keys() == set(left)  # rows that the other had locked
    assert session.scalars(select(TaskInstance.max_tries)).all() == [1] * 20


def test_a_row_that_core_has_locked_is_left_for_later(session: Session, engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        return  # has no locks of rows
    add_run(session)
    locked, free = add_task(session, map_index=0), add_task(session, map_index=1)
    with Session(engine) as core:
        core.execute(select(TaskInstance.id).where(TaskInstance.id == locked).with_for_update())
        asked = [workload(locked, map_index=0), workload(free, map_index=1)]
        assert tries().replace(dict.fromkeys(asked, "gone")) == {asked[1]: LostTry(1)}


def test_a_run_that_the_scheduler_has_locked_delays_no_replacement(session: Session, engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        return
    add_run(session)
    asked = workload(add_task(session))
    with Session(engine) as core:
        core.execute(select(DagRun.id).with_for_update(key_share=True))  # as core locks
        assert tries().replace({asked: "gone"}) == {asked: LostTry(1)}


def test_a_mark_between_the_check_and_the_change_is_not_overwritten(session: Session, engine: Engine) -> None:
    """SQLite, which has no locks of rows: the writer waits, and finds the new state."""
    if engine.dialect.name != "sqlite":
        return
    add_run(session)
    asked = workload(add_task(session))
    marked: list[BaseException | int] = []

    def mark() -> None:
        with Session(engine) as person:
            mine = TaskInstance.external_executor_id == "mine"
            marked.append(person.execute(update(TaskInstance).where(mine).values(state="success")).rowcount)  # type: ignore[attr-defined]
            person.commit()

    @event.listens_for(Session, "do_orm_execute")
    def after_check(state: Any) -> None:
        if "dag_run.state" in str(state.statement) and not person.is_alive():
            person.start()
            person.join(0.2)

    person = threading.Thread(target=mark)
    try:
        result = tries().replace({asked: "gone"})
    finally:
        event.remove(Session, "do_orm_execute", after_check)
    person.join()
    assert (result, marked) == ({asked: LostTry(1)}, [0])
    assert session.scalars(select(TaskInstance.state)).all() == [None]


def test_a_task_that_the_database_refuses_holds_up_no_other(session: Session, engine: Engine) -> None:
    add_run(session)
    ids = [add_task(session, map_index=index) for index in range(3)]
    asked = [workload(ti_id, map_index=index) for index, ti_id in enumerate(ids)]

    @event.listens_for(engine, "before_cursor_execute")
    def refuse(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("INSERT INTO crosswind_loss") and "bad" in str(parameters):
            raise ValueError("refused")

    bad = Workload("bad", WorkerTask("dag", "bad", "run", 1, "u"), 1.0, None, ref=asked[0].ref)
    session.execute(update(TaskInstance).where(TaskInstance.id == ids[0]).values(task_id="bad"))
    session.commit()
    try:
        results = tries().replace(dict.fromkeys([bad, *asked[1:]], "gone"))
    finally:
        event.remove(engine, "before_cursor_execute", refuse)
    assert results == dict.fromkeys(asked[1:], LostTry(1))


@pytest.mark.parametrize("exists", [False, True])
def test_without_its_table_no_loss_is_forgiven_and_the_reason_says_so(
    session: Session, engine: Engine, exists: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if exists and engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no users whose rights differ by table")
    add_run(session)
    asked = [workload(add_task(session, index)) for index in range(2)]
    tables._known_tables.clear()
    make_tables()
    if not exists:
        LOSSES.drop(engine)
        tables._known_tables.clear()
    with _denied(engine, LOSSES) as user, pytest.MonkeyPatch.context() as patch:
        use_as_airflows(user, patch)
        replacing = tries()
        results = replacing.replace(dict.fromkeys(asked, "gone"))
        results |= replacing.replace({asked[0]: "gone"})
        assert replacing.counts(asked) == {}
    refusal = "the database's user may not create or write the table crosswind_loss, which counts losses"
    assert results == dict.fromkeys(asked, LostTry(0, refusal))
    assert caplog.text.count("Grant the database's user the right") == 1


@contextlib.contextmanager
def _denied(engine: Engine, table: Table) -> Iterator[Engine]:
    """The database for a user who may do everything with all tables but one, and create none."""
    if engine.dialect.name == "sqlite":  # has no users
        user = create_engine(engine.url)

        @event.listens_for(user, "connect")
        def deny(connection: sqlite3.Connection, _: object) -> None:
            connection.set_authorizer(
                lambda action, *_: sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_CREATE_TABLE else sqlite3.SQLITE_OK
            )
    else:
        names = set(inspect(engine).get_table_names()) - {table.name}
        create = {
            "postgresql": ["drop owned by limited", "drop role limited", "create role limited login"],
            "mysql": ["create or replace user limited@localhost"],
        }[engine.dialect.name]
        quote = engine.dialect.identifier_preparer.quote
        user_name = "limited" if engine.dialect.name == "postgresql" else "limited@localhost"
        for statement in (*create, *(f"grant all on {quote(name)} to {user_name}" for name in names)):
            missing = (
                contextlib.suppress(ProgrammingError) if statement.startswith("drop") else contextlib.nullcontext()
            )
            with missing, engine.begin() as connection:
                connection.execute(text(statement))
        user = create_engine(engine.url.set(username="limited"))
    yield user
    user.dispose()


def test_old_counts_are_deleted(session: Session) -> None:
    make_tables()
    ancient = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=40)
    row = {"dag_id": "d", "task_id": "t", "run_id": "r", "map_index": -1, "losses": 1, "max_tries": 1}
    session.execute(insert(LOSSES), [{**row, "task": "old", "clear_number": 0, "updated_at": ancient}])
    add_run(session)
    add_task(session)
    lose(session)
    assert session.scalars(select(LOSSES.c.task_id)).all() == ["task"]
