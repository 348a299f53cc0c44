"""A one-machine cluster of simulated nodes in a thread of this process, whose inside a scenario can reach."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from crosswind.local.registry import ClusterRegistry
from crosswind.local.serving import LocalCluster
from crosswind.runs.threads import LoopThread
from crosswind.settings import LocalSettings

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
        """Run ``work`` on the cluster's loop, at one go, and return what it returns."""

        async def worked() -> T:
            return work(self._local.registry)

        return self._thread.call(worked(), 30)

    def post(self, work: Callable[[ClusterRegistry], object]) -> None:
        """Run ``work`` there soon."""
        self._thread.post(work, self._local.registry)


def reset_versions(registry: ClusterRegistry) -> None:
    """Do to the versions what restoring a backup of etcd does: they begin again, far below those told before."""
    store = registry.store
    objects = [(kind, namespace, name, entry.copy()) for kind, namespace, name, entry in store.everything()]
    for version, (_, _, _, manifest) in enumerate(objects, 1):
        manifest["metadata"]["resourceVersion"] = str(version)
    store.version = len(objects)
    store.restore(len(objects), objects)
