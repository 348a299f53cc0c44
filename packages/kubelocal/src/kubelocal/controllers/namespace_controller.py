"""The namespace controller: creates the default objects of a new namespace and removes a deleted one.

A namespace is born with the account ``default`` and the config map ``kube-root-ca.crt``. A deleted one is Terminating:
its content is deleted as if each object were deleted by hand, and when the last one is gone so is the namespace.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from kubelocal.change_loop import failures_logged, follow
from kubelocal.codec.kinds import KINDS
from kubelocal.codec.status_errors import StatusError
from kubelocal.interfaces import Change, Registry
from kubelocal.types import Manifest

__all__ = ["SYSTEM_NAMESPACES", "NamespaceController"]

SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
"""The namespaces that every cluster begins with."""

DEFAULT_ACCOUNT: Manifest = {"metadata": {"name": "default"}, "automountServiceAccountToken": False}
"""As on hardened clusters, pods get an account's token only if they name an account of their own, or ask for it."""

ROOT_CA = "kube-root-ca.crt"
_FIRST_LOOK, _SLOWEST_LOOK = 0.02, 1.0
NAME = "namespace-controller"


class NamespaceController:
    """Fills new namespaces and empties deleted ones. ``root_ca``: the certificate of the API's authority, PEM."""

    def __init__(self, registry: Registry, root_ca: str = "") -> None:
        self._registry = registry
        self._root_ca = root_ca
        self._kinds = tuple(kind.kind for kind in KINDS.values() if kind.stored and kind.namespaced)
        self._ending: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(follow(self._registry, "ServiceAccount", self._take_account, NAME))
            await follow(self._registry, "Namespace", lambda change: self._take_namespace(change, group), NAME)

    def _take_namespace(self, change: Change, group: asyncio.TaskGroup) -> None:
        metadata = change.object["metadata"]
        if change.type == "DELETED":
            return
        if "deletionTimestamp" not in metadata:
            self.furnish(metadata["name"])
        elif metadata["uid"] not in self._ending:
            task = group.create_task(self._end(metadata["name"], metadata["uid"]))
            self._ending[metadata["uid"]] = task
            task.add_done_callback(lambda _: self._ending.pop(metadata["uid"]))

    def furnish(self, namespace: str) -> None:
        """Create the objects that every namespace has."""
        data = {"ca.crt": self._root_ca}
        self._ensure("ServiceAccount", namespace, DEFAULT_ACCOUNT)
        self._ensure("ConfigMap", namespace, {"metadata": {"name": ROOT_CA}, "data": data})
        with suppress(StatusError):  # a restored state has the certificate of the previous run
            self._registry.update("ConfigMap", namespace, ROOT_CA, lambda m: m.update(data=data))

    def _ensure(self, kind: str, namespace: str, manifest: Manifest) -> None:
        """Create an object that may be there already, in a namespace that may be gone already."""
        with suppress(StatusError):
            self._registry.create(kind, namespace, {"apiVersion": "v1", "kind": kind, **manifest})

    def _take_account(self, change: Change) -> None:
        metadata = change.object["metadata"]
        if change.type == "DELETED" and metadata["name"] == "default":
            self._ensure("ServiceAccount", metadata["namespace"], DEFAULT_ACCOUNT)

    async def _end(self, name: str, uid: str) -> None:
        """Delete the content repeatedly until none is left, because objects may still arrive."""
        pause = _FIRST_LOOK
        while self._empty(name):
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _SLOWEST_LOOK)
        with suppress(StatusError):
            self._registry.remove("Namespace", "", name, uid=uid)

    def _empty(self, namespace: str) -> int:
        """Delete the objects that are not terminating; return the number of objects left."""
        left = 0
        for kind in self._kinds:
            for manifest in self._registry.list(kind, namespace):
                metadata = manifest["metadata"]
                if "deletionTimestamp" not in metadata:
                    with failures_logged(NAME, manifest), suppress(StatusError):
                        self._registry.delete(kind, namespace, metadata["name"], uid=metadata["uid"])
            left += len(self._registry.list(kind, namespace))
        return left
