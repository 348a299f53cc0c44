"""One executor in a process of its own, driven as the scheduler drives it, and measured. Prints one line of JSON.

    python -m benchmarks.contestant --executor MODULE.CLASS --mode queue|rounds|flight|trickle --tasks N --nap S
        --limit S --job-id N --freed FILE --held FILE

The environment holds Airflow's configuration. This process creates the task instances, QUEUED, in the metadata
database; the process that plays the workers marks them running and successful there. The loop is the scheduler's: one
``heartbeat()``, take the events, sleep.

``queue``: all tasks are queued at once. ``rounds``: ``--tasks`` at once, in eleven rounds, of which the first does not
count. ``flight``: the tasks are queued a few at a time, and do not end; memory is measured with a tenth of them, and
when ``--held`` exists. ``trickle``: twenty tasks a second.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from airflow import settings as airflow_settings
from airflow.executors.workloads import ExecuteTask
from airflow.executors.workloads.base import BundleInfo
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from benchmarks.metering import ProcessMeter, quantile
from sqlalchemy import event, insert

DAG_ID, TASK_ID = "bench", "work"
WARM = "warm"
"""Name of the file, beside ``--held``, whose existence means that a tenth of the pods run."""
ROUNDS = 10
_AT_ONCE = 100
"""Tasks that ``flight`` queues at a time, after the first tenth."""
_SETTLE_S = 2.0
_TRICKLE, _TRICKLE_S = 10, 0.5
"""Tasks that ``trickle`` queues at a time, and seconds from one time to the next."""


@dataclass
class ContestantFigures:
    """The figures of one run; times in seconds, memory in MiB."""

    tasks: int = 0
    done: int = 0
    failed: int = 0
    """Tasks that the executor reported as failed, although none failed."""
    seconds: float = 0.0
    heartbeats: int = 0
    heartbeat_longest: float = 0.0
    heartbeat_p99: float = 0.0
    cpu: float = 0.0
    """With start and end of the executor, and all children."""
    cpu_at_work: float = 0.0
    """Without, and of this process alone."""
    memory: float = 0.0
    """Peak."""
    memory_before: float = 0.0
    memory_held: float = 0.0
    processes: int = 0
    queries: int = 0
    queries_in_loop: int = 0
    """Of them those in the thread that calls ``heartbeat()``."""


@dataclass
class Queries:
    """Counts the statements that this process sends to the metadata database."""

    all: int = 0
    in_loop: int = 0

    def listen(self) -> None:
        """Count from now on; the thread that calls this is the scheduler's."""
        scheduler = threading.get_ident()

        def count(*_: Any) -> None:
            self.all += 1
            self.in_loop += threading.get_ident() == scheduler

        event.listen(airflow_settings.engine, "before_cursor_execute", count)


class Slots(set[Any]):
    """The executor's ``running``; notes when each key left it, by map index, on the clock of ``time.monotonic``."""

    def __init__(self) -> None:
        super().__init__()
        self.freed: dict[int, float] = {}

    def discard(self, key: Any) -> None:
        """Record the time if the key is present."""
        if key in self:
            self.freed[key.map_index] = time.monotonic()
        super().discard(key)

    def remove(self, key: Any) -> None:
        """Record the time."""
        self.freed[key.map_index] = time.monotonic()
        super().remove(key)


@dataclass
class ExecutorDrive:
    """The scheduler's loop around one executor."""

    executor: Any
    nap: float
    limit: float
    beats: list[float] = field(default_factory=list)
    failed: set[Any] = field(default_factory=set)
    begun: float = field(default_factory=time.perf_counter)

    def until(self, happened: Callable[[], bool]) -> None:
        """Send heartbeats until a condition holds or the time limit is reached."""
        while not happened() and time.perf_counter() - self.begun < self.limit:
            before = time.perf_counter()
            self.executor.heartbeat()
            self.beats.append(time.perf_counter() - before)
            for key, (state, _) in self.executor.get_event_buffer().items():
                if state == "failed":
                    self.failed.add(key)
            time.sleep(self.nap)

    def is_empty(self) -> bool:
        """Whether every slot is free again."""
        return not (self.executor.queued_tasks or self.executor.running)

    def queue(self, workloads: Iterator[ExecuteTask] | list[ExecuteTask]) -> None:
        """Queue workloads as the scheduler does."""
        for workload in workloads:
            self.executor.queue_workload(workload, session=None)


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
            f"dag_id={DAG_ID}/run_id={row['run_id']}/task_id={TASK_ID}/map_index={row['map_index']}"
            f"/attempt={row['try_number']}.log"
        )
        yield ExecuteTask(ti=ti, dag_rel_path="bench.py", token="", log_path=log_path, bundle_info=bundle)


