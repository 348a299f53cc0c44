"""Runs Airflow's components as processes of this machine.

``Airflow`` owns the processes. Leaving its ``async with`` block, by cancellation too, stops their process groups. If
this process is killed, the kernel sends them TERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import secrets
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crosswind.demo.manifests import FOR_SLOW_MACHINES
from crosswind.errors import CrosswindError

__all__ = ["Airflow", "ServiceEnded", "airflow_environment", "die_with_parent", "free_port"]

STOP_TIMEOUT_S = 8.0
PR_SET_PDEATHSIG = 1


class ServiceEnded(CrosswindError):
    """One of Airflow's processes exited by itself; the message contains the end of its log."""


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def airflow_environment(home: Path, dags: Path, api_host: str, api_port: int) -> dict[str, str]:
    """Return the environment of a small real Airflow: SQLite, one DAG folder, every user is an admin.

    The caller's own ``AIRFLOW_*`` variables and ``airflow.cfg`` have no effect on it.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    return inherited | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__BASE_URL": f"http://localhost:{api_port}",
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{api_host}:{api_port}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "300",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "PYTHONWARNINGS": "ignore",
        **FOR_SLOW_MACHINES,
    }


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent dies (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


class Airflow:
    """A scheduler, a DAG processor and an API server, each with a log file in ``home``.

    An async context manager: on leaving, each process group gets TERM, and KILL after 8 s.
    """

    def __init__(self, home: Path, environment: Mapping[str, str], api_host: str, api_port: int) -> None:
        self.home = home
        self.environment = dict(environment)
        self.api_host, self.api_port = api_host, api_port
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    @property
    def url(self) -> str:
        """The URL of the UI and the REST API."""
        return f"http://{self.api_host}:{self.api_port}"

    async def __aenter__(self) -> Airflow:
        self.home.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def migrate(self) -> None:
        """Create the database."""
        process = await self._start("migrate", "db", "migrate")
        if await process.wait():
            raise ServiceEnded(f"airflow db migrate failed:\n{self.log_end('migrate')}")
        del self._processes["migrate"]

    async def start(self) -> None:
        """Start the three services, without waiting until they are ready."""
        await self._start("api-server", "api-server", "-H", self.api_host, "-p", str(self.api_port), "-w", "1")
        await self._start("scheduler", "scheduler")
        await self._start("dag-processor", "dag-processor")

    async def start_triggerer(self) -> None:
        """Start the triggerer. Only deferred tasks need it, but Airflow reports itself as unhealthy without one."""
        await self._start("triggerer", "triggerer")

    def process_id(self, name: str) -> int:
        """Return the process id of a started service: ``scheduler``, ``api-server`` or ``dag-processor``."""
        return self._processes[name].pid

    def check(self) -> None:
        """Raise ``ServiceEnded`` if a service has exited."""
        for name, process in self._processes.items():
            if process.returncode is not None:
                raise ServiceEnded(f"airflow {name} ended with code {process.returncode}:\n{self.log_end(name)}")

    async def stop(self) -> None:
        """Stop all process groups: TERM, and KILL after 8 s, the API server as soon as the others have ended."""
        for process in self._processes.values():
            _signal_group(process, signal.SIGTERM)
        # The API server has answered its requests at once; Python then frees Airflow's objects for two seconds of CPU.
        awaited = [process for name, process in self._processes.items() if name != "api-server"]
        waits = [asyncio.create_task(process.wait()) for process in awaited]
        if waits:
            await asyncio.wait(waits, timeout=STOP_TIMEOUT_S)
        for process in self._processes.values():
            _signal_group(process, signal.SIGKILL)
        await asyncio.gather(*waits, *(process.wait() for process in self._processes.values()))
        self._processes.clear()

    def log_end(self, name: str, lines: int = 15) -> str:
        """Return the last lines of a service's log."""
        with contextlib.suppress(OSError):
            return "\n".join((self.home / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])
        return "(no log)"

    async def _start(self, name: str, *arguments: str) -> asyncio.subprocess.Process:
        options: dict[str, Any] = {"preexec_fn": die_with_parent, "start_new_session": True}
        with (self.home / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "airflow",
                *arguments,
                env=self.environment,
                cwd=self.home,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **options,
            )
        self._processes[name] = process
        return process


def _signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    # The workers of the API server outlive their group's leader, so the group gets the signal in any case.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
