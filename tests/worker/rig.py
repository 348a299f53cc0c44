"""A real worker against a real Execution API: one process with the API and the database, one for each worker."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crosswind.demo.processes import airflow_environment, die_with_parent, free_port
from crosswind.worker import shim
from kubelocal.kubelet.pod_volumes import File, Ownership, write_atomically

HERE = Path(__file__).parent
STOCK = [sys.executable, "-m", "airflow.sdk.execution_time.execute_workload"]
DEADLINE = 25.0 * float(os.environ.get("TEST_TIME_SCALE") or 4)
"""Seconds for anything: the imports of a worker alone take ten on a busy machine."""


def until(happened: Callable[[], Any], what: str = "it") -> Any:
    """Wait until something has happened, and return what that is."""
    end = time.monotonic() + DEADLINE
    while not (value := happened()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not happen within {DEADLINE:g} s")
        time.sleep(0.01)
    return value


def at_rest(process: psutil.Process) -> bool:
    """Whether a process has ended, or has used no CPU for 0.2 s: it waits for somebody."""
    try:
        before = process.cpu_times()
        time.sleep(0.2)
        return process.status() == psutil.STATUS_ZOMBIE or process.cpu_times() == before
    except psutil.NoSuchProcess:
        return True


class Run:
    """One worker. ``folder``: where its DAG leaves marks, where its log and its termination message are."""

    def __init__(self, rig: Rig, run_id: str, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self._rig, self.run_id, self.folder, self.process = rig, run_id, folder, process

    def reached(self, mark: str) -> None:
        """Wait until the DAG's code has left a mark."""

        def marked() -> bool:
            over = self.process.poll() is not None
            there = self.has(mark)
            assert there or not over, f"the worker ended before {mark!r}:\n{self.log[-6000:]}"
            return there

        until(marked, mark)

    def has(self, mark: str) -> bool:
        return (self.folder / mark).exists()

    def signal(self, whom: str = "process 1", number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal as an image's first process does: to its own child, or to every process in the container.

        ``whom``: "process 1", "all", or "all but process 1".
        """
        leader = psutil.Process(self.process.pid)
        others = [] if whom == "process 1" else leader.children(recursive=True)
        for process in ([] if whom == "all but process 1" else [leader]) + others:
            if process.is_running():
                process.send_signal(number)

    @property
    def child(self) -> psutil.Process:
        """The process of the task, forked by the supervisor."""
        (child,) = psutil.Process(self.process.pid).children()
        return child

    @contextlib.contextmanager
    def supervisor_stopped(self) -> Iterator[None]:
        """Stop the supervisor for the ``with`` block. Signals and messages wait for it as on a busy machine."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def ended(self) -> int:
        """Wait for the end and return the exit code."""
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the worker did not end:\n{self.log[-6000:]}") from None

    def kill(self) -> None:
        if self.process.poll() is None:
            for process in (*psutil.Process(self.process.pid).children(recursive=True), self.process):
                process.kill()
            self.process.wait()

    @property
    def state(self) -> str:
        """What the database says of the task instance."""
        return self._rig.state(self.run_id)

    @property
    def log(self) -> str:
        """The container's log."""
        return (self.folder / "container.log").read_text(errors="replace")

    @property
    def task_log(self) -> str:
        return "".join(path.read_text() for path in (self.folder / "logs").rglob("attempt=1.log"))

    @property
    def message(self) -> bytes:
        """The termination message."""
        return (self.folder / "termination-log").read_bytes()

    @property
    def record(self) -> dict[str, Any]:
        """The shim's part of the termination message, {} when there is none."""
        line = self.message.partition(b"\n")[0]
        read: dict[str, Any] = json.loads(line) if line.startswith(shim.MARKER) else {}
        return read


class WaitingRun(Run):
    """A warm worker. ``key``: of its Secret. ``uid``: of its pod."""

    def __init__(self, rig: Rig, folder: Path, process: subprocess.Popen[bytes], key: bytes, uid: str) -> None:
        super().__init__(rig, "", folder, process)
        self.key, self.uid = key, uid

    def ready(self) -> Self:
        """Wait until the startup probe would succeed, and return this."""

        def reported() -> bool:
            assert self.process.poll() is None, f"the worker ended:\n{self.message!r}\n{self.log[-6000:]}"
            return bool(self.message)

        until(reported, "the worker's report")
        return self

    def claim(self, dag_id: str) -> float:
        """Hand the workload of a new run over, as executor and kubelet do; return when, by the monotonic clock."""
        workload = self._rig.workload(dag_id)
        self.run_id = json.loads(workload)["ti"]["run_id"]
        sealed = self.seal(workload.encode())
        delivered = time.monotonic()
        self.deliver(sealed)
        return delivered

    def seal(self, workload: bytes) -> str:
        """Return the value of the pod's annotation."""
        nonce = os.urandom(12)
        return base64.b64encode(nonce + AESGCM(self.key).encrypt(nonce, workload, self.uid.encode())).decode()

    def deliver(self, sealed: str) -> None:
        """Write the claim's file as the kubelet does."""
        _deliver(self.folder / "claim", sealed)


def _deliver(folder: Path, sealed: str) -> None:
    write_atomically(folder, {"workload": File(sealed.encode())}, Ownership())


class Rig:
    """The Execution API, while the ``with`` block lasts. ``dags``: texts of files by name."""

    def __init__(self, folder: Path, dags: Mapping[str, str]) -> None:
        self.folder, self.dags = folder, folder / "dags"
        self.dags.mkdir()
        for name, text in dags.items():
            (self.dags / f"{name}.py").write_text(text)
        self.port = free_port()
        bundles = [
            {
                "name": "tests",
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": str(self.dags)},
            }
        ]
        self.environment = airflow_environment(folder / "home", self.dags, "127.0.0.1", self.port) | {
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        }
        self._runs: list[Run] = []

    def __enter__(self) -> Self:
        (self.folder / "home").mkdir()
        with (self.folder / "api.log").open("wb") as log:
            self._server = subprocess.Popen(
                [sys.executable, str(HERE / "execution_api.py"), str(self.dags), str(self.port)],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                preexec_fn=die_with_parent,
            )
        try:
            self._line("ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for run in self._runs:
            run.kill()
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.close()
        self._server.kill()
        self._server.wait()
        self._server.stdout.close()

    def _line(self, begin: str) -> str:
        """Return the next line of the server that begins so; its libraries log to standard output as well."""
        assert self._server.stdout
        for line in self._server.stdout:
            if line.startswith(begin):
                return line
        raise AssertionError(f"the Execution API ended:\n{(self.folder / 'api.log').read_text()[-6000:]}")

    def workload(self, dag_id: str) -> str:
        """Make a run of a DAG and return the workload of its only task instance."""
        return self._ask(dag_id, "{")

    def replace(self, run_id: str) -> None:
        """Give a run's only task instance its next try, as the executor does when the cluster took the pod."""
        self._ask(f"replace {run_id}", "replaced")

    def _ask(self, line: str, answer: str) -> str:
        assert self._server.stdin
        self._server.stdin.write(f"{line}\n")
        self._server.stdin.flush()
        return self._line(answer)

    def start(
        self,
        dag_id: str,
        *,
        command: list[str] | None = None,
        options: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        message: bytes = b"",
        inline: bool = False,
        before: Callable[[], None] = lambda: None,
    ) -> Run:
        """Start the worker of a new run; by default the shim, as the executor starts it.

        ``options``: of the shim. ``message``: what the termination message holds at the start. ``inline``: pass the
        workload as an argument, as stock does. ``before``: called in the worker's process before its program.
        """
        workload = self.workload(dag_id)
        folder = self._folder(dag_id, message)
        (folder / "workload.json").write_text(workload)
        delivery = ["--json-string", workload] if inline else ["--json-path", str(folder / "workload.json")]
        program = command or [sys.executable, str(shim.__file__)]
        process = self._spawn([*program, *delivery], folder, options or {}, environment or {}, before)
        run = Run(self, json.loads(workload)["ti"]["run_id"], folder, process)
        self._runs.append(run)
        return run

    def wait(
        self,
        *,
        warm: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> WaitingRun:
        """Start a worker that waits for its workload. ``warm``: more of the options of ``warm.py``."""
        folder, key, uid = self._folder("warm", b""), os.urandom(32), str(uuid.uuid4())
        (folder / "key").write_bytes(key)
        (folder / "claim").mkdir()
        _deliver(folder / "claim", "")
        given = {"claim": str(folder / "claim" / "workload"), "key": str(folder / "key"), **(warm or {})}
        process = self._spawn(
            [sys.executable, str(shim.__file__)],
            folder,
            {**(options or {}), "warm": given},
            {"CROSSWIND_POD_UID": uid, **(environment or {})},
        )
        run = WaitingRun(self, folder, process, key, uid)
        self._runs.append(run)
        return run

    def _folder(self, name: str, message: bytes) -> Path:
        folder = self.folder / f"{name}-{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        (folder / "termination-log").write_bytes(message)
        return folder

    def _spawn(
        self,
        command: list[str],
        folder: Path,
        options: Mapping[str, Any],
        environment: Mapping[str, str],
        before: Callable[[], None] = lambda: None,
    ) -> subprocess.Popen[bytes]:
        own = {
            "AIRFLOW_HOME": str(self.folder / "worker-home"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////nonexistent/airflow.db",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
            "CROSSWIND_WORKER": json.dumps({"message": str(folder / "termination-log"), **options}),
            "MARKS": str(folder),
        }

        def prepare() -> None:
            die_with_parent(signal.SIGKILL)
            before()

        with (folder / "container.log").open("wb") as log:
            return subprocess.Popen(
                command,
                env=self.environment | own | dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=prepare,
            )

    def state(self, run_id: str) -> str:
        """Return the state of a run's only task instance; a retry gives it a new id."""
        with contextlib.closing(sqlite3.connect(self.folder / "home/airflow.db", timeout=30)) as connection:
            query = "select state from task_instance where run_id = ?"
            ((state,),) = connection.execute(query, (run_id,)).fetchall()
        return str(state)


def python_path(*folders: str | Path) -> dict[str, str]:
    """Return an environment in which these folders come first in ``sys.path``."""
    return {"PYTHONPATH": os.pathsep.join(map(str, folders))}
