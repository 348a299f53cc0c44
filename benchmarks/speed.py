"""The executors' table of ``make bench``, with its goals.

    python -m benchmarks.speed [--tasks 1000 10000] [--in-flight 5000] [--database postgresql|sqlite]
        [--default-limit S] [--output text|markdown|json]

For each size: stock tuned, then ours and the bare loop three times in turn, each in a process of its own against a
fresh cluster; of the three the one of median speed counts, with the worst heartbeat of all. Of the smallest size also
stock with its defaults, ours in a loop that naps for a second, and ours while it keeps the tasks' logs, as it does
where nothing else keeps them (the others need not). Then, of ours alone, what 100 tasks at once cost, what 5,000 pods
in flight weigh, and how fast a slot is free again.
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
    STOCK_DEFAULT,
    STOCK_TUNED,
    Contestant,
    Place,
    Result,
)
from benchmarks.tables import Table, machine, show

from benchmarks import executors, goals

__all__ = ["Comparison", "add_options", "compare", "main"]

_FEW = 100
_TRICKLE = 300
_TURNS = 3
_LIMIT_S = 240.0
"""For one contestant: stock tuned is stopped then, and its figures are those of what it did."""


@dataclass
class Comparison:
    """All that was measured."""

    tables: list[Table] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether every goal was reached."""
        return all(row.held for row in self.rows)


async def compare(options: argparse.Namespace) -> Comparison:
    """Measure everything."""
    found, sizes = Comparison(), []
    with tempfile.TemporaryDirectory(prefix="crosswind-bench-") as folder:
        async with executors.prepared(options.database, Path(folder)) as place:
            for tasks in sorted(options.tasks):
                results, size = await _size(place, tasks, None if sizes else options.default_limit)
                sizes.append(size)
                found.results += results
                found.tables.append(executors.table(results, options.database))
            extras = await _extras(place, options.in_flight, min(_FEW, *options.tasks))
    found.results += [extras.rounds, extras.flight, extras.trickle]
    found.rows = goals.rows(sizes, extras)
    found.tables.append(goals.table(found.rows))
    return found


async def _size(place: Place, tasks: int, default_limit: float | None) -> tuple[list[Result], goals.Size]:
    """Measure one size; ``default_limit``: seconds for stock with its defaults, None leaves out the slow ones."""

    async def run(contestant: Contestant | None, limit: float = _LIMIT_S) -> Result:
        result = await place.run(contestant, tasks, limit)
        said = f"{result.label}: {result.lives:,} of {tasks:,} in {result.measured['seconds']:.1f} s"
        print(said, file=sys.stderr, flush=True)
        return result

    others = []
    if default_limit is not None:
        others = [await run(STOCK_DEFAULT, default_limit), await run(OURS_NAPPING), await run(OURS_KEEPING)]
    stock = await run(STOCK_TUNED)
    turns = [(await run(OURS_AWAKE), await run(None)) for _ in range(_TURNS)]
    ours, bare = (goals.typical(runs) for runs in zip(*turns, strict=True))
    size = goals.Size(stock, ours, bare)
    return [*others, size.stock, size.ours, size.bare], size


async def _extras(place: Place, in_flight: int, few: int) -> goals.Extras:
    forever = {"simulated_run": None, "simulated_start": 0.0}
    return goals.Extras(
        rounds=await place.run(OURS_AWAKE, few, _LIMIT_S, "rounds"),
        flight=await place.run(OURS_AWAKE, in_flight, _LIMIT_S, "flight", **forever),
        trickle=await place.run(OURS_AWAKE, min(_TRICKLE, in_flight), _LIMIT_S, "trickle"),
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how much is measured, and how it is printed."""
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
    found = asyncio.run(compare(options))
    if options.output == "json":
        print(json.dumps(as_json(found)))
    else:
        show(found.tables, options.output)
    return 0 if found.held else 1


def as_json(found: Comparison) -> dict[str, object]:
    """Return everything for programs."""
    results = [{key: value for key, value in asdict(one).items() if key != "slots"} for one in found.results]
    return {
        "machine": machine(),
        "held": found.held,
        "results": results,
        "goals": [asdict(row) for row in found.rows],
    }


if __name__ == "__main__":
    sys.exit(main())
