"""Task events on real databases."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import pytest
from airflow.models.base import Base
from airflow.models.log import Log
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.db import import_all_models
from sqlalchemy import Engine, create_engine, delete, event, select
from sqlalchemy.orm import Session
from tests.databases import DATABASES_AND_MARIADB, use_as_airflows

from crosswind.provider.event_log import EventLog
from deadlines import scaled

KEY = TaskInstanceKey("dag", "task", "run", 2, 3)


@pytest.fixture(scope="module", params=DATABASES_AND_MARIADB)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    import_all_models()
    with request.param(tmp_path_factory.mktemp("database")) as engine:
        Base.metadata.create_all(engine)
        yield engine
        engine.dispose()


@pytest.fixture
def session(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    maker = use_as_airflows(engine, monkeypatch)
    with maker() as session:
        yield session
        session.rollback()
        session.execute(delete(Log))
        session.commit()


def rows(session: Session) -> list[tuple[str, str | None]]:
    return [(row[0], row[1]) for row in session.execute(select(Log.event, Log.extra).order_by(Log.id))]


def test_an_event_is_a_row_with_the_parts_of_its_key_and_its_own_time(session: Session) -> None:
    events = EventLog()
    events.put("pod waits", "no node", KEY)
    events.close(20)
    columns = (Log.event, Log.extra, Log.dag_id, Log.task_id, Log.run_id, Log.try_number, Log.map_index)
    (row,) = session.execute(select(*columns, Log.dttm)).all()
    assert tuple(row[:7]) == ("pod waits", "no node", "dag", "task", "run", 2, 3)
    assert abs(row.dttm.timestamp() - time.time()) < 60


def test_texts_are_made_such_that_the_columns_take_them(session: Session) -> None:
    events = EventLog()
    events.put("e\0" * 100, "x\0\udcff" * 40_000, KEY)
    events.close(20)
    ((event_, extra),) = rows(session)
    assert len(event_) <= 60
    assert len((extra or "").encode()) <= 65_535


def test_of_many_events_only_the_one_that_is_refused_is_left_out(
    session: Session, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(mapper: object, connection: object, row: Log) -> None:
        if row.extra == "bad":
            raise ValueError("no such text")

    event.listen(Log, "before_insert", refuse)
    try:
        events = EventLog()
        for extra in ("1", "bad", "2", "3"):
            events.put("pod failed", extra, KEY)
        events.close(20)
    finally:
        event.remove(Log, "before_insert", refuse)
    assert [extra for _, extra in rows(session)] == ["1", "2", "3"]
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "no such text" in message
    assert "'pod failed'" in message


def test_a_database_that_is_away_is_tried_again_and_each_row_written_once(
    session: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("crosswind.provider.row_writer._RETRY_S", 0.05)
    away = create_engine("sqlite:////nowhere/at/all.db")
    use_as_airflows(away, monkeypatch)
    events = EventLog()
    for number in range(3):
        events.put("pod waits", str(number), KEY)
    until(lambda: "wait for the metadata database" in caplog.text)
    assert len(events) == 3
    use_as_airflows(engine, monkeypatch)
    until(lambda: not len(events))
    events.close(20)
    assert [extra for _, extra in rows(session)] == ["0", "1", "2"]
    away.dispose()


def test_rows_that_waited_for_the_database_are_written_when_the_log_is_closed(
    session: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("crosswind.provider.row_writer._RETRY_S", 600)
    away = create_engine("sqlite:////nowhere/at/all.db")
    use_as_airflows(away, monkeypatch)
    events = EventLog()
    events.put("pod failed", "why", KEY)
    until(lambda: "wait for the metadata database" in caplog.text)
    use_as_airflows(engine, monkeypatch)
    events.close(60)
    assert [extra for _, extra in rows(session)] == ["why"]
    away.dispose()


def test_a_queue_that_is_full_drops_the_newest_and_says_so(
    session: Session, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    away = create_engine("sqlite:////nowhere/at/all.db")
    use_as_airflows(away, monkeypatch)
    events = EventLog(max_waiting=2)
    events.put("pod waits", "0", KEY)
    until(lambda: "wait for the metadata database" in caplog.text)
    for number in range(1, 5):
        events.put("pod waits", str(number), KEY)
    use_as_airflows(engine, monkeypatch)
    events.close(60)
    assert [extra for _, extra in rows(session)] == ["0", "1"]
    assert "3 task events were dropped" in caplog.text
    away.dispose()


def until(happened: Callable[[], bool], timeout: float = 20.0) -> None:
    end = time.monotonic() + scaled(timeout)
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_closing_without_an_event_waits_for_nothing() -> None:
    began = time.monotonic()
    EventLog().close(600)
    assert time.monotonic() - began < scaled(5)
