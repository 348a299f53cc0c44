"""The end of one pod whose task is over: why it failed, its XCom, and then deletion or rest."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from crosswind.errors import Conflict, CrosswindError, NotFound
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS
from crosswind.pods.authors import OPERATOR
from crosswind.pods.causes import why
from crosswind.pods.reattaching import CHECKED
from crosswind.pods.states import held_by, mapping
from crosswind.runs.attending import FATAL, Seen, events_of, pod_states
from crosswind.runs.ending import Ender, EndSettings
from crosswind.runs.retrying import retried
from crosswind.types import Manifest

__all__ = ["delete_pod", "end_sidecars", "explain", "mark_pod", "name_is_taken"]

log = logging.getLogger(__name__)

_PATIENCE_S = 60.0
"""How long the API server may be out of reach while a pod is deleted or marked: left over, it could run on."""
_GOING_S = 120.0
_END_S = 300.0
"""How long the sidecars of a kept pod may take: the slowest known one needs 120 s."""


async def explain(client: Client, seen: Seen, base: str) -> tuple[str, list[Manifest]]:
    """Return in a sentence why the task's container did not end well, and the pod's events."""
    events = await events_of(client, seen.pod) if seen.pod is not None else []
    cause = why(seen.pod or {}, events, base=base, fatal=FATAL, deleted=seen.deleted, author=OPERATOR)
    return cause, events


async def delete_pod(client: Client, pod: Manifest, grace_period: int | None = None) -> bool:
    """Delete this very pod; return whether it is still there, for its containers end first.

    One that is gone, or another of its name, is nothing.
    """
    metadata = pod["metadata"]
    try:
        left = await retried(
            lambda: client.delete(
                PODS,
                metadata["name"],
                namespace=metadata["namespace"],
                uid=metadata.get("uid"),
                grace_period=grace_period,
            ),
            _PATIENCE_S,
        )
    except (NotFound, Conflict):
        log.debug("Pod %s/%s is gone already", metadata["namespace"], metadata["name"])
        return False
    marked = mapping(mapping(left).get("metadata"))
    return bool(marked.get("finalizers")) or marked.get("deletionGracePeriodSeconds") != 0


async def mark_pod(client: Client, pod: Manifest) -> None:
    """Label a pod as dealt with, so that no later try goes on with it; one that may not be changed stays as it is."""
    metadata = pod["metadata"]
    try:
        change = {"metadata": {"labels": {CHECKED: "True"}}}
        await retried(
            lambda: client.patch(PODS, metadata["name"], change, namespace=metadata["namespace"]), _PATIENCE_S
        )
    except NotFound:
        pass
    except CrosswindError as error:
        log.warning("Pod %s/%s is not marked as dealt with: %s", metadata["namespace"], metadata["name"], error)


async def name_is_taken(client: Client, name: str, namespace: str) -> Manifest | None:
    """Return the pod of that name, None when there is none; one that is being deleted is given two minutes to go."""
    pod: Manifest | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GOING_S), contextlib.aclosing(pod_states(client, name, namespace)) as states:
            async for pod, gone in states:
                if gone or pod is None:
                    return None
                if "deletionTimestamp" not in pod["metadata"]:
                    break
    return pod


async def end_sidecars(client: Client, pod: Manifest, base: str, settings: EndSettings) -> None:
    """End the sidecars that still run in a pod that is kept; native ones the kubelet ends by itself."""
    metadata = pod["metadata"]
    if "uid" not in metadata or not held_by(pod, base):
        return
    try:
        async with asyncio.timeout(_END_S):
            await Ender(client, base=base, settings=settings).end(pod)
    except NotFound:
        log.debug("Pod %s/%s is gone already", metadata["namespace"], metadata["name"])
    except (CrosswindError, TimeoutError) as error:
        log.warning("Pod %s/%s is kept as it is: %s", metadata["namespace"], metadata["name"], error or "time is up")
