"""When each pod started, ended and was deleted, derived from the events of a watch. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from crosswind.engine.warm_claim_patch import CLAIM_LABEL
from crosswind.pods.fields import annotations_of, container_statuses_of, labels_of, metadata_of, status_of
from crosswind.types import ContainerState, Pod

__all__ = ["PodTimeline", "advance", "median_removal_time", "short_word", "state_word"]

BASE = "base"


@dataclass(frozen=True, slots=True)
class PodTimeline:
    """The life of one pod. Times are seconds by the watcher's clock, None for events still to come."""

    uid: str
    name: str
    task: str
    """Task id, with the map index in brackets."""
    attempt: str
    created: float
    running: float | None = None
    """When the base container was first seen to run, or to have run."""
    base_done: float | None = None
    exit_code: int | None = None
    gone: float | None = None
    finished: bool = False
    """Whether the pod's phase is Succeeded or Failed."""
    sidecars: tuple[str, ...] = ()
    """Other containers that run now, native sidecars included."""
    waiting: str = ""
    """Reason for which base waits, such as ImagePullBackOff."""
    claimed: bool = False
    """Whether the pod had waited for a task, with everything imported."""


def advance(timelines: Mapping[str, PodTimeline], kind: str, pod: Pod, now: float) -> dict[str, PodTimeline]:
    """Return the timelines after an event of the watch. Pods that Airflow did not start are ignored."""
    uid = metadata_of(pod)["uid"]
    if "task_id" not in labels_of(pod):
        return dict(timelines)
    before = timelines.get(uid) or _new_timeline(pod, now)
    after = _observe(before, pod, now)
    if kind == "DELETED":
        after = replace(after, gone=after.gone or now, sidecars=())
    return {**timelines, uid: after}


def _new_timeline(pod: Pod, now: float) -> PodTimeline:
    metadata, labels = metadata_of(pod), labels_of(pod)
    index = labels.get("map_index", "-1")
    # The label is a shortened form of long ids.
    task = annotations_of(pod).get("task_id", labels["task_id"])
    task = task if index in ("-1", "") else f"{task} [{index}]"
    attempt, claimed = labels.get("try_number", ""), CLAIM_LABEL in labels
    return PodTimeline(metadata["uid"], metadata["name"], task, attempt, now, claimed=claimed)


def _observe(before: PodTimeline, pod: Pod, now: float) -> PodTimeline:
    states = _container_states(pod)
    base = states.get(BASE, {})
    terminated = base.get("terminated")
    has_started = terminated is not None or "running" in base
    return replace(
        before,
        running=before.running or (now if has_started else None),
        base_done=before.base_done or (now if terminated is not None else None),
        exit_code=terminated.get("exitCode") if terminated is not None else before.exit_code,
        finished=status_of(pod).get("phase") in ("Succeeded", "Failed"),
        sidecars=tuple(name for name, state in states.items() if name != BASE and "running" in state),
        waiting=base.get("waiting", {}).get("reason", ""),
    )


def _container_states(pod: Pod) -> dict[str, ContainerState]:
    statuses = [*(status_of(pod).get("initContainerStatuses") or ()), *container_statuses_of(pod)]
    return {status["name"]: status.get("state", {}) for status in statuses}


def state_word(pod: PodTimeline) -> str:
    """Return the state of a pod in a few words."""
    if pod.gone is not None:
        return "deleted"
    if pod.finished:
        return "finished, kept"
    if pod.base_done is not None:
        return f"base done, {', '.join(pod.sidecars)} still running" if pod.sidecars else "base done"
    if pod.running is not None:
        return "Running"
    return f"Pending ({pod.waiting})" if pod.waiting not in ("", "ContainerCreating", "PodInitializing") else "Pending"


def short_word(pod: PodTimeline) -> str:
    """Return the state in fewer words, for narrow terminals."""
    if pod.gone is None and pod.base_done is not None and not pod.finished:
        return "base done"
    return state_word(pod)


def median_removal_time(pods: Iterable[PodTimeline]) -> float | None:
    """Return the median seconds from the end of the base container to the pod's removal; None without removed pods."""
    durations = [pod.gone - pod.base_done for pod in pods if pod.gone is not None and pod.base_done is not None]
    return statistics.median(durations) if durations else None
