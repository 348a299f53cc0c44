"""Starts containers and supervises them: a program of its own, run as ``python -I -S container_launcher.py FD``.

It imports only the standard library and its neighbours ``rootfs.py`` and ``process_credentials.py``, and is forked, not
started, for each container, so that a start costs a few milliseconds. Three kinds of process run this file:

* the *forker*, one per kubelet: for each byte that arrives on FD, together with a socket, it forks a supervisor;
* a *supervisor* per container: unshares namespaces, starts the container's process and the commands exec'ed beside it,
  forwards signals, writes the log, samples the memory, and reports each end;
* the container's process itself, process 1 of its pid namespace.

A supervisor speaks JSON lines over its socket. It gets ``start`` (once), ``signal``, ``exec``, ``tee`` and ``follow``;
file descriptors named in a message's ``fds`` travel with it (SCM_RIGHTS). It answers ``{"id", "started"}``,
``{"id", "failed"}``, ``{"id", "exited", "oom"}`` and, while someone follows, ``{"logged"}``; id 0 is the container,
others are exec'ed commands. When the socket closes, because the kubelet ended or crashed, the supervisor kills what it
started and leaves; when the supervisor dies, the kernel kills its children (PR_SET_PDEATHSIG), and with process 1 the
whole pid namespace.

Without namespaces (``"mode": "none"``) the same works on descendants, orphans adopted (PR_SET_CHILD_SUBREAPER).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import socket
import sys
import termios
import time
from collections.abc import Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __name__ != "__main__":
    from kubelocal.kubelet.process_credentials import become
    from kubelocal.kubelet.rootfs import check, enter_root, libc, new_root, new_user_root
else:  # alone: importing the package would cost every container's start
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    from process_credentials import become
    from rootfs import check, enter_root, libc, new_root, new_user_root

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x20000,
    0x4000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
MAX_LINE_BYTES = 1 << 20  # bytes of a line that are kept together
DRAIN_TIMEOUT_S, MEMORY_SAMPLE_INTERVAL_S = 2.0, 0.1
MAX_LISTENER_BACKLOG_BYTES, STALLED_S = 1 << 20, 60.0
"""Bytes that a listener may be behind before the container has to wait for it, and seconds that this may last."""

Message = dict[str, Any]


def unshare(spec: Message) -> None:
    """Unshare the mount, pid and UTS namespaces, as an ordinary user through a user namespace."""
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWNS | CLONE_NEWUTS | (CLONE_NEWUSER if spec["mode"] == "user" else 0)
    flags |= 0 if "pid" in spec.get("fds", ()) else CLONE_NEWPID
    check(libc.unshare(flags), "unshare")
    if spec["mode"] == "user":
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    socket.sethostname(spec["hostname"])
    if spec["mode"] == "root":
        spec["root"] = new_root(spec["scratch"])
    else:
        spec["root"] = new_user_root(
            spec["scratch"], [spec["cwd"] or "/", *(mount["target"] for mount in spec["mounts"])]
        )


def go_to(spec: Message) -> None:
    """Change to the requested working directory."""
    cwd = spec["cwd"] or "/"
    os.makedirs(cwd, exist_ok=True)
    os.chdir(cwd)


def die_with_parent() -> None:
    """Have the kernel kill this process when its supervisor ends, where prctl exists."""
    if sys.platform == "linux":
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def redirect(fds: list[int], *, tty: bool) -> None:
    """Make these descriptors standard input, output and error; a terminal becomes the session's own."""
    os.setsid()
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in fds]
    for number, fd in enumerate(copies):
        os.dup2(fd, number, inheritable=True)
    if tty:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def run(spec: Message, fds: list[int], failed: int, container: int | None = None) -> None:
    """Exec the command; never return. Errors are written to ``failed``."""
    try:
        redirect(fds, tty=spec.get("tty", False))
        os.umask(0o022)
        if spec.get("root"):
            enter_root(spec)
        go_to(spec)
        if user := spec.get("user"):
            become(user, container)
        die_with_parent()  # last: other credentials take it back
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        execute(spec["argv"], spec["env"])
    except BaseException as problem:
        answer = {
            "message": getattr(problem, "strerror", None) or str(problem),
            "errno": getattr(problem, "errno", 0) or 0,
        }
        os.write(failed, json.dumps(answer).encode()[:60000])
    finally:
        os._exit(128)


