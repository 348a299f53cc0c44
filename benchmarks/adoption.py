"""The adoption of 5,000 running pods of a dead scheduler: its duration, and its effect on heartbeats.

    python -m benchmarks.adoption [--pods 5000] [--database postgresql|sqlite] [--output text|markdown|json]

One process launches the pods and ends; another one, fresh, starts as a scheduler does, is handed all task instances by
``try_adopt_task_instances``, as core does, and beats with a nap of 10 ms. The clock starts before the executor's
``start`` and stops when every pod is followed and carries the new scheduler's label; another client then counts the
labels. Nodes are simulated, in a process of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.chaos.scenario import Row, at_most, exactly
from benchmarks.executors import (
    NAMESPACE,
    OURS_AWAKE,
    PODS_PER_NODE,
    environment,
    measured_process,
    prepared,
    simulated_cluster,
)
from benchmarks.goals import table
from benchmarks.metering import quantile
from benchmarks.tables import ResultTable, machine, show

from crosswind.kube.client import Client
from crosswind.kube.resources import NAMESPACES, PODS
from crosswind.settings import KubeSettings

__all__ = ["main", "measure", "rows"]

FORMER, NEW = 1, 2
GOAL_S, HEARTBEAT_MS = 10.0, 50.0
_NAP = 0.01
_LIMIT_S = 240.0


async def measure(pods: int, kind: str = "postgresql") -> dict[str, float]:
    """Launch the pods, end that scheduler, and let another one adopt them."""
    with tempfile.TemporaryDirectory(prefix="cw-adopt-") as folder:
        home = Path(folder)
        async with (
            prepared(kind, home) as place,
            simulated_cluster(home, pods // PODS_PER_NODE + 2, simulated_run=None) as (kubeconfig, _),
            await Client.connect(KubeSettings(kubeconfig=str(kubeconfig))) as client,
        ):
            await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
            env = environment(home, place.url, kubeconfig, pods, OURS_AWAKE)
            await _part("launch", pods, env)
            times = await _part("adopt", pods, env)
            marked = await client.list(PODS, namespace=NAMESPACE, labels=f"airflow-worker={NEW}")
            return times | {"pods": pods, "marked": len(marked.items)}


async def _part(part: str, pods: int, env: dict[str, str]) -> dict[str, float]:
    return await measured_process(["benchmarks.adoption", "--part", part, "--pods", str(pods)], env, _LIMIT_S)


def rows(times: dict[str, float]) -> list[Row]:
    """Return the figures with their goals."""
    pods = int(times["pods"])
    n = f"adopting {pods:,} running pods"
    return [
        at_most(f"{n}: all followed and marked, s", times["seconds"], GOAL_S),
        at_most(f"{n}: longest heartbeat, ms", times["heartbeat_longest"] * 1000, HEARTBEAT_MS),
        exactly(f"{n}: pods that carry the new scheduler's label", times["marked"], pods),
        exactly(f"{n}: tasks given back to be reset, reported as failed, or without a slot", times["wrong"]),
    ]


def launch(pods: int) -> dict[str, float]:
    """Run as the first scheduler: launch the pods, and end."""
    from benchmarks.contestant import make_task_instances, workloads

    executor = _executor(FORMER, pods)
    for workload in workloads(make_task_instances(pods, FORMER)):
        executor.queue_workload(workload, session=None)
    end = time.monotonic() + _LIMIT_S
    while executor._engine.figures()["running"] < pods:
        if time.monotonic() > end:
            raise SystemExit(f"not all pods run: {executor._engine.figures()}")
        executor.heartbeat()
        time.sleep(_NAP)
    executor.end()
    return {}


def adopt(pods: int) -> dict[str, float]:
    """Run as the scheduler that adopts the pods."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select, update

    with create_session() as session:
        session.execute(update(TaskInstance).values(state="running"))
    with create_session() as session:
        tis = list(session.scalars(select(TaskInstance).where(TaskInstance.queued_by_job_id == FORMER)))
        begun, worked = time.perf_counter(), time.process_time()
        executor = _executor(NEW, pods)
        started = time.perf_counter()
        back = executor.try_adopt_task_instances(tis)
        handed = time.perf_counter() - started
        session.execute(update(TaskInstance).values(queued_by_job_id=NEW))
    beats, failed, end = [], 0, time.monotonic() + _LIMIT_S
    while not _has_all(executor, pods) and time.monotonic() < end:
        before = time.perf_counter()
        executor.heartbeat()
        beats.append(time.perf_counter() - before)
        failed += len(executor.get_event_buffer())
        time.sleep(_NAP)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - worked
    wrong = len(back) + failed + abs(pods - len(executor.running))
    executor.end()
    return {
        "seconds": seconds,
        "cpu": cpu,
        "handed": handed,
        "heartbeat_longest": max(beats),
        "heartbeat_p99": quantile(beats, 0.99),
        "heartbeats": len(beats),
        "wrong": wrong,
    }


def _executor(job_id: int, pods: int) -> Any:
    from crosswind.executor import KubernetesExecutor

    executor = KubernetesExecutor(parallelism=pods)
    executor.job_id = job_id
    executor.start()
    return executor


def _has_all(executor: Any, pods: int) -> bool:
    figures = executor._engine.figures()
    return bool(figures["running"] == pods and not figures["unlabelled"])


def _times(times: dict[str, float]) -> ResultTable:
    table_of_times = ResultTable(f"Adopting; {machine()}", ("", "s"))
    for name in ("seconds", "cpu", "handed", "heartbeat_longest", "heartbeat_p99"):
        table_of_times.rows.append((name.replace("_", " "), f"{times[name]:.3f}"))
    return table_of_times


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--output", choices=("text", "markdown", "json"), default="text")
    parser.add_argument("--part", choices=("launch", "adopt"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.part:
        part = launch if options.part == "launch" else adopt
        print(f"RESULT {json.dumps(part(options.pods))}", flush=True)
        return 0
    times = asyncio.run(measure(options.pods, options.database))
    checked = rows(times)
    if options.output == "json":
        print(json.dumps({"found": times, "rows": [asdict(row) for row in checked]}))
    else:
        show([_times(times), table(checked)], options.output)
    return 0 if all(row.held for row in checked) else 1


if __name__ == "__main__":
    sys.exit(main())
