from __future__ import annotations

from typing import Any

import pytest
from benchmarks.executors import Result
from benchmarks.goals import Extras, Size, rows, table, typical

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


def result(count: int = 1000, span: float = 2.0, slots: list[float] | None = None, **measured: float) -> Result:
    return Result("x", count, {**GOOD, **measured}, count, span, 2000, 1.0, 0, slots or [])


def found(span: float = 2.0, **measured: float) -> list[Any]:
    size = Size(stock=result(span=12.0, cpu=9.0), ours=result(span=span, **measured), bare=result(span=1.8))
    extras = Extras(
        rounds=result(100, tasks=1100.0, cpu_at_work=0.9),
        flight=result(),
        trickle=result(20, slots=[0.01] * 20),
    )
    return rows([size], extras)


def test_good_figures_hold_every_goal() -> None:
    assert [row.figure for row in found() if not row.held] == []
    assert len(found()) == 13


def test_of_several_runs_the_middle_one_counts_and_the_worst_of_what_may_never_go_wrong() -> None:
    slow, middle, fast = (
        result(span=3.0, done=999.0),
        result(span=2.0, cpu=1.5),
        result(span=1.0, heartbeat_longest=0.2),
    )
    counted = typical([fast, slow, middle])
    assert (counted.span, counted.measured["cpu"]) == (2.0, 1.5)
    assert (counted.measured["heartbeat_longest"], counted.measured["done"]) == (0.2, 999.0)
    bare = Result("bare", 10, {"cpu": 1.0}, 10, 1.0, 20, 1.0, 0)
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
        ({"processes": 2.0}, "1,000 tasks: child processes"),
        ({"done": 999.0}, "1,000 tasks: tasks not done, said to have failed, pods left"),
        ({"failed": 1.0}, "1,000 tasks: tasks not done, said to have failed, pods left"),
        ({"cpu_at_work": 1.2}, "CPU per task with 1,000 at once, times that with 100"),
    ],
)
def test_a_goal_that_is_missed_is_said_to_be(measured: dict[str, float], figure: str) -> None:
    missed = [row.figure for row in found(**measured) if not row.held]
    assert figure in missed
    assert any(row[0] == figure and row[-1] == "MISSED" for row in table(found(**measured)).rows)


def test_the_share_of_the_bare_loop_and_what_is_measured_apart_have_goals() -> None:
    size = Size(stock=result(span=20.0, cpu=9.0), ours=result(span=2.4), bare=result(span=1.8))
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