def execute(argv: list[str], env: dict[str, str]) -> None:
    """Exec a command, looked for in the environment's PATH; the error reads as a container runtime's."""
    try:
        os.execvpe(argv[0], argv, env)  # noqa: S606 - no shell is the point
    except FileNotFoundError as problem:
        missing = (
            f"stat {argv[0]}: no such file or directory" if "/" in argv[0] else "executable file not found in $PATH"
        )
        raise FileNotFoundError(errno.ENOENT, f'exec: "{argv[0]}": {missing}') from problem
    except OSError as problem:
        raise OSError(problem.errno, f'exec: "{argv[0]}": {os.strerror(problem.errno or 0).lower()}') from problem


class Log:
    """Writes a container's output: one record ``TIME STREAM F|P TEXT`` per line; P marks a line without an end.

    A container runtime has a writer per stream, which stamps a line and then writes it. The two do not wait for each
    other, so that neighbouring lines of different streams may be out of the order of their stamps. ``write`` does the
    same where both streams have lines at once; the lines of one stream are always in order.
    """

    def __init__(self, path: str) -> None:
        self.file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self.pending: dict[str, bytes] = {}

    def split_lines(self, stream: str, chunk: bytes) -> list[bytes]:
        """Return the lines that this chunk completes, as tag and text; buffer the rest."""
        *lines, rest = (self.pending.get(stream, b"") + chunk).split(b"\n")
        records = [b"F " + line for line in lines]
        if len(rest) >= MAX_LINE_BYTES:
            records.append(b"P " + rest)
            rest = b""
        self.pending[stream] = rest
        return records

    def end(self, stream: str) -> None:
        """Write the last, unfinished line."""
        if rest := self.pending.pop(stream, b""):
            self.write({stream: [b"P " + rest]})

    def write(self, output: dict[str, list[bytes]]) -> None:
        """Stamp the lines of each stream and write them."""
        lines: list[bytes] = []
        for heads in zip_longest(*(self._stamped(stream, records) for stream, records in output.items())):
            pair = [line for line in heads if line is not None]
            lines += reversed(pair) if time.time_ns() >> 10 & 1 else pair  # in random order, as with a real runtime
        data = memoryview(b"".join(lines))
        with contextlib.suppress(OSError):  # a full disk costs log lines, not the container
            while data:
                data = data[os.write(self.file, data) :]

    @staticmethod
    def _stamped(stream: str, records: list[bytes]) -> Iterator[bytes]:
        second, text = 0, ""
        for record in records:
            now = time.time_ns()
            if now // 10**9 != second:  # once a second, because formatting a date is the slowest step
                second = now // 10**9
                text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            yield f"{text}.{now % 10**9:09}Z {stream} ".encode() + record + b"\n"


class Listener:
    """An attached client: the stream that it listens to, and what it has yet to get of it.

    As with containerd, a container waits for a listener that is far behind, because output that is dropped looks to the
    client like the whole. Unlike there it does not wait for ever: the output of a listener that takes nothing for
    ``STALLED_S`` ends, and the container runs on.
    """

    __slots__ = ("stream", "taken_at", "waiting")

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.waiting = bytearray()
        self.taken_at = 0.0  # when it last took something, or had nothing to take

    @property
    def behind(self) -> bool:
        """Whether it is so far behind that the container has to wait for it."""
        return len(self.waiting) >= MAX_LISTENER_BACKLOG_BYTES

    def is_stalled(self, now: float, *, ended: bool) -> bool:
        """Whether something waits for it in vain: the container, or once that has ended its supervisor."""
        return (self.behind or ended) and now - self.taken_at >= STALLED_S

    def add(self, chunk: bytes, now: float) -> None:
        """Have it get one more piece."""
        if not self.waiting:
            self.taken_at = now
        self.waiting += chunk

    def write(self, fd: int) -> None:
        """Write what its pipe takes. ``BlockingIOError``: it is full; ``OSError``: the listener is gone."""
        while self.waiting:
            del self.waiting[: os.write(fd, self.waiting[: 1 << 16])]
            self.taken_at = time.monotonic()


