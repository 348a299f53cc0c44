"""The executors' table of ``make bench``, with its goals.

    python -m benchmarks.speed [--tasks 1000 10000] [--in-flight 5000] [--database postgresql|sqlite]
        [--default-limit S] [--output text|markdown|json]

For each size: stock tuned, then ours, ours without rows of pods, and the bare loop three times in turn, each in a
process of its own against a fresh cluster; of the three the one of median speed counts, with the worst heartbeat of
all. The smallest size is also run with stock's defaults, ours in a loop that sleeps for a second, and ours while it
archives the tasks' logs, as it does without remote logging (the others need not). Then, for ours alone: the cost of 100
tasks at once, the memory of 5,000 pods in flight, and the time until a slot is free again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.chaos.scenario import Row
from benchmarks.executors import (
    OURS_AWAKE,
    OURS_KEEPING,
    OURS_NAPPING,
    OURS_WITHOUT_ROWS,
    STOCK_DEFAULT,
    STOCK_TUNED,
    Contestant,
    ExecutorBench,
    ExecutorResult,
)
from benchmarks.tables import ResultTable, machine, show

from benchmarks import executors, goals

__all__ = ["Comparison", "add_options", "compare", "main"]

_FEW = 100
_TRICKLE = 300
_TURNS = 3
_LIMIT_S = 240.0
"""The time limit of a contestant. Stock tuned reaches it, and its figures are those of the tasks done by then."""


@dataclass
class Comparison:
    """All results of a comparison."""

    tables: list[ResultTable] = field(default_factory=list)
    results: list[ExecutorResult] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether every goal was reached."""
        return all(row.held for row in self.rows)


async def compare(options: argparse.Namespace) -> Comparison:
    """Measure everything."""
    comparison, sizes = Comparison(), []
    with tempfile.TemporaryDirectory(prefix="crosswind-bench-") as folder:
        async with executors.prepared(options.database, Path(folder)) as place:
            for tasks in sorted(options.tasks):
                results, size = await _size(place, tasks, None if sizes else options.default_limit)
                sizes.append(size)
                comparison.results += results
                comparison.tables.append(executors.table(results, options.database))
            extras = await _extras(place, options.in_flight, min(_FEW, *options.tasks))
    comparison.results += [extras.rounds, extras.flight, extras.trickle]
    comparison.rows = goals.rows(sizes, extras)
    comparison.tables.append(goals.table(comparison.rows))
    return comparison


async def _size(
    place: ExecutorBench, tasks: int, default_limit: float | None
) -> tuple[list[ExecutorResult], goals.SizeResults]:
    """Measure one size; ``default_limit``: seconds for stock with its defaults, None leaves out the slow ones."""

    async def run(contestant: Contestant | None, limit: float = _LIMIT_S) -> ExecutorResult:
        result = await place.run(contestant, tasks, limit)
        progress = f"{result.label}: {result.lives:,} of {tasks:,} in {result.measured['seconds']:.1f} s"
        print(progress, file=sys.stderr, flush=True)
        return result

    others = []
    if default_limit is not None:
        others = [await run(STOCK_DEFAULT, default_limit), await run(OURS_NAPPING), await run(OURS_KEEPING)]
    stock = await run(STOCK_TUNED)
    turns = [(await run(OURS_AWAKE), await run(OURS_WITHOUT_ROWS), await run(None)) for _ in range(_TURNS)]
    ours, without_rows, bare = (goals.typical(runs) for runs in zip(*turns, strict=True))
    size = goals.SizeResults(stock, ours, without_rows, bare)
    return [*others, size.stock, size.ours, size.without_rows, size.bare], size


async def _extras(place: ExecutorBench, in_flight: int, few: int) -> goals.Extras:
    forever = {"simulated_run": None, "simulated_start": 0.0}
    return goals.Extras(
        rounds=await place.run(OURS_AWAKE, few, _LIMIT_S, "rounds"),
        flight=await place.run(OURS_AWAKE, in_flight, _LIMIT_S, "flight", **forever),
        trickle=await place.run(OURS_AWAKE, min(_TRICKLE, in_flight), _LIMIT_S, "trickle"),
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the extent of the measurement and its output."""
    parser.add_argument("--tasks", type=int, nargs="+", default=[1000, 10_000], help="task instances queued at once")
    parser.add_argument("--in-flight", type=int, default=5000, help="pods whose memory is measured")
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--default-limit", type=float, default=60, help="seconds for stock with its defaults")
    parser.add_argument("--output", choices=["text", "markdown", "json"], default="text")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed")
    add_options(parser)
    options = parser.parse_args(arguments)
    comparison = asyncio.run(compare(options))
    if options.output == "json":
        print(json.dumps(as_json(comparison)))
    else:
        show(comparison.tables, options.output)
    return 0 if comparison.held else 1


def as_json(comparison: Comparison) -> dict[str, object]:
    """Return all results for programs."""
    results = [{key: value for key, value in asdict(result).items() if key != "slots"} for result in comparison.results]
    return {
        "machine": machine(),
        "held": comparison.held,
        "results": results,
        "goals": [asdict(row) for row in comparison.rows],
    }


if __name__ == "__main__":
    sys.exit(main())
