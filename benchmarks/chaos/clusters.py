"""A one-machine cluster of simulated nodes in a thread of this process, so that a scenario can call its parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from crosswind.event_loop import LoopThread
from kubelocal.cluster import LocalCluster
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.settings import LocalSettings

__all__ = ["SimulatedCluster"]

T = TypeVar("T")


class SimulatedCluster:
    """Serves while it is entered. Pods start after ``start`` seconds and run until an annotation ends them."""

    def __init__(self, nodes: int, start: float = 0.05) -> None:
        self._settings = LocalSettings(simulate=nodes, simulated_start=start, simulated_run=None)
        self._thread = LoopThread("cluster", self._serve)

    def __enter__(self) -> SimulatedCluster:
        self._thread.start()
        self._thread.call(self._open(), 60)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.call(self._local.__aexit__(None, None, None), 30)
        self._thread.stop(10)

    async def _open(self) -> None:
        self._local = LocalCluster(self._settings)
        await self._local.__aenter__()
        self.kubeconfig: Path = self._local.kubeconfig

    async def _serve(self) -> None:
        await asyncio.Event().wait()

    def do(self, work: Callable[[ClusterRegistry], T]) -> T:
        """Run ``work`` on the cluster's loop without interruption, and return its result."""

        async def worked() -> T:
            return work(self._local.registry)

        return self._thread.call(worked(), 30)

    def post(self, work: Callable[[ClusterRegistry], object]) -> None:
        """Schedule ``work`` on that loop without waiting."""
        self._thread.post(work, self._local.registry)


def reset_versions(registry: ClusterRegistry) -> None:
    """Reset the resource versions as the restore of an etcd backup does: far below those that clients have seen."""
    store = registry.store
    objects = [(kind, namespace, name, entry.copy()) for kind, namespace, name, entry in store.everything()]
    for version, (_, _, _, manifest) in enumerate(objects, 1):
        manifest["metadata"]["resourceVersion"] = str(version)
    store.version = len(objects)
    store.restore(len(objects), objects)
