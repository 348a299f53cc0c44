"""The first program of a worker pod: it runs Airflow's own ``execute_workload`` and watches over its supervisor.

It travels in the Secret of the workload, so that any Airflow image can run it: it imports the standard library at the
top, Airflow where it must, and nothing else. It adds to ``execute_workload``:

- the container ends with the task. Airflow's supervisor may sleep for ``min_heartbeat_interval`` (5 s) when the last
  socket of its child ends before the child can be reaped. A pidfd of the child in the same selector wakes it;
- a failure that may not be the task's own is not sent to Airflow: one that follows a SIGTERM, or a child that the
  kernel killed for memory. The task instance stays RUNNING, the container exits 143 or 137, and the executor decides;
- the termination message carries figures: peak memory, OOM kills, seconds of imports, bundle, parse
  and user code. What the task wrote there stays, after it;
- imports run without the garbage collector, and with the bytecode of a cache where the image has none.

A task that would run without this file runs with it: what Airflow has moved or the kernel refuses is logged in one line
and left out.
"""

from __future__ import annotations

import contextlib
import gc
import json
import mmap
import os
import re
import runpy
import selectors
import signal
import sys
import time
from io import FileIO

TYPE_CHECKING = False  # ``typing`` costs 10 ms of a start
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType
    from typing import Any, NoReturn

BEGUN = time.monotonic()

COMMAND = "airflow.sdk.execution_time.execute_workload"
TERMINATED, OUT_OF_MEMORY = "terminated", "oom"
EXIT_CODES = {TERMINATED: 128 + signal.SIGTERM, OUT_OF_MEMORY: 128 + signal.SIGKILL}
FAILURES = ("failed", "up_for_retry")
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""Airflow forwards both to the child; an image's STOPSIGNAL may be either."""
LATE_SIGNAL_S = 1.0
"""How long a failure after a signal to the child waits for the supervisor's own signal."""
SIGNALLED = (
    "The pod was asked to end. From now on the executor decides about failures, which may not be the task's own. "
    "A success is reported as usual."
)

MESSAGE_LIMIT = 4096
"""Bytes of a termination message that the kubelet keeps, the last ones of the file."""
RECORD_LIMIT = 1000
TAIL_LIMIT, TAIL_LINES = 2048, 80
"""What the kubelet takes of the log with ``FallbackToLogsOnError``."""
MARKER = b'{"crosswind":1'
"""How a record begins; it is the first line of the message."""

INTERNALS = (
    *("start", "wait", "final_state", "update_task_state_if_needed", "_on_child_started", "_handle_request"),
    *("_monitor_subprocess", "_service_subprocess", "_check_subprocess_exit"),
)
"""Members of Airflow's ``ActivitySubprocess`` that are extended here."""


class Options:
    """What the executor says about the pod, JSON in the environment variable ``CROSSWIND_WORKER``."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.message = str(config.get("message") or "/dev/termination-log")
        """Path of the termination message."""
        self.fallback = config.get("fallback") is True
        """The container's ``terminationMessagePolicy`` is FallbackToLogsOnError."""
        self.grace = float(grace) if isinstance(grace := config.get("grace"), (int, float)) else 30.0
        """The pod's ``terminationGracePeriodSeconds``."""
        self.patience = max(self.grace - 5.0, self.grace / 2)
        """Seconds after SIGTERM that the task keeps; the rest is for the upload of its log."""
        self.bytecode = str(config.get("bytecode") or "")
        """Where the volume with a bytecode cache is mounted, "" for none."""
        self.warm: dict[str, Any] | None = warm if isinstance(warm := config.get("warm"), dict) else None
        """Of a pod that waits for its workload: paths of the claim and the key, modules to import. See ``warm.py``."""


def read_options(text: str) -> Options:
    """Read the variable; options that cannot be read are the defaults."""
    try:
        config = json.loads(text)
    except ValueError:
        config = None
    return Options(config if isinstance(config, dict) else {})


def held_reason(
    *, final: str, exit_code: int, own: bool, signalled: bool, killed: bool, oom_kills: int, delivered: bool
) -> str:
    """Return why a final state is not sent: ``terminated``, ``oom``, or "" when it is the task's own.

    ``final``: the state that Airflow would send. ``own``: the task reported its failure before any signal.
    ``killed``: the child's SIGKILL came from here. ``oom_kills``: counted since the start. ``delivered``: Airflow has
    the task's state already.
    """
    if final not in FAILURES or own or delivered:
        return ""
    if exit_code == -signal.SIGKILL and oom_kills > 0 and not killed:
        return OUT_OF_MEMORY
    return TERMINATED if signalled else ""


