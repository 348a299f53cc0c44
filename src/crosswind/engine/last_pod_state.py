"""Extracts the data that the pod history keeps from a pod's last state. Pure.

The engine's loop reads it when it sees the pod for the last time. It has the pod's JSON parsed then, and a copy for
later would cost more. Times come from the pod's status: the kubelet and the scheduler write whole seconds of their
node's clock.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from crosswind.engine.column_text import storable
from crosswind.engine.worker_pod import BASE
from crosswind.pods.added_fields import added_fields
from crosswind.pods.fields import (
    conditions_of,
    container_of,
    container_statuses_of,
    containers_of,
    init_containers_of,
    mapping,
    mappings,
    metadata_of,
    number,
    spec_of,
    status_of,
    text,
)
from crosswind.pods.states import ContainerKind, container_reports
from crosswind.sidecars.detection import is_injected
from crosswind.types import ContainerStatus, Json, Pod

__all__ = ["UNSEEN_POD", "LastPodState", "last_pod_state", "seconds_of"]

_IMAGE_CHARS, _NAME_CHARS, _NODE_CHARS = 300, 200, 253
_MAX_CONTAINERS, _MAX_ADDED = 12, 40

_CONDITIONS = {"PodScheduled": "scheduled", "PodReadyToStartContainers": "sandbox", "Initialized": "initialized"}
"""Conditions whose ``lastTransitionTime`` is a moment of the pod's life."""


class LastPodState(NamedTuple):
    """A pod as it was last seen."""

    uid: str = ""
    node: str = ""
    times: Mapping[str, float] = {}
    """created, scheduled, sandbox, initialized, started: seconds since 1970, those that are known."""
    ended_at: float | None = None
    """When the base container ended, in seconds since 1970."""
    exit_code: int | None = None
    """Of the base container."""
    message: str = ""
    """Its termination message."""
    declared: Mapping[str, Any] = {}
    """``image``, ``requests`` and ``limits`` of the base container."""
    containers: Sequence[Mapping[str, Any]] = ()
    """The containers beside base: name, kind, how each ended, and whether an injector added it."""
    added: Sequence[str] = ()
    """Fields that nobody asked for."""


UNSEEN_POD = LastPodState()
"""Of a run without a pod, or with one that was never seen."""


def last_pod_state(pod: Pod, requested_fields: frozenset[str]) -> LastPodState:
    """Return the last state of a pod. Any JSON gives one: nothing in it is trusted.

    ``requested_fields``: the fields of its manifest; empty where another scheduler made the pod: then none count as
    added.
    """
    metadata, state = metadata_of(pod), _base_state(pod)
    terminated = mapping(state.get("terminated"))
    times = {
        "created": seconds_of(metadata.get("creationTimestamp")),
        **_reached(pod),
        "started": seconds_of((terminated or mapping(state.get("running"))).get("startedAt")),
    }
    return LastPodState(
        text(metadata.get("uid")),
        storable(text(spec_of(pod).get("nodeName")), most_chars=_NODE_CHARS),
        {name: moment for name, moment in times.items() if moment is not None},
        seconds_of(terminated.get("finishedAt")),
        number(terminated.get("exitCode")),
        text(terminated.get("message")),
        _declared(pod),
        _containers(pod),
        _added(pod, requested_fields),
    )


def seconds_of(stamp: Json) -> float | None:
    """Return a Kubernetes time as seconds since 1970; None for anything else."""
    return _parsed(stamp) if isinstance(stamp, str) else None


@lru_cache(maxsize=4096)
def _parsed(stamp: str) -> float | None:
    """Whole seconds: of a thousand pods that start together, most have the same few."""
    try:
        moment = datetime.datetime.fromisoformat(stamp).timestamp()
    except (ValueError, OverflowError):
        return None
    return moment if moment > 0 else None  # Go's zero time is in year 1


def _reached(pod: Pod) -> dict[str, float | None]:
    """Return when the pod's conditions came true."""
    return {
        _CONDITIONS[kind]: seconds_of(condition.get("lastTransitionTime"))
        for condition in conditions_of(pod)
        if (kind := text(condition.get("type"))) in _CONDITIONS and condition.get("status") == "True"
    }


def _base_state(pod: Pod) -> Mapping[str, Any]:
    statuses = (status for status in container_statuses_of(pod) if status.get("name") == BASE)
    return mapping(next(statuses, ContainerStatus()).get("state"))


def _declared(pod: Pod) -> dict[str, Any]:
    base = container_of(pod, BASE)
    resources = {name: mapping(base.get("resources")).get(name) for name in ("requests", "limits")}
    return {"image": storable(text(base.get("image")), most_chars=_IMAGE_CHARS), **resources}


def _containers(pod: Pod) -> list[dict[str, Any]]:
    if not _has_others(pod):
        return []
    declared = {text(container.get("name")): container for container in (*init_containers_of(pod), *containers_of(pod))}
    containers = []
    for report in container_reports(pod, BASE):
        if report.kind is ContainerKind.BASE:
            continue
        entry: dict[str, Any] = {"name": report.name, "kind": report.kind.value, "state": report.state.value}
        if report.exit_code is not None:
            entry["exit_code"] = report.exit_code
        if is_injected(pod, declared.get(report.name, {"name": report.name})):
            entry["injected"] = True
        containers.append(entry)
    return containers[:_MAX_CONTAINERS]


def _has_others(pod: Pod) -> bool:
    """Return whether the pod has a container beside base; most have none, and a report on each costs more."""
    status = status_of(pod)
    if init_containers_of(pod) or mappings(status.get("initContainerStatuses")):
        return True
    return any(container.get("name") != BASE for container in (*containers_of(pod), *container_statuses_of(pod)))


def _added(pod: Pod, requested_fields: frozenset[str]) -> list[str]:
    names = added_fields(pod, requested_fields) if requested_fields else []
    return [storable(name, most_chars=_NAME_CHARS) for name in names[:_MAX_ADDED]]
