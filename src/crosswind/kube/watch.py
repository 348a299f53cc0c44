"""Decodes the stream of a watch into events, as plain JSON: typed objects cost 0.69 ms an event, JSON 0.02 ms."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import cast

import orjson

from crosswind.errors import Unreachable
from crosswind.kube.requests import Request
from crosswind.kube.responses import error_of_status
from crosswind.types import Manifest, WatchEvent

__all__ = ["LineSplitter", "batches", "decode_event", "version_of"]


class LineSplitter:
    """Assembles lines from chunks that may end anywhere."""

    def __init__(self) -> None:
        self._unfinished: list[bytes] = []
        self.size = 0
        """Bytes of the last line, which has no line end yet."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that a chunk completes, without line ends."""
        if b"\n" not in chunk:
            self._unfinished.append(chunk)  # joined once: a 1 MB object comes in many chunks
            self.size += len(chunk)
            return []
        *lines, rest = chunk.split(b"\n")
        lines[0] = b"".join((*self._unfinished, lines[0]))
        self._unfinished, self.size = [rest] if rest else [], len(rest)
        return [line for line in lines if line]

    def rest(self) -> bytes:
        """Return the last line, which has no line end, and forget it."""
        rest = b"".join(self._unfinished)
        self._unfinished, self.size = [], 0
        return rest


def decode_event(line: bytes, request: Request) -> WatchEvent:
    """Return the event of a line. An ERROR event is raised as the error that it holds, such as ``Gone``."""
    try:
        event = orjson.loads(line)
        kind, manifest = event["type"], event["object"]
        if kind != "ERROR":
            manifest["metadata"]["resourceVersion"]  # raises here, because every reader relies on it
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise Unreachable(f"{request}: the watch sent a line that is not a watch event") from None
    if kind == "ERROR":
        raise error_of_status(manifest, request)
    return cast(WatchEvent, event)


async def batches(chunks: AsyncGenerator[bytes], request: Request) -> AsyncGenerator[Iterator[WatchEvent]]:
    """Yield the events of a stream, those that arrived together in one iterator, which decodes each when it is reached.

    A line that the stream's end cuts off is dropped: the next watch repeats it.
    """
    lines = LineSplitter()
    # A caller that leaves the loop closes this generator, and only aclosing hands that on to the connection at once.
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            if complete := lines.feed(chunk):
                # Not a list: the garbage collector would walk the objects of twenty pods in place of those of one.
                yield (decode_event(line, request) for line in complete)


def version_of(manifest: Manifest) -> str:
    """Return the ``resourceVersion`` of an object, a list or a bookmark; "" when it has none."""
    return str(manifest.get("metadata", {}).get("resourceVersion") or "")
