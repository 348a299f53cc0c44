"""Shares one informer among all triggers that wait for pods in the same cluster and namespace.

A ``SharedInformerFactory`` belongs to one event loop and opens one ``SharedPodInformer`` per cluster and namespace. A
``SharedPodInformer`` owns two tasks, the informer and the check for missing permissions; ``close`` cancels both. The
factory closes an informer some seconds after its last user has left. A trigger that is cancelled leaves the informer to
the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from crosswind.errors import CrosswindError, Forbidden, NotFound, Unreachable
from crosswind.kube.client import Client
from crosswind.kube.informer import Informer, InformerEvent
from crosswind.kube.resources import PODS
from crosswind.kube.retry import Retries
from crosswind.podrun.follow import PodStates, pod_states
from crosswind.pods.fields import as_pod
from crosswind.settings import KubeSettings
from crosswind.types import Manifest, Pod

__all__ = ["SharedInformerFactory", "SharedPodInformer", "shared_informers"]

log = logging.getLogger(__name__)

_LABELS = "kubernetes_pod_operator=True"
_LINGER_S = 5.0
"""Time for which an informer without users stays open, because the next pod often follows at once."""

_CHECK_INTERVAL_S = 1.0
_PATIENCE_S = 900.0
"""Limit for an API server that is down at the start; an upgrade of a control plane takes minutes."""

_MAX_CONCURRENT_READS = 8
"""Each read takes a connection, and a triggerer may start to wait for hundreds of pods at once."""

_PodState = tuple[Pod, bool]
"""A state of a pod, and whether the pod is gone."""


class SharedPodInformer:
    """The operators' pods of one namespace. ``client``: for single requests about them.

    Of pods that no trigger here waits for, only the names are kept: finished pods, and pods whose operators wait in
    workers, may be thousands.
    """

    def __init__(self, client: Client, namespace: str) -> None:
        self.client = client
        self._namespace = namespace
        self._names: dict[str, str] = {}
        """The uid of each pod that the informer has reported, by name."""
        self._last: dict[str, Pod] = {}
        """The newest state of each pod that a trigger waits for, by name."""
        self._waiting: defaultdict[str, set[asyncio.Queue[_PodState | None]]] = defaultdict(set)
        self._informer = Informer(client, PODS, namespace=namespace, labels=_LABELS, trim=_identity)
        self._refused = asyncio.Event()
        # Triggers that arrive together would otherwise open a connection each, all at once.
        self._reads = asyncio.Semaphore(_MAX_CONCURRENT_READS)
        self._tasks = [
            asyncio.create_task(self._informer.run(self._on_change)),
            asyncio.create_task(self._give_up_if_refused()),
        ]

    async def states(self, name: str, uid: str | None = None) -> PodStates:
        """Yield a pod's states, each with whether it is gone, as ``follow.pod_states`` does."""
        queue: asyncio.Queue[_PodState | None] = asyncio.Queue()
        self._waiting[name].add(queue)  # before the first state is read, so that no change after it is missed
        try:
            if await self._is_watched(name) and await self._has_first(name, queue):
                # None comes from _give_up_if_refused alone. A trigger that is cancelled here leaves by the finally.
                while (state := await queue.get()) is not None:
                    if uid and state[0]["metadata"]["uid"] != uid:
                        break  # of another pod that has, or had, this name; the request below says whether ours exists
                    yield state
                    if state[1]:
                        return
            # the informer does not report this pod, or was refused: watch the pod alone
            async with contextlib.aclosing(pod_states(self.client, name, self._namespace, uid)) as states:
                async for own_state in states:
                    yield own_state
        finally:
            self._waiting[name].discard(queue)
            # The last trigger for this pod: keep its name only, as of the pods that nobody waits for.
            if not self._waiting[name]:
                del self._waiting[name]
                self._last.pop(name, None)

    async def _has_first(self, name: str, queue: asyncio.Queue[_PodState | None]) -> bool:
        """Put a pod's current state before its changes, unless a change has arrived; return False when it is gone.

        For a trigger that has waited since before the first list, the list brought the state. For a later one the pod
        is read.
        """
        # Per wait: each trigger bears the whole outage, however often others have failed before.
        retries = Retries(patience=_PATIENCE_S)
        while queue.empty():
            last = self._last.get(name)
            try:
                if last is None:
                    async with self._reads:
                        pod = await self.client.get(PODS, name, namespace=self._namespace)
                    last = self._last.setdefault(name, as_pod(pod))  # a change that arrived during the read is newer
            except NotFound:
                return not queue.empty()
            except CrosswindError as error:
                await asyncio.sleep(retries.after(error))
                continue
            if queue.empty():
                queue.put_nowait((last, False))
        return True

    async def close(self) -> None:
        """End the informer and its connections."""
        for task in self._tasks:
            task.cancel()
        # Before the client closes, so that no task uses a closed session.
        await asyncio.wait(self._tasks)
        await self.client.close()

    async def _is_watched(self, name: str) -> bool:
        """Return whether the informer reports a pod: one with stock's label, where we may list and watch pods."""
        signals = [asyncio.ensure_future(event.wait()) for event in (self._informer.listed, self._refused)]
        try:
            # asyncio.wait takes no coroutines, hence the futures; they are cancelled here because nothing else awaits
            # them.
            done, _ = await asyncio.wait(signals, timeout=_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for signal in signals:
                signal.cancel()
        if not done:
            raise Unreachable(f"the API server did not list pods for {_PATIENCE_S:g} s: {self._informer.trouble}")
        return name in self._names and not self._refused.is_set()

    async def _give_up_if_refused(self) -> None:
        """Release all triggers when we may not list or watch pods, or the informer broke: each then watches its pod."""
        watch, _ = self._tasks
        # watch.done(): the informer retries every error, so its end means a bug, and the triggers must not wait for it.
        while not (watch.done() or isinstance(self._informer.trouble, Forbidden)):  # noqa: ASYNC110  # no such event
            await asyncio.sleep(_CHECK_INTERVAL_S)
        self._refused.set()
        for queues in self._waiting.values():
            for queue in queues:
                queue.put_nowait(None)

    def _on_change(self, event: InformerEvent) -> None:
        pod, gone = as_pod(event.object), event.type == "DELETED"
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        if not gone:
            self._names[name] = uid
        elif self._names.get(name) == uid:
            del self._names[name]
        # Thousands of pods of other workers match the label too.
        if name not in self._waiting:
            return
        last = self._last.get(name)
        if gone and event.reason == "list" and last is not None and last["metadata"]["uid"] == uid:
            pod = last  # the comparison with a list knows only the trimmed pod
        self._last[name] = pod
        for queue in self._waiting[name]:
            queue.put_nowait((pod, gone))


def _identity(pod: Manifest) -> Manifest:
    metadata = pod["metadata"]
    return {"metadata": {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")}}


@dataclass(eq=False, slots=True)
class _Shared:
    """An informer that is being opened, or is open. ``users``: how many use it or wait for it to open."""

    opening: asyncio.Task[SharedPodInformer]
    users: int = 0

    async def close(self) -> None:
        """Close the informer, or cancel its opening."""
        # No effect on one that is open. A connection attempt ends here; nobody else awaits the task now.
        self.opening.cancel()
        await asyncio.wait([self.opening])
        if not self.opening.cancelled() and self.opening.exception() is None:
            await self.opening.result().close()


class SharedInformerFactory:
    """The informers of one event loop, one for each cluster and namespace in which a trigger waits.

    ``connect`` opens a client. ``linger``: seconds for which an informer without users stays open.
    """

    def __init__(
        self, connect: Callable[[KubeSettings], Awaitable[Client]] = Client.connect, linger: float = _LINGER_S
    ) -> None:
        self._connect_client, self._linger = connect, linger
        self._informers: dict[tuple[KubeSettings, str], _Shared] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._informers)

    @contextlib.asynccontextmanager
    async def watch(self, settings: KubeSettings, namespace: str) -> AsyncIterator[SharedPodInformer]:
        """Yield the informer of a namespace. The first user opens it, the last one closes it.

        A user that is cancelled while the informer opens counts as a user too. After an informer failed to open, the
        next user opens a new one.
        """
        key = settings, namespace
        shared = self._informers.get(key)
        if shared is None:
            # A task of its own, so that the first user's cancellation does not end it for those that came later.
            shared = self._informers[key] = _Shared(asyncio.ensure_future(self._connect(settings, namespace)))
        shared.users += 1
        try:
            yield await self._opened(key, shared)
        finally:
            shared.users -= 1
            if not shared.users:
                # A timer instead of a task: it holds no connection and needs no owner. _retire looks again whether
                # there are users.
                asyncio.get_running_loop().call_later(self._linger, self._retire, key, shared)

    async def close(self) -> None:
        """Close all informers, used or not."""
        informers, self._informers = self._informers, {}
        for shared in informers.values():
            await shared.close()
        if self._closing:
            await asyncio.wait(self._closing)

    async def _opened(self, key: tuple[KubeSettings, str], shared: _Shared) -> SharedPodInformer:
        try:
            return await asyncio.shield(shared.opening)  # others wait for it too: only this waiter is cancelled
        except Exception:
            if self._informers.get(key) is shared:  # else another user has opened a new one already
                del self._informers[key]
            raise

    async def _connect(self, settings: KubeSettings, namespace: str) -> SharedPodInformer:
        """Connect, retrying: credentials that fail for the moment, such as an exec plug-in's, must fail no task."""
        retries = Retries(patience=_PATIENCE_S)
        while True:
            try:
                return SharedPodInformer(await self._connect_client(settings), namespace)
            except CrosswindError as error:
                log.warning("Pods of namespace %s cannot be watched yet: %s", namespace, error)
                await asyncio.sleep(retries.after(error))

    def _retire(self, key: tuple[KubeSettings, str], shared: _Shared) -> None:
        if shared.users or self._informers.get(key) is not shared:
            return
        del self._informers[key]
        closing = asyncio.ensure_future(shared.close())
        self._closing.add(closing)
        # The set keeps the task alive until it is done (asyncio keeps weak references), and close() waits for it.
        closing.add_done_callback(self._closing.discard)


_factories: WeakKeyDictionary[asyncio.AbstractEventLoop, SharedInformerFactory] = WeakKeyDictionary()


def shared_informers() -> SharedInformerFactory:
    """Return the factory of the running event loop; a triggerer has one loop."""
    return _factories.setdefault(asyncio.get_running_loop(), SharedInformerFactory())
