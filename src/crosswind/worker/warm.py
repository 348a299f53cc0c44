"""A worker pod that waits: it imports what tasks need, waits for one workload, runs it and ends.

It travels beside the shim, which loads it when ``CROSSWIND_WORKER`` says ``warm``. Like the shim it imports the
standard library at the top, and Airflow where it must. One thread does everything, because only then a fork is safe.

The order is:

1. Airflow, the operators and the configured modules are imported. In child processes, the API server is asked once and
   the DAG bundles are fetched.
2. The line ``WAITING`` in the termination message reports that the pod can be claimed; the startup probe reads it.
3. The claim arrives: a file that the kubelet writes from the pod's annotation, sealed for this pod alone.
4. The line is removed, and the workload runs as in a pod of its own.

Until step 4 nothing is printed: the container's log is that of the task. What cannot work ends the pod with the exit
code ``UNUSABLE`` and the reason in the termination message, where the executor reads it; it then starts its tasks cold.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import gc
import importlib
import os
import select
import signal
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from crosswind.worker.shim import Options, Worker

UNUSABLE = 78
"""Exit code of a pod that can run no task; EX_CONFIG of ``sysexits.h``."""
WAITING = b'{"crosswind":1,"reason":"waiting"}'
"""The termination message of a pod that can be claimed and has not begun a task."""

MODULES = (
    "airflow.sdk.execution_time.execute_workload",
    "airflow.executors.base_executor",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.dag_processing.dagbag",
    "airflow.dag_processing.bundles.manager",
    "airflow.providers.standard.operators.bash",
    "airflow.providers.standard.operators.empty",
    "airflow.providers.standard.operators.python",
)
"""What every task needs, or most tasks do. Another Airflow may lack one, which then costs its tasks some time."""

POLL_S, BLIND_POLL_S = 0.1, 0.02
"""Seconds between looks at the claim: with inotify, which shared file systems of virtual machines lack, and without."""
FETCH_LIMIT_S, API_LIMIT_S = 30, 15
"""Seconds for fetching the bundles and for the API server's answer. Either may fail: the task then waits for it."""
OUTPUT_LIMIT = 65536
"""Bytes of output from before the claim that are printed after it."""
NONCE_BYTES = 12
EXPORTERS = ("AIRFLOW__TRACES__OTEL_ON", "AIRFLOW__METRICS__OTEL_ON")
"""Airflow starts OpenTelemetry's exporters, which are threads, when it is imported with these options."""


class UnusableError(Exception):
    """This pod can run no task. The message goes to people: it names the cause and the fix."""


def wait(
    options: Options, prepare: Callable[[Options], Worker | None], log_line: Callable[..., None]
) -> tuple[Worker, Callable[[], None]]:
    """Wait for the workload of this pod; return its process and what runs the workload.

    ``prepare`` and ``log_line`` are the shim's. Ends by ``SystemExit`` where the pod can run no task.
    """
    for number in (signal.SIGTERM, signal.SIGINT):  # process 1 ignores signals without a handler
        signal.signal(number, lambda *_: os._exit(0))
    gc.enable()  # garbage of the imports would stay in memory for as long as this pod waits
    output = HeldOutput()
    try:
        with output:
            worker, execute, workload = wait_for_workload(options, prepare)
    except UnusableError as error:
        output.replay()
        log_line(str(error))
        with contextlib.suppress(UnusableError):
            write_message(options.message, str(error).encode())
        raise SystemExit(UNUSABLE) from None
    output.replay()
    return worker, lambda: execute(workload)


def wait_for_workload(
    options: Options, prepare: Callable[[Options], Worker | None]
) -> tuple[Worker, Callable[[bytes], None], bytes]:
    """Import everything, report that the pod can be claimed, and open its claim. Raises ``UnusableError``."""
    settings, uid = options.warm or {}, os.environ.get("CROSSWIND_POD_UID", "")
    key = read_key(str(settings.get("key") or ""))
    import_without_terminal()
    with without_exporters():
        worker = prepare(options)
        preload()
    if worker is None:
        raise UnusableError(
            "A warm pod needs the worker shim, which does not work here, as the line before says; "
            "remove [crosswind] warm, so that tasks start cold"
        )
    worker.after_fork = start_exporters
    import_configured(settings.get("preload") or ())
    execute = prepare_execution()
    run_ahead(worker)
    gc.collect()
    trim_memory()
    gc.freeze()  # so that the child's collector does not copy these pages
    write_message(options.message, WAITING)
    ready = time.monotonic()
    sealed = wait_for_claim(str(settings.get("claim") or ""), seconds_of(settings.get("wait")))
    claimed = time.monotonic()
    workload = open_seal(sealed, key, uid)
    write_message(options.message, b"")
    worker.claimed(waited=claimed - ready)
    return worker, execute, workload


