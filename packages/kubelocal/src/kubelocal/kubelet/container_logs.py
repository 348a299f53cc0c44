"""Reading containers' logs: the records that the launcher writes, cut as ``pods/log`` asks.

After ``pkg/kubelet/kuberuntime/logs``: the tail is counted first, then the time limits, then the bytes.

``read_log`` starts no task: it runs in the task of the request, whose end or cancellation closes the file.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kubelocal.interfaces import PodLogOptions

__all__ = ["last_lines", "read_log", "since"]

BLOCK = 1 << 16
MAX_READ_BYTES = 1 << 22


def since(options: PodLogOptions, now: datetime) -> str:
    """Return the earliest time stamp to show, comparable to a record's as text; "" for all."""
    if options.since_seconds is not None:
        moment = now - timedelta(seconds=options.since_seconds)
    elif options.since_time:
        moment = datetime.fromisoformat(options.since_time.replace("Z", "+00:00")).astimezone(UTC)
    else:
        return ""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


def tail_offset(path: Path, lines: int) -> int:
    """Return where the last so many records begin."""
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        left = lines + 1
        while position > 0:
            size = min(BLOCK, position)
            position = file.seek(position - size)
            block = file.read(size)
            end = len(block)
            while (newline := block.rfind(b"\n", 0, end)) >= 0:
                left -= 1
                if left == 0:
                    return position + newline + 1
                end = newline
    return 0


def _shown(record: bytes, earliest: bytes, *, timestamps: bool) -> bytes:
    """Return what a record (without its newline) looks like to a client; "" if it is too old."""
    stamp, _, tag_and_text = record.partition(b" ")
    _, tag, text = tag_and_text.split(b" ", 2)
    if stamp < earliest:
        return b""
    text = text if tag == b"P" else text + b"\n"
    return stamp + b" " + text if timestamps else text


async def read_log(
    path: Path,
    options: PodLogOptions,
    ended: Callable[[], bool],
    listening: Callable[[Callable[[], None]], AbstractContextManager[None]],
) -> AsyncIterator[bytes]:
    """Yield a log in chunks; with ``follow`` until ``ended()``, woken by ``listening``. ``LookupError``: none."""
    if not path.exists():
        raise LookupError("the container has no log")
    earliest = since(options, datetime.now(UTC)).encode()
    left = options.limit_bytes
    grown = asyncio.Event()
    with path.open("rb") as file, listening(grown.set):
        if options.tail_lines is not None:
            file.seek(tail_offset(path, options.tail_lines))
        rest = b""
        while True:
            # Before the file is read: all lines up to the end are in the file by then, so this read is the last one.
            last = ended() or not options.follow
            # Before the read as well: growth during the read sets it again.
            grown.clear()
            while block := file.read(BLOCK):
                *records, rest = (rest + block).split(b"\n")
                text = b"".join(_shown(record, earliest, timestamps=options.timestamps) for record in records)
                if left is not None:
                    text, left = text[:left], left - len(text)
                if text:
                    yield text
                if left is not None and left <= 0:
                    return
                await asyncio.sleep(0)  # a long log must not hold up the others
            if last:
                return
            # Set by the container's listener, also at its end, so that this wait needs no limit.
            await grown.wait()


def last_lines(path: Path, lines: int, size: int) -> str:
    """Return the end of a log: so many lines, at most so many bytes."""
    try:
        with path.open("rb") as file:
            begin = tail_offset(path, lines)
            whole = max(begin, path.stat().st_size - MAX_READ_BYTES)
            file.seek(whole)
            records = file.read().split(b"\n")[1 if whole > begin else 0 : -1]
    except OSError:
        return ""
    text = b"".join(_shown(record, b"", timestamps=False) for record in records)
    return text[-size:].decode(errors="replace")
