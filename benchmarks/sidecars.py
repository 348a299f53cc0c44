"""``make sidecars``: the pod operator beside every kind of sidecar, ours and stock side by side.

python -m benchmarks.sidecars [--only TEXT ...] [--contestants ours,stock] [--short] [--cells] [--jobs N] [--limit S]

Each cell is a task with a pod of its own in a local cluster whose sidecars are real processes. A cell that has not
ended after ``--limit`` seconds is a hang, and is ended. Right is: the task's state is that of its base container, its
XCom has come, and the pod is gone or finished, as ``on_finish_action`` asks, ten seconds later at most.

Nobody plays the owners of GCS FUSE and Kuma, which end these sidecars on a real cluster: a pod with one that is kept
takes the whole time that the plan leaves to the owner, so that these cells have 60 seconds more.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchmarks.operator_cells import SCRIPTS, SIDECARS, SWAP, Cell, Outcome, pairs, run
from rich.console import Console
from rich.table import Table

from crosswind.kube.client import Client
from crosswind.kube.resources import NAMESPACES, PODS
from crosswind.settings import KubeSettings

ACTIONS = ("delete_pod", "keep_pod", "delete_succeeded_pod")
OWNED = ("gcsfuse", "kuma", "two-waiters")
_OWNER_S = 60.0
CONTESTANTS = {
    "ours": "crosswind.operators",
    "stock": "airflow.providers.cncf.kubernetes.operators.pod",
}


def cells(only: Sequence[str], *, short: bool) -> list[Cell]:
    """Return the cells whose words hold all of ``only``."""
    every = (
        pairs(SIDECARS, tuple(SCRIPTS))
        if short
        else itertools.starmap(Cell, itertools.product(SIDECARS, SCRIPTS, (False, True), ACTIONS, (False, True)))
    )
    return [cell for cell in every if all(word in str(cell).split() for word in only)]


@dataclass
class Trial:
    """A cell on its way, in a process of its own."""

    contestant: str
    cell: Cell
    process: Any
    reader: Connection
    ends: float
    limit: float


@dataclass(frozen=True)
class Result:
    """What a contestant made of a cell; ``problem`` is "" when all was right."""

    contestant: str
    cell: Cell
    outcome: Outcome
    problem: str


def _child(writer: Connection, contestant: str, cell: Cell, kubeconfig: str, log: str) -> None:
    from importlib import import_module

    with open(log, "a") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    operator = import_module(CONTESTANTS[contestant]).KubernetesPodOperator
    writer.send(run(operator, cell, kubeconfig, contestant))


def compete(trials: Sequence[tuple[str, Cell]], kubeconfig: str, options: argparse.Namespace) -> Iterator[Result]:
    """Yield results as they come; at most ``options.minutes`` in all."""
    fork = multiprocessing.get_context("fork")
    left, under_way = list(trials), list[Trial]()
    stop = time.monotonic() + 60 * options.minutes
    log = str(Path(tempfile.gettempdir()) / f"crosswind-sidecars-{os.getpid()}.log")
    while (left and time.monotonic() < stop) or under_way:
        while left and len(under_way) < options.jobs and time.monotonic() < stop:
            contestant, cell = left.pop(0)
            reader, writer = fork.Pipe(duplex=False)
            process = fork.Process(target=_child, args=(writer, contestant, cell, kubeconfig, log), daemon=True)
            process.start()
            writer.close()
            limit = options.limit + (_OWNER_S if cell.sidecar in OWNED else 0)
            under_way.append(Trial(contestant, cell, process, reader, time.monotonic() + limit, limit))
        wait([trial.reader for trial in under_way], timeout=0.5)
        for trial in [one for one in under_way if one.reader.poll() or one.ends < time.monotonic()]:
            under_way.remove(trial)
            yield _result(trial)
    Path(log).unlink(missing_ok=True)


def _result(trial: Trial) -> Result:
    try:
        outcome = trial.reader.recv() if trial.reader.poll() else Outcome("hang", "", trial.limit)
    except EOFError:
        outcome = Outcome("broken", "", 0.0)
    trial.process.kill()
    trial.process.join()
    trial.reader.close()
    problem = f"hung for {trial.limit:g} s" if outcome.state == "hang" else outcome.wrong(trial.cell)
    return Result(trial.contestant, trial.cell, outcome, problem)


@contextmanager
def local_cluster() -> Iterator[str]:
    """Serve a local cluster in a process of its own; give its kubeconfig."""
    command = [sys.executable, "-m", "crosswind", "local", "up", "--output", "json"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        kubeconfig = str(json.loads(server.stdout.readline())["kubeconfig"])
        asyncio.run(_prepare(kubeconfig))
        yield kubeconfig
    finally:
        server.terminate()
        server.wait(30)


async def _prepare(kubeconfig: str) -> None:
    async with await Client.connect(KubeSettings(kubeconfig=kubeconfig)) as client:
        for name in CONTESTANTS:
            await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        await asyncio.sleep(1.0)  # until the namespaces have their service accounts


async def _clear(kubeconfig: str, contestant: str) -> None:
    """Delete what a contestant's finished, or hanging, tasks have left, so that the node has room."""
    async with await Client.connect(KubeSettings(kubeconfig=kubeconfig)) as client:
        await client.delete_collection(PODS, namespace=contestant, grace_period=0)


