"""``make bench``: every benchmark, with its goals.

python -m benchmarks [executors|adoption|whole|deferred|local-api|task-files …] [--tasks N …]
    [--output text|markdown|json]

Exits 1 when a goal was missed. With ``--output json`` the figures of ``executors``, ``adoption`` and ``whole`` are one
JSON document on standard output; the tables of the others go to standard error.
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

Said = dict[str, object]


def executors(options: argparse.Namespace) -> tuple[bool, Said]:
    """Measure the executors alone."""
    found = asyncio.run(speed.compare(options))
    if options.output != "json":
        show(found.tables, options.output)
    return found.held, speed.as_json(found)


def whole(options: argparse.Namespace) -> tuple[bool, Said]:
    """Measure a real scheduler."""
    from benchmarks import whole_scheduler

    outcomes = asyncio.run(whole_scheduler.compare(options.whole_tasks, 1.0))
    if options.output != "json":
        show([whole_scheduler.table(outcomes, 1.0)], options.output)
    return outcomes[-1].right, {"results": [asdict(one) for one in outcomes]}


def adoption(options: argparse.Namespace) -> tuple[bool, Said]:
    """Measure how fast a scheduler takes over the pods of one that is no more."""
    from benchmarks import adoption, goals

    found = asyncio.run(adoption.measure(options.in_flight, options.database))
    checked = adoption.rows(found)
    if options.output != "json":
        show([goals.table(checked)], options.output)
    return all(row.held for row in checked), {"found": found, "goals": [asdict(row) for row in checked]}


def local_api(options: argparse.Namespace) -> tuple[bool, Said]:
    """Measure the one-machine cluster."""
    from benchmarks import local_api

    return local_api.main(["--output", "text" if options.output == "json" else options.output]) == 0, {}


def deferred(options: argparse.Namespace) -> tuple[bool, Said]:
    """Measure deferred pods."""
    from benchmarks import deferred

    return deferred.compare(output="text" if options.output == "json" else options.output), {}


def task_files(options: argparse.Namespace) -> tuple[bool, Said]:
    """Measure how fast task files load."""
    from benchmarks import task_files

    return task_files.main(["--output", "text" if options.output == "json" else options.output]) == 0, {}


BENCHMARKS: dict[str, Callable[[argparse.Namespace], tuple[bool, Said]]] = {
    "local-api": local_api,
    "executors": executors,
    "adoption": adoption,
    "whole": whole,
    "deferred": deferred,
    "task-files": task_files,
}


def main() -> int:
    """Run what was asked for: 0 when all goals were reached, 1 when not, 2 for wrong use."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure ours against stock, on this machine.")
    parser.add_argument("what", nargs="*", default=list(BENCHMARKS), help=f"any of {', '.join(BENCHMARKS)}")
    speed.add_options(parser)
    parser.add_argument("--whole-tasks", type=int, default=500, help="tasks of the real scheduler's DAG")
    options = parser.parse_args()
    if unknown := set(options.what) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    out = sys.stdout
    held, said = True, {}
    with contextlib.redirect_stdout(sys.stderr) if options.output == "json" else contextlib.nullcontext():
        for what in options.what:
            with Stolen() as stolen:
                well, found = BENCHMARKS[what](options)
            print(f"{what}: CPU time that the host gave to other machines meanwhile: {stolen}\n", flush=True)
            held, said[what] = held and well, found | {"stolen": stolen.share}
    if options.output == "json":
        print(json.dumps({"held": held, **said}), file=out)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
