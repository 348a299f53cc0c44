"""Decides whether the cluster took a pod from its task, and how: such a loss costs the task no retry. Pure.

Evidence, in the order in which it counts:

- the kernel killed base for memory, or base ended by itself before anything was done to the pod: no loss;
- a mark of the cluster: the condition DisruptionTarget, Kueue's TerminationTarget, or the pod's reason (``verdict``);
- the kubelet lost base's container, or the pod's node went away;
- the worker shim reports a SIGTERM, and nobody has deleted the pod: its node stopped it;
- a deletion without a mark is a person's. After ``kubectl delete`` nothing in the pod says who did it.
"""

from __future__ import annotations

import datetime

from crosswind.pods.fields import as_pod, conditions_of, text, time_of_state
from crosswind.pods.verdict import DISRUPTION_CONDITIONS, TERMINATED_BY_SIGNAL, BaseState, Verdict, node_is_unready
from crosswind.pods.worker_report import TERMINATED
from crosswind.types import AnyPod, Pod

__all__ = ["DELETED", "NODE_LOST", "loss_of"]

DELETED, NODE_LOST = "Deleted", "NodeLost"
"""Losses that have no reason of Kubernetes' own: a deletion that counts as one, and a pod that went with its node."""

_KILLED = frozenset({None, 137, 143})
"""Exit codes of a container that was ended from outside; None: nobody saw it end."""


def loss_of(
    pod: AnyPod, verdict: Verdict, *, base: str = "base", deleted: bool = False, deleted_is_loss: bool = False
) -> str:
    """Return in a word how the cluster took a pod whose base has ended or is gone, "" if it did not.

    ``verdict``: of the same pod. ``deleted``: the object is gone and ``pod`` is its last state. ``deleted_is_loss``:
    a deletion that no mark explains counts. The caller knows its own deletions and does not ask about them.
    """
    if not verdict.over or verdict.succeeded or verdict.reason == "OOMKilled":
        return ""
    pod = as_pod(pod)
    if verdict.infrastructure:
        return "" if _ended_before_mark(pod, verdict, base) else verdict.reason
    if verdict.reason == "ContainerStatusUnknown":
        return verdict.reason
    if not (deleted or verdict.deleting):
        return verdict.reason if verdict.reason == TERMINATED_BY_SIGNAL else ""
    if verdict.state is not BaseState.GONE and not _was_killed(verdict):
        return ""
    if node_is_unready(pod):
        return NODE_LOST
    return DELETED if deleted_is_loss else ""


def _was_killed(verdict: Verdict) -> bool:
    """Whether base ended as a deletion makes it end."""
    held_back = verdict.report is not None and verdict.report.reason == TERMINATED
    return held_back or (verdict.exit_code in _KILLED and verdict.reason in ("", "Error", TERMINATED_BY_SIGNAL))


def _ended_before_mark(pod: Pod, verdict: Verdict, base: str) -> bool:
    """Whether base ended by itself, before the cluster marked its pod.

    Two clocks wrote the times, so exit codes of a container that was killed always count as the cluster's doing.
    """
    if verdict.exit_code in _KILLED or (verdict.report is not None and verdict.report.reason == TERMINATED):
        return False
    marked, ended = _marked_at(pod), _seconds(time_of_state(pod, base, "terminated", "finishedAt"))
    return marked is not None and ended is not None and ended < marked


def _marked_at(pod: Pod) -> float | None:
    marks = (c for c in conditions_of(pod) if c.get("type") in DISRUPTION_CONDITIONS and c.get("status") == "True")
    return next((_seconds(text(mark.get("lastTransitionTime"))) for mark in marks), None)


def _seconds(stamp: str) -> float | None:
    try:
        return datetime.datetime.fromisoformat(stamp).timestamp()
    except (ValueError, OverflowError):
        return None
