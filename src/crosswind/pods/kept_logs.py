"""Keeps a worker's log beyond its pod: whether a volume does that, and the compressed copy where none does.

A copy that would be too long loses its middle: the first lines and the last explain most failures.
"""

from __future__ import annotations

import gzip
import io
import threading
from collections import deque
from collections.abc import Generator
from pathlib import PurePosixPath

from crosswind.pods.fields import as_pod, containers_of, mappings, spec_of, text
from crosswind.types import AnyPod, Container, EnvVar, Volume, VolumeMount

__all__ = ["KeptLog", "lines_of", "log_outlives_pod"]

_BLOCK_BYTES = 256 * 1024
"""Bytes that are compressed together; the middle is dropped block by block."""

_GZIP_LEVEL = 4
"""Takes half the time of the default level for a twentieth more bytes, measured with lines of JSON."""

_LOG_FOLDER_VARIABLE = "AIRFLOW__LOGGING__BASE_LOG_FOLDER"
_SHORT_LIVED_VOLUMES = frozenset({"emptyDir", "configMap", "secret", "downwardAPI", "projected", "ephemeral", "image"})
"""Kinds of volumes that are deleted with the pod, or that a container cannot write to."""


class KeptLog:
    """Keeps at most ``limit`` bytes of a log that comes in chunks: the first half and the last, in whole lines.

    ``limit`` counts uncompressed bytes, in blocks of a quarter of a megabyte; a line longer than a block may be cut.
    ``feed`` only collects, so that an event loop can call it. ``pack`` compresses what was collected and may run in any
    thread; called while chunks come, it keeps a log of any length in little memory.
    """

    def __init__(self, limit: int) -> None:
        self._block = min(_BLOCK_BYTES, max(1, limit // 4))
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
        """Bytes that were dropped."""

    def feed(self, chunk: bytes) -> None:
        """Collect the next bytes of the log."""
        self.size += len(chunk)
        self._open += chunk
        while len(self._open) >= self._block:
            end = self._open.rfind(b"\n", 0, self._block) + 1 or self._block
            self._full.append(bytes(self._open[:end]))
            del self._open[:end]

    @property
    def waiting(self) -> int:
        """Number of blocks that were collected and are not compressed yet."""
        return len(self._full)

    def pack(self) -> None:
        """Compress the collected blocks, which takes some 10 ms each."""
        with self._packing:
            while self._full:
                self._put(self._full.popleft())

    def _put(self, block: bytes) -> None:
        packed = gzip.compress(block, _GZIP_LEVEL, mtime=0)
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
        """Compress the rest and return the kept log as gzip members.

        ``gap``: a line in place of the dropped middle. ``end``: lines to append.
        """
        self.pack()
        last = bytes(self._open)
        if end and last and not last.endswith(b"\n"):
            last += b"\n"
        gap = gzip.compress(gap, mtime=0) if gap and self.left_out else b""
        rest = gzip.compress(last + end, _GZIP_LEVEL, mtime=0) if last or end else b""
        return b"".join([*self._head, gap, *(packed for packed, _ in self._tail), rest])


def lines_of(content: bytes) -> Generator[str]:
    """Yield the lines of what ``KeptLog.content`` returned, without line ends, decompressing as they are read."""
    if not content:
        return
    with gzip.open(io.BytesIO(content), "rt", encoding="utf-8", errors="replace", newline="\n") as text:
        for line in text:
            yield line.rstrip("\r\n")


def log_outlives_pod(pod: AnyPod, folder: str, base: str = "base") -> bool:
    """Return whether base's log folder is on a volume that lasts.

    ``folder``: ``[logging] base_log_folder`` of this Airflow, for workers that set none of their own.
    """
    pod = as_pod(pod)
    container = next((item for item in containers_of(pod) if item.get("name") == base), Container())
    variables: list[EnvVar] = mappings(container.get("env"))
    for variable in variables:
        if variable.get("name") == _LOG_FOLDER_VARIABLE:
            folder = text(variable.get("value")) or folder
    path = PurePosixPath(folder)
    declared: list[VolumeMount] = mappings(container.get("volumeMounts"))
    mounts = [mount for mount in declared if path.is_relative_to(text(mount.get("mountPath")))]
    if not mounts:
        return False
    # the deepest mount shadows those above it
    nearest = max(mounts, key=lambda mount: len(text(mount.get("mountPath"))))
    volumes: list[Volume] = mappings(spec_of(pod).get("volumes"))
    volume = next((item for item in volumes if item.get("name") == nearest.get("name")), Volume())
    return bool(volume.keys() - {"name"} - _SHORT_LIVED_VOLUMES)
