"""What the pod operator keeps in core's task state store, which outlives a try of the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow.providers.cncf.kubernetes.operators.pod import POD_IDENTIFIER_STATE_KEY

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import Logger
    from pydantic import JsonValue

__all__ = ["UsedPods", "stored_pod_identity"]

_USED_PODS_KEY = "crosswind_used_pods"
_MAX_USED_PODS = 10
"""Of these the store keeps the latest: one try uses one pod, and old pods are deleted in time."""


def stored_pod_identity(context: Context, log: Logger) -> tuple[str, str] | None:
    """Return name and namespace of the pod that stock's operator stored for this task instance."""
    store = context.get("task_state_store")
    identity = store.get(POD_IDENTIFIER_STATE_KEY) if store is not None else None
    if not isinstance(identity, dict):
        return None
    name, namespace = identity.get("name"), identity.get("namespace")
    if not (isinstance(name, str) and isinstance(namespace, str)):
        log.warning("The pod in the task state store is malformed (%s); searching by labels", identity)
        return None
    return name, namespace


@dataclass(frozen=True, slots=True)
class UsedPods:
    """UIDs of pods whose result a try has used, or which it gave up, and which it was not allowed to label.

    Without this record a later try would attach to such a pod.
    """

    uids: tuple[str, ...] = ()

    @classmethod
    def read(cls, context: Context) -> UsedPods:
        """Return what the store holds for this task instance."""
        store = context.get("task_state_store")
        uids = store.get(_USED_PODS_KEY) if store is not None else None
        return cls(tuple(uid for uid in uids if isinstance(uid, str)) if isinstance(uids, list) else ())

    def adding(self, uid: str) -> UsedPods:
        """Return these and one more; ``write`` stores it."""
        return UsedPods((*self.uids, uid))

    def write(self, context: Context) -> None:
        """Add the UIDs to those in the store. A task that was deferred has not read them before."""
        stored = UsedPods.read(context).uids
        added = [uid for uid in self.uids if uid not in stored]
        store = context.get("task_state_store")
        if store is not None and added:
            latest: list[JsonValue] = [*stored, *added]
            store.set(_USED_PODS_KEY, latest[-_MAX_USED_PODS:])
