"""Reads the log of a container: as far as it is written, or followed to its end through broken connections.

``followed_log`` runs a follower in a task of its own, which ends with the generator.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator
from contextlib import aclosing

from crosswind.errors import BadRequest
from crosswind.kube.client import Client
from crosswind.kube.log_lines import LogCursor, LogLine
from crosswind.podrun.follow import ContainerLine, FollowOptions, PodNews, follow_pod
from crosswind.pods.fields import as_pod, init_containers_of
from crosswind.pods.pod_summary import base_container
from crosswind.types import Manifest

__all__ = ["container_log", "followed_log"]


async def container_log(
    client: Client,
    pod: Manifest,
    container: str,
    *,
    tail: int | None = None,
    since: int | None = None,
    timestamps: bool = False,
    previous: bool = False,
) -> AsyncGenerator[bytes]:
    """Yield what a container has written so far. ``since``: seconds."""
    metadata = pod["metadata"]
    chunks = client.log_chunks(
        metadata["name"],
        namespace=metadata["namespace"],
        container=container,
        tail_lines=tail,
        since_seconds=since,
        timestamps=timestamps,
        previous=previous,
    )
    async with aclosing(chunks):
        async for chunk in chunks:
            yield chunk


async def followed_log(
    client: Client,
    pod: Manifest,
    container: str,
    *,
    tail: int | None = None,
    since: int | None = None,
    timestamps: bool = False,
) -> AsyncGenerator[bytes]:
    """Yield what a container writes until it has ended, each line once, however often the connection breaks.

    ``tail`` and ``since`` choose where to begin; the container may still wait to start.
    """
    base, is_init = _decisive_container(pod, container)
    cursor = LogCursor()
    if not is_init and (tail is not None or since is not None):
        first = await _written(client, pod, container, tail, since)
        cursor.begin()
        for line in cursor.feed(first):
            if tail != 0:
                yield _line_text(line, timestamps)
        # a new cursor also skips the older lines, which were left out
        cursor = LogCursor(cursor.last or (_ago(since) if since is not None else ""), cursor.count)
    async with aclosing(_new_lines(client, pod, container, base, cursor)) as lines:
        async for line in lines:
            yield _line_text(line, timestamps)


def _line_text(line: LogLine, timestamps: bool) -> bytes:
    stamp = f"{line.stamp} " if timestamps and line.stamp else ""
    return f"{stamp}{line.text}\n".encode()


def _ago(seconds: int) -> str:
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z"


def _decisive_container(pod: Manifest, container: str) -> tuple[str, bool]:
    """Return the container whose end ends the reading, and whether ``container`` is an init container."""
    is_init = any(spec.get("name") == container for spec in init_containers_of(as_pod(pod)))
    return (base_container(pod) if is_init else container), is_init


async def _written(client: Client, pod: Manifest, container: str, tail: int | None, since: int | None) -> bytes:
    """Return the end of the log, with times; b"" before the container has started."""
    # The last line is the position from which to follow, so it is read even if it is not to be printed.
    lines = None if tail is None else max(1, tail)
    chunks = container_log(client, pod, container, tail=lines, since=since, timestamps=True)
    try:
        async with aclosing(chunks):
            return b"".join([chunk async for chunk in chunks])
    except BadRequest:
        return b""


async def _new_lines(
    client: Client, pod: Manifest, container: str, base: str, cursor: LogCursor
) -> AsyncGenerator[LogLine]:
    """Yield the lines after a cursor's position, by the follower that the pod operator uses.

    It runs in a task of its own, which ends with this generator.
    """
    lines: asyncio.Queue[LogLine | None] = asyncio.Queue()

    async def keep(news: PodNews) -> None:
        if isinstance(news, ContainerLine):
            lines.put_nowait(LogLine(news.stamp, news.text))

    async def follow() -> None:
        try:
            await follow_pod(client, metadata["name"], metadata["namespace"], options, keep)
        finally:
            lines.put_nowait(None)

    metadata, endless, names = pod["metadata"], float("inf"), (container,)
    options = FollowOptions(
        base=base, logs=names, init_logs=names, schedule_timeout=endless, startup_timeout=endless, seen=cursor
    )
    task = asyncio.create_task(follow())
    try:
        while (line := await lines.get()) is not None:
            yield line
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])
