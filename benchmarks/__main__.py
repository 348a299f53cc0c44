"""``make bench``: every benchmark, with its goals.

python -m benchmarks [executors|adoption|whole|end|start|deferred|local-api|task-files|pages …] [--tasks N …]
    [--output text|markdown|json]

Exits 1 when a goal was missed. With ``--output json`` the figures of ``executors``, ``adoption``, ``whole``, ``end``
and ``pages`` are one JSON document on standard output; the tables of the others go to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict

from benchmarks.metering import Stolen
from benchmarks.tables import show

from benchmarks import speed

Figures = dict[str, object]
"""The figures of a benchmark, for the JSON document."""


def executors(options: argparse.Namespace) -> tuple[bool, Figures]:
    """Measure the executors alone."""
    comparison = asyncio.run(speed.compare(options))
    if options.output != "json":
        show(comparison.tables, options.output)
    return comparison.held, speed.as_json(comparison)


def whole(options: argparse.Namespace) -> tuple[bool, Figures]:
    """Measure a real scheduler."""
    from benchmarks import whole_scheduler

    outcomes = asyncio.run(whole_scheduler.compare(options.whole_tasks, 1.0))
    if options.output != "json":
        show([whole_scheduler.table(outcomes, 1.0)], options.output)
    return outcomes[-1].right, {"results": [asdict(outcome) for outcome in outcomes]}


def adoption(options: argparse.Namespace) -> tuple[bool, Figures]:
    """Measure how fast a scheduler adopts the pods of a dead one."""
    from benchmarks import adoption, goals

    times = asyncio.run(adoption.measure(options.in_flight, options.database))
    rows = adoption.rows(times)
    if options.output != "json":
        show([goals.table(rows)], options.output)
    return all(row.held for row in rows), {"found": times, "goals": [asdict(row) for row in rows]}


def local_api(options: argparse.Namespace) -> tuple[bool, Figures]:
    """Measure the one-machine cluster."""
    from benchmarks import local_api

    return local_api.main(["--output", "text" if options.output == "json" else options.output]) == 0, {}


def deferred(options: argparse.Namespace) -> tuple[bool, Figures]:
    """Measure deferred pods."""
    from benchmarks import deferred

    return deferred.compare(output="text" if options.output == "json" else options.output), {}


def task_files(options: argparse.Namespace) -> tuple[bool, Figures]:
    """Measure how fast task files load."""
    from benchmarks import task_files

    return task_files.main(["--output", "text" if options.output == "json" else options.output]) == 0, {}


def end(options: argparse.Namespace) -> tuple[bool, Figures]:
    """Measure how long containers run after the end of their tasks."""
    from benchmarks import ends, goals

    cases = ends.measure(options.ends)
    rows = ends.rows(cases, options.ends)
    if options.output != "json":
        show([ends.table(cases), goals.table(rows)], options.output)
    figures = {"seconds": {case.name: case.seconds for case in cases}, "goals": [asdict(row) for row in rows]}
    return all(row.held for row in rows), figures


def pages(options: argparse.Namespace) -> tuple[bool, Figures]:
    """Measure how fast the pages in Airflow's UI answer."""
    from benchmarks import goals, pages

    times = pages.measure(options.database)
    rows = pages.rows(times)
    if options.output != "json":
        show([goals.table(rows)], options.output)
    return all(row.held for row in rows), {"seconds": times, "goals": [asdict(row) for row in rows]}


def start(options: argparse.Namespace) -> tuple[bool, Figures]:
    """Measure how fast tasks start, in waiting pods and in cold ones."""
    from benchmarks import claims, goals, starts, waiting_workers

    claimed = claims.measure_apart(options.claims)
    waited = waiting_workers.measure(max(2, options.starts // 4))
    ways = starts.measure(options.starts, official=not options.with_bytecode)
    rows = [*starts.rows(ways, waited, options.starts), *claims.rows(claimed)]
    if options.output != "json":
        show([starts.table(ways), goals.table(rows)], options.output)
    return all(row.held for row in rows), {"starts": [asdict(way) for way in ways], "goals": [asdict(r) for r in rows]}


BENCHMARKS: dict[str, Callable[[argparse.Namespace], tuple[bool, Figures]]] = {
    "local-api": local_api,
    "executors": executors,
    "adoption": adoption,
    "whole": whole,
    "end": end,
    "start": start,
    "deferred": deferred,
    "task-files": task_files,
    "pages": pages,
}


def main() -> int:
    """Run the named benchmarks; return 0 if all goals were reached, else 1. Wrong use exits with 2."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure ours against stock, on this machine.")
    parser.add_argument("what", nargs="*", default=list(BENCHMARKS), help=f"any of {', '.join(BENCHMARKS)}")
    speed.add_options(parser)
    parser.add_argument("--whole-tasks", type=int, default=500, help="tasks of the real scheduler's DAG")
    parser.add_argument("--ends", type=int, default=40, help="tasks whose end is measured, for each worker")
    parser.add_argument("--starts", type=int, default=40, help="tasks whose start is measured, for each way to start")
    parser.add_argument("--claims", type=int, default=200, help="waiting pods that are claimed in a burst")
    parser.add_argument("--with-bytecode", action="store_true", help="for start: the image has bytecode of Airflow")
    options = parser.parse_args()
    if unknown := set(options.what) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    out = sys.stdout
    held, figures = True, {}
    with contextlib.redirect_stdout(sys.stderr) if options.output == "json" else contextlib.nullcontext():
        for what in options.what:
            with Stolen() as stolen:
                reached, result = BENCHMARKS[what](options)
            print(f"{what}: CPU time that the host gave to other machines meanwhile: {stolen}\n", flush=True)
            held, figures[what] = held and reached, result | {"stolen": stolen.share}
    if options.output == "json":
        print(json.dumps({"held": held, **figures}), file=out)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
