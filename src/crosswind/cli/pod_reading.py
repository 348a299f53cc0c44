"""Reads the pods of Airflow tasks from a cluster for commands: lists of them, and the one that a user means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crosswind.cli.cluster_options import ClusterChoice
from crosswind.errors import ApiError, ConfigError, CrosswindError, NotFound, Unreachable, counted
from crosswind.kube.resources import NAMESPACES, PODS
from crosswind.pods.naming import CLAIM_LABEL, POOL_LABEL
from crosswind.pods.pod_filter import PodFilter
from crosswind.pods.pod_summary import PodSummary, summarise
from crosswind.types import Manifest

if TYPE_CHECKING:
    from crosswind.kube.client import Client

__all__ = [
    "WARM_PODS",
    "PodGone",
    "check_namespace",
    "count_warm_pods",
    "find_pod",
    "find_pods",
    "other_namespaces_hint",
    "read_pods",
]

WARM_PODS = f"{POOL_LABEL},!{CLAIM_LABEL}"
"""Selects the warm pods that wait for a task."""

_MIN_NAME_PART_CHARS = 3
_MAX_CANDIDATES = 8
_SAMPLE = 50


class PodGone(CrosswindError):
    """No pod matches what the user named: it may have been deleted."""


async def read_pods(client: Client, namespace: str | None, selection: PodFilter) -> list[PodSummary]:
    """Return the pods of a namespace, or of all (None), that a filter matches.

    The list comes in pages, and of each pod only its summary is kept: 5,000 pods take one second of CPU.
    """
    listing = await client.list_mapped(PODS, summarise, namespace=namespace, labels=selection.labels)
    return [pod for pod in listing.items if selection.matches(pod)]


async def check_namespace(client: Client, choice: ClusterChoice) -> None:
    """Raise ``CrosswindError`` if the namespace does not exist: a list of its pods is then merely empty."""
    if choice.namespace is None:
        return
    try:
        await client.get(NAMESPACES, choice.namespace)
    except NotFound:
        message = f"context {choice.context} has no namespace {choice.namespace}; choose another one with --namespace"
        raise CrosswindError(message) from None
    except (ApiError, Unreachable):
        return  # who may list pods need not be allowed to read namespaces


async def count_warm_pods(client: Client, namespace: str | None) -> int:
    """Return how many warm pods wait for a task."""
    listing = await client.list_mapped(PODS, lambda _: None, namespace=namespace, labels=WARM_PODS)
    return len(listing.items)


async def other_namespaces_hint(client: Client, choice: ClusterChoice, selection: PodFilter) -> str:
    """Return a hint which other namespaces have such pods, "" when none has or the user may not see them."""
    if choice.namespace is None:
        return ""
    try:
        listing = await client.list(PODS, labels=selection.labels, limit=_SAMPLE)
    except (ApiError, Unreachable):
        return ""
    names = sorted({pod["metadata"]["namespace"] for pod in listing.items} - {choice.namespace})
    return f"there are some in {', '.join(names[:5])}: use --namespace or -A" if names else ""


async def find_pod(client: Client, choice: ClusterChoice, name: str | None, selection: PodFilter) -> Manifest:
    """Return the one pod that a user means.

    ``name``: a pod's name, or a part of it that no other pod has; None: the only pod that the filter matches. Raises
    ``PodGone`` when there is none and ``ConfigError`` when there are several.
    """
    if name and choice.namespace is not None:
        try:
            return await client.get(PODS, name, namespace=choice.namespace)
        except NotFound:
            pass  # a part of a name
    pod = await _only_match(client, choice, name, selection)
    try:
        return await client.get(PODS, pod.name, namespace=pod.namespace)
    except NotFound:
        raise PodGone(f"pod {pod.namespace}/{pod.name} has just been deleted") from None


async def find_pods(
    client: Client, choice: ClusterChoice, names: Sequence[str], selection: PodFilter
) -> list[PodSummary]:
    """Return the pods of these names, or without names all that the filter matches; ``PodGone`` when there is none."""
    if names:
        named_pods = [summarise(await find_pod(client, choice, name, selection)) for name in dict.fromkeys(names)]
        return list({pod.uid: pod for pod in named_pods}.values())
    pods = await read_pods(client, choice.namespace, selection)
    if not pods:
        await check_namespace(client, choice)
        raise PodGone(_no_match_message(choice, None, selection))
    return pods


async def _only_match(client: Client, choice: ClusterChoice, name: str | None, selection: PodFilter) -> PodSummary:
    if name and len(name) < _MIN_NAME_PART_CHARS:
        raise ConfigError(f"{name} is too short; give at least {_MIN_NAME_PART_CHARS} characters of the pod's name")
    part = (name or "").lower().removeprefix("…")
    pods = [pod for pod in await read_pods(client, choice.namespace, selection) if part in pod.name]
    pods = [pod for pod in pods if pod.name == part] or pods
    if len(pods) == 1:
        return pods[0]
    if not pods:
        await check_namespace(client, choice)
        raise PodGone(_no_match_message(choice, name, selection))
    shown = "".join(
        f"\n  {pod.namespace}/{pod.name}  {pod.task} try {pod.try_number}, {pod.state}"
        for pod in pods[:_MAX_CANDIDATES]
    )
    more = f"\n  and {len(pods) - _MAX_CANDIDATES} more" if len(pods) > _MAX_CANDIDATES else ""
    meant = " and ".join(filter(None, (f"the name {name}" if name else "", str(selection))))
    raise ConfigError(f"{counted(len(pods), 'pod')} match {meant or 'this'}; name one of them:{shown}{more}")


def _no_match_message(choice: ClusterChoice, name: str | None, selection: PodFilter) -> str:
    if name:
        also = f" and {selection}" if selection.narrows else ""
        return f"{choice.place} has no pod of an Airflow task with {name} in its name{also}"
    return f"{choice.place} has no pod of an Airflow task" + (f" with {selection}" if selection.narrows else "")
