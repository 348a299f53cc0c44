"""A pod of an Airflow task in one row: which task it runs, its state and why. Pure, for any JSON.

The state is that of the task's container, so a pod that a sidecar holds counts as ended. Pods of the executor, stock's
and Crosswind's, carry the task's ids as annotations and, shortened where a label's value must be, as labels; those of
the pod operator carry labels alone.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from crosswind.pods.fields import (
    annotations_of,
    as_pod,
    container_statuses_of,
    containers_of,
    labels_of,
    mapping,
    metadata_of,
    number,
    spec_of,
    text,
)
from crosswind.pods.naming import CLAIM_LABEL, POOL_LABEL, QUEUE_LABEL
from crosswind.pods.verdict import BaseState, Verdict, judge
from crosswind.types import AnyPod, Pod

__all__ = ["STATES", "PodSummary", "base_container", "is_worker", "pod_kind", "seconds_since_epoch", "summarise"]

STATES = ("pending", "running", "succeeded", "failed", "terminating", "lost")
"""The states of a pod's task. terminating: its deletion was requested before it ended; lost: nobody saw it end."""

_WORKER_MARKS = {"kubernetes_executor": "True", "crosswind/worker": "true"}
_BASE_ANNOTATION = "kubectl.kubernetes.io/default-container"


class PodSummary(NamedTuple):
    """One pod. Texts are "" and numbers None where they are not known."""

    name: str
    namespace: str = ""
    uid: str = ""
    kind: str = "worker"
    """worker (of an executor), operator (of a ``KubernetesPodOperator``), warm (waits for a task), other."""
    dag_id: str = ""
    task_id: str = ""
    run_id: str = ""
    map_index: int | None = None
    try_number: int | None = None
    queue: str = ""
    state: str = "pending"
    """One of ``STATES``."""
    reason: str = ""
    """One word of Kubernetes' own."""
    message: str = ""
    exit_code: int | None = None
    """Of the task's container."""
    node: str = ""
    restarts: int = 0
    """Of all containers."""
    created: float | None = None
    """Seconds since 1970, as the other times."""
    started: float | None = None
    """When the task's container started."""
    ended: float | None = None
    deleting: bool = False
    sidecars_running: tuple[str, ...] = ()
    """Ordinary containers that hold the pod although its task has ended."""
    pool: str = ""
    """The warm pool in which the pod waits."""
    was_warm: bool = False
    """The pod waited in a warm pool before its task came, so it is older than the task."""
    label_ids: tuple[str, str, str] = ("", "", "")
    """DAG, run and task as the labels have them."""

    @property
    def task(self) -> str:
        """The task as DAG.TASK[INDEX]."""
        if not (self.dag_id or self.task_id):
            return ""
        index = "" if self.map_index is None else f"[{self.map_index}]"
        return f"{self.dag_id}.{self.task_id}{index}"

    @property
    def over(self) -> bool:
        """Whether the task has ended."""
        return self.state in ("succeeded", "failed", "lost")

    def to_json(self) -> dict[str, Any]:
        """Return the row for programs. Times are RFC 3339 in UTC; unknown values are null."""
        row = self._asdict()
        del row["label_ids"]
        for name in ("created", "started", "ended"):
            row[name] = None if row[name] is None else _rfc3339(row[name])
        return {**row, "sidecars_running": list(self.sidecars_running)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Return the summary that ``to_json`` wrote; further fields are ignored."""
        known = {name: row[name] for name in cls._fields if name in row}
        times = {name: seconds_since_epoch(known.get(name)) for name in ("created", "started", "ended")}
        return cls(**{**known, **times, "sidecars_running": tuple(known.get("sidecars_running") or ())})


def summarise(pod: AnyPod, *, deleted: bool = False) -> PodSummary:
    """Return the summary of a pod. ``deleted``: the object is gone and ``pod`` is its last state."""
    pod = as_pod(pod)
    metadata, labels, annotations = metadata_of(pod), labels_of(pod), annotations_of(pod)
    base = base_container(pod)
    verdict = judge(pod, base, deleted=deleted)
    started, ended = _times(pod, base)
    return PodSummary(
        name=text(metadata.get("name")),
        namespace=text(metadata.get("namespace")),
        uid=text(metadata.get("uid")),
        kind=pod_kind(labels),
        **_ids(labels, annotations),
        state=_state(verdict),
        reason=verdict.reason,
        message=verdict.message,
        exit_code=verdict.exit_code,
        node=text(spec_of(pod).get("nodeName")),
        restarts=sum(number(status.get("restartCount")) or 0 for status in container_statuses_of(pod)),
        created=seconds_since_epoch(metadata.get("creationTimestamp")),
        started=started,
        ended=ended,
        deleting=verdict.deleting,
        sidecars_running=verdict.sidecars_running if verdict.over else (),
        pool=text(labels.get(POOL_LABEL)),
        was_warm=CLAIM_LABEL in labels,
    )


def base_container(pod: AnyPod) -> str:
    """Return the name of the container that decides: ``base``, or what an operator's pod calls it."""
    pod = as_pod(pod)
    names = [text(container.get("name")) for container in containers_of(pod)]
    if "base" in names or not names:
        return "base"
    chosen = text(annotations_of(pod).get(_BASE_ANNOTATION))
    return chosen if chosen in names else names[0]


def pod_kind(labels: Mapping[str, str]) -> str:
    """Return what owns a pod with these labels: worker, operator, warm or other."""
    if POOL_LABEL in labels and CLAIM_LABEL not in labels:
        return "warm"
    if is_worker(labels):
        return "worker"
    return "operator" if labels.get("kubernetes_pod_operator") == "True" else "other"


def is_worker(labels: Mapping[str, str]) -> bool:
    """Return whether a pod with these labels is a worker of an executor, Crosswind's or stock's."""
    return any(labels.get(key) == value for key, value in _WORKER_MARKS.items())


def seconds_since_epoch(stamp: object) -> float | None:
    """Return a Kubernetes time as seconds since 1970; None for anything else."""
    try:
        return datetime.datetime.fromisoformat(text(stamp)).timestamp()
    except (ValueError, OverflowError):
        return None


def _ids(labels: Mapping[str, str], annotations: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields that say which task a pod runs."""

    def known(key: str) -> str:
        return text(annotations.get(key)) or text(labels.get(key))

    return {
        "dag_id": known("dag_id"),
        "task_id": known("task_id"),
        "run_id": known("run_id"),
        "map_index": _whole(known("map_index")),
        "try_number": _whole(known("try_number")),
        "queue": known(QUEUE_LABEL),
        "label_ids": (text(labels.get("dag_id")), text(labels.get("run_id")), text(labels.get("task_id"))),
    }


def _whole(value: str) -> int | None:
    # stock's pod operator labels an unmapped task with map_index -1
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else None


def _state(verdict: Verdict) -> str:
    if verdict.succeeded:
        return "succeeded"
    if verdict.state is BaseState.GONE:
        return "lost"
    if verdict.state is BaseState.TERMINATED:
        return "failed"
    if verdict.deleting:
        return "terminating"
    return "running" if verdict.state is BaseState.RUNNING else "pending"


def _times(pod: Pod, base: str) -> tuple[float | None, float | None]:
    """Return when the task's container started and ended."""
    for status in container_statuses_of(pod):
        if status.get("name") == base:
            state = mapping(status.get("state"))
            detail = mapping(state.get("terminated")) or mapping(state.get("running"))
            return seconds_since_epoch(detail.get("startedAt")), seconds_since_epoch(detail.get("finishedAt"))
    return None, None


def _rfc3339(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat().replace("+00:00", "Z")
