"""Faults of the metadata database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from airflow.models.taskinstance import TaskInstance
from benchmarks.chaos.api import every, pause, stepwise
from benchmarks.chaos.driving import ChaosDrive, drive
from benchmarks.chaos.scenario import Row, Scenario, ScenarioSize, at_least, exactly
from sqlalchemy import select, text

from crosswind.provider.tables import make_tables

__all__ = ["SCENARIOS", "away"]

_FAMILY = "database"


@contextlib.contextmanager
def _locked(tasks: ChaosDrive) -> Iterator[None]:
    """Lock the rows of all task instances whose workers die, as another scheduler would that processes them."""
    table = TaskInstance.__table__
    indexes = [row["map_index"] for row in tasks.tasks if tasks.dies(row["map_index"])]
    with tasks.database.engine.begin() as connection:
        rows = connection.execute(select(table.c.id).where(table.c.map_index.in_(indexes)).with_for_update())
        tasks.faults += len(rows.all())
        yield


def _rows_locked(size: ScenarioSize) -> list[Row]:
    """Lock the rows when the failures arrive, so that core skips them and drops their events; unlock them later."""
    with drive(size.of(200, 20), dies=lambda index: index % 2 == 1) as tasks:
        dying = len(tasks.tasks) // 2
        tasks.workers.busy = True
        tasks.queue()
        tasks.until(lambda: {*tasks.states().values()} == {"running"}, 60)
        with _locked(tasks):
            tasks.workers.busy = False
            tasks.until(lambda: sum(count >= 2 for count in tasks.emitted.values()) == dying, 60)
            again, early = sum(tasks.emitted.values()) - dying, len(tasks.mismatches())
        tasks.settle()
        rows = tasks.rows(faults=dying)
        return [*rows, at_least("failures reported again", again, dying), exactly("events taken while locked", early)]


def _connections_ended(size: ScenarioSize) -> list[Row]:
    with drive(size.of(400, 40), parallelism=size.of(64, 16)) as tasks:
        tasks.disturb = every(0.3, lambda: _end(tasks), size.of(20, 4))
        tasks.live()
        return tasks.rows(faults=size.of(20, 4))


def _end(tasks: ChaosDrive) -> None:
    tasks.faults += tasks.database.end_connections()


def _restarted(size: ScenarioSize) -> list[Row]:
    with drive(size.of(400, 40), parallelism=size.of(32, 16), seconds=size.of((0.5, 3.0), (0.1, 0.5))) as tasks:
        tasks.disturb = away(tasks, size.of(5.0, 1.0), size.of(3, 1))
        tasks.live()
        return [*tasks.rows(faults=size.of(3, 1)), at_least("times core had no database", tasks.refused, 1)]


def _archive_rows_refused(size: ScenarioSize) -> list[Row]:
    """Refuse the logs of a tenth of the tasks: only they are missing, and every pod is deleted as soon as usual.

    All workers die, so that each log has a line, the executor's report. Simulated workers print nothing.
    """
    with drive(size.of(200, 20), dies=lambda index: True) as tasks:
        refused = [str(row["id"]) for row in tasks.tasks[::10]]
        make_tables()
        with tasks.database.engine.begin() as connection:
            connection.execute(text(_REFUSING.format(ids=", ".join(f"'{task_id}'" for task_id in refused))))
        tasks.faults += len(refused)
        try:
            tasks.live()
            rows = tasks.rows(faults=len(refused))
            with tasks.database.engine.connect() as connection:
                kept = set(connection.execute(text("select ti_id from crosswind_pod_log")).scalars())
        finally:
            with tasks.database.engine.begin() as connection:
                connection.execute(text("drop trigger refusing on crosswind_pod_log; truncate crosswind_pod_log"))
        expected = {str(row["id"]) for row in tasks.tasks} - set(refused)
        return [
            *rows,
            exactly("logs kept that were refused", len(kept & set(refused))),
            exactly("logs lost", len(expected - kept)),
        ]


_REFUSING = """
create or replace function crosswind_refuse() returns trigger as $$
begin
  if new.ti_id in ({ids}) then raise exception 'refused, as a row that is too large is'; end if;
  return new;
end $$ language plpgsql;
create trigger refusing before insert on crosswind_pod_log for each row execute function crosswind_refuse()
"""


@stepwise
def away(tasks: ChaosDrive, seconds: float, times: int) -> Iterator[None]:
    """Stop the database for some seconds, several ``times``, with two seconds between."""
    for _ in range(times):
        yield from pause(0.5)
        tasks.database.stop()
        tasks.faults += 1
        yield from pause(seconds)
        tasks.database.start()
        yield from pause(1.5)


SCENARIOS = (
    Scenario(
        "rows-locked", _FAMILY, "The rows are locked when the failures come: core drops the events.", _rows_locked
    ),
    Scenario("archive-row-refused", _FAMILY, "The log archive refuses a tenth of the logs.", _archive_rows_refused),
    Scenario("connections-ended", _FAMILY, "The database ends all connections, again and again.", _connections_ended),
    Scenario(
        "database-restarted", _FAMILY, "The database is stopped, and started again some seconds later.", _restarted
    ),
)
