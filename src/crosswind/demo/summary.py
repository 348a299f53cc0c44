"""Summarises a run of the demo in figures. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from crosswind.demo.timelines import PodTimeline, median_removal_time
from crosswind.types import Json

__all__ = ["Stall", "Summary", "find_stall", "summarise"]

FINAL_STATES = {"success", "failed", "skipped", "upstream_failed", "removed"}


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a run. Durations in seconds, None where nothing was measured."""

    dag_state: str
    tasks: int
    succeeded: int
    pods: int
    leaked: tuple[str, ...]
    """Pods that still existed at the end."""
    queued_to_running: float | None
    """Median of all tasks; of those in pods of their own when others ran in pods that had waited."""
    warm_queued_to_running: float | None
    """Median of the tasks in pods that had waited for them."""
    base_done_to_gone: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Stall:
    """Why the run makes no progress."""

    held: tuple[str, ...]
    """Pods whose base container has ended while a sidecar still runs."""
    sidecars: tuple[str, ...]
    unfinished: int
    """Task instances that have not ended."""
    unchanged_for: float
    """Seconds since the last change."""


def summarise(
    dag_state: str, tasks: Sequence[Json], pods: Collection[PodTimeline], seconds: float, pod_count: int | None = None
) -> Summary:
    """Summarise a run from Airflow's task instances and the pods' timelines."""
    claimed = {pod.task for pod in pods if pod.claimed}
    spans: dict[bool, list[float]] = {True: [], False: []}
    for task in tasks:
        if (span := _queued_to_running(task)) is not None:
            spans[_name(task) in claimed].append(span)
    return Summary(
        dag_state=dag_state,
        tasks=len(tasks),
        succeeded=sum(task["state"] == "success" for task in tasks),
        pods=pod_count if pod_count is not None else len(pods),
        leaked=tuple(pod.name for pod in pods if pod.gone is None),
        queued_to_running=statistics.median(spans[False]) if spans[False] else None,
        warm_queued_to_running=statistics.median(spans[True]) if spans[True] else None,
        base_done_to_gone=median_removal_time(pods),
        seconds=seconds,
    )


def _name(task: Json) -> str:
    """Return a task's name as timelines have it."""
    index = task.get("map_index", -1)
    return str(task["task_id"]) if index in (-1, None) else f"{task['task_id']} [{index}]"


def _queued_to_running(task: Json) -> float | None:
    queued, started = task.get("queued_when"), task.get("start_date")
    if not queued or not started:
        return None
    span = (_parse_time(started) - _parse_time(queued)).total_seconds()
    return span if span >= 0 else None


def _parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def find_stall(tasks: Sequence[Json], pods: Collection[PodTimeline], unchanged_for: float) -> Stall | None:
    """Return the stall if sidecars keep finished pods alive and no other pod works, else None."""
    existing = [pod for pod in pods if pod.gone is None]
    if any(pod.base_done is None for pod in existing):  # a pod that still works will end
        return None
    held = [pod for pod in existing if pod.sidecars]
    waiting = sum(task["state"] not in FINAL_STATES for task in tasks)
    if not held or not waiting:
        return None
    sidecars = sorted({name for pod in held for name in pod.sidecars})
    return Stall(tuple(pod.name for pod in held), tuple(sidecars), waiting, unchanged_for)
