"""The time that a worker's container runs after its task: with the worker shim, without it, and stock.

Real workers against a real Execution API. Each task records when its code ends; the container ends with its first
process. Airflow's own worker sleeps for up to five seconds in about half of the runs. Two more workers show the time
that Airflow itself takes at the end under remote logging (to a folder) and OpenTelemetry (to a collector on loopback).

    python -m benchmarks end [--ends N]
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.chaos.scenario import Row, at_least, at_most, exactly
from benchmarks.metering import quantile
from benchmarks.tables import ResultTable, machine, show_progress
from tests.worker.rig import STOCK, Rig

__all__ = ["CONTESTANTS", "Ends", "measure", "rows", "table"]

P99_MS = 100.0
"""From the end of the user's code to the end of the container, with the shim."""
LATE_S = 1.0

DAG = """
import os, time
from pathlib import Path
from airflow.sdk import DAG, task

with DAG("ends", schedule=None):
    @task
    def work():
        (Path(os.environ["MARKS"]) / "began").touch()
        time.sleep(0.2)
        (Path(os.environ["MARKS"]) / "ended").write_text(repr(time.monotonic()))

    work()
"""

SHIM, WITHOUT, STOCK_EXECUTOR = "with the shim", "worker_shim = false", "stock"
REMOTE_LOGS, TRACES = "with the shim, remote logging", "with the shim, OpenTelemetry"
CONTESTANTS = (SHIM, WITHOUT, STOCK_EXECUTOR, REMOTE_LOGS, TRACES)

REMOTE_LOGGING = """
import os, shutil
from pathlib import Path

class Folder:
    processors = ()

    def upload(self, path, ti=None):
        target = Path(os.environ["MARKS"]) / "remote" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(os.environ["AIRFLOW__LOGGING__BASE_LOG_FOLDER"]) / path, target)

    def read(self, path, ti):
        return [], []

REMOTE_TASK_LOG = Folder()
DEFAULT_REMOTE_CONN_ID = None
from airflow.config_templates.airflow_local_settings import DEFAULT_LOGGING_CONFIG as LOGGING_CONFIG
"""


@dataclass
class Ends:
    """Seconds from the end of the user's code to the end of the container, of one contestant."""

    name: str
    seconds: list[float] = field(default_factory=list)
    failed: int = 0

    def ms(self, share: float) -> float:
        """Return a quantile in milliseconds."""
        return quantile(self.seconds, share) * 1000

    @property
    def late(self) -> int:
        """The number of ends more than a second after the user's code."""
        return sum(value > LATE_S for value in self.seconds)


def measure(count: int, contestants: Sequence[str] = CONTESTANTS) -> list[Ends]:
    """Run ``count`` tasks for each contestant, in turns, so that all see the same machine."""
    results = {name: Ends(name) for name in contestants}
    with tempfile.TemporaryDirectory() as folder, Rig(Path(folder), {"ends": DAG}) as rig, _collector() as collector:
        modules = Path(folder) / "modules"
        modules.mkdir()
        (modules / "remote_logging.py").write_text(REMOTE_LOGGING)
        environments = {
            REMOTE_LOGS: {
                "PYTHONPATH": str(modules),
                "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "remote_logging.LOGGING_CONFIG",
            },
            TRACES: {
                "AIRFLOW__TRACES__OTEL_ON": "True",
                "OTEL_TRACES_EXPORTER": "otlp_proto_http",
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
            },
        }
        for done in range(1, count + 1):
            for name, ends in results.items():
                _run_once(rig, name, ends, environments.get(name, {}))
            show_progress(f"ends of {len(results)} workers", done, count)
    return list(results.values())


class _Collector(BaseHTTPRequestHandler):
    """Accepts spans and discards them."""

    def do_POST(self) -> None:
        """Answer 200."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextlib.contextmanager
def _collector() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Collector) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _run_once(rig: Rig, name: str, ends: Ends, environment: Mapping[str, str]) -> None:
    command = STOCK if name in (WITHOUT, STOCK_EXECUTOR) else None
    run = rig.start("ends", command=command, inline=name == STOCK_EXECUTOR, environment=environment)
    with ThreadPoolExecutor(1) as waiting:  # a blocking wait returns at the end, a poll would be late
        ended_at = waiting.submit(_end_of, run.process.pid).result()
    run.process.wait()
    mark = run.folder / "ended"
    missing = name == REMOTE_LOGS and not any((run.folder / "remote").rglob("*.log"))
    if run.process.returncode or not mark.exists() or run.state != "success" or missing:
        ends.failed += 1
        print(f"{name}: exit code {run.process.returncode}, {run.state}:\n{run.log[-4000:]}", file=sys.stderr)
    else:
        ends.seconds.append(ended_at - float(mark.read_text()))


def _end_of(pid: int) -> float:
    """Wait for a child's end, which stays to be reaped, and return the moment."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return time.monotonic()


def rows(results: Sequence[Ends], count: int) -> list[Row]:
    """Return the figures that have a goal."""
    ours = results[0]
    return [
        at_most("end of user code to end of container, with the shim, 99th percentile, ms", ours.ms(0.99), P99_MS),
        at_least("tasks of which that was measured", len(ours.seconds), count),
        exactly("tasks that did not succeed, of all contestants", sum(ends.failed for ends in results)),
    ]


def table(results: Sequence[Ends]) -> ResultTable:
    """Return the ends side by side."""
    result_table = ResultTable(
        f"End of user code to end of container; {machine()}",
        ("worker", "tasks", "median, ms", "90th, ms", "99th, ms", "longest, ms", "later than 1 s"),
    )
    for ends in results:
        figures = [f"{ends.ms(share):,.0f}" for share in (0.5, 0.9, 0.99, 1.0)]
        result_table.rows.append((ends.name, str(len(ends.seconds)), *figures, f"{ends.late} of {len(ends.seconds)}"))
    return result_table
