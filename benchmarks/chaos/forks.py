"""LocalExecutor beside ours in one process: it forks while our engine is busy.

LocalExecutor runs real workloads, callbacks, in its workers as usual: supervised, in another forked process, without an
API server. Each callback writes a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
from airflow.executors.local_executor import LocalExecutor
from airflow.executors.workloads import BundleInfo, ExecuteCallback
from airflow.executors.workloads.callback import CallbackDTO, CallbackFetchMethod
from benchmarks.chaos.driving import ChaosDrive, drive
from benchmarks.chaos.scenario import Row, Scenario, ScenarioSize, at_least, exactly

__all__ = ["SCENARIOS", "leave_mark"]

_FAMILY = "forks"
_WORKERS = 4
_LIMIT_S = 600.0


def leave_mark(folder: str, name: str) -> None:
    """Write the names of the threads of a process that LocalExecutor's worker has forked."""
    threads = [thread.name for thread in threading.enumerate()]
    with (Path(folder) / "marks").open("a", encoding="utf-8") as marks:
        marks.write(json.dumps({"name": name, "pid": os.getpid(), "threads": threads}) + "\n")


class _Local:
    """A LocalExecutor that is started for each round of callbacks, so that it forks in each."""

    def __init__(self, folder: Path, rounds: int, each: int) -> None:
        self.executor = LocalExecutor(parallelism=_WORKERS)
        self.forked = self.sockets = 0
        self._folder, self._each = folder, each
        self._names = [f"callback-{number}" for number in range(rounds * each)]
        self._waiting = list(self._names)
        self._started = False

    def beat(self, ours: int) -> None:
        """Send one heartbeat. ``ours``: the port of our executor's connections."""
        if not self._started and self._waiting:
            self.executor.start()
            self._started = True
            self.forked += len(self.executor.workers)
            for name in self._waiting[: self._each]:
                self.executor.queue_workload(_callback(self._folder, name), session=None)  # type: ignore[arg-type]
            del self._waiting[: self._each]
        if self._started:
            self.executor.heartbeat()
            self.executor.get_event_buffer()
            if not self.executor.running and not self.executor.queued_callbacks:
                self.sockets += sum(_connections(pid, ours) for pid in self.executor.workers)
                self.end()

    def end(self) -> None:
        """End the workers of this round."""
        if self._started:
            self._started = False
            self.executor.end()

    @property
    def over(self) -> bool:
        """Whether all callbacks have ended."""
        return not self._started and not self._waiting

    def rows(self) -> list[Row]:
        """Count the files of the callbacks."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self._folder / "marks").read_text(encoding="utf-8").splitlines()
            marks = [json.loads(line) for line in lines]
            runs = Counter(mark["name"] for mark in marks)
            alien = [name for mark in marks for name in mark["threads"] if name.startswith("crosswind")]
            return [
                at_least("processes forked while the engine ran", self.forked + len(marks), len(self._names)),
                exactly(
                    "LocalExecutor's workloads that ran once",
                    sum(runs[name] == 1 for name in self._names),
                    len(self._names),
                ),
                exactly("our threads in forked processes", len(alien)),
                exactly("our connections in forked processes", self.sockets),
            ]
        return [exactly("LocalExecutor's workloads that ran once", 0, len(self._names))]


def _connections(pid: int, port: int) -> int:
    """Count a process's connections to our API server."""
    with contextlib.suppress(psutil.Error):
        connections = psutil.Process(pid).net_connections(kind="tcp")
        return sum(bool(connection.raddr) and connection.raddr.port == port for connection in connections)
    return 0


def _callback(folder: Path, name: str) -> ExecuteCallback:
    data = {"path": f"{__name__}.leave_mark", "kwargs": {"folder": str(folder), "name": name}}
    callback = CallbackDTO(id=str(uuid.uuid4()), fetch_method=CallbackFetchMethod.IMPORT_PATH, data=data)
    bundle = BundleInfo(name="", version=None)
    return ExecuteCallback(
        callback=callback, dag_rel_path=Path(), token="", log_path=f"callbacks/{name}.log", bundle_info=bundle
    )


@contextlib.contextmanager
def _local(rounds: int, each: int) -> Iterator[_Local]:
    with tempfile.TemporaryDirectory(prefix="cw-forks-") as folder:
        local = _Local(Path(folder), rounds, each)
        try:
            yield local
        finally:
            local.end()


def _beside(size: ScenarioSize) -> list[Row]:
    """Give both executors equally many workloads; the first rounds fork while the engine launches all its pods."""
    rounds, each = size.of((25, 20), (2, 5))
    with drive(rounds * each, seconds=(0.5, 3.0)) as tasks, _local(rounds, each) as local:
        port = _port(tasks)
        tasks.queue()
        tasks.until(lambda: len(tasks.workers.starts) > 5, 60)
        tasks.disturb = lambda: local.beat(port)
        tasks.until(lambda: local.over, size.of(_LIMIT_S, 60.0))
        tasks.settle()
        return [*tasks.rows(faults=0)[1:], *local.rows()]


def _port(tasks: ChaosDrive) -> int:
    return int(tasks.proxy.server.rpartition(":")[2])


SCENARIOS = (
    Scenario(
        "forks-beside", _FAMILY, "LocalExecutor forks its workers, again and again, in the same process.", _beside
    ),
)
