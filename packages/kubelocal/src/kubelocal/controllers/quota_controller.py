"""The resource quota controller: writes the computed usage into the status of quotas."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from kubelocal.admission.resource_quota import limited_kinds, used
from kubelocal.change_loop import failures_logged, follow
from kubelocal.codec.status_errors import StatusError
from kubelocal.interfaces import Change, Registry
from kubelocal.types import Manifest

__all__ = ["QuotaController"]

NAME = "resourcequota-controller"


class QuotaController:
    """Keeps the status of all quotas current. Other kinds are watched only once a quota counts them.

    The cluster owns the task of ``run``, whose task group ends every watch when it is cancelled.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._watched: set[str] = set()
        self._changed: set[str] = set()  # namespaces to count
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._count())
            await follow(self._registry, "ResourceQuota", lambda change: self._take_quota(change, tasks), NAME)

    def _take_quota(self, change: Change, tasks: asyncio.TaskGroup) -> None:
        self._note(change)
        for kind in limited_kinds(change.object["spec"].get("hard", {})) - self._watched:
            self._watched.add(kind)
            tasks.create_task(follow(self._registry, kind, self._note, NAME))

    def _note(self, change: Change) -> None:
        self._changed.add(change.object["metadata"]["namespace"])
        self._wake.set()

    async def _count(self) -> None:
        """Count a namespace once for all changes that are pending together."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            namespaces, self._changed = self._changed, set()
            for namespace in namespaces:
                for quota in self._registry.list("ResourceQuota", namespace):
                    with failures_logged(NAME, quota):
                        self._write_status(quota)

    def _write_status(self, quota: Manifest) -> None:
        status = {"hard": quota["spec"].get("hard", {}), "used": used(self._registry, quota)}
        metadata = quota["metadata"]
        if quota.get("status") != status:
            with suppress(StatusError):  # it may be deleted meanwhile
                self._registry.update(
                    "ResourceQuota",
                    metadata["namespace"],
                    metadata["name"],
                    lambda fresh: fresh.update(status=status),
                    subresource="status",
                )
