"""One executor in a process of its own, driven as the scheduler drives it, and measured. Prints one line of JSON.

    python -m benchmarks.contestant --executor MODULE.CLASS --tasks N --nap S --limit S --job-id N

The environment holds Airflow's configuration. The task instances are made here, QUEUED, in the metadata database; who
plays the workers marks them running and successful there. The loop is the scheduler's: queue within the limits, one
``heartbeat()``, take the events, nap.
"""

from __future__ import annotations

import argparse
import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import psutil
from airflow.executors.workloads import ExecuteTask
from airflow.executors.workloads.base import BundleInfo
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import insert

DAG_ID, TASK_ID = "bench", "work"


@dataclass
class Measured:
    """What one run came to; times in seconds, memory in MiB."""

    tasks: int = 0
    done: int = 0
    seconds: float = 0.0
    heartbeats: list[float] = field(default_factory=list)
    cpu: float = 0.0
    memory: float = 0.0
    processes: int = 0

    def as_json(self) -> str:
        """One line for the parent."""
        beats = sorted(self.heartbeats)
        return json.dumps(
            {
                "tasks": self.tasks,
                "done": self.done,
                "seconds": self.seconds,
                "heartbeat_longest": beats[-1],
                "heartbeat_p99": beats[min(len(beats) - 1, int(len(beats) * 0.99))],
                "heartbeats": len(beats),
                "cpu": self.cpu,
                "memory": self.memory,
                "processes": self.processes,
            }
        )


class Meter:
    """CPU and memory of this process and all its children, while the context is open."""

    def __init__(self) -> None:
        self._me = psutil.Process()
        self._stop = threading.Event()
        self._cpu_of: dict[int, float] = {}
        self.peak_memory, self.processes = 0.0, 1

    def __enter__(self) -> Meter:
        self._before = self._tree_cpu()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.cpu = self._tree_cpu() - self._before

    def _tree(self) -> list[psutil.Process]:
        return [self._me, *self._me.children(recursive=True)]

    def _tree_cpu(self) -> float:
        for process in self._tree():
            try:
                times = process.cpu_times()
                self._cpu_of[process.pid] = times.user + times.system
            except psutil.Error:
                continue
        return sum(self._cpu_of.values())

    def _tree_memory(self) -> float:
        total = 0.0
        for process in self._tree():
            try:
                total += process.memory_full_info().uss / 2**20
            except psutil.Error:
                continue
        return total

    def _sample(self) -> None:
        while not self._stop.wait(0.5):
            self.peak_memory = max(self.peak_memory, self._tree_memory())
            self.processes = max(self.processes, len(self._tree()))
            self._tree_cpu()


def make_task_instances(count: int, job_id: int) -> list[dict[str, Any]]:
    """Put a DAG run and its queued task instances into the database."""
    run_id = f"bench-{uuid.uuid4().hex[:8]}"
    rows = [
        {
            "id": uuid.uuid4(),
            "task_id": TASK_ID,
            "dag_id": DAG_ID,
            "run_id": run_id,
            "map_index": index,
            "try_number": 1,
            "max_tries": 0,
            "pool": "default_pool",
            "pool_slots": 1,
            "priority_weight": 1,
            "queue": "default",
            "state": "queued",
            "queued_by_job_id": job_id,
            "external_executor_id": str(uuid.uuid4()),
            "hostname": "",
            "span_status": "not_started",
        }
        for index in range(count)
    ]
    with create_session() as session:
        session.add(DagRun(dag_id=DAG_ID, run_id=run_id, run_type="manual", state="running"))
        session.flush()
        session.execute(insert(TaskInstance.__table__), rows)
    return rows


def workloads(rows: list[dict[str, Any]]) -> Iterator[ExecuteTask]:
    """Build what the scheduler hands to an executor."""
    keys = ("id", "task_id", "dag_id", "run_id", "try_number", "map_index", "pool_slots", "queue", "priority_weight")
    for row in rows:
        ti = TaskInstanceDTO(
            dag_version_id=uuid.uuid4(),
            external_executor_id=row["external_executor_id"],
            **{key: row[key] for key in keys},
        )
        bundle = BundleInfo(name="dags-folder", version=None)
        log_path = (
            f"dag_id={DAG_ID}/run_id={row['run_id']}/task_id={TASK_ID}/map_index={row['map_index']}/attempt=1.log"
        )
        yield ExecuteTask(ti=ti, dag_rel_path="bench.py", token="", log_path=log_path, bundle_info=bundle)


def drive(executor: Any, queued: list[ExecuteTask], nap: float, limit: float) -> Measured:
    """Run the scheduler's loop until every slot is free again or the time is up."""
    measured = Measured(tasks=len(queued))
    begun = time.perf_counter()
    for workload in queued:
        executor.queue_workload(workload, session=None)
    while (executor.queued_tasks or executor.running) and time.perf_counter() - begun < limit:
        before = time.perf_counter()
        executor.heartbeat()
        measured.heartbeats.append(time.perf_counter() - before)
        executor.get_event_buffer()
        time.sleep(nap)
    measured.seconds = time.perf_counter() - begun
    measured.done = len(queued) - len(executor.queued_tasks) - len(executor.running)
    return measured


def main() -> None:
    """Measure one executor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executor", required=True)
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--nap", type=float, required=True)
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--job-id", type=int, required=True)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    module, _, name = options.executor.rpartition(".")
    executor = getattr(import_module(module), name)(parallelism=options.tasks)
    executor.job_id = options.job_id
    queued = list(workloads(make_task_instances(options.tasks, options.job_id)))
    with Meter() as meter:
        executor.start()
        measured = drive(executor, queued, options.nap, options.limit)
        executor.end()
    measured.cpu, measured.memory, measured.processes = meter.cpu, meter.peak_memory, meter.processes
    print(f"RESULT {measured.as_json()}", flush=True)


if __name__ == "__main__":
    main()