def write_message(path: str, text: bytes) -> None:
    """Replace the termination message. Raises ``UnusableError``."""
    try:
        with open(path, "r+b") as file:
            file.truncate()
            file.write(text)
    except OSError as error:
        raise UnusableError(
            f"A warm pod reports through its termination message, and {path} cannot be written: {error}; leave "
            "terminationMessagePath of container base out of the pod template, or set [crosswind] warm for other queues"
        ) from error


# --- before the claim -------------------------------------------------------------------------------------------------


class HeldOutput:
    """Keeps the text that libraries write to standard output and error while the ``with`` block lasts."""

    def __enter__(self) -> None:
        try:
            self._held = os.memfd_create("output")
        except OSError:
            self._held = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._kept = [(target, os.dup(target)) for target in (1, 2)]
        for target, _ in self._kept:
            os.dup2(self._held, target)

    def __exit__(self, *_: object) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        for target, kept in self._kept:
            os.dup2(kept, target)
            os.close(kept)

    def replay(self) -> None:
        """Print what was kept, as a pod that imports after its start would have printed it, and forget it."""
        with contextlib.suppress(OSError):
            size = os.lseek(self._held, 0, os.SEEK_END)
            os.lseek(self._held, max(0, size - OUTPUT_LIMIT), os.SEEK_SET)
            os.write(1, os.read(self._held, OUTPUT_LIMIT))
        os.close(self._held)


