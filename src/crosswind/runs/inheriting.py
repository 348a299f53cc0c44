"""Following the pods of one executor that is no more, from where it stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping

from crosswind.kube.client import Client
from crosswind.kube.informing import Informer, InformerEvent
from crosswind.kube.packing import Packed
from crosswind.kube.resources import PODS
from crosswind.runs.board import Board
from crosswind.runs.following import Follower
from crosswind.types import Manifest

__all__ = ["Heir"]


class Heir:
    """The pods of the executor ``owner`` that are there, and those that went since it stopped, each as last seen.

    ``follower`` hears of changes of pods that we have taken over and that do not carry our label yet.
    """

    def __init__(self, client: Client, board: Board, follower: Follower, owner: str) -> None:
        self.owner = owner
        self._client = client
        self._board = board
        self._follower = follower
        self._informers: dict[str | None, Informer] = {}
        self._gone = Packed()

    @property
    def complete(self) -> bool:
        """Whether all pods are known by now."""
        return bool(self._informers) and all(informer.listed.is_set() for informer in self._informers.values())

    @property
    def places(self) -> Collection[str | None]:
        """The namespaces that are followed; None: all of them."""
        return self._informers.keys()

    async def run(self, positions: Mapping[str | None, str]) -> None:
        """Follow until cancelled. ``positions``: namespaces (None: all), each with where to go on, "" if not known."""
        followed = {place: version for place, version in positions.items() if place is None or None not in positions}
        labels = f"kubernetes_executor=True,airflow-worker={self.owner}"
        self._informers = {
            namespace: Informer(self._client, PODS, namespace=namespace, labels=labels, trim=_whole)
            for namespace in followed
        }
        async with asyncio.TaskGroup() as group:
            for namespace, informer in self._informers.items():
                group.create_task(informer.run(self._heard, version=followed[namespace] or None))

    def pods(self) -> Iterator[Manifest]:
        """Yield all pods, those that are gone too; each is made anew, so thousands are not in memory at once."""
        for informer in self._informers.values():
            yield from informer.objects.values()
        yield from self._gone.values()

    def pod(self, uid: str) -> Manifest:
        """Return the newest state of a pod, the last one if it is gone; KeyError for one that was never there."""
        here = (informer.objects.get(uid) for informer in self._informers.values())
        return next(filter(None, here), None) or self._gone[uid]

    def gone(self, uid: str) -> Manifest | None:
        """Return the last state of a pod that is gone, or has another label; None for one that is there."""
        return self._gone.get(uid)

    def _heard(self, event: InformerEvent) -> None:
        metadata = event.object["metadata"]
        if event.type == "DELETED":
            self._gone[metadata["uid"]] = event.object
        run = self._board.pods.get((metadata["namespace"], metadata["name"]))
        if run is None or run.claim is None or run.uid != metadata["uid"]:
            return
        if event.type != "DELETED" or "deletionTimestamp" in metadata:
            self._follower.on_change(event)


def _whole(pod: Manifest) -> Manifest:
    """Keep all of a pod, but as text."""
    return pod
