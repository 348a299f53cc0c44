"""The end of one pod whose task is over: why it failed, its XCom, and then deletion or rest."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from crosswind.errors import Conflict, CrosswindError, NotFound
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS
from crosswind.pods.causes import why
from crosswind.pods.states import held_by
from crosswind.runs.attending import FATAL, Seen, events_of, pod_states
from crosswind.runs.ending import Ender, EndSettings
from crosswind.types import Manifest

__all__ = ["delete_pod", "explain", "keep_pod", "name_is_taken"]

log = logging.getLogger(__name__)

_CHECKED = {"metadata": {"labels": {"already_checked": "True"}}}
"""As stock marks a pod that no later try may attach to."""

_GOING_S = 120.0
_END_S = 300.0
"""How long the sidecars of a kept pod may take: the slowest known one needs 120 s."""


async def explain(client: Client, seen: Seen, base: str) -> tuple[str, list[Manifest]]:
    """Return in a sentence why the task's container did not end well, and the pod's events."""
    events = await events_of(client, seen.pod) if seen.pod is not None else []
    cause = why(seen.pod or {}, events, base=base, fatal=FATAL, deleted=seen.deleted)
    return cause, events


async def delete_pod(client: Client, pod: Manifest, grace_period: int | None = None) -> None:
    """Delete this very pod; one that is gone, or another of its name, is nothing."""
    metadata = pod["metadata"]
    try:
        await client.delete(
            PODS,
            metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata.get("uid"),
            grace_period=grace_period,
        )
    except (NotFound, Conflict):
        log.debug("Pod %s/%s is gone already", metadata["namespace"], metadata["name"])


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


async def _mark(client: Client, metadata: Manifest) -> None:
    """Mark a pod as dealt with; one that may not be changed is dealt with all the same."""
    try:
        await client.patch(PODS, metadata["name"], _CHECKED, namespace=metadata["namespace"])
    except NotFound:
        raise
    except CrosswindError as error:
        log.warning("Pod %s/%s is not marked as dealt with: %s", metadata["namespace"], metadata["name"], error)


async def keep_pod(client: Client, pod: Manifest, base: str, settings: EndSettings, *, over: bool) -> None:
    """Mark a pod as dealt with and, when its base container is ``over``, end the sidecars that still run.

    Native ones the kubelet ends by itself: they are not waited for.
    """
    metadata = pod["metadata"]
    try:
        await _mark(client, metadata)
        if over and "uid" in metadata and held_by(pod, base):
            async with asyncio.timeout(_END_S):
                await Ender(client, base=base, settings=settings).end(pod)
    except NotFound:
        log.debug("Pod %s/%s is gone already", metadata["namespace"], metadata["name"])
    except (CrosswindError, TimeoutError) as error:
        log.warning("Pod %s/%s is kept as it is: %s", metadata["namespace"], metadata["name"], error or "time is up")
