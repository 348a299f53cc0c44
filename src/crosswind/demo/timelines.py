"""What happened to each pod and when, from the events of a watch. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from crosswind.types import ContainerState, Manifest

__all__ = ["Timeline", "advance", "short_word", "state_word", "waited"]

BASE = "base"


@dataclass(frozen=True, slots=True)
class Timeline:
    """One pod's life. Times are seconds on the watcher's clock, None for what has not happened yet."""

    uid: str
    name: str
    task: str
    """Task id, with the map index in brackets."""
    attempt: str
    created: float
    running: float | None = None
    """When the base container was first seen running (or already over)."""
    base_done: float | None = None
    exit_code: int | None = None
    gone: float | None = None
    finished: bool = False
    """Whether the pod's phase is Succeeded or Failed."""
    sidecars: tuple[str, ...] = ()
    """Containers beside base, native sidecars included, that run now."""
    waiting: str = ""
    """Why base does not run yet, such as ImagePullBackOff."""


def advance(timelines: Mapping[str, Timeline], kind: str, pod: Manifest, now: float) -> dict[str, Timeline]:
    """Return the timelines after one watch event about a pod that Airflow started; others are left out."""
    metadata = pod["metadata"]
    labels = metadata.get("labels", {})
    if "task_id" not in labels:
        return dict(timelines)
    before = timelines.get(metadata["uid"]) or _begin(metadata, labels, now)
    after = _observe(before, pod, now)
    if kind == "DELETED":
        after = replace(after, gone=after.gone or now, sidecars=())
    return {**timelines, metadata["uid"]: after}


def _begin(metadata: Mapping[str, Any], labels: Mapping[str, str], now: float) -> Timeline:
    index = labels.get("map_index", "-1")
    task = metadata.get("annotations", {}).get("task_id", labels["task_id"])
    task = task if index in ("-1", "") else f"{task} [{index}]"
    return Timeline(metadata["uid"], metadata["name"], task, labels.get("try_number", ""), now)


def _observe(before: Timeline, pod: Manifest, now: float) -> Timeline:
    states = _container_states(pod)
    base = states.get(BASE, {})
    ended = base.get("terminated")
    begun = ended is not None or "running" in base
    return replace(
        before,
        running=before.running or (now if begun else None),
        base_done=before.base_done or (now if ended is not None else None),
        exit_code=ended.get("exitCode") if ended is not None else before.exit_code,
        finished=pod.get("status", {}).get("phase") in ("Succeeded", "Failed"),
        sidecars=tuple(name for name, state in states.items() if name != BASE and "running" in state),
        waiting=base.get("waiting", {}).get("reason", ""),
    )


def _container_states(pod: Manifest) -> dict[str, ContainerState]:
    status = pod.get("status", {})
    listed = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return {entry["name"]: entry.get("state", {}) for entry in listed}


def state_word(pod: Timeline) -> str:
    """Say in a few words what the pod is doing."""
    if pod.gone is not None:
        return "deleted"
    if pod.finished:
        return "finished, kept"
    if pod.base_done is not None:
        return f"base done, {', '.join(pod.sidecars)} still running" if pod.sidecars else "base done"
    if pod.running is not None:
        return "Running"
    return f"Pending ({pod.waiting})" if pod.waiting not in ("", "ContainerCreating", "PodInitializing") else "Pending"


def short_word(pod: Timeline) -> str:
    """Say the same where there is little room."""
    if pod.gone is None and pod.base_done is not None and not pod.finished:
        return "base done"
    return state_word(pod)


def waited(pods: Iterable[Timeline]) -> float | None:
    """Median seconds from the end of the base container to the pod's disappearance; None without such a pod."""
    spans = [pod.gone - pod.base_done for pod in pods if pod.gone is not None and pod.base_done is not None]
    return statistics.median(spans) if spans else None
