"""The goals of ``make bench``, and whether the figures reach them. Values only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.chaos.scenario import Row, at_least, at_most, exactly
from benchmarks.executors import ExecutorResult
from benchmarks.metering import quantile
from benchmarks.tables import ResultTable

__all__ = ["Extras", "SizeResults", "rows", "table", "typical"]

STOCK_FACTOR = 5.0
BARE_SHARE = 0.9
CPU_FACTOR = 6.0
LONGEST_HEARTBEAT_MS, P99_HEARTBEAT_MS = 50.0, 10.0
COST_GROWTH = 1.2
KB_PER_POD = 10.0
SLOT_MS = 100.0
QUERIES_PER_TASK = 0.2
REQUESTS_PER_TASK = 2.1
ANSWER_KB_PER_TASK = 4.0
ROWS_CPU_MS, ROWS_QUERIES = 0.1, 0.05


@dataclass(frozen=True)
class SizeResults:
    """The contestants of one number of tasks, all queued at once, with no nap in the loop."""

    stock: ExecutorResult
    ours: ExecutorResult
    without_rows: ExecutorResult
    """Ours without the row of each pod and the snapshot of those in flight."""
    bare: ExecutorResult


@dataclass(frozen=True)
class Extras:
    """The measurements of ours alone.

    ``rounds``: rounds of 100 tasks at once. ``flight``: pods that do not end. ``trickle``: some tasks a second.
    """

    rounds: ExecutorResult
    flight: ExecutorResult
    trickle: ExecutorResult


_NEVER = ("heartbeat_longest", "heartbeat_p99", "queries", "queries_in_loop", "processes", "failed")
"""Figures of which the worst of several runs counts."""


def typical(runs: Sequence[ExecutorResult]) -> ExecutorResult:
    """Return the run of median speed, with the worst figures of all runs where a single failure matters."""
    middle = sorted(runs, key=lambda run: run.lives_per_second)[len(runs) // 2]
    worst = {name: max(run.measured[name] for run in runs) for name in _NEVER if name in middle.measured}
    done = {"done": min(run.measured["done"] for run in runs)} if "done" in middle.measured else {}
    return replace(middle, measured=middle.measured | worst | done, pods_left=max(run.pods_left for run in runs))


def rows(sizes: Sequence[SizeResults], extras: Extras) -> list[Row]:
    """Return every figure that has a goal."""
    return [row for size in sizes for row in _of_size(size)] + [
        *_of_rows(sizes[-1]),
        *_of_extras(sizes[-1].ours, extras),
    ]


def _of_size(size: SizeResults) -> Iterator[Row]:
    ours, n = size.ours, f"{size.ours.tasks:,} tasks"
    m = ours.measured
    yield at_least(f"{n}: lives/s, times those of stock tuned", _ratio(ours, size.stock), STOCK_FACTOR)
    yield at_least(f"{n}: lives/s, share of those of the bare loop", _ratio(ours, size.bare), BARE_SHARE)
    yield at_least(f"{n}: CPU per task of stock tuned, times ours", _cpu(size.stock) / _cpu(ours), CPU_FACTOR)
    yield at_most(f"{n}: longest heartbeat, ms", m["heartbeat_longest"] * 1000, LONGEST_HEARTBEAT_MS)
    yield at_most(f"{n}: heartbeat, 99th percentile, ms", m["heartbeat_p99"] * 1000, P99_HEARTBEAT_MS)
    yield at_most(f"{n}: database queries per task", m["queries"] / ours.tasks, QUERIES_PER_TASK)
    yield at_most(f"{n}: requests to the API server per task", ours.calls / ours.tasks, REQUESTS_PER_TASK)
    yield at_most(f"{n}: kB of answers per task, without watches", ours.kb_per_task, ANSWER_KB_PER_TASK)
    yield exactly(f"{n}: database queries from the scheduler's thread", m["queries_in_loop"])
    yield exactly(f"{n}: child processes", m["processes"] - 1)
    yield exactly(f"{n}: tasks not done, reported as failed, pods left", _wrong(ours))


def _of_rows(size: SizeResults) -> Iterator[Row]:
    """Return what the rows of pods cost; of the largest size alone, where the cost of a start counts least."""
    ours, without, n = size.ours, size.without_rows, f"{size.ours.tasks:,} tasks"
    queries = (ours.measured["queries"] - without.measured["queries"]) / ours.tasks
    yield at_most(f"{n}: CPU per task of the rows of pods, ms", (_cpu(ours) - _cpu(without)) * 1000, ROWS_CPU_MS)
    yield at_most(f"{n}: database queries per task for the rows of pods", queries, ROWS_QUERIES)


def _ratio(ours: ExecutorResult, other: ExecutorResult) -> float:
    return round(ours.lives_per_second / max(other.lives_per_second, 1e-9), 2)


def _cpu(result: ExecutorResult) -> float:
    return max(result.cpu_per_task, 1e-9)


def _wrong(result: ExecutorResult) -> float:
    m = result.measured
    return m["tasks"] - m["done"] + m["failed"] + result.pods_left


def _of_extras(largest: ExecutorResult, extras: Extras) -> Iterator[Row]:
    rounds, flight = extras.rounds.measured, extras.flight.measured
    counted = rounds["tasks"] - extras.rounds.tasks  # the first round warms up
    growth = (largest.measured["cpu_at_work"] / largest.tasks) / (rounds["cpu_at_work"] / counted)
    few, many = f"{extras.rounds.tasks:,}", f"{largest.tasks:,}"
    yield at_most(f"CPU per task with {many} at once, times that with {few}", growth, COST_GROWTH)
    first, held = extras.flight.tasks // 10, extras.flight.tasks
    kb = (flight["memory_held"] - flight["memory_before"]) * 2**20 / 1000 / (held - first)
    yield at_most(f"memory per pod in flight, growth of USS from {first:,} to {held:,} held, kB", kb, KB_PER_POD)
    slot = quantile(extras.trickle.slots, 0.99) * 1000
    yield at_most("base ended to free slot, beyond the watch event, 99th percentile, ms", slot, SLOT_MS)
    yield at_least("pods of which that was measured", len(extras.trickle.slots), extras.trickle.tasks)


def table(rows_with_goals: Sequence[Row]) -> ResultTable:
    """Return the goals beside the figures."""
    result = ResultTable("Goals", ("figure", "value", "goal", "held"))
    for row in rows_with_goals:
        value = row.value if isinstance(row.value, str) else f"{row.value:,.4g}"
        result.rows.append((row.figure, value, row.goal, "yes" if row.held else "MISSED"))
    return result
