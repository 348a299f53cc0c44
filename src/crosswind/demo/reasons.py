"""Explains why a pod does not start, why a try of a task failed, and what the run waits for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from crosswind.demo.summary import FINAL_STATES
from crosswind.demo.timelines import PodTimeline
from crosswind.pods.causes import why
from crosswind.pods.states import ContainerKind, ContainerReport, RuntimeState, container_reports
from crosswind.pods.verdict import BaseState, judge
from crosswind.types import Json, Pod, PodEvent

__all__ = ["Attempt", "label", "last_error", "pod_trouble", "troubled_attempts", "waits_for"]

BASE = "base"
NORMAL_WAITING_REASONS = {"", "ContainerCreating", "PodInitializing"}
MAX_NAMES = 3


def pod_trouble(pod: Pod, events: Iterable[PodEvent] = (), base: str = BASE) -> str:
    """Return why a pod does not start or has failed, "" if it is healthy.

    Other containers than base count, too: a proxy that cannot start cuts the task off from the network.
    """
    if pod["metadata"].get("deletionTimestamp"):
        return ""
    sentence = why(pod, events, base=base)
    verdict = judge(pod, base)
    if (
        verdict.state is BaseState.WAITING
        and sentence.endswith(f"waits: {verdict.reason}")
        and verdict.reason in NORMAL_WAITING_REASONS
    ):
        sentence = ""  # the normal steps of a start
    return sentence or next((text for report in container_reports(pod, base) if (text := _sidecar_trouble(report))), "")


def _sidecar_trouble(report: ContainerReport) -> str:
    if report.kind in (ContainerKind.BASE, ContainerKind.INIT):
        return ""
    if report.state is RuntimeState.WAITING and report.reason not in NORMAL_WAITING_REASONS:
        last_run = report.last or report
        return f"container {report.name} waits: {report.reason}{_detail(last_run)}"
    if report.state is RuntimeState.TERMINATED and report.exit_code and report.reason == "StartError":
        return f"container {report.name} could not be started{_detail(report)}"
    return ""


def _detail(report: ContainerReport) -> str:
    code = f"exit code {report.exit_code}" if report.exit_code else ""
    detail = ": ".join(part for part in (code, report.message.strip()) if part)
    return f" ({detail})" if detail else ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A try that failed, or that was rescheduled: by a sensor, or because the worker could not load the DAG."""

    task: str
    map_index: int
    number: int
    failed: bool

    @property
    def label(self) -> str:
        """The task's name in the tables."""
        return label(self.task, self.map_index)


def troubled_attempts(tasks: Sequence[Json]) -> list[Attempt]:
    """Return all tries that have failed, also those of tasks that are retried, and those that were rescheduled."""
    attempts = []
    for task in tasks:
        state, latest = task["state"], task.get("try_number") or 0
        failed_until = latest + (state in ("failed", "up_for_retry"))
        attempts += [Attempt(task["task_id"], task["map_index"], number, True) for number in range(1, failed_until)]
        if state == "up_for_reschedule":
            attempts.append(Attempt(task["task_id"], task["map_index"], latest, False))
    return attempts


def last_error(log: Sequence[Json]) -> str:
    """Return the last exception in a task's structured log, else its last line of level error, else ""."""
    entries = [entry for entry in log if isinstance(entry, Mapping)]
    details = [detail for entry in entries for detail in entry.get("error_detail") or ()]
    if details:
        return ": ".join(filter(None, (details[-1].get("exc_type"), details[-1].get("exc_value"))))
    errors = [entry for entry in entries if entry.get("level") in ("error", "critical")]
    return str(errors[-1].get("event", "")) if errors else ""


_STAGES: tuple[tuple[str, Callable[[PodTimeline], bool]], ...] = (
    ("to start in a pod", lambda pod: pod.running is None),
    ("to finish", lambda pod: pod.running is not None and pod.base_done is None),
    ("to have its pod deleted", lambda pod: pod.base_done is not None),
)
"""The next event of an existing pod, the earliest stage first."""


def waits_for(answered: bool, dag_run: Json | None, tasks: Sequence[Json], pods: Collection[PodTimeline]) -> str:
    """Return the event that the run waits for; "" when the run is over."""
    existing = [pod for pod in pods if pod.gone is None]
    for event, is_at_stage in _STAGES:
        if waiting := [pod.task for pod in existing if is_at_stage(pod)]:
            return f"{_names(waiting)} {event}"
    if not answered:
        return "Airflow's API server to answer"
    if dag_run is None:
        return "Airflow to parse the DAG file and start a run"
    return "" if dag_run["state"] in FINAL_STATES else _waits_for_scheduler(tasks)


def _waits_for_scheduler(tasks: Sequence[Json]) -> str:
    waiting = [label(task["task_id"], task.get("map_index", -1)) for task in tasks if task["state"] not in FINAL_STATES]
    return f"the scheduler to start {_names(waiting)}" if waiting else "the scheduler to end the run"


def label(task_id: str, map_index: int) -> str:
    """Return a task instance's name, with the map index in brackets."""
    return task_id if map_index < 0 else f"{task_id} [{map_index}]"


def _names(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
