"""One watch for many pods: whoever waits for a pod in the same cluster and namespace shares the connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from weakref import WeakKeyDictionary

from crosswind.errors import Forbidden, Unreachable
from crosswind.kube.client import Client
from crosswind.kube.informing import Informer, InformerEvent
from crosswind.kube.resources import PODS
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

_News = tuple[Manifest, bool]


class SharedWatch:
    """The pods of operators in one namespace. ``client`` is for single requests about them."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client = client
        self.users = 0
        self._namespace = namespace
        self._pods: dict[str, Manifest] = {}
        self._waiting: defaultdict[str, set[asyncio.Queue[_News | None]]] = defaultdict(set)
        self._informer = Informer(client, PODS, namespace=namespace, labels=_LABELS)
        self._refused = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._informer.run(self._on_change)),
            asyncio.create_task(self._give_up_if_refused()),
        ]

    async def states(self, name: str) -> AsyncGenerator[tuple[Manifest | None, bool]]:
        """Yield a pod's states, each with whether it is gone, as ``attending.pod_states`` does."""
        queue: asyncio.Queue[_News | None] = asyncio.Queue()
        self._waiting[name].add(queue)
        try:
            if await self._is_watched(name):
                if queue.empty():
                    yield self._pods[name], False
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
        return name in self._pods and not self._refused.is_set()

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
        name = pod["metadata"]["name"]
        if gone:
            self._pods.pop(name, None)
        else:
            self._pods[name] = pod
        for queue in self._waiting.get(name, ()):
            queue.put_nowait((pod, gone))


class Hub:
    """The watches of one event loop, one for each cluster and namespace that somebody waits in."""

    def __init__(self) -> None:
        self._watches: dict[tuple[KubeSettings, str], asyncio.Future[SharedWatch]] = {}

    def __len__(self) -> int:
        return len(self._watches)

    @contextlib.asynccontextmanager
    async def watch(self, settings: KubeSettings, namespace: str) -> AsyncIterator[SharedWatch]:
        """Give the watch of a namespace, opened for the first who asks and closed after the last."""
        key = (settings, namespace)
        shared = await self._open(key)
        shared.users += 1
        try:
            yield shared
        finally:
            shared.users -= 1
            if not shared.users:
                asyncio.get_running_loop().call_later(_LINGER_S, self._retire, key, shared)

    async def close(self) -> None:
        """Close all watches, used or not."""
        watches, self._watches = self._watches, {}
        for opened in watches.values():
            if opened.done() and not opened.cancelled() and opened.exception() is None:
                await opened.result().close()

    async def _open(self, key: tuple[KubeSettings, str]) -> SharedWatch:
        opened = self._watches.get(key)
        if opened is None:
            opened = self._watches[key] = asyncio.ensure_future(self._connect(*key))
        try:
            return await asyncio.shield(opened)
        except Exception:
            self._watches.pop(key, None)
            raise

    async def _connect(self, settings: KubeSettings, namespace: str) -> SharedWatch:
        return SharedWatch(await Client.connect(settings), namespace)

    def _retire(self, key: tuple[KubeSettings, str], shared: SharedWatch) -> None:
        opened = self._watches.get(key)
        if not shared.users and opened is not None and opened.done() and opened.result() is shared:
            del self._watches[key]
            self._closing = asyncio.ensure_future(shared.close())


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def hub() -> Hub:
    """Return the hub of the running event loop: a triggerer has one loop, and so one hub."""
    return _hubs.setdefault(asyncio.get_running_loop(), Hub())
