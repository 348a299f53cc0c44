"""Airflow's own processes: started, waited for, ended without a trace."""

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

from crosswind.errors import CrosswindError

__all__ = ["Airflow", "ServiceEnded", "airflow_environment", "die_with_parent", "free_port"]

STOP_S = 8.0
PR_SET_PDEATHSIG = 1


class ServiceEnded(CrosswindError):
    """One of Airflow's processes ended by itself; the message holds the end of its log."""


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def airflow_environment(home: Path, dags: Path, api_host: str, api_port: int) -> dict[str, str]:
    """Build the configuration of a small real Airflow: SQLite, one DAG folder, everybody is admin of the UI.

    Nothing of the caller's own ``AIRFLOW_*`` variables or ``airflow.cfg`` gets in.
    """
    mine = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    return mine | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__BASE_URL": f"http://localhost:{api_port}",
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{api_host}:{api_port}/execution/",
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",  # a slow machine takes its time
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
    }


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Let the kernel end this process when its parent dies without cleaning up (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


class Airflow:
    """A scheduler, a DAG processor and an API server, each with a log file under ``home``.

    An async context manager: on leaving, every process group is told to end, then killed after 8 s.
    """

    def __init__(self, home: Path, environment: Mapping[str, str], api_host: str, api_port: int) -> None:
        self.home = home
        self.environment = dict(environment)
        self.api_host, self.api_port = api_host, api_port
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    @property
    def url(self) -> str:
        """Where the UI and the REST API are."""
        return f"http://{self.api_host}:{self.api_port}"

    async def __aenter__(self) -> Airflow:
        self.home.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def migrate(self) -> None:
        """Make the database."""
        process = await self._start("migrate", "db", "migrate")
        if await process.wait():
            raise ServiceEnded(f"airflow db migrate failed:\n{self.log_end('migrate')}")
        del self._processes["migrate"]

    async def start(self) -> None:
        """Start the three services; they come up by themselves."""
        await self._start("api-server", "api-server", "-H", self.api_host, "-p", str(self.api_port), "-w", "1")
        await self._start("scheduler", "scheduler")
        await self._start("dag-processor", "dag-processor")

    async def start_triggerer(self) -> None:
        """Start the triggerer too: only deferred tasks need it, but without it Airflow does not call itself healthy."""
        await self._start("triggerer", "triggerer")

    def process_id(self, name: str) -> int:
        """Return the process id of a service that was started: ``scheduler``, ``api-server`` or ``dag-processor``."""
        return self._processes[name].pid

    def check(self) -> None:
        """Raise ``ServiceEnded`` when a service is no longer there."""
        for name, process in self._processes.items():
            if process.returncode is not None:
                raise ServiceEnded(f"airflow {name} ended with code {process.returncode}:\n{self.log_end(name)}")

    async def stop(self) -> None:
        """End all process groups: TERM, and KILL for what is left after 8 s."""
        for process in self._processes.values():
            _signal_group(process, signal.SIGTERM)
        waits = [asyncio.create_task(process.wait()) for process in self._processes.values()]
        if waits:
            await asyncio.wait(waits, timeout=STOP_S)
        for process in self._processes.values():
            _signal_group(process, signal.SIGKILL)
        if waits:
            await asyncio.gather(*waits)
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
    # The group outlives its leader (the API server's workers), so it is told even when the leader has ended.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
