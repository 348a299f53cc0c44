"""What became of each worker pod, with moments: read from the cluster's own store, so that no fault hides it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from kubelocal.cluster import LocalCluster
from kubelocal.storage.store import Event
from kubelocal.types import Manifest

__all__ = ["PodRecord", "PodRecords"]

_MARKS = ("DisruptionTarget", "TerminationTarget")


@dataclass(slots=True)
class PodRecord:
    """One worker pod. Moments are seconds of ``time.monotonic``, 0 for what has not happened."""

    uid: str
    name: str
    namespace: str
    ti_id: str
    task_id: str
    created: float
    node: str = ""
    started: float = 0.0
    marked: float = 0.0
    mark: str = ""
    """The reason of the condition by which the cluster announced its end."""
    ended: float = 0.0
    """When base was known to have ended, or the pod to be gone."""
    silenced: float = 0.0
    """When its node stopped reporting, while it may have run there."""
    toleration: float = 0.0
    """Seconds that it tolerates an unreachable node."""
    kind: str = ""
    """How it was taken; "" for a pod that nobody took."""

    @property
    def is_alive(self) -> bool:
        """Whether it may be taken: nobody has taken it, and it has not ended."""
        return not (self.kind or self.marked or self.ended or self.silenced)


class PodRecords:
    """Records the worker pods of a cluster while it is entered; the store's thread writes, others only read."""

    def __init__(self, call: Callable[[Callable[[LocalCluster], object]], object]) -> None:
        self.by_uid: dict[str, PodRecord] = {}
        self._silent: set[str] = set()
        self._call = call
        self._stack = ExitStack()

    def __enter__(self) -> PodRecords:
        def listen(cluster: LocalCluster) -> None:
            self._stack.callback(cluster.registry.store.listen("Pod", self._saw))

        self._call(listen)
        return self

    def __exit__(self, *_: object) -> None:
        self._call(lambda cluster: self._stack.close())

    def all(self) -> list[PodRecord]:
        """Return the records of all pods, in the order of their creation."""
        return list(self.by_uid.values())

    def silence(self, node: str) -> list[PodRecord]:
        """Record that a node stops reporting now; return the pods that may run there. Call it on the cluster's loop.

        Pods that were taken before belong to them, and those that are still bound to the node until it is tainted.
        """
        self._silent.add(node)
        pods = self.living(node)
        for record in pods:
            record.silenced = record.silenced or time.monotonic()
        return pods

    def hear(self, node: str) -> None:
        """Record that a node reports again: those of its pods that nobody has marked live on as others do."""
        self._silent.discard(node)
        for record in self.living(node):
            if not record.marked:
                record.silenced = 0.0

    def living(self, node: str) -> list[PodRecord]:
        """Return the pods of a node whose end is not known."""
        return [record for record in self.all() if record.node == node and not record.ended]

    def _saw(self, event: Event) -> None:
        pod, now = event.entry.object, time.monotonic()
        metadata = pod["metadata"]
        annotations = metadata.get("annotations") or {}
        if "task_instance_id" not in annotations:
            return
        record = self.by_uid.get(metadata["uid"])
        if record is None:
            place = metadata["uid"], metadata["name"], metadata["namespace"]
            record = PodRecord(*place, annotations["task_instance_id"], annotations["task_id"], now)
            record.toleration = _toleration(pod)
            self.by_uid[record.uid] = record
        if not record.node and (node := pod["spec"].get("nodeName", "")):
            record.node = node
            record.silenced = now if node in self._silent else 0.0
        state = _base_state(pod)
        if "running" in state or "terminated" in state:
            record.started = record.started or now
        if not record.marked and (mark := _mark(pod)):
            record.marked, record.mark = now, mark
        over = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if "terminated" in state or over or event.type == "DELETED":
            record.ended = record.ended or now


def _toleration(pod: Manifest) -> float:
    """Return for how many seconds a pod tolerates an unreachable node; infinite without a limit."""
    tolerations = pod["spec"].get("tolerations") or ()
    keys = ("node.kubernetes.io/unreachable", None)
    each = next((each for each in tolerations if each.get("key") in keys), {"tolerationSeconds": 0})
    return float(each.get("tolerationSeconds", float("inf")))


def _base_state(pod: Manifest) -> Manifest:
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    state: Manifest = next((status.get("state") or {} for status in statuses if status["name"] == "base"), {})
    return state


def _mark(pod: Manifest) -> str:
    conditions = pod.get("status", {}).get("conditions") or ()
    marks = (one for one in conditions if one["type"] in _MARKS and one["status"] == "True")
    return next((str(one.get("reason") or one["type"]) for one in marks), "")
