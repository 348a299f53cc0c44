"""Streams into containers: the processes that exec and attach hand out, made of pipes or a terminal.

No task is started here: the loop's transports move the data. The request that opened the streams closes them, in a
``finally``: an exec'ed command is killed then, an attached process runs on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
from collections.abc import Iterable
from dataclasses import dataclass, field

from kubelocal.kubelet.container_run import ContainerRun
from kubelocal.kubelet.containers import Command, set_size

__all__ = ["Streams", "attach", "execute"]


@dataclass
class Streams:
    """``interfaces.Process``. ``command``: what was exec'ed, None for the container's own process."""

    run: ContainerRun
    stdin: asyncio.StreamWriter | None = None
    stdout: asyncio.StreamReader | None = None
    stderr: asyncio.StreamReader | None = None
    command: Command | None = None
    terminal: int | None = None
    transports: list[asyncio.BaseTransport] = field(default_factory=list)

    async def wait(self) -> int:
        """Return the exit code; 128 + number for a signal."""
        if self.command is not None:
            return await self.command.wait()
        await self.run.exited.wait()
        return self.run.ended.code if self.run.ended else 137

    def resize(self, columns: int, rows: int) -> None:
        """Set the size of the terminal, if there is one."""
        terminal = self.terminal if self.command else self.run.container.terminal
        if terminal is not None:
            with contextlib.suppress(OSError):
                set_size(terminal, columns, rows)

    def close(self) -> None:
        """Kill an exec'ed command; leave an attached process running."""
        if self.command is not None:
            self.command.kill()
        for transport in self.transports:
            transport.close()
        if self.terminal is not None:
            os.close(self.terminal)
            self.terminal = None


class _Reading(asyncio.StreamReaderProtocol):
    """Treats the error of a terminal whose last user has closed it as the end of file."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(None if isinstance(exc, OSError) else exc)


async def execute(run: ContainerRun, command: list[str], *, stdin: bool, tty: bool) -> Streams:
    """Start a command in a container and return its streams. ``StartError``, ``LookupError``: it cannot be."""
    streams = Streams(run)
    passed_fds: list[int] = []
    try:
        if tty:
            fds = await _terminal(streams, passed_fds, stdin=stdin)
        else:
            fds = await _pipes(streams, passed_fds, stdin=stdin)
        streams.command = await run.exec(command, fds)
    except BaseException:
        # A command that cannot be started, or a client that has gone: nobody gets these streams, so nobody else closes
        # them.
        streams.close()
        raise
    finally:
        # Our copies of the command's ends: its end of output shows only when the last writer has closed.
        _close(passed_fds)
    return streams


async def _pipes(streams: Streams, passed_fds: list[int], *, stdin: bool) -> dict[str, int]:
    fds = {}
    for name in ("stdout", "stderr"):
        reader, fds[name] = os.pipe()
        passed_fds.append(fds[name])
        setattr(streams, name, await _reader(reader, streams))
    if stdin:
        fds["stdin"], writer = os.pipe()
        passed_fds.append(fds["stdin"])
        streams.stdin = await _writer(writer, streams)
    else:
        fds["stdin"] = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        passed_fds.append(fds["stdin"])
    return fds


async def _terminal(streams: Streams, passed_fds: list[int], *, stdin: bool) -> dict[str, int]:
    master, slave = pty.openpty()
    passed_fds.append(slave)
    # One descriptor each for reading, typing and resizing, because each owner closes its own.
    streams.terminal = os.dup(master)
    streams.stdout = await _reader(master, streams)
    if stdin:
        streams.stdin = _typing(os.dup(master), streams)
    return {"tty": slave}


async def attach(run: ContainerRun, *, stdin: bool) -> Streams:
    """Join the output of a container's own process from now on."""
    streams = Streams(run)
    try:
        await _listen(run, streams)
        await _type(run, streams, stdin=stdin)
    except BaseException:
        # A container that has just ended, or a client that has gone: as in ``execute``.
        streams.close()
        raise
    return streams


async def _listen(run: ContainerRun, streams: Streams) -> None:
    writers: dict[str, int] = {}
    try:
        for name in ("stdout",) if run.spec.get("tty") else ("stdout", "stderr"):
            reader, writers[name] = os.pipe()
            setattr(streams, name, await _reader(reader, streams))
        # Attach shows the output from now on; earlier output is in the log.
        await run.container.tee(writers)
    finally:
        _close(writers.values())


async def _type(run: ContainerRun, streams: Streams, *, stdin: bool) -> None:
    if stdin and (source := run.container.open_stdin()) is not None:
        streams.stdin = _typing(source, streams) if run.spec.get("tty") else await _writer(source, streams)
        if run.spec.get("stdinOnce"):
            # ours is now the last writer, so that the client's end of input is the container's
            run.container.close_stdin()


class _Pipe:
    """The file object that an event loop expects for a pipe.

    uvloop closes the descriptor itself and calls ``close`` after that: a file would then close whatever another thread
    has opened under the same number in between.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._ours = type(asyncio.get_running_loop()).__module__ != "uvloop"

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def close(self) -> None:
        """Close it, once, if the loop does not."""
        if self._ours:
            self._ours = False
            os.close(self._fd)


async def _reader(fd: int, streams: Streams) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: _Reading(reader), _Pipe(fd))
    streams.transports.append(transport)
    return reader


async def _writer(fd: int, streams: Streams) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), _Pipe(fd)
    )
    streams.transports.append(transport)
    return asyncio.StreamWriter(transport, protocol, None, loop)


def _typing(fd: int, streams: Streams) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
    transport = _Typing(fd, protocol)
    streams.transports.append(transport)
    return asyncio.StreamWriter(transport, protocol, None, loop)


class _Typing(asyncio.WriteTransport):
    """Writes to a terminal and never reads from it.

    uvloop's own transport reads too, to notice the other end's close, and so swallows what the terminal shows.
    """

    def __init__(self, fd: int, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        os.set_blocking(fd, False)
        self._fd = fd
        self._protocol = protocol
        self._waiting = bytearray()
        self._closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write now what the terminal takes, the rest when it takes more; the protocol is paused meanwhile."""
        if self._closed:
            return
        was_waiting = bool(self._waiting)
        self._waiting += data
        if not was_waiting:
            self._flush()
            if self._waiting:
                asyncio.get_running_loop().add_writer(self._fd, self._flush)
                self._protocol.pause_writing()

    def _flush(self) -> None:
        try:
            del self._waiting[: os.write(self._fd, self._waiting)]
        except BlockingIOError:
            return
        except OSError:
            self._waiting.clear()
        if not self._waiting and asyncio.get_running_loop().remove_writer(self._fd):
            self._protocol.resume_writing()

    def is_closing(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def can_write_eof(self) -> bool:
        """Return False: the user ends a terminal's input by typing a character."""
        return False

    def close(self) -> None:
        """Close the terminal."""
        if not self._closed:
            self._closed = True
            asyncio.get_running_loop().remove_writer(self._fd)
            os.close(self._fd)


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
