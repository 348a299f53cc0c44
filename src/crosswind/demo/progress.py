"""The state of a run of the demo as its watchers have seen it, and the lines to print about it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from crosswind.demo import screen
from crosswind.demo.reasons import pod_trouble, waits_for
from crosswind.demo.summary import FINAL_STATES
from crosswind.demo.timelines import PodTimeline, advance
from crosswind.types import Json, Pod, PodEvent

__all__ = ["RunProgress"]

TROUBLE_DELAY_S = 3.0
"""How long a pod waits before its trouble is reported: some reasons pass by themselves."""

START_ERROR_CODE = 128
"""Exit code of a container that the runtime could not start; its log is empty, so the pod's trouble explains it."""


@dataclass(slots=True)
class RunProgress:
    """Everything that the watchers know. Times in seconds since the start."""

    started: float = field(default_factory=time.monotonic)
    pods: dict[str, PodTimeline] = field(default_factory=dict)
    tasks: list[Json] = field(default_factory=list)
    dag_run: Json | None = None
    api_answered: bool = False
    last_change: float = 0.0
    _lines: list[str] = field(default_factory=list)
    """Lines about failures and troubles that are not printed yet."""
    _troubles: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By the pod's UID: the trouble, and since when."""
    _reported: set[object] = field(default_factory=set)

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def unchanged_for(self) -> float:
        """Seconds since the last change."""
        return self.now - self.last_change

    @property
    def is_over(self) -> bool:
        """Whether the DAG run has ended."""
        return self.dag_run is not None and self.dag_run["state"] in FINAL_STATES

    @property
    def has_no_pods(self) -> bool:
        """Whether all pods are deleted."""
        return all(pod.gone is not None for pod in self.pods.values())

    def waits_for(self) -> str:
        """Return the next event that the run waits for."""
        return waits_for(self.api_answered, self.dag_run, self.tasks, self.pods.values())

    def observe(self, api_answered: bool, dag_run: Json | None, tasks: list[Json]) -> None:
        """Record Airflow's responses."""
        if _essence(self.api_answered, self.dag_run, self.tasks) != _essence(api_answered, dag_run, tasks):
            self.last_change = self.now
        self.api_answered, self.dag_run, self.tasks = api_answered, dag_run, tasks

    def observe_pod(self, kind: str, pod: Pod, events: list[PodEvent]) -> None:
        """Record an event of the watch."""
        before, self.pods = self.pods, advance(self.pods, kind, pod, self.now)
        self.last_change = self.now if self.pods != before else self.last_change
        self.observe_trouble(kind, pod, events)

    def observe_trouble(self, kind: str, pod: Pod, events: list[PodEvent]) -> None:
        """Record why the pod does not start or has failed, or that it is healthy."""
        uid = pod["metadata"]["uid"]
        earlier = self._troubles.pop(uid, None)
        if kind == "DELETED" or pod["metadata"].get("deletionTimestamp"):
            if earlier and self.pods[uid].running is None:  # the executor gave up on the pod for this trouble
                self._report_trouble(uid, earlier[0])
        elif uid in self.pods and (trouble := pod_trouble(pod, events)):
            # The kubelet alternates between ErrImagePull and ImagePullBackOff: that is one trouble.
            self._troubles[uid] = (trouble, earlier[1] if earlier else self.now)

    def is_reported(self, key: object) -> bool:
        """Whether a line with this key was reported."""
        return key in self._reported

    def report(self, key: object, line: str) -> None:
        """Print a line with the next ``take_lines``, once for each key."""
        if key not in self._reported:
            self._reported.add(key)
            self._lines.append(line)

    def take_lines(self) -> list[str]:
        """Return the lines to print, with those about pods whose trouble lasts."""
        for uid, (trouble, since) in self._troubles.items():
            pod = self.pods[uid]
            # The failure of base is the task's own, and its log explains it better; that line follows.
            is_task_failure = pod.base_done is not None and pod.exit_code not in (None, START_ERROR_CODE)
            if not is_task_failure and (pod.finished or self.now - since >= TROUBLE_DELAY_S):
                self._report_trouble(uid, trouble)
        lines, self._lines = self._lines, []
        return lines

    def _report_trouble(self, uid: str, trouble: str) -> None:
        pod = self.pods[uid]
        self.report((uid, trouble), screen.event_line(self.now, pod.task, pod.attempt, trouble))


def _essence(api_answered: bool, dag_run: Json | None, tasks: list[Json]) -> tuple[object, ...]:
    """Return the parts of Airflow's answers whose change is progress."""
    return api_answered, (dag_run or {}).get("state"), [(task["state"], task.get("try_number")) for task in tasks]
