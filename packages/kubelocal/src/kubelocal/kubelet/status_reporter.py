"""What the kubelet writes about one pod: its status, and events in the kubelet's words."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from kubelocal.codec.status_errors import StatusError
from kubelocal.interfaces import Registry
from kubelocal.kubelet.image_table import ImageProblem
from kubelocal.kubelet.pod_actions import ContainerRecord, Waiting, all_containers
from kubelocal.kubelet.pod_status import Outlook, pod_status
from kubelocal.types import Manifest

__all__ = ["StatusReporter"]

TERMINAL = ("Succeeded", "Failed")


class StatusReporter:
    """Knows the newest version of a pod (``pod``) and writes about it; a pod that is gone is left alone."""

    def __init__(self, registry: Registry, pod: Manifest) -> None:
        self.pod = pod
        self._registry = registry

    def take(self, pod: Manifest) -> bool:
        """Store a version of the pod; return False for one that a later write has superseded."""
        if int(pod["metadata"]["resourceVersion"]) < int(self.pod["metadata"]["resourceVersion"]):
            return False
        self.pod = pod
        return True

    # the object

    def publish(self, records: dict[str, ContainerRecord], outlook: Outlook) -> None:
        """Write the status; containers that came meanwhile are added to ``records``."""

        def change(pod: Manifest) -> None:
            for name in all_containers(pod):
                records.setdefault(name, ContainerRecord())
            pod["status"] = pod_status(pod, records, outlook)

        self._update(change)

    def _update(self, change: Callable[[Manifest], None]) -> None:
        """Change the status, unless the phase is terminal already or the pod is another one of the same name."""
        metadata = self.pod["metadata"]

        def careful(pod: Manifest) -> None:
            same = pod["metadata"]["uid"] == metadata["uid"]
            if same and pod.get("status", {}).get("phase") not in TERMINAL:
                change(pod)

        with contextlib.suppress(StatusError):
            pod = self._registry.update("Pod", metadata["namespace"], metadata["name"], careful, subresource="status")
            if pod["metadata"]["uid"] == metadata["uid"]:
                self.pod = pod

    def claims_bound(self) -> None:
        """Write that the pod's claims have their volumes: folders of this machine, made when first used."""

        def change(claim: Manifest) -> None:
            spec, status = claim["spec"], claim.get("status") or {}
            if status.get("phase") != "Bound":
                room = (spec.get("resources") or {}).get("requests") or {}
                claim["status"] = {"phase": "Bound", "accessModes": spec.get("accessModes") or [], "capacity": room}

        for volume in self.pod["spec"].get("volumes") or ():
            if source := volume.get("persistentVolumeClaim"):
                namespace = self.pod["metadata"]["namespace"]
                with contextlib.suppress(StatusError):
                    name = source["claimName"]
                    self._registry.update("PersistentVolumeClaim", namespace, name, change, subresource="status")

    def remove(self) -> None:
        """Remove the pod from the API, as the kubelet's last step."""
        metadata = self.pod["metadata"]
        with contextlib.suppress(StatusError):
            self._registry.remove("Pod", metadata["namespace"], metadata["name"], uid=metadata["uid"])

    # events

    def event(self, reason: str, message: str, container: str = "") -> None:
        """Write a normal event, about a container if one is named."""
        self._registry.record(self.pod, reason, message, field_path=self._path(container))

    def warn(self, reason: str, message: str, container: str = "") -> None:
        """Write a warning."""
        self._registry.record(self.pod, reason, message, warning=True, field_path=self._path(container))

    def _path(self, container: str) -> str:
        for kind in ("initContainers", "containers", "ephemeralContainers"):
            if any(spec["name"] == container for spec in self.pod["spec"].get(kind) or ()):
                return f"spec.{kind}{{{container}}}"
        return ""

    def pulling(self, spec: Manifest) -> None:
        """Report that an image pull has begun."""
        self.event("Pulling", f'Pulling image "{spec["image"]}"', spec["name"])

    def pulled(self, spec: Manifest, seconds: float) -> None:
        """Report that a container's image is there, after a pull of so many seconds; 0: it was there already."""
        image, name = spec["image"], spec["name"]
        if seconds:
            took = _words(seconds) if seconds >= 1 else f"{seconds * 1000:g}ms"
            text = f'Successfully pulled image "{image}" in {took} ({took} including waiting). Image size: 0 bytes.'
            self.event("Pulled", text, name)
        else:
            text = f'Container image "{image}" already present on machine and can be accessed by the pod'
            self.event("Pulled", text, name)

    def refused(self, spec: Manifest, problem: ImageProblem) -> None:
        """Report why a container's image cannot be used."""
        if problem.again:
            self.pulling(spec)
        self.warn(problem.event, problem.event_message, spec["name"])
        self.warn("Failed", f"Error: {problem.reason}", spec["name"])

    def pull_backs_off(self, spec: Manifest, why: str) -> Waiting:
        """Report a pull's back-off; return the container's waiting state."""
        text = f'Back-off pulling image "{spec["image"]}"'
        self.event("BackOff", text, spec["name"])
        self.warn("Failed", "Error: ImagePullBackOff", spec["name"])
        return Waiting("ImagePullBackOff", f"{text}: ErrImagePull: {why}")

    def restart_backs_off(self, name: str, delay: float) -> Waiting:
        """Report a container's restart back-off; return its waiting state."""
        metadata = self.pod["metadata"]
        where = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
        self.warn("BackOff", f"Back-off restarting failed container {name} in pod {where}", name)
        text = f"back-off {_words(delay)} restarting failed container={name} pod={where}"
        return Waiting("CrashLoopBackOff", text)


def _words(seconds: float) -> str:
    """Write a duration as Go does: 10s, 1m20s, 5m0s."""
    minutes, rest = divmod(round(seconds, 3), 60)
    tail = f"{rest:g}s"
    return f"{int(minutes)}m{tail}" if minutes else tail