class Supervisor:
    """Owns one container: its process, the commands exec'ed beside it, its log."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.received = b""
        self.fds: list[int] = []
        self.spec: Message = {}
        self.children: dict[int, int] = {}  # pid -> id
        self.sources: dict[int, str] = {}  # what the container writes: fd -> stream
        self.tees: dict[int, Listener] = {}  # by the descriptor of each one's pipe
        self.following = self.oom = self.ended = False
        self.pidfd: int | None = None  # of the container's process, where commands join its user namespace
        self.log: Log
        self.wake, alarm = os.pipe()
        for fd in (self.wake, alarm):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        """Supervise until the container has ended or the kubelet has exited."""
        with contextlib.suppress(ConnectionError):
            while self.run_once():
                pass
        self.kill_all()
        reap_children()

    def run_once(self) -> bool:
        """Wait for an event and handle it; return False when no container is left."""
        held = {listener.stream for listener in self.tees.values() if listener.behind}
        sources = {fd for fd, stream in self.sources.items() if stream not in held}
        readable = {self.control.fileno(), self.wake, *sources}
        ready = self._wait(readable)
        if self.control.fileno() in ready and not self.receive():  # first: a new listener gets all later output
            return False
        for fd in ready:
            if fd == self.wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wake, 4096)
        if readable_sources := [fd for fd in ready if fd in self.sources]:
            self.read_output(readable_sources)
        self.check_memory()
        return self.reap()

    def _wait(self, readable: set[int], timeout: float | None = None) -> list[int]:
        """Write to the listeners what they take; return those of ``readable`` that are, at the latest after a time."""
        poll = select.poll()
        for fd in readable:
            poll.register(fd, select.POLLIN)
        for fd, listener in self.tees.items():
            poll.register(fd, select.POLLOUT if listener.waiting else 0)  # 0: hear that it is gone all the same
        behind = any(listener.behind for listener in self.tees.values())
        if timeout is None and (behind or (self.spec.get("memory") and self.children)):
            timeout = MEMORY_SAMPLE_INTERVAL_S
        ready = dict(poll.poll(None if timeout is None else timeout * 1000))
        for fd in list(self.tees):
            if ready.get(fd, 0) & (select.POLLERR | select.POLLHUP) or not self._pass_on(fd):
                os.close(fd)
                del self.tees[fd]
        return [fd for fd in ready if fd in readable]

    def send(self, message: Message) -> None:
        """Send a message to the kubelet."""
        self.control.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> bool:
        """Read and carry out the kubelet's messages; False when it has disconnected."""
        data, fds, _, _ = socket.recv_fds(self.control, 1 << 16, 8)
        for fd in fds:
            os.set_inheritable(fd, False)  # a command that held a listener's pipe would keep the listener from its end
        self.fds += fds
        *lines, self.received = (self.received + data).split(b"\n")
        for line in filter(None, lines):
            message = json.loads(line)
            count = len(message.get("fds", ()))
            received_fds, self.fds = self.fds[:count], self.fds[count:]
            getattr(self, "do_" + message["do"])(message, dict(zip(message.get("fds", ()), received_fds, strict=True)))
        return bool(data)

    def do_start(self, spec: Message, fds: dict[str, int]) -> None:
        """Start the container."""
        self.spec = spec
        self.log = Log(spec["log"])
        try:
            for name, flag in (("network", CLONE_NEWNET), ("pid", CLONE_NEWPID)):
                if name in fds:
                    check(libc.setns(fds[name], flag), f"setns to the {name} namespace")
            if spec["mode"] == "none":
                libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) if sys.platform == "linux" else None
            else:
                unshare(spec)
        except OSError as problem:
            self.fail(0, {"message": problem.strerror, "errno": problem.errno})
            return
        self.spawn(0, spec, self._stdio(spec, fds))

    def _stdio(self, spec: Message, fds: dict[str, int]) -> list[int]:
        """Descriptors for the container's process; what it writes is read by us."""
        if "tty" in fds:
            self.sources[fds["master"]] = "stdout"
            return [fds["tty"]] * 3
        ends = []
        for stream in ("stdout", "stderr"):
            reader, writer = os.pipe()
            self.sources[reader] = stream
            ends.append(writer)
        return [fds["stdin"] if "stdin" in fds else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), *ends]

    def do_exec(self, message: Message, fds: dict[str, int]) -> None:
        """Start a command beside the container's process."""
        stdio = [fds["tty"]] * 3 if "tty" in fds else [fds["stdin"], fds["stdout"], fds["stderr"]]
        self.spawn(message["id"], {**message, "mode": self.spec["mode"]}, stdio)

    def do_signal(self, message: Message, _: dict[str, int]) -> None:
        """Send a signal to the container's process, or to an exec'ed command's group."""
        for pid, number in self.children.items():
            if number == message["id"]:
                if number == 0 and self.spec.get("mode") == "none" and not hears(pid, message["number"]):
                    continue
                with contextlib.suppress(OSError):
                    (os.killpg if number else os.kill)(pid, message["number"])

    def do_tee(self, _: Message, fds: dict[str, int]) -> None:
        """Also copy the container's output from now on to these pipes."""
        for stream, fd in fds.items():
            os.set_blocking(fd, False)
            self.tees[fd] = Listener(stream)

    def do_follow(self, message: Message, _: dict[str, int]) -> None:
        """Start or stop reporting growth of the log; report once now for lines written before the request."""
        self.following = message["on"]
        if self.following:
            self.send({"logged": True})

    def spawn(self, number: int, spec: Message, stdio: list[int]) -> None:
        """Fork and exec; return whether that succeeded."""
        reader, writer = os.pipe()
        try:
            pid = os.fork()
        except OSError:  # process 1 is gone, and with it the pid namespace
            self.fail(number, {"message": "container not found", "errno": errno.ESRCH})
            for fd in (reader, writer, *set(stdio)):
                os.close(fd)
            return
        if pid == 0:
            run(spec, stdio, writer, self.pidfd)
        for fd in (writer, *set(stdio)):
            os.close(fd)
        problem = b"".join(iter(lambda: os.read(reader, 65536), b""))
        os.close(reader)
        self.children[pid] = -1 if problem else number
        if number == 0 and not problem and spec.get("user", {}).get("how") == "map":
            with contextlib.suppress(OSError):  # a kernel without it: commands get a namespace alike
                self.pidfd = os.pidfd_open(pid)
        if problem:
            self.fail(number, json.loads(problem))
        else:
            self.send({"id": number, "started": pid})

    def fail(self, number: int, why: Message) -> None:
        """Report that a start failed; without its container a supervisor exits."""
        self.ended = self.ended or number == 0
        self.send({"id": number, "failed": why})

    def reap(self) -> bool:
        """Collect the children that ended; False when the container itself did."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                number = self.children.pop(pid, None)
                if number == 0:
                    self.finish(status)
                    return False
                if number and number > 0:
                    self.send({"id": number, "exited": exit_code(status)})
        return not self.ended

    def finish(self, status: int) -> None:
        """Handle the end of the container's process: end the others, read the rest of the output, report.

        The rest is what the pipes hold, so that it is read however far behind a listener is. The listeners get theirs
        after the report: the pod's status does not wait for them.
        """
        self.kill_all()
        end = time.monotonic() + DRAIN_TIMEOUT_S
        while self.sources and (left := end - time.monotonic()) > 0:
            self.read_output(self._wait(set(self.sources), left))
        for stream in list(self.log.pending):
            self.log.end(stream)
        self.ended = True
        self.send({"id": 0, "exited": exit_code(status), "oom": self.oom})
        while any(listener.waiting for listener in self.tees.values()):
            self._wait(set(), MEMORY_SAMPLE_INTERVAL_S)

    def read_output(self, fds: list[int]) -> None:
        """Read the container's output from these descriptors."""
        output: dict[str, list[bytes]] = {}
        ended = []
        for fd in fds:
            stream = self.sources[fd]
            try:
                chunk = os.read(fd, 1 << 16)
            except OSError:  # a terminal whose last user is gone
                chunk = b""
            if not chunk:
                os.close(fd)
                del self.sources[fd]
                ended.append(stream)
                continue
            output[stream] = self.log.split_lines(stream, chunk)
            for listener in self.tees.values():
                if listener.stream == stream:
                    listener.add(chunk, time.monotonic())
        self.log.write(output)
        for stream in ended:
            self.log.end(stream)
        if self.following:
            self.send({"logged": True})

    def _pass_on(self, fd: int) -> bool:
        """Write to a listener what it takes; False for one that is gone or has stalled."""
        listener = self.tees[fd]
        try:
            listener.write(fd)
        except BlockingIOError:
            return not listener.is_stalled(time.monotonic(), ended=self.ended)
        except OSError:
            return False
        return True

    def check_memory(self) -> None:
        """Kill the container when its memory passes the limit."""
        limit = self.spec.get("memory")
        if limit and self.children and not self.oom and resident(self.processes(), limit) > limit:
            self.oom = True
            self.do_signal({"id": 0, "number": signal.SIGKILL}, {})

    def processes(self) -> list[int]:
        """The container's processes: all that its own /proc shows, or without namespaces the descendants."""
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()] if os.path.isdir("/proc") else []
        return pids if self.spec.get("mode") != "none" else descendants(os.getpid(), pids)

    def kill_all(self) -> None:
        """Leave no process behind."""
        for pid in list(self.children):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        if self.spec.get("mode") == "none":
            for _ in range(100):
                if not (left := self.processes()):
                    break
                for pid in left:
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    while os.waitpid(-1, os.WNOHANG)[0]:
                        pass


