"""The archive of logs on real databases, and as MySQL would be asked."""

from __future__ import annotations

import datetime
import uuid

import pytest
from sqlalchemy import Engine, create_engine, inspect, update
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateTable
from tests.databases import read_only, use_as_airflows

from crosswind.engine.log_archiver import LogStoreForbidden, LogStoreUnavailable, PodLog
from crosswind.pods.kept_logs import KeptLog, lines_of
from crosswind.provider import tables
from crosswind.provider.log_store import DatabaseLogStore, read_logs
from crosswind.provider.tables import METADATA, WriteForbidden, make_tables

_LOGS = METADATA.tables["crosswind_pod_log"]


@pytest.fixture
def engine(without_our_tables: Engine) -> Engine:
    return without_our_tables


def pod_log(ti_id: str, words: str, pod: str = "") -> PodLog:
    kept = KeptLog(1000_000)
    kept.feed(words.encode())
    return PodLog(pod or str(uuid.uuid4()), ti_id, "tasks/dag-task-x", kept.size, kept.content())


def shown(ti_id: str) -> list[list[str]]:
    return [[*lines_of(pod_log.content)] for pod_log in read_logs(ti_id)]


def test_tables_are_made_when_they_are_missing_and_left_alone_when_they_are_there(engine: Engine) -> None:
    make_tables()
    assert "crosswind_pod_log" in inspect(engine).get_table_names()
    tables._known_tables.clear()
    make_tables()


def test_a_missing_right_to_create_tables_is_reported(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with read_only(engine) as may_read:
        use_as_airflows(may_read, monkeypatch)
        with pytest.raises(WriteForbidden, match=r"permission denied|readonly|command denied"):
            make_tables()
        with pytest.raises(LogStoreForbidden, match="right to create tables"):
            DatabaseLogStore().store([pod_log("ti", "words")])


def test_a_missing_right_to_write_an_existing_table_is_reported(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tables()
    with read_only(engine) as may_read:
        use_as_airflows(may_read, monkeypatch)
        with pytest.raises(LogStoreForbidden, match="crosswind_pod_log cannot be written"):
            DatabaseLogStore().store([pod_log("ti", "words"), pod_log("ti", "more")])


def test_an_archive_says_when_the_database_does_not_answer(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    away = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/nothing", connect_args={"connect_timeout": 2})
    use_as_airflows(away, monkeypatch)
    with pytest.raises(LogStoreUnavailable):
        DatabaseLogStore().store([pod_log("ti", "words")])
    away.dispose()


def test_logs_that_are_refused_are_not_taken_for_a_database_that_is_away(engine: Engine) -> None:
    refused = {"postgresql": "a\0b", "mysql": "x" * 50}.get(engine.dialect.name, object())
    ti_id = str(uuid.uuid4())
    with pytest.raises(Exception, match=r"NUL|not supported|binding|too long") as raised:
        DatabaseLogStore().store([pod_log(ti_id, "good", "good"), pod_log(refused, "bad", "bad")])  # type: ignore[arg-type]
    assert not isinstance(raised.value, LogStoreUnavailable | LogStoreForbidden | OSError)
    assert shown(ti_id) == []


def test_each_pod_of_a_task_instance_is_read_in_the_order_of_its_end(engine: Engine) -> None:
    mine, other = str(uuid.uuid4()), str(uuid.uuid4())
    archive = DatabaseLogStore()
    archive.store([pod_log(mine, "first\nof me\n"), pod_log(other, "not mine\n")])
    archive.store([pod_log(mine, "second\n")])
    assert shown(mine) == [["first", "of me"], ["second"]]
    assert read_logs(uuid.UUID(mine))[0].name == "tasks/dag-task-x"
    assert shown(str(uuid.uuid4())) == []


def test_a_pod_that_is_stored_again_is_there_once(engine: Engine) -> None:
    ti_id, archive = str(uuid.uuid4()), DatabaseLogStore()
    archive.store([pod_log(ti_id, "half\n", "a"), pod_log(ti_id, "whole\n", "a")])
    assert shown(ti_id) == [["whole"]]
    archive.store([pod_log(ti_id, "again\n", "a")])
    assert shown(ti_id) == [["again"]]


def test_large_logs_come_back_as_they_were(engine: Engine) -> None:
    ti_id, words = str(uuid.uuid4()), "".join(f"{uuid.uuid4()}\n" for _ in range(20_000))
    DatabaseLogStore().store([pod_log(ti_id, words)])
    assert shown(ti_id) == [words.split()]


def test_old_logs_are_removed_however_many(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crosswind.provider.log_store._DELETE_BATCH_SIZE", 3)
    ti_id, archive = str(uuid.uuid4()), DatabaseLogStore()
    archive.store([pod_log(ti_id, f"{number}\n", f"old-{number}") for number in range(7)])
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=31)
    with engine.begin() as connection:
        connection.execute(update(_LOGS).values(stored_at=past))
    archive.store([pod_log(ti_id, "new\n")])
    archive.delete_older_than(30)
    assert shown(ti_id) == [["new"]]


def test_mysql_gets_columns_that_hold_any_log() -> None:
    statement = str(CreateTable(_LOGS).compile(dialect=mysql.dialect()))
    assert "content LONGBLOB NOT NULL" in statement
    assert "stored_at TIMESTAMP(6) NOT NULL" in statement
