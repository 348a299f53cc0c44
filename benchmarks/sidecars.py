"""``make sidecars``: the pod operator beside every kind of sidecar, ours and stock side by side.

python -m benchmarks.sidecars [--only TEXT ...] [--contestants ours,stock] [--short] [--cells] [--jobs N] [--limit S]
[--output text|markdown|json]

Each cell is a task with a pod of its own in a local cluster whose sidecars are real processes; the parts that end those
of GCS FUSE and Kuma are played. Several cells run at once, because a cell mostly waits: the seconds are those of a busy
machine. A cell that has not ended after ``--limit`` seconds is a hang, and is ended. A cell is right if the task's
state is that of its base container, its XCom has arrived, and at most ten seconds later the pod is deleted or finished,
as ``on_finish_action`` says; for ours, the failure's message must also name the cause.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from benchmarks.operator_cells import SCRIPTS, SIDECARS, SWAP, Cell, CellOutcome, new_task, pairs, run
from benchmarks.tables import ResultTable, machine, show
from rich.console import Console
from rich.progress import track

from crosswind.kube.client import Client
from crosswind.kube.resources import NAMESPACES, PODS
from crosswind.settings import KubeSettings

ACTIONS = ("delete_pod", "keep_pod", "delete_succeeded_pod")
CONTESTANTS = {
    "ours": "crosswind.operators",
    "stock": "airflow.providers.cncf.kubernetes.operators.pod",
}
_YOUNG_S = 12.0
"""A cell that has not ended by then only waits, and does not count as one of those that run at once."""
_MOST = 2
"""Cells at once as a multiple of ``--jobs``, including those that only wait."""


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
    """A running cell, in a process of its own."""

    contestant: str
    cell: Cell
    task: str
    process: Any
    reader: Connection
    begun: float
    limit: float

    @property
    def is_over(self) -> bool:
        """Whether it has ended or reached its time limit."""
        return self.reader.poll() or time.monotonic() - self.begun > self.limit

    @property
    def is_young(self) -> bool:
        """Whether it may still be at work."""
        return time.monotonic() - self.begun < _YOUNG_S


@dataclass(frozen=True)
class TrialResult:
    """The result of a contestant in a cell; ``problem`` is "" if it is right."""

    contestant: str
    cell: Cell
    outcome: CellOutcome
    problem: str


def _child(writer: Connection, contestant: str, cell: Cell, kubeconfig: str, task: str, log: str) -> None:
    from importlib import import_module

    with open(log, "a") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    operator = import_module(CONTESTANTS[contestant]).KubernetesPodOperator
    writer.send(run(operator, cell, kubeconfig, contestant, task))


def compete(trials: Sequence[tuple[str, Cell]], kubeconfig: str, options: argparse.Namespace) -> Iterator[TrialResult]:
    """Yield results as cells end; no cell starts after ``options.minutes``."""
    left, under_way = list(trials), list[Trial]()
    stop = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="crosswind-sidecars-") as folder:
        while (left and time.monotonic() < stop) or under_way:
            while left and time.monotonic() < stop and _has_room(under_way, options.jobs):
                under_way.append(_begin(*left.pop(0), kubeconfig, options.limit, f"{folder}/log"))
            wait([trial.reader for trial in under_way], timeout=0.2)
            for trial in [trial for trial in under_way if trial.is_over]:
                under_way.remove(trial)
                yield _result(trial)
                asyncio.run(_clear(kubeconfig, trial))


def _has_room(under_way: Sequence[Trial], jobs: int) -> bool:
    return sum(trial.is_young for trial in under_way) < jobs and len(under_way) < _MOST * jobs


def _begin(contestant: str, cell: Cell, kubeconfig: str, limit: float, log: str) -> Trial:
    fork = multiprocessing.get_context("fork")
    reader, writer = fork.Pipe(duplex=False)
    task = new_task()
    process = fork.Process(target=_child, args=(writer, contestant, cell, kubeconfig, task, log), daemon=True)
    process.start()
    writer.close()
    return Trial(contestant, cell, task, process, reader, time.monotonic(), limit)


def _result(trial: Trial) -> TrialResult:
    try:
        outcome = trial.reader.recv() if trial.reader.poll() else CellOutcome("hang", "", trial.limit)
    except EOFError:
        outcome = CellOutcome("broken", "", 0.0, message="the task's process ended without a word")
    trial.process.kill()
    trial.process.join()
    trial.reader.close()
    problem = f"hung for {trial.limit:g} s" if outcome.state == "hang" else outcome.wrong(trial.cell)
    if trial.contestant == "ours":
        problem = problem or outcome.unexplained(trial.cell)
    return TrialResult(trial.contestant, trial.cell, outcome, problem)


@contextmanager
def local_cluster() -> Iterator[str]:
    """Serve a local cluster in a process of its own; yield its kubeconfig."""
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


async def _clear(kubeconfig: str, trial: Trial) -> None:
    """Delete the pods of a finished or hanging task, so that the node has room."""
    async with await Client.connect(KubeSettings(kubeconfig=kubeconfig)) as client:
        where = {"namespace": trial.contestant, "labels": f"task_id={trial.task}"}
        await client.delete_collection(PODS, **where, grace_period=0)


def summary(results: Sequence[TrialResult], contestants: Sequence[str], title: str) -> ResultTable:
    """Return a row for each sidecar: its cells, how many are right, wrong, hung; median and longest seconds."""
    figures = ("right", "wrong", "hung", "median s", "longest s")
    columns = ["sidecar", "cells", *(f"{name}: {figure}" for name in contestants for figure in figures)]
    table = ResultTable(title, columns)
    for sidecar in [*SIDECARS, "all"]:
        some = [result for result in results if sidecar in (result.cell.sidecar, "all")]
        if some:
            own = [[result for result in some if result.contestant == name] for name in contestants]
            table.rows.append([sidecar, str(max(map(len, own))), *itertools.chain(*map(_figures, own))])
    return table


def _figures(own: Sequence[TrialResult]) -> list[str]:
    hung = sum(result.outcome.state == "hang" for result in own)
    wrong = sum(bool(result.problem) for result in own) - hung
    times = [result.outcome.seconds for result in own if result.outcome.state != "hang"]
    middle, longest = (f"{statistics.median(times):.1f}", f"{max(times):.1f}") if times else ("", "")
    return [str(len(own) - wrong - hung), str(wrong), str(hung), middle, longest]


def main() -> int:
    """Run the table; 1 if ours has a hang, a wrong cell, or one that did not run."""
    parser = argparse.ArgumentParser(prog="make sidecars", description="The pod operator beside every sidecar.")
    parser.add_argument("--only", action="append", default=[], help="a word of the cell, such as istio or keep_pod")
    parser.add_argument("--contestants", default="ours,stock")
    parser.add_argument("--short", action="store_true", help="pairs of the properties instead of all combinations")
    parser.add_argument("--cells", action="store_true", help="a line for each cell, not only for what ours did wrong")
    parser.add_argument("--jobs", type=int, default=6, help="cells at once, beside those that only wait")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds after which a cell counts as a hang")
    parser.add_argument("--minutes", type=float, default=40.0, help="begin no further cell after this time")
    parser.add_argument("--output", choices=["text", "markdown", "json"], default="text")
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
    begun, results = time.monotonic(), list[TrialResult]()
    trials = list(itertools.product(contestants, chosen))
    with local_cluster() as kubeconfig:
        for contestant in contestants:  # compiled once, so that the processes of the cells start without a delay
            __import__(CONTESTANTS[contestant])
        running = compete(trials, kubeconfig, options)
        for result in track(running, "cells", len(trials), console=Console(stderr=True), transient=True):
            results.append(result)
            if options.cells or (result.problem and result.contestant == "ours"):
                print(_line(result), file=sys.stderr, flush=True)
    if options.output == "json":
        print(json.dumps([asdict(result) for result in results]))
    else:
        title = f"Task state, XCom and pod beside a sidecar ({machine()}; {options.jobs} cells at once)"
        show([summary(results, contestants, title)], options.output)
        took = (time.monotonic() - begun) / 60
        print(f"A hang is a cell that had not ended after {options.limit:g} s. The table took {took:.0f} minutes.")
    if missing := len(trials) - len(results):
        print(f"{missing} cells were not begun within {options.minutes:g} minutes.", file=sys.stderr)
    return int(bool(missing) or any(result.contestant == "ours" and result.problem for result in results))


def _line(result: TrialResult) -> str:
    outcome = result.outcome
    verdict = f"{result.problem}; {outcome.message}".strip("; ") if result.problem else "right"
    cell = f"{result.contestant:5} {result.cell!s:60}"
    return f"{cell} {outcome.state:8} {outcome.pod:9} {outcome.seconds:5.1f} s  {verdict}"


if __name__ == "__main__":
    sys.exit(main())
