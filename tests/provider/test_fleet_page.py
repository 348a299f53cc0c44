"""The page of the fleet on real databases."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, insert, update
from sqlalchemy.orm import Session
from tests.databases import DATABASES_AND_MARIADB, use_as_airflows

from crosswind.engine.fleet_snapshot import PodInFlight, SnapshotChanges
from crosswind.provider import fleet_page, fleet_rows
from crosswind.provider.fleet_page import FleetQuery, read_fleet_page, read_summary
from crosswind.provider.fleet_rows import DatabaseSnapshot
from crosswind.provider.pod_rows import PODS
from crosswind.provider.tables import make_tables

ALL = {"a", "b", "c%"}
NOW = time.time()


@pytest.fixture(scope="module", params=DATABASES_AND_MARIADB)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with request.param(tmp_path_factory.mktemp("database")) as engine:
        yield engine
        engine.dispose()


@pytest.fixture(autouse=True)
def session(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    maker = use_as_airflows(engine, monkeypatch)
    make_tables()
    fleet_page.forget_recent()
    with maker() as session:
        yield session
        session.rollback()
        for table in (fleet_rows.FLEET, fleet_rows.EXECUTORS, PODS):
            session.execute(table.delete())
        session.commit()


def pod(unique_id: str, dag_id: str = "a", phase: str = "running", **fields: Any) -> PodInFlight:
    known = PodInFlight(unique_id, "ti", dag_id, "task", "run", -1, 1, "default", "work", "pod", phase, "", NOW - 60)
    return replace(known, **fields)


def put(*pods: PodInFlight, **gauges: float) -> None:
    DatabaseSnapshot("7").apply(SnapshotChanges(pods, []), {f"crosswind.{name}": gauges[name] for name in gauges})


def page(readable: set[str] = ALL, **query: Any) -> dict[str, Any]:
    return read_fleet_page(readable, FleetQuery(**query))


def listed(readable: set[str] = ALL, **query: Any) -> list[str]:
    return [row["unique_id"] for row in page(readable, **query)["pods"]["rows"]]


def test_pods_are_counted_by_phase_queue_namespace_and_dag() -> None:
    put(pod("1"), pod("2", "b", queue="gpu"), pod("3", phase="waiting", reason="QuotaExceeded"))
    shown = page()
    phases = {one["phase"]: one["pods"] for one in shown["phases"]}
    assert (shown["total"], phases) == (3, {"waiting": 1, "pending": 0, "running": 2, "ending": 0})
    assert [(row["value"], row["pods"]) for row in shown["by"]["queue"]] == [("default", 2), ("gpu", 1)]
    assert [(row["value"], row["pods"]) for row in shown["by"]["dag_id"]] == [("a", 2), ("b", 1)]


def test_of_many_groups_the_largest_are_named_and_the_others_counted() -> None:
    put(*(pod(f"{queue}-{number}", queue=f"q{queue}") for queue in range(12) for number in range(queue + 1)))
    rows = page()["by"]["queue"]
    assert [row["value"] for row in rows[:2]] == ["q11", "q10"]
    assert (rows[-1]["value"], rows[-1]["others"], rows[-1]["pods"]) == (None, 7, sum(range(1, 8)))


def test_the_longest_wait_comes_first_with_its_reason() -> None:
    put(
        pod("1", phase="pending", reason="Unschedulable", since=NOW - 500),
        pod("2", phase="waiting", reason="QuotaExceeded", since=NOW - 900),
        pod("3", phase="pending", reason="Unschedulable", since=NOW - 5),
        pod("4"),
    )
    waits = page()["waits"]
    assert [(wait["reason"], wait["pods"]) for wait in waits] == [("QuotaExceeded", 1), ("Unschedulable", 2)]
    assert round(time.time() - waits[0]["oldest"]) == round(time.time() - NOW + 900)
    assert read_summary(ALL)["waits"] == waits


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"phase": "pending"}, ["3"]),
        ({"queue": "gpu"}, ["2"]),
        ({"dag_id": "a", "phase": "running"}, ["1"]),
        ({"reason": "Unschedulable"}, ["3"]),
        ({"search": "LOAD"}, ["2"]),
        ({"search": "%"}, ["4"]),
        ({"search": "nothing"}, []),
        ({"sort": "queue"}, ["4", "1", "3", "2"]),
        ({"sort": "-since"}, ["3", "1", "2", "4"]),
        ({}, ["3", "4", "2", "1"]),
        ({"limit": 2}, ["3", "4"]),
        ({"limit": 2, "offset": 2}, ["2", "1"]),
    ],
)
def test_the_database_filters_sorts_and_pages(query: dict[str, Any], expected: list[str]) -> None:
    put(
        pod("1", since=NOW - 20),
        pod("2", "b", queue="gpu", task_id="load", since=NOW - 30),
        pod("3", phase="pending", reason="Unschedulable", since=NOW - 10),
        pod("4", "c%", since=NOW - 40),
    )
    assert listed(**query) == expected
    filters = {name: query[name] for name in query if name not in ("limit", "offset", "sort")}
    assert page(**query)["pods"]["total"] == len(listed(**filters))


def test_nothing_of_a_dag_that_the_reader_may_not_read_is_counted(session: Session) -> None:
    put(pod("1"), pod("2", "b", queue="gpu", phase="waiting", reason="QuotaExceeded"))
    write_past(session, past("1", "b", reason="OOMKilled", outcome="failed"))
    shown = page({"a"})
    assert (shown["total"], [row["value"] for row in shown["by"]["queue"]]) == (1, ["default"])
    assert (shown["waits"], shown["failures"], shown["fits"]) == ([], [], [])
    assert listed({"a"}) == ["1"]
    assert listed({"a"}, queue="gpu") == []
    assert listed(set()) == []
    assert read_summary({"a"})["failed"] == 0


def test_a_snapshot_older_than_ten_seconds_is_stale(session: Session) -> None:
    put(pod("1"))
    assert page()["stale"] == ""
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=42)
    session.execute(update(fleet_rows.EXECUTORS).values(seen_at=past))
    session.commit()
    assert page()["stale"].startswith("Stale: no scheduler has reported for 4")
    DatabaseSnapshot("8").apply(SnapshotChanges([], []), {})
    assert page()["stale"] == "Partly stale: 1 of 2 schedulers have stopped reporting."


def test_back_pressure_and_the_watchs_health_are_shown() -> None:
    put(watch_silence=170.4, creation_pace=8.0, tasks_held_back=3.0)
    (executor,) = page()["executors"]
    assert (executor["watch_ok"], executor["creation_pace"], executor["held_back"]) == (False, 8.0, 3)


def test_waiting_warm_pods_are_counted_by_pool_for_every_reader() -> None:
    assert page(set())["warm"] is None
    put(**{"warm_pods:default": 4.0, "warm_pods:gpu": 0.0, "warm_pods_starting": 2.0})
    pools = [{"pool": "default", "pods": 4}, {"pool": "gpu", "pods": 0}]
    assert page(set())["warm"] == {"ready": 4, "starting": 2, "pools": pools}


def past(unique: str, dag_id: str = "a", peak: int = 100, **fields: Any) -> dict[str, Any]:
    texts = dict.fromkeys(("ti_id", "run_id", "cluster", "namespace", "name", "node", "queue", "reason"), "")
    memory = {"requests": {"memory": "2Gi"}, "limits": {"memory": "2Gi"}, "peak_memory": peak * 1024**2}
    row = {"pod": unique, "dag_id": dag_id, "task_id": "task", "map_index": -1, "try_number": 1, "launch": 0}
    ended = datetime.datetime.now(datetime.UTC)
    return (
        texts | row | {"outcome": "success", "exit_code": 0, "ended_at": ended, "detail": json.dumps(memory)} | fields
    )


def write_past(session: Session, *rows: dict[str, Any]) -> None:
    session.execute(insert(PODS), list(rows))
    session.commit()


def test_failures_of_a_day_are_counted_by_reason(session: Session) -> None:
    old = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=25)
    write_past(
        session,
        past("1", outcome="failed", reason="OOMKilled"),
        past("2", "b", outcome="failed", reason="OOMKilled"),
        past("3", outcome="lost", reason=""),
        past("4", outcome="failed", reason="OOMKilled", ended_at=old),
        past("5"),
    )
    failures = [(failure["reason"], failure["pods"], failure["dags"]) for failure in page()["failures"]]
    assert failures == [("OOMKilled", 2, 2), ("lost", 1, 1)]
    assert read_summary(ALL)["failed"] == 3


def test_tasks_whose_memory_fits_worst_are_listed(session: Session) -> None:
    write_past(session, past("1", "a", 1980), past("2", "b", 100), past("3", "c%", 1800))
    fits = [(fit["dag_id"], fit["tight"]) for fit in page()["fits"]]
    assert fits == [("a", True), ("b", False)]


def test_a_day_of_records_is_read_once_for_many_readers(session: Session) -> None:
    write_past(session, past("1", outcome="failed", reason="Error"))
    assert len(page()["failures"]) == 1
    session.execute(PODS.delete())
    session.commit()
    assert len(page()["failures"]) == 1


def test_before_any_scheduler_has_made_the_tables_the_page_is_empty(session: Session) -> None:
    assert page()["total"] == 0
    assert page()["stale"] == ""