def is_failure(message: Any) -> bool:
    """Whether a message of the child says that the task failed; by name, as the classes are Airflow's."""
    kind = type(message).__name__
    return kind == "RetryTask" or (kind == "TaskState" and state_of(getattr(message, "state", "")) in FAILURES)


def state_of(state: Any) -> str:
    """Return a state's name, whether Airflow holds it as text or as a member of an enumeration."""
    return str(getattr(state, "value", state))


def record_line(record: Mapping[str, Any]) -> bytes:
    """Return a record as one line of JSON of at most ``RECORD_LIMIT`` bytes; without room only its reason is left."""
    fields = {key: value for key, value in record.items() if value is not None and value != ""}
    line = json.dumps({"crosswind": 1, **fields}, separators=(",", ":")).encode()
    return line if len(line) <= RECORD_LIMIT else record_line({"reason": fields.get("reason")})


def message(own: bytes, record: Mapping[str, Any], tail: bytes = b"") -> bytes:
    """Return the termination message: the record, then what the task wrote (``own``), or else the log's end.

    The record comes first: the kubelet cuts the messages of a pod with many containers at their ends. What the task
    wrote is kept as the kubelet would have: a long text costs the record its figures, or, without a reason, all of it.
    """
    line = record_line(record)
    if len(line) + 1 + len(own) > MESSAGE_LIMIT:
        if not record.get("reason"):
            return own
        line = record_line({"reason": record["reason"]})
        own = own[-(MESSAGE_LIMIT - len(line) - 1) :]
    rest = own or tail
    return line + b"\n" + rest if rest else line


def without_record(present: bytes) -> bytes:
    """Return a termination message without the record that an earlier call put before it."""
    return present.partition(b"\n")[2] if present.startswith(MARKER) else present


def last_lines(text: bytes) -> bytes:
    """Return the end of a log as the kubelet cuts it."""
    return b"".join(text[-TAIL_LIMIT:].splitlines(keepends=True)[-TAIL_LINES:])


