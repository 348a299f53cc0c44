"""The EndpointSlice controller: keeps for each Service with a selector the list of its pods."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from kubelocal.change_loop import failures_logged, follow
from kubelocal.codec.status_errors import StatusError
from kubelocal.controllers.service_endpoints import SERVICE, endpoint_slice, selects
from kubelocal.interfaces import Change, Registry
from kubelocal.types import Manifest

__all__ = ["EndpointSliceController"]

NAME = "endpoint-slice-controller"


class EndpointSliceController:
    """Looks at a Service whenever it or one of its pods changes; slices go with their Service by garbage collection."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(follow(self._registry, "Service", self._take_service, NAME))
            group.create_task(follow(self._registry, "Pod", self._take_pod, NAME))

    def _take_service(self, change: Change) -> None:
        if change.type != "DELETED":
            self._sync(change.object)

    def _take_pod(self, change: Change) -> None:
        pod = change.object
        for service in self._registry.list("Service", pod["metadata"]["namespace"]):
            with failures_logged(NAME, service):
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
        return any(endpoint.get("targetRef", {}).get("uid") == pod["metadata"]["uid"] for endpoint in known)

    def _sync(self, service: Manifest) -> None:
        if not service["spec"].get("selector"):
            return
        namespace = service["metadata"]["namespace"]
        desired_slice = endpoint_slice(service, self._registry.list("Pod", namespace))

        def change(current: Manifest) -> None:
            current |= {key: desired_slice[key] for key in ("endpoints", "ports")}
            current["metadata"]["labels"] = desired_slice["metadata"]["labels"]

        with suppress(StatusError):  # the namespace may be going
            if (known := self._slice(service)) is None:
                self._registry.create("EndpointSlice", namespace, desired_slice)
            elif known["metadata"].get("labels", {}).get(SERVICE):
                self._registry.update("EndpointSlice", namespace, known["metadata"]["name"], change)
