"""Containers as the event loop sees them: the forker, and one ``ContainerProcess`` each, with its exec'ed commands.

The other side is ``container_launcher.py``; its docstring describes the protocol.

A ``ContainerProcess`` owns one task, which reads its supervisor's answers, and the short tasks that post messages. They
end with the supervisor, or by ``close``, which every owner of a ``ContainerProcess`` calls in a ``finally``. A wait for
an answer or an exit may be cancelled: the container is not affected, and the answer is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Command", "ContainerProcess", "Exit", "Forker", "StartError"]

LAUNCHER = Path(__file__).with_name("container_launcher.py")
START_TIMEOUT_S, FORKER_EXIT_TIMEOUT_S = 20.0, 5.0


class StartError(Exception):
    """A command could not be started; ``number`` is the errno."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended: its code (128 + signal) and whether it ran out of memory."""

    code: int
    oom: bool = False


class Forker:
    """The process that forks supervisors; started when first needed, ended by ``close`` or with this process."""

    def __init__(self) -> None:
        self._requests: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def connect(self) -> socket.socket:
        """Return a socket to a new supervisor."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                try:
                    self._ask(theirs)
                except OSError:  # the forker was killed
                    self.close()
                    # Once more with a new forker: it holds no state, and the kernel may have killed it for want of
                    # memory.
                    self._ask(theirs)
        except BaseException:
            ours.close()
            raise
        # For the loop's sock_recv and sock_sendall; send_fds then writes at most what the buffer takes, see _send.
        ours.setblocking(False)
        return ours

    def _ask(self, theirs: socket.socket) -> None:
        if self._requests is None:
            self._requests, other = socket.socketpair()
            with other:
                # A fresh interpreter, because a fork of this process would copy its threads' locks. Empty env:
                # containers must not inherit the cluster's variables.
                command = [sys.executable, "-I", "-S", str(LAUNCHER), str(other.fileno())]
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[other.fileno()], env={})
        socket.send_fds(self._requests, [b"x"], [theirs.fileno()])

    def close(self) -> None:
        """End the forker; supervisors go on as long as their own sockets are open."""
        if self._requests is not None and self._process is not None:
            self._requests.close()
            try:
                # The forker ends when its socket closes. This blocks the loop, at the end of the kubelet only.
                self._process.wait(FORKER_EXIT_TIMEOUT_S)
            except subprocess.TimeoutExpired:  # a container that even KILL does not end, for example on a broken disk
                self._process.kill()
                self._process.wait()
        self._requests = self._process = None


_NO_SOCKET = socket.socket()
_NO_SOCKET.close()
"""What a container has in place of a socket before it starts: closed, like that of one that has ended."""


class ContainerProcess:
    """A started container. ``changed`` is called when its log has grown or it has ended."""

    def __init__(self, forker: Forker) -> None:
        self._forker = forker
        self._socket = _NO_SOCKET
        # Two tasks that send a message in parts would mix their lines.
        self._sending = asyncio.Lock()
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._exits: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._next = 0
        self._posting: set[asyncio.Task[None]] = set()
        self._listeners: set[Callable[[], None]] = set()
        self._stdin: int | None = None
        self.terminal: int | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self, spec: dict[str, Any], *, stdin: bool = False, network: int | None = None) -> int:
        """Start the process that the launcher's ``start`` describes; return its pid. ``StartError``: that failed."""
        self._socket = (
            self._forker.connect()
        )  # connected here, because nothing closes a container that was never started
        fds: dict[str, int] = {} if network is None else {"network": network}
        passed_fds: list[int] = []
        if spec.get("tty"):
            self.terminal, slave = pty.openpty()
            fds |= {"tty": slave, "master": os.dup(self.terminal)}
            # Copies that the supervisor gets: they are closed here after it has them, or the terminal would never
            # report its end.
            passed_fds = [slave, fds["master"]]
        elif stdin:
            reader, self._stdin = os.pipe()
            fds["stdin"] = reader
            passed_fds = [reader]
        self._reader = asyncio.get_running_loop().create_task(self._read())
        try:
            return await self._begin(0, {"do": "start", **spec}, fds)
        finally:
            _close(passed_fds)

    async def exec(self, spec: dict[str, Any], fds: dict[str, int]) -> Command:
        """Start a command beside the container's process; ``StartError`` when that fails."""
        self._next += 1
        number = self._next
        await self._begin(number, {"do": "exec", "id": number, **spec}, fds)
        return Command(self, number)

    async def _begin(self, number: int, message: dict[str, Any], fds: dict[str, int]) -> int:
        loop = asyncio.get_running_loop()
        self._answers[number] = loop.create_future()
        # Before the request is sent: a short command's end may arrive with the answer to its start.
        self._exits[number] = loop.create_future()
        try:
            # A machine that swaps may take seconds to fork. Without a limit, a supervisor that hangs would hold up the
            # whole pod.
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._send(message, fds)
                answer = await self._answers[number]
        except (OSError, TimeoutError) as problem:
            raise StartError(f"container not found: {problem}", 3) from problem
        finally:
            del self._answers[number]
        if failed := answer.get("failed"):
            raise StartError(failed["message"], failed["errno"] or 0)
        return int(answer["started"])

    async def wait(self) -> Exit:
        """Return how the container ended, once it has."""
        # Shielded: several tasks wait for the one future, and a cancelled one must not cancel it for the others.
        ended = await asyncio.shield(self._exits[0])
        return Exit(ended["exited"], ended.get("oom", False))

    async def wait_command(self, number: int) -> int:
        """Return an exec'ed command's exit code, once it has ended."""
        return int((await asyncio.shield(self._exits[number]))["exited"])

    @property
    def ended(self) -> bool:
        """Whether the container's process has ended."""
        return 0 in self._exits and self._exits[0].done()

    def signal(self, number: int, command: int = 0) -> None:
        """Send a signal to the container's process, or to an exec'ed command; nothing if it has ended."""
        self._post({"do": "signal", "id": command, "number": number})

    async def tee(self, fds: dict[str, int]) -> None:
        """Also copy the container's output from now on (``stdout``, ``stderr``) to pipes."""
        await self._send({"do": "tee"}, fds)

    def open_stdin(self) -> int | None:
        """Return a new descriptor that writes to the container's standard input, or None if it has none."""
        source = self.terminal if self.terminal is not None else self._stdin
        return None if source is None else os.dup(source)

    def close_stdin(self) -> None:
        """Close the container's standard input for good."""
        _close([self._stdin] if self._stdin is not None else [])
        self._stdin = None

    @contextlib.contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Have a function called when the log has grown or the container has ended."""
        self._listeners.add(listener)
        # The supervisor reports a log's growth only while a client follows: each line would otherwise cost a message.
        self._post({"do": "follow", "on": True})
        try:
            yield
        finally:
            self._listeners.discard(listener)
            if not self._listeners:
                self._post({"do": "follow", "on": False})

    def _post(self, message: dict[str, Any]) -> None:
        """Send a message soon, after those before it; nothing when the supervisor is gone."""

        async def send() -> None:
            with contextlib.suppress(OSError, ValueError):  # closed meanwhile
                await self._send(message, {})

        # A task, because callers are synchronous; the set keeps it alive, since the loop refers to tasks weakly.
        if self._socket.fileno() >= 0:
            task = asyncio.get_running_loop().create_task(send())
            self._posting.add(task)
            task.add_done_callback(self._posting.discard)

    async def _send(self, message: dict[str, Any], fds: dict[str, int]) -> None:
        data = json.dumps({**message, "fds": list(fds)}).encode() + b"\n"
        async with self._sending:
            if fds:  # with the message's beginning, so that a short one arrives whole
                data = data[socket.send_fds(self._socket, [data[:4096]], list(fds.values())) :]
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def _read(self) -> None:
        """Take the supervisor's answers until it is gone."""
        loop, rest = asyncio.get_running_loop(), b""
        try:
            # Ends when the supervisor closes its side, which it does after the container and its commands have ended.
            while data := await loop.sock_recv(self._socket, 1 << 16):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._answer(json.loads(line))
        except OSError:
            pass
        finally:
            self._gone()

    def _answer(self, message: dict[str, Any]) -> None:
        number = message.get("id", 0)
        if "started" in message or "failed" in message:
            if (answer := self._answers.get(number)) and not answer.done():
                answer.set_result(message)
        elif "exited" in message and not self._exits[number].done():
            self._exits[number].set_result(message)
        self._notify()

    def _notify(self) -> None:
        for listener in list(self._listeners):
            listener()

    def _gone(self) -> None:
        """Resolve all pending waits: the supervisor has exited and will not respond."""
        lost = {"failed": {"message": "container not found", "errno": 3}, "exited": 137}
        for future in [*self._answers.values(), *self._exits.values()]:
            if not future.done():
                future.set_result(lost)
        self._socket.close()
        _close(fd for fd in (self.terminal, self._stdin) if fd is not None)
        self.terminal = self._stdin = None
        self._notify()

    async def close(self) -> None:
        """End the supervisor, which kills the processes that still run, and close all descriptors."""
        if self._reader is not None and not self._reader.done():
            self._reader.cancel()
            # The reader's finally has run then; the descriptors below are not in use by the loop any more.
            await asyncio.wait([self._reader])
        self._gone()  # a task that is cancelled before its first step runs no line of its own


@dataclass(frozen=True, slots=True)
class Command:
    """A command exec'ed in a container."""

    container: ContainerProcess
    number: int

    async def wait(self) -> int:
        """Return its exit code, once it has ended."""
        return await self.container.wait_command(self.number)

    def kill(self) -> None:
        """End it."""
        self.container.signal(signal.SIGKILL, self.number)


def set_size(terminal: int, columns: int, rows: int) -> None:
    """Set the size of a terminal."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
