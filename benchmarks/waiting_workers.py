"""What a warm pod costs while it waits, and what it still has to do after its claim: the worker alone.

Real workers against a real Execution API, without a cluster. The task's code reads the processor time that its process
and its supervisor have used since the claim.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from benchmarks.chaos.scenario import Row, at_most, exactly
from benchmarks.metering import quantile
from tests.worker.rig import Rig, WaitingRun

__all__ = ["Waited", "measure", "rows"]

MEMORY_MIB = 130.0
"""Resident memory of a waiting pod's process."""
CPU_MS = 100.0
"""From the claim to the user's code, of supervisor and task process together; the median."""
IDLE_SHARE = 0.01
IDLE_S = 2.0

DAG = """
import os, time
from pathlib import Path
from airflow.sdk import DAG, task

with DAG("start", schedule=None):
    @task
    def work():
        seen = time.monotonic(), time.process_time(), Path(f"/proc/{os.getppid()}/schedstat").read_text().split()[0]
        (Path(os.environ["MARKS"]) / "seen").write_text(" ".join(map(str, seen)))

    work()
"""


@dataclass(frozen=True)
class Waited:
    """One worker that waited. Memory in MiB, times in seconds."""

    resident: float
    private: float
    threads: int
    idle_share: float
    """Of one processor, while it waited."""
    cpu: float
    """From the claim to the user's code."""
    wall: float
    succeeded: bool


def measure(count: int) -> list[Waited]:
    """Measure ``count`` workers, one after the other."""
    with tempfile.TemporaryDirectory() as folder, Rig(Path(folder), {"start": DAG}) as rig:
        return [_measure_one(rig) for _ in range(count)]


def _measure_one(rig: Rig) -> Waited:
    run = rig.wait().ready()
    process = psutil.Process(run.process.pid)
    memory, threads = process.memory_full_info(), process.num_threads()
    before = _cpu(run)
    time.sleep(IDLE_S)
    at_claim = _cpu(run)
    claimed_at = run.claim("start")
    code = run.ended()
    mark = run.folder / "seen"
    if not mark.exists():
        print(f"exit code {code}, {run.state}:\n{run.log[-4000:]}", file=sys.stderr)
        return Waited(0, 0, 0, 0, 0, 0, succeeded=False)
    at, own, supervisors = (float(word) for word in mark.read_text().split())
    return Waited(
        resident=memory.rss / 2**20,
        private=memory.uss / 2**20,
        threads=threads,
        idle_share=(at_claim - before) / IDLE_S,
        cpu=own + supervisors / 1e9 - at_claim,
        wall=at - claimed_at,
        succeeded=code == 0 and run.state == "success",
    )


def _cpu(run: WaitingRun) -> float:
    """Return the processor time of the waiting process in seconds; ``/proc/PID/stat`` counts in hundredths."""
    return float(Path(f"/proc/{run.process.pid}/schedstat").read_text().split()[0]) / 1e9


def rows(results: Sequence[Waited]) -> list[Row]:
    """Return the figures with their goals."""
    return [
        at_most("memory of a waiting pod, MiB", max(waited.resident for waited in results), MEMORY_MIB),
        at_most("threads of a waiting pod", max(waited.threads for waited in results), 1),
        at_most(
            "CPU while it waits, share of one", quantile([waited.idle_share for waited in results], 0.5), IDLE_SHARE
        ),
        at_most(
            "claim to user code, CPU, median, ms", quantile([waited.cpu for waited in results], 0.5) * 1000, CPU_MS
        ),
        exactly("tasks that did not succeed", sum(not waited.succeeded for waited in results)),
    ]
