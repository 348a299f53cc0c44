"""Emulates the programs that end sidecars from outside the pod: GKE's CSI driver and Kuma's control plane.

Both act on pods that their webhook has injected, when all other regular containers have ended; with ``restartPolicy:
OnFailure`` when all have ended with 0. The driver leaves a file in a volume of the sidecar, which looks for it every
five seconds (``gcs-fuse-csi-driver`` pkg/csi_driver/utils.go); the control plane asks Envoy's admin port (``kuma``
pkg/plugins/runtime/k8s/controllers/pod_status_controller.go).
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Protocol

from kubelocal.change_loop import failures_logged, follow
from kubelocal.codec.status_errors import StatusError
from kubelocal.injection import gcsfuse, kuma
from kubelocal.injection.injector import annotations_of
from kubelocal.interfaces import Change, Registry
from kubelocal.types import Manifest

__all__ = ["ExternalStopper", "PodAccess", "sidecar_to_end"]

_RETRY_INTERVAL_S, _RESPONSE_TIMEOUT_S = 0.5, 5.0
_ENVOY_ADMIN_PORT = 9901
_NAME = "external stopper"


class PodAccess(Protocol):
    """The functions of the kubelet that the owners need."""

    async def dial(self, pod: Manifest, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a port of the pod."""
        ...

    def volume(self, pod: Manifest, name: str) -> Path:
        """Return a volume's folder. ``LookupError``: the pod is not here."""
        ...


def sidecar_to_end(pod: Manifest) -> str:
    """Return the sidecar whose owner ends it now, "" for none."""
    annotations, policy = annotations_of(pod), pod["spec"].get("restartPolicy", "Always")
    stopped_by_owner = {
        gcsfuse.SIDECAR: annotations.get(gcsfuse.ANNOTATION, "").lower() == "true",
        kuma.SIDECAR: kuma.INJECTED in annotations,
    }
    states = _container_states(pod)
    left = [name for name, state in states.items() if "terminated" not in state]
    if policy == "Always" or len(left) != 1 or not stopped_by_owner.get(left[0]) or "running" not in states[left[0]]:
        return ""
    ended = (state["terminated"] for name, state in states.items() if name != left[0])
    succeeded = policy == "Never" or all(end.get("exitCode") == 0 for end in ended)
    return left[0] if succeeded else ""


def _container_states(pod: Manifest) -> dict[str, Manifest]:
    """Return the state of each regular container; {} where the kubelet has not reported one."""
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    reported = {status["name"]: status.get("state") or {} for status in statuses}
    return {container["name"]: reported.get(container["name"], {}) for container in pod["spec"]["containers"]}


class ExternalStopper:
    """Ends what its owners would end."""

    def __init__(self, registry: Registry, node: PodAccess) -> None:
        self._registry, self._node = registry, node
        self._under_way: set[str] = set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            await follow(self._registry, "Pod", lambda change: self._take(change, group), _NAME)

    def _take(self, change: Change, group: asyncio.TaskGroup) -> None:
        uid = change.object["metadata"]["uid"]
        if change.type != "DELETED" and sidecar_to_end(change.object) and uid not in self._under_way:
            self._under_way.add(uid)
            group.create_task(self._end(uid, change.object))

    async def _end(self, uid: str, pod: Manifest) -> None:
        """Act repeatedly while an owner has to end its sidecar."""
        acts = {gcsfuse.SIDECAR: self._leave_file, kuma.SIDECAR: self._ask}
        try:
            with failures_logged(_NAME, pod), contextlib.suppress(StatusError):  # the pod has gone
                while name := sidecar_to_end(pod):
                    with contextlib.suppress(
                        OSError, LookupError, TimeoutError
                    ):  # it does not listen yet, or has exited
                        await acts[name](pod)
                    await asyncio.sleep(_RETRY_INTERVAL_S)
                    pod = self._registry.get("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
        finally:
            self._under_way.discard(uid)

    async def _leave_file(self, pod: Manifest) -> None:
        folder = self._node.volume(pod, gcsfuse.TEMPORARY) / ".volumes"
        folder.mkdir(exist_ok=True)
        (folder / "exit").touch()

    async def _ask(self, pod: Manifest) -> None:
        async with asyncio.timeout(_RESPONSE_TIMEOUT_S):
            reader, writer = await self._node.dial(pod, _ENVOY_ADMIN_PORT)
            try:
                writer.write(b"POST /quitquitquit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
                await reader.readline()
            finally:
                writer.close()
