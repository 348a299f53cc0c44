"""Why a pod of the demo does not get on, why a try of a task failed, and what the run waits for. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from crosswind.demo.summary import OVER
from crosswind.demo.timelines import Timeline
from crosswind.pods.causes import why
from crosswind.pods.states import ContainerReport, Kind, State, containers
from crosswind.pods.verdicts import Stage, judge
from crosswind.types import Json, Manifest

__all__ = ["Attempt", "label", "last_error", "pod_trouble", "troubled_attempts", "waits_for"]

BASE = "base"
STARTING = {"", "ContainerCreating", "PodInitializing"}
SHOWN_NAMES = 3


def pod_trouble(pod: Manifest, events: Iterable[Manifest] = (), base: str = BASE) -> str:
    """Return what holds a pod up or made it fail, "" when nothing does.

    A container beside base counts too: a proxy that cannot start keeps the task from the network.
    """
    if pod["metadata"].get("deletionTimestamp"):
        return ""
    sentence = why(pod, events, base=base)
    verdict = judge(pod, base)
    if verdict.stage is Stage.WAITING and sentence.endswith(f"waits: {verdict.reason}") and verdict.reason in STARTING:
        sentence = ""  # it is about to start
    return sentence or next((text for report in containers(pod, base) if (text := _beside(report))), "")


def _beside(report: ContainerReport) -> str:
    if report.kind in (Kind.BASE, Kind.INIT):
        return ""
    if report.state is State.WAITING and report.reason not in STARTING:
        before = report.last or report
        return f"container {report.name} waits: {report.reason}{_detail(before)}"
    if report.state is State.TERMINATED and report.exit_code and report.reason == "StartError":
        return f"container {report.name} could not be started{_detail(report)}"
    return ""


def _detail(report: ContainerReport) -> str:
    code = f"exit code {report.exit_code}" if report.exit_code else ""
    detail = ": ".join(part for part in (code, report.message.strip()) if part)
    return f" ({detail})" if detail else ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a task that failed, or was put off: by a sensor's design, or because its DAG cannot be loaded."""

    task: str
    map_index: int
    number: int
    failed: bool

    @property
    def label(self) -> str:
        """The task's name as the tables show it."""
        return label(self.task, self.map_index)


def troubled_attempts(tasks: Sequence[Json]) -> list[Attempt]:
    """Return the tries that have failed, also those before a retry began, and those that were put off."""
    found = []
    for task in tasks:
        state, last = task["state"], task.get("try_number") or 0
        ended = last + (state in ("failed", "up_for_retry"))
        found += [Attempt(task["task_id"], task["map_index"], number, True) for number in range(1, ended)]
        if state == "up_for_reschedule":
            found.append(Attempt(task["task_id"], task["map_index"], last, False))
    return found


def last_error(log: Sequence[Json]) -> str:
    """Return the last exception in a task's structured log, else the last line that tells of an error, else ""."""
    entries = [entry for entry in log if isinstance(entry, Mapping)]
    for entry in reversed(entries):
        for detail in reversed(entry.get("error_detail") or ()):
            return ": ".join(part for part in (detail.get("exc_type"), detail.get("exc_value")) if part)
    errors = [entry for entry in entries if entry.get("level") in ("error", "critical")]
    return str(errors[-1].get("event", "")) if errors else ""


def waits_for(answered: bool, dag_run: Json | None, tasks: Sequence[Json], pods: Collection[Timeline]) -> str:
    """Say what has to happen next; "" when the run is over."""
    alive = [pod for pod in pods if pod.gone is None]
    for group, what in (
        ([pod.task for pod in alive if pod.running is None], "to start in a pod"),
        ([pod.task for pod in alive if pod.running is not None and pod.base_done is None], "to finish"),
        ([pod.task for pod in alive if pod.base_done is not None], "to lose its pod"),
    ):
        if group:
            return f"{_names(group)} {what}"
    if not answered:
        return "Airflow's API server to answer"
    if dag_run is None:
        return "Airflow to parse the DAG file and start a run"
    if dag_run["state"] in OVER:
        return ""
    waiting = [label(task["task_id"], task.get("map_index", -1)) for task in tasks if task["state"] not in OVER]
    return f"the scheduler to start {_names(waiting)}" if waiting else "the scheduler to end the run"


def label(task_id: str, map_index: int) -> str:
    """Return a task instance's name, with the map index in brackets."""
    return task_id if map_index < 0 else f"{task_id} [{map_index}]"


def _names(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