def import_without_terminal() -> None:
    """Import structlog and httpx as if rich and Pygments were not installed: both draw on terminals, and take 3 MiB.

    structlog prints tracebacks with them, which a worker writes as JSON; httpx has a command that uses them.
    """
    hidden = [name for name in ("rich", "pygments") if name not in sys.modules]
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(hidden))  # None is how Python marks a module that cannot be imported
    for name in ("structlog", "httpx"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in hidden:
        del modules[name]


def trim_memory() -> None:
    """Give what the imports have freed back to the system, where the C library can: 0.5 MiB."""
    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def without_exporters() -> Iterator[None]:
    """Hide from the imports in the ``with`` block that Airflow is configured to export traces and metrics."""
    before = {name: os.environ.get(name) for name in EXPORTERS}
    os.environ |= dict.fromkeys(EXPORTERS, "False")
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


def start_exporters() -> None:
    """Start the exporter of traces, in the supervisor and in the task's process; that of metrics Airflow starts."""
    from airflow import configuration, settings

    configure: Any = getattr(settings, "configure_otel", None)
    if configure is not None:
        configure(configuration.conf)


def preload() -> None:
    """Import what tasks need of Airflow and its standard operators."""
    for name in MODULES:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def import_configured(configured: Iterable[str]) -> None:
    """Import the modules of the configuration. Raises ``UnusableError`` for one that fails, or that starts threads."""
    for name in configured:
        try:
            importlib.import_module(str(name))
        except (Exception, SystemExit) as error:
            raise UnusableError(
                f"The option preload of [crosswind] warm names {name}, which does not import: "
                f"{type(error).__name__}: {error}; correct the name, or add the package to the image of the workers"
            ) from error
        if others := [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]:
            raise UnusableError(
                f"The option preload of [crosswind] warm names {name}, which starts threads ({', '.join(others)}). "
                "They do not survive the fork of the task's process; remove it, so that each task imports it"
            )


def prepare_execution() -> Callable[[bytes], None]:
    """Return what runs a workload's JSON as Airflow's own command does. Raises ``UnusableError``."""
    try:
        from airflow.executors import workloads
        from airflow.sdk.api.client import Client
        from airflow.sdk.execution_time import execute_workload as command
        from pydantic import TypeAdapter

        decoder: Any = TypeAdapter(workloads.All)
        run_workload = command.execute_workload
    except (ImportError, AttributeError) as error:
        raise UnusableError(
            f"This Airflow cannot wait for a workload: {type(error).__name__}: {error}; remove [crosswind] warm, so "
            "that tasks start cold, or use the Airflow image of the scheduler's version"
        ) from error
    with contextlib.suppress(Exception):
        # Reads the certificates into Airflow's cache of SSL contexts, which takes longer than all of the rest.
        Client(base_url="http://localhost", token="").close()

    def execute(payload: bytes) -> None:
        try:
            workload = decoder.validate_json(payload)
        except Exception as error:
            command.log.error("Failed to read the workload", error=str(error))
            raise SystemExit(1) from None
        run_workload(workload)

    return execute


def run_ahead(worker: Worker) -> None:
    """Send the API server a first request and fetch the DAG bundles, so that the task need not wait for either."""
    _in_child(worker, _ask_api_server, API_LIMIT_S)
    _in_child(worker, _fetch_bundles, FETCH_LIMIT_S)


def _in_child(worker: Worker, work: Callable[[], None], limit: int) -> None:
    """Run a function for at most ``limit`` seconds and ignore its outcome.

    The child process keeps sockets, threads and SSH agents out of the process that waits.
    """
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.setpgid(0, 0)  # so that a signal that ends this pod ends the programs of a fetch too
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
                signal.signal(number, signal.SIG_DFL)
            signal.alarm(limit)
            work()
        os._exit(0)
    worker.child = pid
    os.waitpid(pid, 0)
    worker.child = None


def _ask_api_server() -> None:
    """Have the API server build the Execution API, which it does at its first request and takes seconds."""
    from airflow.executors.base_executor import get_execution_api_server_url
    from airflow.sdk.api.client import Client

    Client(base_url=get_execution_api_server_url(), token="").get("health")


def _fetch_bundles() -> None:
    """Fetch the bundles whose connections are in the environment or in a secrets backend.

    Other connections need a token, which a waiting pod does not have: there the bundle raises, and the task fetches it.
    """
    from airflow.dag_processing.bundles.local import LocalDagBundle
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    bundles: Any = DagBundlesManager
    manager = bundles()
    for name in manager.get_all_bundle_names():
        with contextlib.suppress(Exception):
            bundle = manager.get_bundle(name)
            if not isinstance(bundle, LocalDagBundle):
                bundle.initialize()


# --- the claim --------------------------------------------------------------------------------------------------------


def seconds_of(value: object) -> float:
    """Return a time limit; infinite when there is none."""
    return float(value) if isinstance(value, (int, float)) and value > 0 else float("inf")


def wait_for_claim(path: str, limit: float) -> str:
    """Return the content of the claim's file as soon as it has any.

    A SIGTERM ends the process meanwhile. After ``limit`` seconds it ends by itself, as done: the deployment that would
    have deleted this pod may be gone.
    """
    end = time.monotonic() + limit
    with folder_changes(os.path.dirname(path)) as wait:
        while not (sealed := _read(path)):
            if time.monotonic() > end:
                os._exit(0)
            wait()
    return sealed


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:  # between the kubelet's removal of an old name and the new one
        return ""


@contextlib.contextmanager
def folder_changes(folder: str) -> Iterator[Callable[[], object]]:
    """Yield what waits until a file of a folder may have changed: the kubelet renames a link in it."""
    descriptor = _inotify(folder)
    if descriptor is None:
        yield lambda: time.sleep(BLIND_POLL_S)
        return
    try:
        yield lambda: select.select([descriptor], (), (), POLL_S)[0] and os.read(descriptor, 65536)
    finally:
        os.close(descriptor)


def _inotify(folder: str) -> int | None:
    """Return a descriptor that becomes readable when an entry of the folder appears or is renamed; None without any."""
    created, moved_to = 0x100, 0x80
    with contextlib.suppress(Exception):
        import ctypes

        libc = ctypes.CDLL(None)
        descriptor: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if descriptor >= 0:
            if libc.inotify_add_watch(descriptor, os.fsencode(folder), created | moved_to) >= 0:
                return descriptor
            os.close(descriptor)
    return None


def read_key(path: str) -> bytes:
    """Return the key of this pod's Secret. Raises ``UnusableError``."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UnusableError(
            f"The key of this warm pod cannot be read from {path}: {error}; the pod template and the pod_mutation_hook "
            "must leave the volume of the workload in container base"
        ) from error


def open_seal(sealed: str, key: bytes, uid: str) -> bytes:
    """Return the workload's JSON. Raises ``UnusableError`` if the claim was not sealed with this key for this pod.

    ``sealed``: base64 of a nonce of 12 bytes and the ciphertext of AES-256-GCM. ``uid``: of the pod, associated data.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        raw = base64.b64decode(sealed, validate=True)
        return AESGCM(key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], uid.encode())
    except (InvalidTag, ValueError, binascii.Error) as error:
        raise UnusableError(
            f"The workload for the warm pod {uid} cannot be opened ({type(error).__name__}): it was not sealed with "
            "this pod's key. Give all schedulers the same [api_auth] jwt_secret"
        ) from error
