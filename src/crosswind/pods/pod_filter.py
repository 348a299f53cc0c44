"""Selects pods of Airflow tasks by what their users know: DAG, run, task, queue, state and reason. Pure.

The server selects by labels where it can. A label's value is shortened where the id is not valid, and two ids may
share such a value, so each pod is compared once more, with the true ids in its annotations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from crosswind.pods.naming import QUEUE_LABEL, label_value
from crosswind.pods.pod_summary import PodSummary

__all__ = ["PodFilter"]


@dataclass(frozen=True, slots=True)
class PodFilter:
    """What a pod must have; an empty field selects any value. All fields must match."""

    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int | None = None
    try_number: int | None = None
    queue: str = ""
    states: frozenset[str] = frozenset()
    """Of ``pod_summary.STATES``."""
    reasons: frozenset[str] = frozenset()
    """In lower case."""
    selector: str = ""
    """A further label selector in kubectl's syntax."""

    @property
    def labels(self) -> str:
        """The label selector for the server. Every pod of a task has the label ``dag_id``."""
        ids = {"dag_id": self.dag_id, "run_id": self.run_id, "task_id": self.task_id, QUEUE_LABEL: self.queue}
        terms = [f"{key}={label_value(value)}" for key, value in ids.items() if value]
        numbers = {"map_index": self.map_index, "try_number": self.try_number}
        terms += [f"{key}={value}" for key, value in numbers.items() if value is not None]
        if not self.dag_id:
            terms.append("dag_id")
        return ",".join([*terms, *filter(None, [self.selector])])

    @property
    def narrows(self) -> bool:
        """Whether it selects less than all pods of tasks."""
        return self != PodFilter()

    @property
    def task(self) -> PodSummary | None:
        """The task instance that it names, as a pod without a name; None if it names none or several."""
        if not (self.dag_id and self.run_id and self.task_id):
            return None
        return PodSummary(
            name="",
            dag_id=self.dag_id,
            run_id=self.run_id,
            task_id=self.task_id,
            map_index=self.map_index,
            try_number=self.try_number,
        )

    def matches(self, pod: PodSummary) -> bool:
        """Return whether a pod that the server selected by ``labels`` is meant."""
        if self.states and pod.state not in self.states:
            return False
        if self.reasons and pod.reason.lower() not in self.reasons:
            return False
        if self.queue and self.queue not in (pod.queue, label_value(pod.queue)):
            return False
        selected_ids = (self.dag_id, self.run_id, self.task_id)
        ids = (pod.dag_id, pod.run_id, pod.task_id)
        return all(
            not selected_id or selected_id in (true_id, label)
            for selected_id, true_id, label in zip(selected_ids, ids, pod.label_ids, strict=True)
        )

    def __str__(self) -> str:
        """The fields that are set, for messages: ``dag etl, state failed``."""
        return ", ".join(self._terms())

    def _terms(self) -> Iterator[str]:
        named = {"dag": self.dag_id, "run": self.run_id, "task": self.task_id, "queue": self.queue}
        yield from (f"{name} {value}" for name, value in named.items() if value)
        numbers = {"map index": self.map_index, "try": self.try_number}
        yield from (f"{name} {value}" for name, value in numbers.items() if value is not None)
        if self.states:
            yield f"state {' or '.join(sorted(self.states))}"
        if self.reasons:
            yield f"reason {' or '.join(sorted(self.reasons))}"
        if self.selector:
            yield f"labels {self.selector}"
