"""The log of a container as it is kept: compressed, and when it is too long without its middle."""

from __future__ import annotations

import gzip
import io
import threading
from collections import deque
from collections.abc import Generator

__all__ = ["KeptLog", "lines_of"]

_BLOCK = 256 * 1024
"""Bytes that are compressed together; what is left out is cut at blocks."""

_LEVEL = 4
"""Of gzip: half the time of the default for a twentieth more bytes, with lines of JSON."""


class KeptLog:
    """Takes a log in chunks and keeps at most ``limit`` bytes of it: the first half and the last, in whole lines.

    ``limit`` counts the bytes as printed, in blocks of a quarter of a megabyte; a line longer than a block may be cut.
    ``feed`` only collects. ``pack`` compresses what was collected, in any thread; called while chunks come, it keeps a
    log of any length in little memory.
    """

    def __init__(self, limit: int) -> None:
        self._block = min(_BLOCK, max(1, limit // 4))
        self._limit = limit
        self._open = bytearray()
        self._full: deque[bytes] = deque()
        self._packing = threading.Lock()
        self._head: list[bytes] = []
        self._head_size = 0
        self._tail: deque[tuple[bytes, int]] = deque()
        self._tail_size = 0
        self.size = 0
        """Bytes that were fed."""
        self.left_out = 0
        """Bytes that are not kept."""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self.size += len(chunk)
        self._open += chunk
        while len(self._open) >= self._block:
            end = self._open.rfind(b"\n", 0, self._block) + 1 or self._block
            self._full.append(bytes(self._open[:end]))
            del self._open[:end]

    @property
    def waiting(self) -> int:
        """Blocks that were collected and are not compressed yet."""
        return len(self._full)

    def pack(self) -> None:
        """Compress what was collected: some 10 ms per block."""
        with self._packing:
            while self._full:
                self._put(self._full.popleft())

    def _put(self, block: bytes) -> None:
        packed = gzip.compress(block, _LEVEL, mtime=0)
        if not self._tail and self._head_size + len(block) <= self._limit // 2:
            self._head.append(packed)
            self._head_size += len(block)
            return
        self._tail.append((packed, len(block)))
        self._tail_size += len(block)
        while self._head_size + self._tail_size > self._limit and len(self._tail) > 1:
            self._drop()

    def _drop(self) -> None:
        size = self._tail.popleft()[1]
        self._tail_size -= size
        self.left_out += size

    def content(self, gap: bytes = b"", end: bytes = b"") -> bytes:
        """Return all as gzip members; compresses, as ``pack`` does.

        ``gap``: a line in place of what is left out. ``end``: last lines.
        """
        self.pack()
        last = bytes(self._open)
        if end and last and not last.endswith(b"\n"):
            last += b"\n"
        gap = gzip.compress(gap, mtime=0) if gap and self.left_out else b""
        rest = gzip.compress(last + end, _LEVEL, mtime=0) if last or end else b""
        return b"".join([*self._head, gap, *(packed for packed, _ in self._tail), rest])


def lines_of(content: bytes) -> Generator[str]:
    """Yield the lines of what ``KeptLog.content`` returned, without their ends, unpacked as they are taken."""
    if not content:
        return
    with gzip.open(io.BytesIO(content), "rt", encoding="utf-8", errors="replace", newline="\n") as text:
        for line in text:
            yield line.rstrip("\r\n")
