"""Decides which pod of an earlier try a new try attaches to.

A try never attaches to a pod that is being deleted or that a try gave up. The kubelet has sent TERM to its program, so
the exit code is no result: a program that traps TERM exits with 0 without having done its work.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Collection, Iterable, Sequence

from crosswind.pods.fields import (
    as_events,
    as_pod,
    labels_of,
    mapping,
    metadata_of,
    number,
    status_of,
    text,
    time_of_state,
)
from crosswind.pods.verdict import BaseState, Verdict, judge
from crosswind.types import AnyPod, Pod, PodEvent

__all__ = [
    "CHECKED",
    "EarlierPodState",
    "could_start",
    "earlier_pod_state",
    "is_of_same_task",
    "preferred_pod",
    "was_stopped",
]

CHECKED = "already_checked"
"""Stock's label on a pod whose result a try has used, or that a try has given up."""


_TASK_LABELS = ("dag_id", "task_id", "run_id", "map_index")
"""Stock's labels that say to which task instance a pod belongs."""


class EarlierPodState(enum.IntEnum):
    """The state of an earlier try's pod, for a new try; the most useful state first."""

    ALIVE = 0
    """It runs or may still start: the new try follows it."""
    SUCCEEDED = 1
    """Its base container exited with 0, and no try has used the result: the new try uses it."""
    TERMINATING = 2
    """It is being deleted, and its work was not done before that: the new try ignores it."""
    FAILED = 3
    """It failed or can never start: the new try cleans it up."""
    USED = 4
    """A try has used its result or given it up: the new try ignores it."""


def is_of_same_task(pod: AnyPod, request: AnyPod) -> bool:
    """Return whether a pod may belong to the task instance that makes this request: no label of the two differs.

    A pod without these labels may: a deployment's ``pod_mutation_hook`` can drop them.
    """
    labels, own = labels_of(as_pod(pod)), labels_of(as_pod(request))
    return all(labels.get(name) in (None, own.get(name)) for name in _TASK_LABELS)


def earlier_pod_state(pod: AnyPod, base: str, fatal: Collection[str], used: Collection[str] = ()) -> EarlierPodState:
    """Return the state of an earlier try's pod.

    ``fatal``: as for ``verdict.judge``. ``used``: uids of pods that count as used although they lack the label.
    """
    pod = as_pod(pod)
    if labels_of(pod).get(CHECKED) == "True" or metadata_of(pod).get("uid") in used:
        return EarlierPodState.USED
    verdict = judge(pod, base, fatal=fatal, restarts=True)
    if verdict.deleting:
        done = verdict.succeeded and _ended_before_deletion(pod, base)
        return EarlierPodState.SUCCEEDED if done else EarlierPodState.TERMINATING
    if verdict.over:
        return EarlierPodState.SUCCEEDED if verdict.succeeded else EarlierPodState.FAILED
    return EarlierPodState.ALIVE


def preferred_pod(pods: Sequence[AnyPod], states: Sequence[EarlierPodState]) -> int:
    """Return the index of the pod to use: the best state, then the newest try, then the newest pod."""

    def rank(index: int) -> tuple[int, int, str]:
        pod = as_pod(pods[index])
        tries = text(labels_of(pod).get("try_number"))
        created = text(metadata_of(pod).get("creationTimestamp"))
        return -states[index], int(tries) if tries.isdecimal() else 0, created

    return max(range(len(pods)), key=rank)


def was_stopped(pod: AnyPod, events: Iterable[PodEvent], base: str) -> bool:
    """Return whether the kubelet stopped the base container of a pod that is being deleted, by the pod's events.

    Unlike ``earlier_pod_state`` this compares no clocks of two machines. Base may have ended in the second in which
    the deletion was requested. Then it counts as stopped unless its start is among the events, and no stop: events that
    cannot be read, or have expired, prove nothing.
    """
    reasons = {
        event.get("reason")
        for event in as_events(list(events))
        if text(mapping(event.get("involvedObject")).get("fieldPath")).endswith(f"{{{base}}}")
    }
    return "Killing" in reasons or ("Started" not in reasons and not _ended_before_deletion(as_pod(pod), base, 1))


def could_start(pod: AnyPod, verdict: Verdict) -> bool:
    """Return whether a pod that its try gives up may still run its program, once its image or a node is there."""
    phase = status_of(as_pod(pod)).get("phase")
    return verdict.state is not BaseState.GONE and not verdict.started and phase not in ("Succeeded", "Failed")


def _ended_before_deletion(pod: Pod, base: str, seconds: int = 0) -> bool:
    """Return whether base ended at least so many seconds before the pod's deletion was requested.

    ``deletionTimestamp`` is the end of the grace period. Both times are whole seconds.
    """
    metadata = metadata_of(pod)
    deadline = _time(metadata.get("deletionTimestamp"))
    ended = _time(time_of_state(pod, base, "terminated", "finishedAt"))
    if deadline is None or ended is None:
        return False
    grace = number(metadata.get("deletionGracePeriodSeconds")) or 0
    return ended <= deadline - datetime.timedelta(seconds=grace + seconds)


def _time(stamp: object) -> datetime.datetime | None:
    try:
        moment = datetime.datetime.fromisoformat(text(stamp))
    except ValueError:
        return None
    return moment.replace(microsecond=0) if moment.tzinfo else None
