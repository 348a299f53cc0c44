"""A pod that the cluster ends: its condition ``DisruptionTarget``, then its deletion, as two changes of the object."""

from __future__ import annotations

import time
from contextlib import suppress

from kubelocal.codec.status_errors import StatusError
from kubelocal.interfaces import Registry
from kubelocal.types import Manifest

__all__ = ["SHUTDOWN_MESSAGE", "SHUTDOWN_REASON", "UNSEEN_END_CODE", "UNSEEN_END_REASON", "disrupt", "written_now"]

SHUTDOWN_REASON, SHUTDOWN_MESSAGE = "Terminated", "Pod was terminated in response to imminent node shutdown."
"""What a graceful node shutdown writes into the status of the pods that it ends."""

UNSEEN_END_CODE, UNSEEN_END_REASON = 255, "Unknown"
"""What containerd reports, after a start of its machine, of a container that ran when the machine stopped."""


def written_now() -> str:
    """Return the present moment as the API writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def disrupt(registry: Registry, pod: Manifest, reason: str, message: str) -> None:
    """Mark a pod as the target of a disruption (KEP-3329), then delete it with its own grace.

    A pod that is being deleted already gets the condition all the same, and the last reason stays
    (``UpdatePodCondition``): an evicted pod whose node then dies is the taint manager's. One that has gone is left
    alone.
    """
    metadata = pod["metadata"]
    detail = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}

    def mark(current: Manifest) -> None:
        if current["metadata"]["uid"] != metadata["uid"]:
            return
        status = current.setdefault("status", {})
        conditions = status.get("conditions") or []
        before: Manifest = next((each for each in conditions if each["type"] == "DisruptionTarget"), {})
        since = before.get("lastTransitionTime") if before.get("status") == "True" else None
        condition = {**before, "lastProbeTime": None, "lastTransitionTime": since or written_now(), **detail}
        status["conditions"] = [*(each for each in conditions if each is not before), condition]

    with suppress(StatusError):
        registry.update("Pod", metadata["namespace"], metadata["name"], mark, subresource="status")
        registry.delete("Pod", metadata["namespace"], metadata["name"], uid=metadata["uid"])
