"""Watches the pods of dead executors until they are adopted. ``PodAdopter`` owns the tasks that run the watches."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from functools import partial

from crosswind.engine.state import RunRegistry
from crosswind.engine.watcher import WorkerWatcher
from crosswind.errors import CrosswindError
from crosswind.kube.client import Client
from crosswind.kube.informer import Informer, InformerEvent
from crosswind.kube.packed_json import PackedObjects
from crosswind.kube.resources import PODS
from crosswind.kube.retry import is_transient
from crosswind.pods.fields import as_pod
from crosswind.types import Manifest, Pod

__all__ = ["OrphanWatch"]


class OrphanWatch:
    """Watches the pods of one dead executor, and remembers the last state of each that was deleted since it stopped.

    Passes changes of pods that are adopted, but do not carry our label yet, to ``watcher``.
    """

    def __init__(self, client: Client, registry: RunRegistry, watcher: WorkerWatcher, owner: str) -> None:
        self.owner = owner
        """The dead executor, as the label ``airflow-worker`` names it."""
        self._client = client
        self._registry = registry
        self._watcher = watcher
        self._group: asyncio.TaskGroup | None = None
        self._informers: dict[str | None, Informer] = {}
        self._gone: dict[str | None, PackedObjects] = {}

    @property
    def listed(self) -> frozenset[str | None]:
        """The namespaces whose pods are all known by now; None: the whole cluster."""
        return frozenset(namespace for namespace, informer in self._informers.items() if informer.listed.is_set())

    @property
    def settled(self) -> bool:
        """Whether each namespace is listed or refuses: waiting for the others would never end."""
        return bool(self._informers) and all(
            informer.listed.is_set() or _refuses(informer.trouble) for informer in self._informers.values()
        )

    @property
    def namespaces(self) -> Collection[str | None]:
        """The namespaces that are watched; None: all of them."""
        return self._informers.keys()

    async def run(self, positions: Mapping[str | None, str]) -> None:
        """Watch until cancelled. ``positions``: where to continue in each namespace (None: all), "" if not known."""
        async with asyncio.TaskGroup() as self._group:
            for namespace, version in positions.items():
                self.follow(namespace, version)
            await asyncio.Event().wait()  # informers of further namespaces join the group until run is cancelled

    def follow(self, namespace: str | None, version: str = "") -> None:
        """Watch a namespace (None: all) unless it is watched. ``version``: where to continue, "" if not known."""
        if self._group is None or namespace in self._informers:
            return
        labels = f"kubernetes_executor=True,airflow-worker={self.owner}"
        informer = Informer(self._client, PODS, namespace=namespace, labels=labels, trim=_untrimmed)
        self._informers[namespace], self._gone[namespace] = informer, (gone := PackedObjects())
        self._group.create_task(informer.run(partial(self._on_event, gone), version=version or None))

    def pods(self) -> Iterator[Pod]:
        """Yield the pods of the listed namespaces, deleted ones too.

        A namespace that is not listed yet may still report a later pod of the same task. Each pod is unpacked on its
        own: thousands do not fill the memory at once.
        """
        for namespace in self.listed:
            yield from map(as_pod, self._informers[namespace].objects.values())
            yield from map(as_pod, self._gone[namespace].values())

    def pod(self, uid: str) -> Pod:
        """Return the newest state of a pod, the last one if it was deleted; KeyError for an unknown uid."""
        existing = (informer.objects.get(uid) for informer in self._informers.values())
        pod = next(filter(None, existing), None) or self._deleted(uid)
        if pod is None:
            raise KeyError(uid)
        return as_pod(pod)

    def last_state(self, uid: str) -> Pod | None:
        """Return the last state of a pod that is deleted or has another label; None for one that still exists."""
        state = self._deleted(uid)
        return None if state is None else as_pod(state)

    def _deleted(self, uid: str) -> Manifest | None:
        return next(filter(None, (gone.get(uid) for gone in self._gone.values())), None)

    def _on_event(self, gone: PackedObjects, event: InformerEvent) -> None:
        metadata = as_pod(event.object)["metadata"]
        if event.type == "DELETED":
            gone[metadata["uid"]] = event.object
        run = self._registry.pods.get((metadata["namespace"], metadata["name"]))
        if run is None or run.adoption is None or run.uid != metadata["uid"]:
            return
        # Our own relabelling, too, ends in DELETED here, without a deletionTimestamp: the watcher then has the pod.
        if event.type != "DELETED" or "deletionTimestamp" in metadata:
            self._watcher.on_event(event)


def _refuses(error: CrosswindError | None) -> bool:
    """Return whether a namespace may not be read: its Role is missing, or the namespace itself."""
    return error is not None and not is_transient(error)


def _untrimmed(pod: Manifest) -> Manifest:
    return pod
