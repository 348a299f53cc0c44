"""How fast a task starts: in a waiting pod of ours, in a cold pod of ours, and in a pod of stock, in one run.

Real schedulers on PostgreSQL and real worker processes on the one-machine cluster. Tasks arrive at most every five
seconds. Ours and stock run one after the other, because each needs a scheduler; warm and cold pods of ours take turns.

    python -m benchmarks start [--starts N]
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

import psutil
from benchmarks.chaos.scenario import Row, at_least, at_most, exactly
from benchmarks.executors import OURS, STOCK
from benchmarks.metering import quantile
from benchmarks.start_lab import (
    BYTECODE,
    CHAIN,
    CHAIN_LENGTH,
    COLD,
    WARM,
    OfficialImage,
    StartLab,
    hops,
    lab,
    overhead,
    warm_options,
)
from benchmarks.tables import ResultTable, machine, show_progress

from benchmarks import waiting_workers

__all__ = ["Starts", "measure", "measure_ours", "rows", "table"]

ARRIVAL_S = 5.0
WARM_P50_S, WARM_P99_S = 0.5, 1.0
HOP_P50_S, CHAIN_S = 1.0, 10.0
COLD_SHARE = 0.6
WAITING = 4
"""Pods that wait while single tasks arrive."""
NAP_S, DEFAULT_NAP_S = 0.1, 1.0
OURS_WARM, OURS_COLD, OURS_NAPPING, STOCK_COLD = (
    "ours, warm",
    "ours, cold",
    "ours, warm, the scheduler's default nap of 1 s",
    "stock",
)


@dataclass
class Starts:
    """One way to start. Times in seconds."""

    name: str
    waits: list[float] = field(default_factory=list)
    """From queued to running, of each task."""
    hops: list[float] = field(default_factory=list)
    """Of the chain: from the end of a task's code until the next task runs."""
    chain: float | None = None
    """The whole chain beyond its tasks' own time."""
    hits: int = 0
    """Tasks that ran in a pod that had waited."""
    failed: int = 0
    cpu: float = 0.0
    """Load of this machine's processors meanwhile, from 0 to 1."""


def measure(count: int, *, official: bool = True) -> list[Starts]:
    """Start ``count`` tasks in each way.

    ``official``: the image has no bytecode of its packages, as Airflow's own; ours then has a volume with it.
    """
    with tempfile.TemporaryDirectory(prefix="cw-image-") as folder:
        return asyncio.run(_measure(count, OfficialImage.make(Path(folder)) if official else None))


async def _measure(count: int, image: OfficialImage | None) -> list[Starts]:
    napping, stock = Starts(OURS_NAPPING), Starts(STOCK_COLD)
    ours = await measure_ours(count, image)
    async with lab(OURS, nap=DEFAULT_NAP_S, options=_options(image), image=image) as place:
        await place.ready_pods(WAITING)
        await _arrive(place, [(WARM, napping)], max(1, count // 2))
    async with lab(STOCK, nap=NAP_S, image=image) as place:
        await _arrive(place, [(COLD, stock)], count)
        await _chain(place, stock)
    return [*ours, napping, stock]


async def measure_ours(count: int, image: OfficialImage | None = None) -> list[Starts]:
    """Start ``count`` tasks in waiting pods of ours and as many in cold ones, and a chain in waiting ones."""
    warm, cold = Starts(OURS_WARM), Starts(OURS_COLD)
    async with lab(OURS, nap=NAP_S, options=_options(image), image=image) as place:
        await place.ready_pods(WAITING)
        await _arrive(place, [(WARM, warm), (COLD, cold)], count)
        await place.ready_pods(WAITING)
        await _chain(place, warm)
    return [warm, cold]


def _options(image: OfficialImage | None) -> dict[str, str]:
    return warm_options(WAITING) | ({"BYTECODE_VOLUME": BYTECODE} if image else {})


async def _arrive(place: StartLab, ways: Sequence[tuple[str, Starts]], count: int) -> None:
    """Run a DAG for each way in turns, at least ``ARRIVAL_S`` apart."""
    psutil.cpu_percent()
    total = count * len(ways)
    for done, (dag_id, starts) in enumerate(islice(cycle(ways), total), 1):
        begun, before = time.monotonic(), len(place.claimed)
        for task in await place.run_one(dag_id):
            starts.failed += task.state != "success"
            starts.waits.append(task.wait)
        starts.hits += len(place.claimed) - before
        show_progress(f"starts: {', '.join(starts.name for _, starts in ways)}", done, total, 10)
        await asyncio.sleep(max(0.0, begun + ARRIVAL_S - time.monotonic()))
    for _, starts in ways:
        starts.cpu = psutil.cpu_percent() / 100 or starts.cpu


async def _chain(place: StartLab, starts: Starts) -> None:
    tasks = await place.run_one(CHAIN)
    starts.failed += sum(task.state != "success" for task in tasks)
    if len(tasks) == CHAIN_LENGTH and all(task.code_ended for task in tasks):
        starts.hops, starts.chain = hops(tasks), overhead(tasks)


def rows(ways: Sequence[Starts], waited: Sequence[waiting_workers.Waited], count: int) -> list[Row]:
    """Return the figures that have a goal."""
    warm, cold, _, stock = ways
    share = quantile(cold.waits, 0.5) / max(quantile(stock.waits, 0.5), 1e-9)
    return [
        at_most("queued to running, warm, median, s", quantile(warm.waits, 0.5), WARM_P50_S),
        at_most("queued to running, warm, 99th percentile, s", quantile(warm.waits, 0.99), WARM_P99_S),
        at_least("tasks of the warm queue that got a waiting pod", warm.hits, count),
        at_most(
            f"chain of {CHAIN_LENGTH}: end of code to next task running, median, s", quantile(warm.hops, 0.5), HOP_P50_S
        ),
        at_most(f"chain of {CHAIN_LENGTH}: beyond its tasks' own time, s", warm.chain or float("inf"), CHAIN_S),
        at_most("queued to running, cold, share of stock's median", share, COLD_SHARE),
        exactly("tasks that did not succeed", sum(starts.failed for starts in ways)),
        *waiting_workers.rows(waited),
    ]


def table(ways: Sequence[Starts]) -> ResultTable:
    """Return the ways side by side."""
    result = ResultTable(
        f"Queued to running, a task every {ARRIVAL_S:g} s, scheduler_idle_sleep_time {NAP_S:g}; {machine()}",
        ("", "tasks", "median, s", "90th, s", "99th, s", "in a waiting pod", "hop, median, s", "chain, s", "CPU load"),
    )
    for starts in ways:
        figures = [f"{quantile(starts.waits, share):.2f}" for share in (0.5, 0.9, 0.99)]
        hop = f"{quantile(starts.hops, 0.5):.2f}" if starts.hops else ""
        chain = f"{starts.chain:.1f}" if starts.chain is not None else ""
        waits, hits = str(len(starts.waits)), str(starts.hits)
        result.rows.append((starts.name, waits, *figures, hits, hop, chain, f"{starts.cpu:.0%}"))
    return result