def queue_mode(drive: ExecutorDrive, rows: list[dict[str, Any]], measured: ContestantFigures) -> None:
    """Queue all tasks at once."""
    queued = list(workloads(rows))
    drive.begun = time.perf_counter()
    worked = time.process_time()
    drive.queue(queued)
    del queued
    drive.until(drive.is_empty)
    measured.cpu_at_work = time.process_time() - worked


def rounds_mode(drive: ExecutorDrive, rows: list[dict[str, Any]], measured: ContestantFigures) -> None:
    """Queue some tasks at once in several rounds, of which the first one warms up."""
    size = len(rows) // (ROUNDS + 1)
    worked = 0.0
    for number in range(ROUNDS + 1):
        worked = time.process_time() if number == 1 else worked
        drive.queue(list(workloads(rows[number * size : (number + 1) * size])))
        drive.until(drive.is_empty)
    measured.cpu_at_work = time.process_time() - worked


def trickle_mode(drive: ExecutorDrive, rows: list[dict[str, Any]]) -> None:
    """Queue some tasks a second, so that no task waits for another."""
    rest = workloads(rows)
    while batch := list(itertools.islice(rest, _TRICKLE)):
        drive.queue(batch)
        next_at = time.perf_counter() + _TRICKLE_S
        drive.until(lambda at=next_at: time.perf_counter() > at)  # type: ignore[misc]
    drive.until(drive.is_empty)


def flight_mode(
    drive: ExecutorDrive, rows: list[dict[str, Any]], measured: ContestantFigures, meter: ProcessMeter, held: Path
) -> None:
    """Queue tasks that do not end, a few at a time, as the scheduler does.

    A tenth of them is queued first, at once. Then all connections exist, with their buffers (a quarter of a MiB each),
    and any further growth is due to the pods.
    """
    rest, tenth = workloads(rows), len(rows) // 10
    for count, at_once, file in ((tenth, tenth, held.with_name(WARM)), (len(rows), _AT_ONCE, held)):
        part = itertools.islice(rest, count)
        while batch := list(itertools.islice(part, at_once)):
            drive.queue(batch)
            del batch
            drive.until(lambda: not drive.executor.queued_tasks)
        drive.until(file.exists)
        measured.memory_before, measured.memory_held = measured.memory_held, _memory(drive, meter)


def _memory(drive: ExecutorDrive, meter: ProcessMeter) -> float:
    settled = time.perf_counter() + _SETTLE_S
    drive.until(lambda: time.perf_counter() > settled)
    gc.collect()
    return meter.memory


def measure(options: argparse.Namespace) -> ContestantFigures:
    """Drive one executor."""
    module, _, name = options.executor.rpartition(".")
    executor = getattr(import_module(module), name)(parallelism=options.tasks)
    executor.job_id = options.job_id
    executor.running = slots = Slots()
    count = options.tasks * (ROUNDS + 1) if options.mode == "rounds" else options.tasks
    rows, queries, measured = make_task_instances(count, options.job_id), Queries(), ContestantFigures(tasks=count)
    with ProcessMeter() as meter:
        executor.start()
        queries.listen()
        drive = ExecutorDrive(executor, options.nap, options.limit)
        if options.mode == "flight":
            flight_mode(drive, rows, measured, meter, options.held)
        elif options.mode == "trickle":
            trickle_mode(drive, rows)
        else:
            (queue_mode if options.mode == "queue" else rounds_mode)(drive, rows, measured)
        measured.seconds = time.perf_counter() - drive.begun
        measured.done = count - len(executor.queued_tasks) - len(slots)
        measured.queries, measured.queries_in_loop = queries.all, queries.in_loop
        executor.end()
    measured.cpu, measured.memory, measured.processes = meter.cpu, meter.peak_memory, meter.processes
    measured.heartbeats, measured.heartbeat_longest = len(drive.beats), max(drive.beats)
    measured.failed = len(drive.failed)
    measured.heartbeat_p99 = quantile(drive.beats, 0.99)
    if options.freed:
        options.freed.write_text(json.dumps(slots.freed))
    return measured


def main() -> None:
    """Measure one executor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executor", required=True)
    parser.add_argument("--mode", choices=["queue", "rounds", "flight", "trickle"], default="queue")
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--nap", type=float, required=True)
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--job-id", type=int, required=True)
    parser.add_argument("--freed", type=Path, help="gets when the slot of each map index was freed")
    parser.add_argument("--held", type=Path, help="exists when all pods run")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    print(f"RESULT {json.dumps(asdict(measure(options)))}", flush=True)


if __name__ == "__main__":
    main()
