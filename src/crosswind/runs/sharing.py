"""One watch for many pods: whoever waits for a pod in the same cluster and namespace shares the connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from crosswind.errors import CrosswindError, Forbidden, NotFound, Unreachable
from crosswind.kube.client import Client
from crosswind.kube.informing import Informer, InformerEvent
from crosswind.kube.resources import PODS
from crosswind.kube.retry import Retries
from crosswind.runs.attending import pod_states
from crosswind.settings import KubeSettings
from crosswind.types import Manifest

__all__ = ["Hub", "SharedWatch", "hub"]

log = logging.getLogger(__name__)

_LABELS = "kubernetes_pod_operator=True"
_LINGER_S = 5.0
"""How long a watch that nobody needs stays, because the next pod often follows at once."""

_CHECK_S = 1.0
_PATIENCE_S = 900.0
"""How long the API server may be out of reach at first; an upgrade of a control plane takes minutes."""

_READS = 8
"""Pods that are read at a time, when a triggerer begins to wait for hundreds at once: each takes a connection."""

_News = tuple[Manifest, bool]


class SharedWatch:
    """The pods of operators in one namespace. ``client`` is for single requests about them.

    Of pods that nobody here waits for, only the names are remembered: finished ones that are kept, and those whose
    operators wait in workers, may be thousands.
    """

    def __init__(self, client: Client, namespace: str) -> None:
        self.client = client
        self._namespace = namespace
        self._names: dict[str, str] = {}
        """The uid of each pod that the watch shows, by name."""
        self._last: dict[str, Manifest] = {}
        """The newest state of each pod that somebody waits for, by name."""
        self._waiting: defaultdict[str, set[asyncio.Queue[_News | None]]] = defaultdict(set)
        self._informer = Informer(client, PODS, namespace=namespace, labels=_LABELS, trim=_identity)
        self._refused = asyncio.Event()
        self._reads = asyncio.Semaphore(_READS)
        self._tasks = [
            asyncio.create_task(self._informer.run(self._on_change)),
            asyncio.create_task(self._give_up_if_refused()),
        ]

    async def states(self, name: str) -> AsyncGenerator[tuple[Manifest | None, bool]]:
        """Yield a pod's states, each with whether it is gone, as ``attending.pod_states`` does."""
        queue: asyncio.Queue[_News | None] = asyncio.Queue()
        self._waiting[name].add(queue)  # before the first state is read, so that no change after it is missed
        try:
            if await self._is_watched(name) and await self._has_first(name, queue):
                while (news := await queue.get()) is not None:
                    yield news
                    if news[1]:
                        return
            async with contextlib.aclosing(pod_states(self.client, name, self._namespace)) as states:
                async for state in states:
                    yield state
        finally:
            self._waiting[name].discard(queue)
            if not self._waiting[name]:
                del self._waiting[name]
                self._last.pop(name, None)

    async def _has_first(self, name: str, queue: asyncio.Queue[_News | None]) -> bool:
        """Put a pod's present state before its changes, unless a change has come meanwhile; False when it is gone.

        Who waits since before the first list has it from there. A pod that began to be waited for later is read.
        """
        retries = Retries(patience=_PATIENCE_S)
        while queue.empty():
            last = self._last.get(name)
            try:
                if last is None:
                    async with self._reads:
                        pod = await self.client.get(PODS, name, namespace=self._namespace)
                    last = self._last.setdefault(name, pod)  # what a change has brought meanwhile is newer
            except NotFound:
                return not queue.empty()
            except CrosswindError as error:
                await asyncio.sleep(retries.after(error))
                continue
            if queue.empty():
                queue.put_nowait((last, False))
        return True

    async def close(self) -> None:
        """End the watch and its connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self.client.close()

    async def _is_watched(self, name: str) -> bool:
        """Whether the watch shows a pod: not one without stock's label, and none where we may not watch pods."""
        signs = [asyncio.ensure_future(event.wait()) for event in (self._informer.listed, self._refused)]
        try:
            done, _ = await asyncio.wait(signs, timeout=_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for sign in signs:
                sign.cancel()
        if not done:
            raise Unreachable(f"the API server did not list pods for {_PATIENCE_S:g} s: {self._informer.trouble}")
        return name in self._names and not self._refused.is_set()

    async def _give_up_if_refused(self) -> None:
        """Tell all who wait when we may not list or watch pods, or something broke: each then looks after its own."""
        watch, _ = self._tasks
        while not (watch.done() or isinstance(self._informer.trouble, Forbidden)):  # noqa: ASYNC110  # no such event
            await asyncio.sleep(_CHECK_S)
        self._refused.set()
        for queues in self._waiting.values():
            for queue in queues:
                queue.put_nowait(None)

    def _on_change(self, event: InformerEvent) -> None:
        pod, gone = event.object, event.type == "DELETED"
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        if not gone:
            self._names[name] = uid
        elif self._names.get(name) == uid:
            del self._names[name]
        if name not in self._waiting:
            return
        last = self._last.get(name)
        if gone and event.reason == "list" and last is not None and last["metadata"]["uid"] == uid:
            pod = last  # what the comparison knows of it is its name
        self._last[name] = pod
        for queue in self._waiting[name]:
            queue.put_nowait((pod, gone))


def _identity(pod: Manifest) -> Manifest:
    metadata = pod["metadata"]
    return {"metadata": {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")}}


@dataclass(eq=False, slots=True)
class _Shared:
    """A watch that is being opened, or is open. ``users``: who uses it, or waits for it to open."""

    opening: asyncio.Task[SharedWatch]
    users: int = 0

    async def close(self) -> None:
        """Close the watch; one that is not open yet is not opened."""
        self.opening.cancel()
        await asyncio.wait([self.opening])
        if not self.opening.cancelled() and self.opening.exception() is None:
            await self.opening.result().close()


class Hub:
    """The watches of one event loop, one for each cluster and namespace that somebody waits in."""

    def __init__(self) -> None:
        self._watches: dict[tuple[KubeSettings, str], _Shared] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._watches)

    @contextlib.asynccontextmanager
    async def watch(self, settings: KubeSettings, namespace: str) -> AsyncIterator[SharedWatch]:
        """Give the watch of a namespace, opened for the first who asks and closed after the last.

        Who is cancelled while it opens has used it too; a watch that cannot be opened is tried anew by who asks next.
        """
        key = settings, namespace
        shared = self._watches.get(key)
        if shared is None:
            shared = self._watches[key] = _Shared(asyncio.ensure_future(self._connect(settings, namespace)))
        shared.users += 1
        try:
            yield await self._opened(key, shared)
        finally:
            shared.users -= 1
            if not shared.users:
                asyncio.get_running_loop().call_later(_LINGER_S, self._retire, key, shared)

    async def close(self) -> None:
        """Close all watches, used or not."""
        watches, self._watches = self._watches, {}
        for shared in watches.values():
            await shared.close()
        if self._closing:
            await asyncio.wait(self._closing)

    async def _opened(self, key: tuple[KubeSettings, str], shared: _Shared) -> SharedWatch:
        try:
            return await asyncio.shield(shared.opening)  # others wait for it as well
        except Exception:
            if self._watches.get(key) is shared:  # else somebody has begun anew already
                del self._watches[key]
            raise

    async def _connect(self, settings: KubeSettings, namespace: str) -> SharedWatch:
        """Connect; credentials that cannot be had for now (an exec plug-in that fails) cost no trigger its task."""
        retries = Retries(patience=_PATIENCE_S)
        while True:
            try:
                return SharedWatch(await Client.connect(settings), namespace)
            except CrosswindError as error:
                log.warning("Pods of namespace %s cannot be watched yet: %s", namespace, error)
                await asyncio.sleep(retries.after(error))

    def _retire(self, key: tuple[KubeSettings, str], shared: _Shared) -> None:
        if shared.users or self._watches.get(key) is not shared:
            return
        del self._watches[key]
        closing = asyncio.ensure_future(shared.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def hub() -> Hub:
    """Return the hub of the running event loop: a triggerer has one loop, and so one hub."""
    return _hubs.setdefault(asyncio.get_running_loop(), Hub())