def read_usage(root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> dict[str, Any]:
    """Return peak memory (bytes), OOM kills and CPU (seconds) of this process's cgroup, version 1 or 2.

    None: the kernel does not say. Inside a container the mount usually begins at the container's own group, whatever
    path the kernel names.
    """
    paths = _cgroup_paths(_read(membership))
    if "memory" in paths:
        memory = _folders(f"{root}/memory", paths["memory"])
        cpu = [f for name in ("cpuacct", "cpu,cpuacct") for f in _folders(f"{root}/{name}", paths.get("cpuacct", "/"))]
        peak, kills = _figure(memory, "memory.max_usage_in_bytes"), _figure(memory, "memory.oom_control", "oom_kill")
        used, unit = _figure(cpu, "cpuacct.usage"), 1e9
    else:
        group = _folders(root, paths.get("", "/"))
        peak, kills = _figure(group, "memory.peak"), _figure(group, "memory.events", "oom_kill")
        used, unit = _figure(group, "cpu.stat", "usage_usec"), 1e6
    return {"peak": peak, "oom_kills": kills, "cpu": used and round(used / unit, 3)}


def _cgroup_paths(membership: str) -> dict[str, str]:
    """Return the path for each controller of version 1, and "" for version 2."""
    rows = (line.split(":", 2) for line in membership.splitlines() if line.count(":") > 1)
    return {controller: path for _, controllers, path in rows for controller in controllers.split(",")}


def _folders(root: str, path: str) -> list[str]:
    inside = path.strip("/") and ".." not in path.split("/")
    return [f"{root}/{path.strip('/')}", root] if inside else [root]


def _read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
        return file.read(65536)
    return ""


def _figure(folders: list[str], name: str, key: str = "") -> int | None:
    text = next((text for folder in folders if (text := _read(f"{folder}/{name}"))), "")
    match = re.search(rf"^{key} (\d+)$" if key else r"^(\d+)\s*$", text, re.MULTILINE)
    return int(match[1]) if match else None


class Marks:
    """Moments and durations that the child notes and the supervisor reads, in memory that both share.

    Mapped before the fork: a figure needs no message and outlives a killed child.
    """

    NAMES = ("bundle", "parse", "begun", "ended", "signalled")

    def __init__(self) -> None:
        self._values = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")

    def set(self, name: str, value: float) -> None:
        """Record a mark."""
        self._values[self.NAMES.index(name)] = value

    def get(self, name: str) -> float | None:
        """Return a mark, None if it was never recorded."""
        return self._values[self.NAMES.index(name)] or None

    def run_seconds(self, now: float) -> float | None:
        """Return how long the user's code ran, until ``now`` if it never came to its end."""
        began = self.get("begun")
        return None if began is None else (self.get("ended") or now) - began


class _LogTail:
    """A binary stream that passes everything on and remembers its end, for ``FallbackToLogsOnError``."""

    def __init__(self, stream: Any, end: bytearray) -> None:
        self._stream, self._end = stream, end

    def write(self, data: Any) -> int:
        self._end += data
        if len(self._end) > 4 * TAIL_LIMIT:
            del self._end[:-TAIL_LIMIT]
        return int(self._stream.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Worker:
    """This process: the signal it received, its child, and the content of the termination message.

    Four phases. ``waiting``: a warm pod has no task; a SIGTERM ends it as done. ``starting``: Airflow is imported; a
    SIGTERM ends the process at once, also as process 1, which the kernel would let ignore it. ``running``: Airflow's
    supervisor loops over its child. ``ending``: the outcome is decided; signals change nothing.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.pid = os.getpid()
        self.phase = "waiting" if options.warm else "starting"
        self.begun = BEGUN
        self.waited: float | None = None
        self.after_fork: Callable[[], object] = int
        self.signalled_at: float | None = None
        self.reason = ""
        self.imported: float | None = None
        self.child: int | None = None
        self.marks = Marks()
        self.log_end = bytearray()
        self.streams: list[object] = []
        self._written, self._own = b"", b""
        self._before = {"oom_kills": read_usage()["oom_kills"]}
        self.wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def usage(self) -> dict[str, Any]:
        """Return ``read_usage`` without OOM kills, and in a warm pod CPU, from before the task."""
        used, before = read_usage(), self._before
        return {key: round((value or 0) - (before.get(key) or 0), 3) or None for key, value in used.items()}

    def claimed(self, waited: float) -> None:
        """Begin the task of a pod that has waited. Its figures count from here on."""
        self.begun, self.waited, self._before = time.monotonic(), waited, {**read_usage(), "peak": 0}
        self.phase = "starting"

    def listen(self) -> None:
        """Handle the signals that ask the pod to end."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        """Note the request to end and pass it on.

        It takes no lock and logs nothing: the frame that it interrupts may hold the lock of Airflow's logger.
        """
        if os.getpid() != self.pid:  # a fork that has not reset its handlers yet
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if self.phase == "ending":
            return
        if self.phase == "waiting":
            self.kill_child()
            os._exit(0)
        if self.signalled_at is None:
            self.signalled_at = time.monotonic()
            with contextlib.suppress(Exception):
                # Now, because a SIGKILL may follow before the task has ended. A success rewrites it.
                self.write_message(TERMINATED, EXIT_CODES[TERMINATED])
        if self.phase == "starting":
            self.kill_child()
            os._exit(EXIT_CODES[TERMINATED])
        if self.child is not None:
            with contextlib.suppress(OSError):
                os.kill(self.child, number)
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b".")

    def kill_child(self) -> bool:
        """Kill the child and its process group; False when that is not allowed (it runs as another user)."""
        if self.child is None:
            return True
        try:
            # Airflow 3.3.0 leaves the child in the group of the supervisor, which must not kill itself.
            kill = os.killpg if os.getpgid(self.child) == self.child else os.kill
            kill(self.child, signal.SIGKILL)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return True

    def seconds_left(self) -> float | None:
        """Return how long the task may go on after a signal; None without one."""
        return None if self.signalled_at is None else self.signalled_at + self.options.patience - time.monotonic()

    def record(self, reason: str) -> dict[str, Any]:
        """Return the figures known so far."""
        seconds = {"waited": self.waited, "imports": self.imported, "run": self.marks.run_seconds(time.monotonic())}
        seconds |= {name: self.marks.get(name) for name in ("bundle", "parse")}
        rounded = {name: None if value is None else round(value, 4) for name, value in seconds.items()}
        return {"reason": reason, **self.usage(), **rounded}

    def write_message(self, reason: str = "", code: int = 0) -> None:
        """Write the record into the termination message. Without such a file there is nobody to read it."""
        tail = last_lines(bytes(self.log_end)) if self.options.fallback and code else b""
        try:
            with open(self.options.message, "r+b") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 4 * MESSAGE_LIMIT))
                present = file.read(4 * MESSAGE_LIMIT)
                if present != self._written:  # else the task wrote nothing since the last time
                    self._own = without_record(present)
                self._written = message(self._own, self.record(reason), tail)
                if self._written != present:
                    file.seek(0)
                    file.truncate()
                    file.write(self._written)
        except (OSError, ValueError):
            return


def log_line(event: str, **details: object) -> None:
    """Write one line to the container's log, in the shape of Airflow's own."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    line = {"timestamp": f"{now}Z", "level": "warning", "event": event, "logger": "crosswind.worker", **details}
    with contextlib.suppress(OSError, ValueError):
        print(json.dumps(line, default=str), flush=True)


Activity: Any = object  # Airflow's ``ActivitySubprocess`` follows in the order of bases


class WatchedActivity(Activity):  # type: ignore[misc]
    """Each method extends Airflow's by a small step that cannot fail the task."""

    worker: Worker
    direct: frozenset[str]
    """Airflow's ``STATES_SENT_DIRECTLY``: a terminal state among these has reached Airflow."""
    child_main: Callable[[], None]
    own_failure = False
    killed = False
    _exit_code: Any

    @classmethod
    def start(cls, **kwargs: Any) -> Any:
        """Fork the child, with marks around its parse and the user's code."""
        activity = super().start(**{"target": cls.child_main, **kwargs})
        cls.worker.after_fork()
        return activity

    def _on_child_started(self, *args: Any, **kwargs: Any) -> None:
        self.worker.child = self.pid
        super()._on_child_started(*args, **kwargs)

    def wait(self) -> int:
        """Wait for the child; signals wait until ``_monitor_subprocess`` has replaced the handlers that this sets."""
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            code: int = super().wait()
            return code
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _monitor_subprocess(self) -> None:
        opened: list[FileIO] = []
        self._add(opened, lambda: FileIO(os.dup(self.worker.wake_read)), self._on_wake)
        self._add(opened, lambda: FileIO(os.pidfd_open(self.pid)), lambda _: False)
        self.worker.phase = "running"
        self.worker.listen()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        try:
            super()._monitor_subprocess()
            if not self.own_failure and state_of(self.final_state) in FAILURES:
                self._is_signalled()
        finally:
            self.worker.phase = "ending"
            for descriptor in opened:
                descriptor.close()

    def _add(self, opened: list[FileIO], make: Callable[[], FileIO], on_ready: Callable[[Any], bool]) -> None:
        """Have Airflow's loop wake for one more descriptor, where the kernel has it (pidfd: Linux 5.3)."""
        try:
            descriptor = make()
            opened.append(descriptor)
            self.selector.register(descriptor, selectors.EVENT_READ, (on_ready, self.selector.unregister))
        except Exception as error:
            log_line("This container may end some seconds after its task", error=f"{type(error).__name__}: {error}")

    def _on_wake(self, descriptor: FileIO) -> bool:
        os.read(descriptor.fileno(), 64)
        self.process_log.warning(SIGNALLED)
        log_line(SIGNALLED)
        return True

    def _service_subprocess(self, max_wait_time: float, *args: Any, **kwargs: Any) -> Any:
        left = self.worker.seconds_left()
        if left is not None:
            max_wait_time = min(max_wait_time, max(left, 0.0))
            if left <= 0:
                self._give_up()
        return super()._service_subprocess(max_wait_time, *args, **kwargs)

    def _check_subprocess_exit(self, *args: Any, **kwargs: Any) -> Any:
        if self.killed:  # else Airflow logs that the task ran out of memory
            args, kwargs = (), {**kwargs, "expect_signal": signal.SIGKILL}
        code = super()._check_subprocess_exit(*args, **kwargs)
        self.worker.child = self.pid if code is None else None  # once reaped, its pid may be another's
        return code

    def _handle_request(self, msg: Any, *args: Any, **kwargs: Any) -> Any:
        if is_failure(msg):
            if self._is_signalled():
                self._end_child()  # it waits for the answer, and would then run callbacks and send e-mails
                return None
            self.own_failure = True
        return super()._handle_request(msg, *args, **kwargs)

    def _is_signalled(self) -> bool:
        """Whether the pod is asked to end. A signal to all processes may reach the child before this process."""
        worker, began = self.worker, time.monotonic()
        late = worker.marks.get("signalled") or -(self._exit_code or 0) in STOP_SIGNALS
        while late and worker.signalled_at is None and time.monotonic() < began + LATE_SIGNAL_S:
            time.sleep(0.01)
        return worker.signalled_at is not None

    def _give_up(self) -> None:
        """Stop the remaining work shortly before the grace period ends, so that the log can still be uploaded."""
        if self._exit_code is None:
            self._end_child()
        else:
            self._open_sockets.clear()  # processes left by the task keep them open

    def _end_child(self) -> None:
        self.killed = True
        if not self.worker.kill_child():
            # It runs as another user. It ends with the container, and nothing that it says is read before.
            self._exit_code = -signal.SIGKILL
            self._open_sockets.clear()

    def update_task_state_if_needed(self) -> None:
        """Send the final state, unless the failure may not be the task's own."""
        worker, final = self.worker, state_of(self.final_state)
        delivered = state_of(self._terminal_state) in self.direct
        pending = getattr(self, "_pending_terminal_state_msg", None) is not None
        worker.reason = held_reason(
            final=final,
            exit_code=int(self._exit_code),
            own=self.own_failure or pending,
            signalled=worker.signalled_at is not None,
            killed=self.killed,
            oom_kills=worker.usage()["oom_kills"] or 0,
            delivered=delivered,
        )
        if worker.reason == OUT_OF_MEMORY:
            self.process_log.error("The task's process was killed because memory ran out (OOM kill)")
        # After a delivered state only its callbacks can have failed, by the signal: no state is left to send.
        if not worker.reason and not (delivered and self.killed):
            super().update_task_state_if_needed()


def watched_child(worker: Worker, main: Callable[[], None]) -> Callable[[], None]:
    """Return what the child runs: Airflow's ``main``, watched."""

    def child_main() -> None:
        with contextlib.suppress(Exception):
            _watch_runner(worker.marks)
        worker.after_fork()
        main()

    return child_main


def _watch_runner(marks: Marks) -> None:
    """Note times and signals, and call ``on_kill`` only until the user's code has ended or raised.

    It may raise: in ``send``, where a failure waits for the supervisor, callbacks would run at once. A second signal is
    enough, or one to all processes, as the supervisor forwards its own.
    """
    from airflow.sdk.execution_time import task_runner

    runner: Any = task_runner
    parse, prepare, execute, pid = runner.parse, runner._prepare, runner._execute_task, os.getpid()

    def ending(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except BaseException:
            marks.set("ended", time.monotonic())
            raise

    def watched_parse(what: Any, log: Any, *args: Any, **kwargs: Any) -> Any:
        return parse(what, _ParseLog(log, marks), *args, **kwargs)

    def watched_prepare(*args: Any, **kwargs: Any) -> Any:
        call_on_kill: Any = signal.getsignal(signal.SIGTERM)  # Airflow has just set it

        def on_signal(*args: Any) -> None:
            if os.getpid() == pid:  # no fork of the user's code
                marks.set("signalled", time.monotonic())
                if marks.get("ended") is None:
                    ending(call_on_kill, *args)

        signal.signal(signal.SIGTERM, on_signal)
        return ending(prepare, *args, **kwargs)

    def watched_execute(*args: Any, **kwargs: Any) -> Any:
        marks.set("begun", time.monotonic())
        result = ending(execute, *args, **kwargs)
        marks.set("ended", time.monotonic())
        return result

    runner.parse, runner._prepare, runner._execute_task = watched_parse, watched_prepare, watched_execute


class _ParseLog:
    """The logger of Airflow's ``parse``, of which it reads how long bundle and file took."""

    def __init__(self, log: Any, marks: Marks) -> None:
        self._log, self._marks = log, marks

    def info(self, *args: Any, **fields: Any) -> Any:
        for name, field in (("bundle", "bundle_prepare_ms"), ("parse", "dag_file_parse_ms")):
            if isinstance(value := fields.get(field), (int, float)):
                self._marks.set(name, max(value, 0.1) / 1000)
        return self._log.info(*args, **fields)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def watch_supervisor(worker: Worker) -> None:
    """Put the subclass in the place of Airflow's class for as long as a Python task runs.

    Coordinators for other languages derive from Airflow's class; they never see ours.
    """
    from airflow.sdk.execution_time import coordinator, supervisor

    host: Any = supervisor
    base, python = host.ActivitySubprocess, coordinator._PythonCoordinator
    if missing := [name for name in INTERNALS if not hasattr(base, name)]:
        raise AttributeError(f"ActivitySubprocess has no {', '.join(missing)}")
    fields = {
        "worker": worker,
        "direct": frozenset(map(state_of, host.STATES_SENT_DIRECTLY)),
        "child_main": staticmethod(watched_child(worker, host._subprocess_main)),
    }
    cls = type("WatchedActivity", (WatchedActivity, base), fields)
    execute_task = python.execute_task

    def watched_execute_task(self: Any, **kwargs: Any) -> Any:
        worker.imported = time.monotonic() - worker.begun
        gc.freeze()  # so that neither process walks through the imports again
        gc.enable()
        host.ActivitySubprocess = cls
        try:
            return execute_task(self, **kwargs)
        finally:
            host.ActivitySubprocess = base

    python.execute_task = watched_execute_task  # type: ignore[method-assign]


def use_bytecode(folder: str) -> bool:
    """Have Python read bytecode from ``folder`` when Airflow has none beside its sources; return whether it does.

    Python looks in one place only: an image that has bytecode is faster without the cache.
    """
    from importlib.util import cache_from_source, find_spec

    spec = find_spec("airflow") if os.path.isdir(folder) and not sys.pycache_prefix else None
    if spec is None or not spec.origin or os.path.exists(cache_from_source(spec.origin)):
        return False
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = folder
    return True


def prepare(options: Options) -> Worker | None:
    """Set everything up; None when this Airflow or this system does not allow it, which costs no task anything."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        worker = Worker(options)
        worker.listen()
        use_bytecode(worker.options.bytecode)
        if worker.options.fallback:
            _remember_log(worker)
        watch_supervisor(worker)
        return worker
    except Exception as error:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        gc.enable()
        log_line("The task runs without Crosswind's worker shim", error=f"{type(error).__name__}: {error}")
        return None


def _remember_log(worker: Worker) -> None:
    import io

    for name in ("stdout", "stderr"):
        raw: Any = _LogTail(getattr(sys, name).buffer, worker.log_end)
        stream = io.TextIOWrapper(raw, encoding="utf-8", errors="replace", line_buffering=True)
        # The child replaces sys.stdout: a wrapper that nobody holds would close descriptor 1, the child's new one.
        worker.streams.append(stream)
        setattr(sys, name, stream)


def exit_code_of(command: Callable[[], object]) -> int:
    """Run a command as the interpreter runs a program, and return its exit code."""
    try:
        command()
    except SystemExit as end:
        if not isinstance(end.code, str):
            return end.code or 0
        print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    else:
        return 0
    return 1


def leave(code: int) -> NoReturn:
    """Exit as the interpreter does, but without finalization, which takes 0.1 s."""
    import atexit
    import threading

    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        sys.exit(code)
    os._exit(code)


def main() -> NoReturn:
    """Run the task of this pod."""
    gc.disable()  # a fifth of the imports' time; ``watched_execute_task`` enables it
    if not getattr(sys.flags, "safe_path", False):
        with contextlib.suppress(OSError):
            sys.path[0] = os.getcwd()  # as with ``python -m``: DAGs may import what lies there
    options = read_options(os.environ.get("CROSSWIND_WORKER", ""))
    if options.warm:
        beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "warm.py")
        worker, command = runpy.run_path(beside)["wait"](options, prepare, log_line)
    else:  # as ``python -m`` does
        worker, command = prepare(options), lambda: runpy.run_module(COMMAND, run_name="__main__", alter_sys=True)
    code = exit_code_of(command)
    if worker is None:
        sys.exit(code)
    worker.phase = "ending"
    code = EXIT_CODES.get(worker.reason, code)
    worker.write_message(worker.reason, code)
    leave(code)


if __name__ == "__main__":
    main()
