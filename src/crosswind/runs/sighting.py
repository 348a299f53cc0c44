"""One pod kept in sight: its newest state, and waiting until it has one that is wanted."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from crosswind.errors import CrosswindError, Forbidden, NotFound
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS
from crosswind.kube.retry import pause_after
from crosswind.types import Manifest

__all__ = ["Sight", "watching"]

_WATCH_S = 300.0
_RETRY_S = 1.0


class Sight:
    """One pod, by uid. ``pod`` is None once it is gone, or its name another pod's. Fed by whoever watches."""

    def __init__(self, client: Client, pod: Manifest) -> None:
        metadata = pod["metadata"]
        self.namespace, self.name, self.uid = metadata["namespace"], metadata["name"], metadata["uid"]
        self.pod: Manifest | None = pod
        self.since = time.monotonic()
        self._client = client
        self._changed = asyncio.Event()

    @property
    def where(self) -> str:
        """Namespace and name, for messages."""
        return f"{self.namespace}/{self.name}"

    def saw(self, pod: Manifest | None) -> None:
        """Take a newer state."""
        self.pod = pod if pod is not None and pod["metadata"]["uid"] == self.uid else None
        self._changed.set()

    async def look(self) -> Manifest | None:
        """Read the pod again and return it, None when it is gone."""
        try:
            self.saw(await self._client.get(PODS, self.name, namespace=self.namespace))
        except NotFound:
            self.saw(None)
        return self.pod

    async def until(self, wanted: Callable[[Manifest], bool], timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until the pod is as wanted, or gone; return whether it came so."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self.pod is not None and not wanted(self.pod):
                    self._changed.clear()
                    await self._changed.wait()
        return self.pod is None or wanted(self.pod)

    async def follow(self) -> None:
        """Watch the pod until it is gone; read it now and then where it may not be watched."""
        failures = 0
        while True:
            try:
                pod = await self.look()
                if pod is None:
                    return
                await self._watch(pod["metadata"]["resourceVersion"])
                failures = 0
            except CrosswindError as error:  # whatever it is: a pod that nobody watches would be waited for in vain
                failures = 1 if isinstance(error, Forbidden) else failures + 1
                await asyncio.sleep(pause_after(failures, error, first=_RETRY_S))

    async def _watch(self, version: str) -> None:
        events = self._client.watch(
            PODS, namespace=self.namespace, fields=f"metadata.name={self.name}", version=version, timeout=_WATCH_S
        )
        async with contextlib.aclosing(events):
            async for event in events:
                if event["type"] != "BOOKMARK":
                    self.saw(event["object"] if event["type"] != "DELETED" else None)


@contextlib.asynccontextmanager
async def watching(client: Client, pod: Manifest) -> AsyncIterator[Sight]:
    """Keep a pod in sight by a watch of its own, which ends with the block."""
    sight = Sight(client, pod)
    task = asyncio.create_task(sight.follow())
    try:
        yield sight
    finally:
        task.cancel()
        await asyncio.wait([task])
