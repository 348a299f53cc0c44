from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy
from airflow import settings
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from benchmarks.contestant import Queries
from benchmarks.executors import COLUMNS, OURS_AWAKE, TEMPLATE, ExecutorBench, table


@pytest.fixture
def place(tmp_path: Path) -> ExecutorBench:
    initdb()
    assert settings.engine is not None
    assert settings.engine.url.database
    with (
        closing(sqlite3.connect(settings.engine.url.database)) as own,
        closing(sqlite3.connect(tmp_path / "airflow.db")) as copy,
    ):
        own.backup(copy)
    (tmp_path / "template.yaml").write_text(TEMPLATE)
    return ExecutorBench(tmp_path, f"sqlite:///{tmp_path}/airflow.db")


@pytest.mark.timeout(90)  # three processes, one of which imports Airflow
async def test_ours_and_the_bare_loop_carry_all_pods_through_their_lives(place: ExecutorBench) -> None:
    ours = await place.run(OURS_AWAKE, 6, 60, simulated_start=0.0, simulated_run=0.5)
    bare = await place.run(None, 6, 60, simulated_start=0.0, simulated_run=0.1)
    assert (ours.lives, ours.pods_left, ours.measured["done"], ours.measured["failed"]) == (6, 0, 6, 0)
    assert (bare.lives, bare.pods_left) == (6, 0)
    assert len(ours.slots) == 6
    assert ours.measured["queries_in_loop"] == 0
    rows = table([ours, bare], "sqlite").rows
    assert [len(row) for row in rows] == [len(COLUMNS)] * 2


def test_queries_are_counted_by_the_thread_that_sends_them() -> None:
    def ask() -> None:
        with create_session() as session:
            session.execute(sqlalchemy.text("SELECT 1"))

    queries, beside = Queries(), threading.Thread(target=ask)
    queries.listen()
    ask()
    beside.start()
    beside.join()
    assert (queries.all, queries.in_loop) == (2, 1)