def hears(pid: int, number: int) -> bool:
    """Whether a signal reaches a process as it would reach process 1 of a pid namespace: only with a handler for it.

    Without namespaces the container's process is not process 1, and would end on a TERM that it ignores elsewhere.
    """
    if number in (signal.SIGKILL, signal.SIGSTOP):
        return True
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return True


def reap_children() -> None:
    """Wait until no child is left."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def exit_code(status: int) -> int:
    """Return the exit status as a shell reports it: the code, or 128 + the signal."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def descendants(of: int, pids: list[int]) -> list[int]:
    """Those of the processes that stem from one."""
    parents = {}
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
            parents[pid] = int(file.read().rsplit(b")", 1)[1].split()[1])
    family = [of]
    for parent in family:
        family += [pid for pid, above in parents.items() if above == parent]
    return family[1:]


def resident(pids: list[int], limit: int) -> int:
    """Bytes of memory that these processes hold for themselves; pages shared by forks count once (PSS).

    Up to ``limit`` a rough sum will do, which is never too small: to ask for PSS holds a large process up.
    """
    roughly = sum(_statm(pid) for pid in pids)
    return roughly if len(pids) == 1 or roughly <= limit else min(roughly, sum(_pss(pid) for pid in pids))


def _statm(pid: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/statm", "rb") as file:
        _, resident_pages, shared_pages, *_ = map(int, file.read().split())
        return (resident_pages - shared_pages) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _pss(pid: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", "rb") as file:
        for line in file:
            if line.startswith(b"Pss_Anon:"):
                return int(line.split()[1]) * 1024
    return _statm(pid)


def fork_for_ever(requests: socket.socket) -> None:
    """Fork a supervisor for each socket that arrives; end when the kubelet is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the supervisors
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the kubelet's to answer
    while True:
        data, fds, _, _ = socket.recv_fds(requests, 1, 1)
        if not data:
            return reap_children()
        if os.fork() == 0:
            requests.close()
            try:
                Supervisor(socket.socket(fileno=fds[0])).serve()
            except Exception:  # the kubelet sees that the container has exited; the traceback goes to standard error
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(0)
        os.close(fds[0])


if __name__ == "__main__":
    fork_for_ever(socket.socket(fileno=int(sys.argv[1])))
