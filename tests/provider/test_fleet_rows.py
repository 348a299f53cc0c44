"""The rows of the pods in flight on real databases."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event, literal_column, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from tests.databases import DATABASES_AND_MARIADB, use_as_airflows

from crosswind.engine.fleet_snapshot import PodInFlight, SnapshotChanges
from crosswind.provider import fleet_rows
from crosswind.provider.fleet_rows import DatabaseSnapshot, executor_key, read_executors, read_fleet
from crosswind.provider.tables import make_tables, read_rows


@pytest.fixture(scope="module", params=DATABASES_AND_MARIADB)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with request.param(tmp_path_factory.mktemp("database")) as engine:
        yield engine
        engine.dispose()


@pytest.fixture(autouse=True)
def session(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    maker = use_as_airflows(engine, monkeypatch)
    make_tables()
    with maker() as session:
        yield session
        session.rollback()
        for table in (fleet_rows.FLEET, fleet_rows.EXECUTORS):
            session.execute(table.delete())
        session.commit()


def pod(unique_id: str, dag_id: str = "dag", phase: str = "running", since: float = 1.0) -> PodInFlight:
    return PodInFlight(unique_id, "ti", dag_id, "task", "run", -1, 1, "default", "work", "pod", phase, "", since)


def test_changes_are_applied_and_read_back_the_longest_first() -> None:
    store = DatabaseSnapshot("7")
    store.apply(SnapshotChanges([pod("a", since=20.0), pod("b", since=10.0), pod("c")], []), {"watch": 1.5})
    store.apply(SnapshotChanges([pod("a", phase="ending", since=30.0)], {"c"}), {"watch": 2.5})
    assert [(executor, one.unique_id, one.phase) for executor, one in read_fleet()] == [
        ("7", "b", "running"),
        ("7", "a", "ending"),
    ]
    (executor,) = read_executors()
    assert (executor.executor, executor.gauges) == ("7", {"watch": 2.5})


def test_a_reader_may_ask_for_the_dags_that_he_may_see() -> None:
    DatabaseSnapshot("7").apply(SnapshotChanges([pod("a", "mine"), pod("b", "theirs")], []), {})
    assert [one.unique_id for _, one in read_fleet(["mine"])] == ["a"]
    assert read_fleet([]) == []


def test_an_adopted_pod_changes_its_executor_and_stays_one_row() -> None:
    DatabaseSnapshot("7").apply(SnapshotChanges([pod("a")], []), {})
    DatabaseSnapshot("8").apply(SnapshotChanges([pod("a")], []), {})
    assert [executor for executor, _ in read_fleet()] == ["8"]


def test_the_executors_of_all_teams_of_a_scheduler_keep_their_own_rows_and_gauges() -> None:
    keys = ["7", *(executor_key("7", team) for team in ("blue", "x" * 50))]
    for number, key in enumerate(keys):
        store = DatabaseSnapshot(key)
        store.apply(SnapshotChanges([pod(f"pod of {key}")], []), {"pods": number})
        store.apply(SnapshotChanges([], []), {"pods": number})
    assert {executor: one.unique_id for executor, one in read_fleet()} == {key: f"pod of {key}" for key in keys}
    assert {one.executor: one.gauges["pods"] for one in read_executors()} == {key: n for n, key in enumerate(keys)}


def test_an_executor_without_a_team_has_its_jobs_id_as_its_key() -> None:
    assert (executor_key("7", ""), executor_key("7", "blue")) == ("7", "7#blue")


def test_an_executor_that_starts_again_forgets_what_it_left() -> None:
    DatabaseSnapshot("7").apply(SnapshotChanges([pod("a")], []), {})
    DatabaseSnapshot("7").apply(SnapshotChanges([], []), {})
    assert read_fleet() == []


def test_what_dead_executors_left_is_stale_at_once_and_removed_after_an_hour(session: Session) -> None:
    DatabaseSnapshot("7").apply(SnapshotChanges([pod("a")], []), {})
    now = datetime.datetime.now(datetime.UTC)
    (executor,) = read_executors()
    assert not executor.is_stale(executor.seen_at + datetime.timedelta(seconds=9))
    assert executor.is_stale(executor.seen_at + datetime.timedelta(seconds=11))
    session.execute(update(fleet_rows.EXECUTORS).values(seen_at=now - datetime.timedelta(hours=2)))
    session.commit()
    DatabaseSnapshot("8").apply(SnapshotChanges([pod("b")], []), {})
    assert [one.unique_id for _, one in read_fleet()] == ["b"]
    assert [one.executor for one in read_executors()] == ["8"]


def test_five_thousand_pods_are_stored_in_a_few_statements() -> None:
    store, pods = DatabaseSnapshot("7"), [pod(f"pod-{number}") for number in range(5000)]
    began = time.process_time()
    store.apply(SnapshotChanges(pods, []), {})
    assert len(read_fleet()) == 5000
    store.apply(SnapshotChanges([], [one.unique_id for one in pods]), {})
    assert read_fleet() == []
    assert time.process_time() - began < 20


def test_a_table_that_a_scheduler_makes_while_a_page_reads_is_no_error(engine: Engine) -> None:
    fleet_rows.FLEET.drop(engine)
    failures: list[Any] = []
    note = failures.append

    def make(*_: Any) -> None:
        if failures:  # the query has failed and is rolled back; until then MariaDB keeps the table's name locked
            failures.clear()
            fleet_rows.FLEET.create(engine)

    event.listen(engine, "handle_error", note)
    event.listen(engine, "checkout", make)
    try:
        assert read_fleet() == []
    finally:
        event.remove(engine, "handle_error", note)
        event.remove(engine, "checkout", make)
        fleet_rows.FLEET.create(engine, checkfirst=True)


def test_a_query_that_the_database_refuses_is_an_error_where_the_table_exists() -> None:
    with pytest.raises(SQLAlchemyError):
        read_rows(select(literal_column("no_such_column")).select_from(fleet_rows.FLEET), fleet_rows.FLEET)
