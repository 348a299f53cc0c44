"""Claims of waiting pods: how many a second, and how long one takes, with simulated pods and a real metadata database.

    python -m benchmarks.claims --pods N

A burst of N tasks is queued at once while N pods wait; then tasks arrive one by one. A claim is the moment at which the
cluster has the changed pod; the kubelet's delivery comes after it. One process plays cluster, workers and scheduler.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.chaos.__main__ import airflow_home
from benchmarks.chaos.scenario import Row, at_least, at_most
from benchmarks.executors import measured_process
from benchmarks.metering import quantile

if TYPE_CHECKING:
    from benchmarks.chaos.driving import ChaosDrive

__all__ = ["ClaimFigures", "measure", "measure_apart", "rows"]

RATE, P99_S = 100.0, 0.1
_ARRIVAL_S, _LIMIT_S = 0.05, 120.0


@dataclass
class ClaimFigures:
    """Times in seconds. ``burst``: of each claim since the burst was queued. ``single``: of each task since it was."""

    pods: int
    burst: list[float] = field(default_factory=list)
    single: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Claims a second, of the burst."""
        return len(self.burst) / max(self.burst, default=float("inf"))


def rows(figures: ClaimFigures) -> Sequence[Row]:
    """Return the figures with their goals."""
    return [
        at_least("claims a second, of a burst", round(figures.rate, 1), RATE),
        at_most("claim, 99th percentile, without delivery, ms", quantile(figures.single, 0.99) * 1000, P99_S * 1000),
        at_least("tasks of the burst that claimed a pod, share", len(figures.burst) / figures.pods, 0.95),
    ]


def measure(pods: int) -> ClaimFigures:
    """Measure in this process, whose Airflow is configured already."""
    from benchmarks.chaos.databases import postgresql
    from benchmarks.chaos.driving import drive

    warm = {"CROSSWIND__WARM": json.dumps({"min": pods, "max": pods})}
    with postgresql(), drive(2 * pods, dies=lambda index: False, options=warm) as tasks:
        figures, seen = ClaimFigures(pods), dict[str, float]()
        tasks.cluster.do(lambda registry: registry.store.listen("Pod", lambda event: _note(event, seen)))
        _burst(tasks, figures, seen)
        _singles(tasks, figures, seen)
        tasks.settle()
    return figures


def _note(event: Any, seen: dict[str, float]) -> None:
    metadata = event.entry.object["metadata"]
    if event.type != "DELETED" and "crosswind/claim" in metadata["labels"]:
        seen.setdefault(metadata["uid"], time.monotonic())


def _burst(tasks: ChaosDrive, figures: ClaimFigures, seen: dict[str, float]) -> None:
    from benchmarks.chaos.warm import ready
    from benchmarks.contestant import workloads

    tasks.until(lambda: ready(tasks.executor) >= figures.pods, _LIMIT_S)
    begun = time.monotonic()
    for workload in workloads(tasks.tasks[: figures.pods]):
        tasks.executor.queue_workload(workload, session=None)  # type: ignore[arg-type]
    tasks.until(lambda: not (tasks.executor.running or tasks.executor.queued_tasks), _LIMIT_S)
    figures.burst = [at - begun for at in seen.values()]


def _singles(tasks: ChaosDrive, figures: ClaimFigures, seen: dict[str, float]) -> None:
    from benchmarks.chaos.warm import ready
    from benchmarks.contestant import workloads

    for workload in workloads(tasks.tasks[figures.pods :]):
        tasks.until(lambda: ready(tasks.executor) > 1, _LIMIT_S)
        known, begun = len(seen), time.monotonic()
        tasks.executor.queue_workload(workload, session=None)  # type: ignore[arg-type]
        if tasks.until(lambda known=known: len(seen) > known, 1.0):
            figures.single.append([*seen.values()][-1] - begun)
        end = begun + _ARRIVAL_S
        tasks.until(lambda end=end: time.monotonic() > end, 1.0)


def measure_apart(pods: int) -> ClaimFigures:
    """Measure in a process of its own."""
    command = ["benchmarks.claims", "--pods", str(pods)]
    result: Any = asyncio.run(measured_process(command, dict(os.environ), 2 * _LIMIT_S))
    return ClaimFigures(**result)


def main() -> None:
    """Measure and print one line with the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims")
    parser.add_argument("--pods", type=int, default=200)
    options = parser.parse_args()
    with airflow_home():
        print(f"RESULT {json.dumps(asdict(measure(options.pods)))}", flush=True)


if __name__ == "__main__":
    main()
