"""Watches one pod: holds its newest state, and lets a caller wait until a condition holds.

``watch_pod`` owns the task that follows the pod and cancels it when its block ends. A reaper, which watches whole
namespaces, feeds its ``PodWatch`` objects itself by ``update``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable

from crosswind.errors import CrosswindError, Forbidden, NotFound
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS
from crosswind.kube.retry import pause_after
from crosswind.pods.fields import as_pod
from crosswind.types import AnyPod, Manifest, Pod

__all__ = ["PodWatch", "watch_pod"]

log = logging.getLogger(__name__)

_WATCH_TIMEOUT_S = 300.0
_FIRST_RETRY_S = 1.0


class PodWatch:
    """The newest state of one pod, identified by its uid.

    ``pod``: None once the pod is gone, or its name belongs to another pod. ``since``: when the watch began, on the
    monotonic clock.
    """

    def __init__(self, client: Client, pod: AnyPod) -> None:
        self.pod: Pod | None = as_pod(pod)
        metadata = self.pod["metadata"]
        self.namespace, self.name, self.uid = metadata["namespace"], metadata["name"], metadata["uid"]
        self.since = time.monotonic()
        self._client = client
        # Any number of waiters share it: each looks at the pod before it clears and waits, with no await in between, so
        # no change is missed.
        self._changed = asyncio.Event()

    @property
    def where(self) -> str:
        """Namespace and name, for messages."""
        return f"{self.namespace}/{self.name}"

    def update(self, pod: Manifest | None) -> None:
        """Store a newer state; None for a pod that is gone."""
        self.pod = as_pod(pod) if pod is not None and pod["metadata"]["uid"] == self.uid else None
        # Woken waiters look for themselves; a change that concerns none of them costs one comparison.
        self._changed.set()

    async def refresh(self) -> Pod | None:
        """Read the pod again and return it, None when it is gone."""
        try:
            self.update(await self._client.get(PODS, self.name, namespace=self.namespace))
        except NotFound:
            self.update(None)
        return self.pod

    async def wait_until(self, condition: Callable[[Pod], bool], timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until the condition holds or the pod is gone; return whether it is so."""
        with contextlib.suppress(TimeoutError):
            # A timeout of zero or less still looks once, after the block.
            async with asyncio.timeout(timeout):
                while self.pod is not None and not condition(self.pod):
                    self._changed.clear()
                    await self._changed.wait()
        return self.pod is None or condition(self.pod)

    async def run(self) -> None:
        """Follow the pod until it is gone or the task is cancelled; poll it where watching is forbidden."""
        failures = 0
        while True:
            try:
                pod = await self.refresh()
                if pod is None:
                    return
                # Returns when the server ends the watch; the read above then finds what the gap has hidden.
                await self._watch(pod["metadata"]["resourceVersion"])
                failures = 0
            except Exception as error:
                # Every error is retried, lasting ones too: callers wait for changes that only this loop can bring.
                if not isinstance(error, CrosswindError):
                    log.exception("Following pod %s failed, retrying", self.where)
                # Without permission to watch the read above succeeds, so that the pause stays short: it polls.
                failures = 1 if isinstance(error, Forbidden) else failures + 1
                await asyncio.sleep(pause_after(failures, error, first=_FIRST_RETRY_S))

    async def _watch(self, version: str) -> None:
        events = self._client.watch(
            PODS,
            namespace=self.namespace,
            fields=f"metadata.name={self.name}",
            version=version,
            timeout=_WATCH_TIMEOUT_S,
        )
        async with contextlib.aclosing(events):
            async for event in events:
                if event["type"] != "BOOKMARK":
                    self.update(event["object"] if event["type"] != "DELETED" else None)


@contextlib.asynccontextmanager
async def watch_pod(client: Client, pod: AnyPod) -> AsyncIterator[PodWatch]:
    """Watch a pod within the block, which owns the task that follows the pod and cancels it at its end."""
    watch = PodWatch(client, pod)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        # wait, not await: an error of the watch concerns nobody once the block has ended.
        await asyncio.wait([task])
