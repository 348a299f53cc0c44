"""Cleans up after one pod whose task is over: explains a failure, deletes or marks the pod, ends its sidecars."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from crosswind.errors import Conflict, CrosswindError, NotFound
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS
from crosswind.kube.retry import retry_transient
from crosswind.podrun.follow import OPERATOR_FATAL_REASONS, StateChange, events_of, pod_states
from crosswind.podrun.reattach import CHECKED
from crosswind.pods.causes import why
from crosswind.pods.field_names import OPERATOR_FIELDS
from crosswind.pods.fields import mapping
from crosswind.pods.states import holding_containers
from crosswind.sidecars.shutdown import ShutdownSettings, SidecarShutdown
from crosswind.types import Pod, PodEvent

__all__ = ["SIDECAR_TIMEOUT_S", "delete_pod", "end_sidecars", "explain", "mark_pod", "name_is_taken"]

log = logging.getLogger(__name__)

_API_PATIENCE_S = 60.0
"""Limit for retrying a deletion or a label: without it, the pod could run on."""
_TERMINATION_TIMEOUT_S = 120.0
"""Limit for the deletion of a pod whose name is needed."""
SIDECAR_TIMEOUT_S = 300.0
"""Limit for ending the sidecars of a kept pod: the slowest known one needs 120 s."""


async def explain(client: Client, last_state: StateChange, base: str) -> tuple[str, list[PodEvent]]:
    """Return one sentence on why the task's container failed, and the pod's events."""
    events = await events_of(client, last_state.pod) if last_state.pod is not None else []
    cause = why(
        last_state.pod or {},
        events,
        base=base,
        fatal=OPERATOR_FATAL_REASONS,
        deleted=last_state.deleted,
        fields=OPERATOR_FIELDS,
    )
    return cause, events


async def delete_pod(client: Client, pod: Pod, grace_period: int | None = None) -> bool:
    """Delete the pod of this uid; return whether it still exists, because its containers end first.

    A pod that is gone, or whose name belongs to another pod, counts as deleted.
    """
    metadata = pod["metadata"]
    try:
        remaining = await retry_transient(
            lambda: client.delete(
                PODS,
                metadata["name"],
                namespace=metadata["namespace"],
                uid=metadata.get("uid"),
                grace_period=grace_period,
            ),
            _API_PATIENCE_S,
        )
    # 409: the uid did not match, so the name belongs to a later pod, which must stay.
    except (NotFound, Conflict):
        log.debug("Pod %s/%s is already deleted", metadata["namespace"], metadata["name"])
        return False
    # A pod without finalizers and grace, such as one that no node has accepted, is deleted at once. Any other stays
    # until the kubelet has stopped its containers. A Status as the answer has neither field and counts as staying.
    marked = mapping(mapping(remaining).get("metadata"))
    return bool(marked.get("finalizers")) or marked.get("deletionGracePeriodSeconds") != 0


async def mark_pod(client: Client, pod: Pod) -> None:
    """Label a pod as used, so that no later try attaches to it; without permission to do so the pod stays unmarked."""
    metadata = pod["metadata"]
    try:
        # A merge patch of one label needs no resourceVersion, so it cannot conflict with the kubelet's status.
        change = {"metadata": {"labels": {CHECKED: "True"}}}
        await retry_transient(
            lambda: client.patch(PODS, metadata["name"], change, namespace=metadata["namespace"]), _API_PATIENCE_S
        )
    except NotFound:
        pass
    except CrosswindError as error:
        log.warning("Pod %s/%s could not be labelled as used: %s", metadata["namespace"], metadata["name"], error)


async def name_is_taken(client: Client, name: str, namespace: str) -> Pod | None:
    """Return the pod of that name, None when there is none. Wait two minutes for one that is being deleted."""
    pod: Pod | None = None
    with contextlib.suppress(TimeoutError):
        async with (
            asyncio.timeout(_TERMINATION_TIMEOUT_S),
            contextlib.aclosing(pod_states(client, name, namespace)) as states,
        ):
            async for pod, gone in states:
                if gone or pod is None:
                    return None
                if "deletionTimestamp" not in pod["metadata"]:
                    break  # nobody deletes it: waiting would not free the name
    return pod


async def end_sidecars(client: Client, pod: Pod, base: str, settings: ShutdownSettings) -> None:
    """End the sidecars that still run in a pod that is kept; the kubelet ends native ones by itself."""
    metadata = pod["metadata"]
    if "uid" not in metadata or not holding_containers(pod, base):
        return
    try:
        # The task's result is known by now, so this may not delay it for ever, and no error here may fail it.
        async with asyncio.timeout(SIDECAR_TIMEOUT_S):
            await SidecarShutdown(client, base=base, settings=settings).end(pod)
    # Deleted meanwhile, which ends its sidecars as well.
    except NotFound:
        log.debug("Pod %s/%s is already deleted", metadata["namespace"], metadata["name"])
    except (CrosswindError, TimeoutError) as error:
        log.warning(
            "The sidecars of the kept pod %s/%s were not ended: %s",
            metadata["namespace"],
            metadata["name"],
            error or "time is up",
        )
