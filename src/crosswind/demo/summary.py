"""The end of the demo in figures. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from crosswind.demo.timelines import Timeline, waited
from crosswind.types import Json

__all__ = ["Stall", "Summary", "find_stall", "summarise"]

OVER = {"success", "failed", "skipped", "upstream_failed", "removed"}


@dataclass(frozen=True, slots=True)
class Summary:
    """What the run came to; spans in seconds, None where there was nothing to measure."""

    dag_state: str
    tasks: int
    succeeded: int
    pods: int
    leaked: tuple[str, ...]
    """Pods that were still there at the end."""
    queued_to_running: float | None
    base_done_to_gone: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Stall:
    """Why nothing moves any more."""

    held: tuple[str, ...]
    """Pods whose base container has ended while something beside it runs."""
    sidecars: tuple[str, ...]
    unfinished: int
    """Task instances that wait."""
    silent: float
    """Seconds since anything changed."""


def summarise(
    dag_state: str, tasks: Sequence[Json], pods: Collection[Timeline], seconds: float, begun_count: int | None = None
) -> Summary:
    """Sum a run up from Airflow's task instances and the pods' timelines."""
    spans = [span for task in tasks if (span := _queued_to_running(task)) is not None]
    return Summary(
        dag_state=dag_state,
        tasks=len(tasks),
        succeeded=sum(task["state"] == "success" for task in tasks),
        pods=begun_count if begun_count is not None else len(pods),
        leaked=tuple(pod.name for pod in pods if pod.gone is None),
        queued_to_running=statistics.median(spans) if spans else None,
        base_done_to_gone=waited(pods),
        seconds=seconds,
    )


def _queued_to_running(task: Json) -> float | None:
    queued, started = task.get("queued_when"), task.get("start_date")
    if not queued or not started:
        return None
    span = (_moment(started) - _moment(queued)).total_seconds()
    return span if span >= 0 else None


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def find_stall(tasks: Sequence[Json], pods: Collection[Timeline], silent: float) -> Stall | None:
    """Return what holds the run up when finished pods are kept alive by their sidecars, else None."""
    alive = [pod for pod in pods if pod.gone is None]
    held = [pod for pod in alive if pod.base_done is not None and pod.sidecars]
    waiting = sum(task["state"] not in OVER for task in tasks)
    working = any(pod.base_done is None for pod in alive)
    if working or not held or not waiting:
        return None
    sidecars = sorted({name for pod in held for name in pod.sidecars})
    return Stall(tuple(pod.name for pod in held), tuple(sidecars), waiting, silent)
