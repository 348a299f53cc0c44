"""The EndpointSlice controller: keeps for each Service with a selector the list of its pods."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress

from kubelocal.codec.status_errors import StatusError
from kubelocal.controllers.service_endpoints import SERVICE, endpoint_slice, selects
from kubelocal.interfaces import Registry
from kubelocal.types import Manifest

__all__ = ["EndpointSliceController"]


class EndpointSliceController:
    """Looks at a Service whenever it or one of its pods changes; slices go with their Service by garbage collection."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_services())
            group.create_task(self._follow_pods())

    async def _follow_services(self) -> None:
        with closing(self._registry.watch("Service")) as changes:
            async for change in changes:
                if change.type != "DELETED":
                    self._sync(change.object)

    async def _follow_pods(self) -> None:
        with closing(self._registry.watch("Pod")) as changes:
            async for change in changes:
                pod = change.object
                for service in self._registry.list("Service", pod["metadata"]["namespace"]):
                    if selects(service, pod) or self._lists(service, pod):
                        self._sync(service)

    def _slice(self, service: Manifest) -> Manifest | None:
        metadata = service["metadata"]
        try:
            return self._registry.get("EndpointSlice", metadata["namespace"], metadata["name"])
        except StatusError:
            return None

    def _lists(self, service: Manifest, pod: Manifest) -> bool:
        """Whether a pod is in a Service's slice, perhaps no longer rightly."""
        known = (self._slice(service) or {}).get("endpoints") or ()
        return any(one.get("targetRef", {}).get("uid") == pod["metadata"]["uid"] for one in known)

    def _sync(self, service: Manifest) -> None:
        if not service["spec"].get("selector"):
            return
        namespace = service["metadata"]["namespace"]
        wanted = endpoint_slice(service, self._registry.list("Pod", namespace))

        def change(found: Manifest) -> None:
            found |= {key: wanted[key] for key in ("endpoints", "ports")}
            found["metadata"]["labels"] = wanted["metadata"]["labels"]

        with suppress(StatusError):  # the namespace may be going
            if (known := self._slice(service)) is None:
                self._registry.create("EndpointSlice", namespace, wanted)
            elif known["metadata"].get("labels", {}).get(SERVICE):
                self._registry.update("EndpointSlice", namespace, known["metadata"]["name"], change)
