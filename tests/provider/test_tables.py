"""Our tables in databases that refuse: one that is missing, a server that takes no writes, a disk that is full."""

from __future__ import annotations

import contextlib
import datetime
import random
import sqlite3
from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy import Engine, create_engine, event, insert, text
from sqlalchemy.orm import Session
from tests.databases import read_only, use_as_airflows

from crosswind.engine.log_archiver import LogStoreUnavailable, PodLog
from crosswind.provider.log_store import DatabaseLogStore, read_logs
from crosswind.provider.lost_tries import LOSSES
from crosswind.provider.tables import METADATA, DatabaseUnavailable, WriteForbidden, make_tables, write_rows

LOGS = METADATA.tables["crosswind_pod_log"]
LOG = PodLog("pod", "ti", "tasks/pod", 100_000, random.Random(1).randbytes(100_000))
"""Too large for the free space in pages of SQLite that are in use."""


@pytest.fixture
def engine(without_our_tables: Engine) -> Engine:
    """A database with our tables, all empty, which no process has seen yet."""
    METADATA.create_all(without_our_tables)
    return without_our_tables


@contextlib.contextmanager
def without_writes(engine: Engine) -> Iterator[Engine]:
    """The database while it takes no writes: on a replica that is not promoted yet, or with a full disk (SQLite)."""
    server_is_read_only = engine.dialect.name == "mysql"
    if server_is_read_only:
        for statement in (
            "create or replace user writer@localhost",
            "grant all on airflow.* to writer@localhost",
            "set global read_only = 1",
        ):
            with engine.begin() as connection:
                connection.execute(text(statement))
        refusing = create_engine(engine.url.set(username="writer"))
    elif engine.dialect.name == "postgresql":
        refusing = create_engine(engine.url, connect_args={"options": "-c default_transaction_read_only=on"})
    else:
        with engine.connect() as connection:  # leaves no free pages
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("vacuum"))
        refusing = create_engine(engine.url)

        @event.listens_for(refusing, "connect")
        def fill(connection: sqlite3.Connection, _: object) -> None:
            connection.execute("pragma max_page_count = 1").close()  # as many as there are

    try:
        yield refusing
    finally:
        refusing.dispose()
        if server_is_read_only:
            with engine.begin() as connection:
                connection.execute(text("set global read_only = 0"))


def test_a_table_that_exists_is_used_although_another_is_missing_and_cannot_be_created(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    LOSSES.drop(engine)
    with read_only(engine) as reader:
        use_as_airflows(reader, monkeypatch)
        make_tables(LOGS)
        for needed in ((LOSSES,), (LOGS, LOSSES), ()):
            with pytest.raises(WriteForbidden, match=r"crosswind_loss cannot be created: .*right to create tables"):
                make_tables(*needed)


def test_tables_are_created_once_the_database_takes_writes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    METADATA.drop_all(engine)
    with without_writes(engine) as refusing:
        use_as_airflows(refusing, monkeypatch)
        with pytest.raises(DatabaseUnavailable):
            make_tables(LOGS)
    use_as_airflows(engine, monkeypatch)
    make_tables(LOGS)


def test_logs_wait_while_the_database_takes_no_writes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with without_writes(engine) as refusing:
        use_as_airflows(refusing, monkeypatch)
        with pytest.raises(LogStoreUnavailable):
            DatabaseLogStore().store([LOG])
    use_as_airflows(engine, monkeypatch)
    DatabaseLogStore().store([LOG])
    assert [log.content for log in read_logs("ti")] == [LOG.content]


@pytest.mark.parametrize("count", [1, 3])
def test_rows_wait_while_the_database_takes_no_writes(
    engine: Engine, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, refused = list(range(count)), []

    def write(session: Session, batch: Sequence[int]) -> None:
        row = {"ti_id": "ti", "name": "", "stored_at": datetime.datetime.now(datetime.UTC), "size": 1}
        session.execute(insert(LOGS), [{**row, "pod": str(number), "content": LOG.content} for number in batch])

    with without_writes(engine) as refusing:
        use_as_airflows(refusing, monkeypatch)
        with pytest.raises(DatabaseUnavailable):
            write_rows(rows, write, lambda row, error: refused.append(row))
    assert (rows, refused) == (list(range(count)), [])
    use_as_airflows(engine, monkeypatch)
    write_rows(rows, write, lambda row, error: refused.append(row))
    assert (rows, refused) == ([], [])
    assert len(read_logs("ti")) == count
