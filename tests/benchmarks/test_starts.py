"""The benchmark of starts in its short form, and its goals."""

from __future__ import annotations

import asyncio

import pytest
from benchmarks.starts import Starts
from benchmarks.waiting_workers import Waited
from tests.databases import skip_without_postgresql

from benchmarks import starts, waiting_workers

WAITED = Waited(resident=125.0, private=101.0, threads=1, idle_share=0.002, cpu=0.07, wall=0.1, succeeded=True)


def ways(**changed: Starts) -> list[Starts]:
    named = {
        "warm": Starts("ours, warm", [0.4] * 40, [0.6] * 9, 6.0, hits=40),
        "cold": Starts("ours, cold", [3.0] * 40),
        "napping": Starts("napping", [0.9] * 20, hits=20),
        "stock": Starts("stock", [6.0] * 40),
    } | changed
    return list(named.values())


def missed(results: list[Starts], waited: Waited = WAITED) -> list[str]:
    return [row.figure for row in starts.rows(results, [waited], 40) if not row.held]


def test_figures_that_reach_their_goals_are_held() -> None:
    assert missed(ways()) == []


@pytest.mark.parametrize(
    ("changed", "figure"),
    [
        ({"warm": Starts("w", [0.6] * 40, [0.6], 6.0, hits=40)}, "warm, median"),
        ({"warm": Starts("w", [0.4] * 39 + [1.2], [0.6], 6.0, hits=40)}, "warm, 99th"),
        ({"warm": Starts("w", [0.4] * 40, [0.6], 6.0, hits=30)}, "got a waiting pod"),
        ({"warm": Starts("w", [0.4] * 40, [1.1] * 9, 6.0, hits=40)}, "next task running"),
        ({"warm": Starts("w", [0.4] * 40, [0.6], 11.0, hits=40)}, "own time"),
        ({"warm": Starts("w", [0.4] * 40, hits=40)}, "own time"),
        ({"cold": Starts("c", [4.0] * 40)}, "stock's median"),
        ({"stock": Starts("s", [6.0] * 40, failed=1)}, "not succeed"),
    ],
)
def test_each_goal_can_be_missed(changed: dict[str, Starts], figure: str) -> None:
    assert any(figure in name for name in missed(ways(**changed)))


def test_a_waiting_pod_that_takes_too_much_misses_its_goals() -> None:
    greedy = Waited(resident=140.0, private=101.0, threads=2, idle_share=0.02, cpu=0.2, wall=0.1, succeeded=False)
    assert len(missed(ways(), greedy)) == 5


@pytest.mark.timeout(900)
def test_tasks_start_in_waiting_pods_and_in_cold_ones() -> None:
    skip_without_postgresql()
    warm, cold = asyncio.run(starts.measure_ours(1))
    assert (warm.failed, cold.failed) == (0, 0)
    assert (len(warm.waits), len(cold.waits)) == (1, 1)
    assert warm.hits == 1
    assert len(warm.hops) == 9


@pytest.mark.timeout(300)
def test_a_worker_that_waits_is_measured() -> None:
    (waited,) = waiting_workers.measure(1)
    assert waited.succeeded
    assert waited.threads == 1
    assert waited.resident > waited.private > 0
    assert waited.cpu > 0
