"""A network between a worker and the Execution API that a test cuts and heals: a relay of TCP connections."""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import TracebackType
from typing import Self

from crosswind.event_loop import LoopThread

_CHUNK = 65_536


class Partition:
    """Listens on ``port`` and passes connections on to ``target`` while it is entered, unless it is cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = LoopThread("partition", self._serve)
        self.port = 0
        self.reached_at = 0.0
        """When a connection first passed after the last ``heal``, in seconds since 1970; 0 before."""

    def __enter__(self) -> Self:
        self._thread.start()
        self._thread.call(self._listen(), 10)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._thread.stop(10)

    def cut(self) -> None:
        """Break every connection, and refuse new ones."""

        async def work() -> None:
            self._is_cut = True
            for writer in self._writers:
                writer.transport.abort()

        self._thread.call(work(), 10)

    def heal(self) -> None:
        """Pass connections on again."""
        self._is_cut, self.reached_at = False, 0.0

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        self.reached_at = self.reached_at or time.time()
        answers, other = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, other}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, other))
                group.create_task(_pump(answers, writer))
        except* OSError:
            pass  # cut, or one side has ended
        finally:
            for each in (writer, other):
                self._writers.discard(each)
                each.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        if writer.can_write_eof():
            writer.write_eof()