def summary(results: Sequence[Result], contestants: Sequence[str]) -> Table:
    """Return a row for each sidecar: of so many cells right so many, wrong, hung; the slowest one's seconds."""
    table = Table("sidecar", "cells", title="Task state, XCom and pod beside a sidecar")
    for contestant in contestants:
        for column in ("right", "wrong", "hung", "median s", "slowest s"):
            table.add_column(f"{contestant}\n{column}", justify="right")
    for sidecar in [name for name in SIDECARS if any(one.cell.sidecar == name for one in results)]:
        row = [sidecar, ""]
        for contestant in contestants:
            own = [one for one in results if (one.contestant, one.cell.sidecar) == (contestant, sidecar)]
            row[1] = str(len(own))
            row += _figures(own)
        table.add_row(*row)
    return table


def _figures(own: Sequence[Result]) -> list[str]:
    hung = sum(one.outcome.state == "hang" for one in own)
    wrong = sum(bool(one.problem) for one in own) - hung
    times = sorted(one.outcome.seconds for one in own if one.outcome.state != "hang")
    middle, slowest = (f"{times[len(times) // 2]:.1f}", f"{times[-1]:.1f}") if times else ("", "")
    return [str(len(own) - wrong - hung), str(wrong or ""), str(hung or ""), middle, slowest]


def main() -> int:
    """Run the table; 1 when ours has a hang or a wrong cell."""
    parser = argparse.ArgumentParser(prog="make sidecars", description="The pod operator beside every sidecar.")
    parser.add_argument("--only", action="append", default=[], help="a word of the cell, such as istio or keep_pod")
    parser.add_argument("--contestants", default="ours,stock")
    parser.add_argument("--short", action="store_true", help="pairs of the properties instead of all combinations")
    parser.add_argument("--cells", action="store_true", help="a line for each cell, not only for what went wrong")
    parser.add_argument("--jobs", type=int, default=4, help="cells at once")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds after which a cell counts as a hang")
    parser.add_argument("--minutes", type=float, default=40.0, help="begin no further cell after this time")
    parser.add_argument("--output", choices=["text", "json"], default="text")
    options = parser.parse_args()
    contestants = options.contestants.split(",")
    if unknown := set(contestants) - set(CONTESTANTS):
        parser.error(f"there is no contestant {', '.join(unknown)}; there are {', '.join(CONTESTANTS)}")
    chosen = cells(options.only, short=options.short)
    if not chosen:
        parser.error(f"no cell has the words {' '.join(options.only)}")
    with tempfile.TemporaryDirectory(prefix="crosswind-sidecars-") as home:
        return _compete(chosen, contestants, home, options)


def _compete(chosen: Sequence[Cell], contestants: Sequence[str], home: str, options: argparse.Namespace) -> int:
    os.environ |= {
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__CROSSWIND__SIDECAR_SWAP_IMAGE": SWAP,
    }
    console = Console(width=None if sys.stdout.isatty() else 150)
    results: list[Result] = []
    with local_cluster() as kubeconfig:
        for contestant in contestants:  # loaded once, so that the processes of the cells begin at once
            __import__(CONTESTANTS[contestant])
        for contestant in contestants:
            for batch in _batches(chosen):
                for result in compete([(contestant, cell) for cell in batch], kubeconfig, options):
                    results.append(result)
                    if options.output == "text" and (result.problem or options.cells):
                        console.print(_line(result), highlight=False, soft_wrap=True)
                asyncio.run(_clear(kubeconfig, contestant))
    if options.output == "json":
        print(json.dumps([asdict(result) for result in results]))
    else:
        console.print(summary(results, contestants))
        console.print(
            f"A hang is a cell that had not ended after {options.limit:g} s ({', '.join(OWNED)}: {_OWNER_S:g} s more)."
        )
    return int(any(result.contestant == "ours" and result.problem for result in results))


def _batches(items: Sequence[Cell], size: int = 60) -> Iterator[Sequence[Cell]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def _line(result: Result) -> str:
    outcome = result.outcome
    said = f"{result.problem}; {outcome.message}".strip("; ") if result.problem else "right"
    return (
        f"{result.contestant:5} {result.cell!s:60} {outcome.state:8} {outcome.pod:9} {outcome.seconds:5.1f} s  {said}"
    )


if __name__ == "__main__":
    sys.exit(main())
