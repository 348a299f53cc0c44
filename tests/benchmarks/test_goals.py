from __future__ import annotations

from typing import Any

import pytest
from benchmarks.executors import ExecutorResult
from benchmarks.goals import Extras, SizeResults, rows, table, typical

GOOD = {
    "tasks": 1000.0,
    "done": 1000.0,
    "failed": 0.0,
    "heartbeats": 500.0,
    "heartbeat_longest": 0.03,
    "heartbeat_p99": 0.004,
    "cpu": 1.0,
    "cpu_at_work": 0.9,
    "queries": 40.0,
    "queries_in_loop": 0.0,
    "processes": 1.0,
    "memory_before": 100.0,
    "memory_held": 107.0,
}


def result(count: int = 1000, span: float = 2.0, slots: list[float] | None = None, **measured: float) -> ExecutorResult:
    return ExecutorResult("x", count, {**GOOD, **measured}, count, span, 2000, 2_000_000, 1.0, 0, slots or [])


def goal_rows(span: float = 2.0, **measured: float) -> list[Any]:
    size = SizeResults(
        stock=result(span=12.0, cpu=9.0),
        ours=result(span=span, **measured),
        without_rows=result(cpu=0.95, queries=20.0),
        bare=result(span=1.8),
    )
    extras = Extras(
        rounds=result(100, tasks=1100.0, cpu_at_work=0.9),
        flight=result(),
        trickle=result(20, slots=[0.01] * 20),
    )
    return rows([size], extras)


def test_good_figures_hold_every_goal() -> None:
    assert [row.figure for row in goal_rows() if not row.held] == []
    assert len(goal_rows()) == 17


def test_of_several_runs_the_median_counts_with_the_worst_of_the_figures_that_may_not_fail_once() -> None:
    slow, middle, fast = (
        result(span=3.0, done=999.0),
        result(span=2.0, cpu=1.5),
        result(span=1.0, heartbeat_longest=0.2),
    )
    counted = typical([fast, slow, middle])
    assert (counted.span, counted.measured["cpu"]) == (2.0, 1.5)
    assert (counted.measured["heartbeat_longest"], counted.measured["done"]) == (0.2, 999.0)
    bare = ExecutorResult("bare", 10, {"cpu": 1.0}, 10, 1.0, 20, 20_000, 1.0, 0)
    assert typical([bare]) == bare


@pytest.mark.parametrize(
    ("measured", "figure"),
    [
        ({"heartbeat_longest": 0.051}, "1,000 tasks: longest heartbeat, ms"),
        ({"heartbeat_p99": 0.011}, "1,000 tasks: heartbeat, 99th percentile, ms"),
        ({"cpu": 2.0}, "1,000 tasks: CPU per task of stock tuned, times ours"),
        ({"span": 2.5}, "1,000 tasks: lives/s, times those of stock tuned"),
        ({"queries": 201.0}, "1,000 tasks: database queries per task"),
        ({"queries_in_loop": 1.0}, "1,000 tasks: database queries from the scheduler's thread"),
        ({"cpu": 1.1}, "1,000 tasks: CPU per task of the rows of pods, ms"),
        ({"queries": 71.0}, "1,000 tasks: database queries per task for the rows of pods"),
        ({"processes": 2.0}, "1,000 tasks: child processes"),
        ({"done": 999.0}, "1,000 tasks: tasks not done, reported as failed, pods left"),
        ({"failed": 1.0}, "1,000 tasks: tasks not done, reported as failed, pods left"),
        ({"cpu_at_work": 1.2}, "CPU per task with 1,000 at once, times that with 100"),
    ],
)
def test_a_missed_goal_is_reported(measured: dict[str, float], figure: str) -> None:
    missed = [row.figure for row in goal_rows(**measured) if not row.held]
    assert figure in missed
    assert any(row[0] == figure and row[-1] == "MISSED" for row in table(goal_rows(**measured)).rows)


def test_the_share_of_the_bare_loop_and_the_extra_measurements_have_goals() -> None:
    size = SizeResults(
        stock=result(span=20.0, cpu=9.0), ours=result(span=2.4), without_rows=result(), bare=result(span=1.8)
    )
    extras = Extras(
        rounds=result(100, tasks=1100.0), flight=result(memory_held=120.0), trickle=result(20, slots=[0.2] * 19)
    )
    missed = [row.figure for row in rows([size], extras) if not row.held]
    assert missed == [
        "1,000 tasks: lives/s, share of those of the bare loop",
        "memory per pod in flight, growth of USS from 100 to 1,000 held, kB",
        "base ended to free slot, beyond the watch event, 99th percentile, ms",
        "pods of which that was measured",
    ]
