"""Decides which pod of an earlier try a new try attaches to. Pure.

A try never attaches to a pod that is being deleted or was given up. The kubelet has sent its program TERM, so its exit
code is no result: a program that traps TERM exits with 0 without having done its work.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Collection, Iterable, Sequence

from crosswind.pods.states import mapping, mappings, number, text
from crosswind.pods.verdicts import Stage, Verdict, judge
from crosswind.types import Json

__all__ = ["CHECKED", "Standing", "could_start", "preferred", "standing", "was_stopped"]

CHECKED = "already_checked"
"""Stock's label of a pod whose result a try has used, or which a try has given up."""


class Standing(enum.IntEnum):
    """How a new try handles a pod of an earlier try, the most useful first."""

    LIVING = 0
    """It runs, or waits to: the new try follows it."""
    SUCCEEDED = 1
    """Its base container exited with 0, and no try has used the result: the new try uses it."""
    LEAVING = 2
    """It is being deleted, and its work was not done before: the new try ignores it."""
    DEAD = 3
    """It failed, or can never start: the new try cleans it up."""
    USED = 4
    """A try has used its result, or given it up: the new try ignores it."""


def standing(pod: Json, base: str, fatal: Collection[str], used: Collection[str] = ()) -> Standing:
    """Return how a new try handles a pod.

    ``fatal``: as for ``verdicts.judge``. ``used``: uids of pods that count as used although they lack the label.
    """
    metadata = mapping(mapping(pod).get("metadata"))
    if mapping(metadata.get("labels")).get(CHECKED) == "True" or metadata.get("uid") in used:
        return Standing.USED
    verdict = judge(pod, base, fatal=fatal, restarts=True)
    if verdict.deleting:
        done = verdict.succeeded and _ended_before_deletion(pod, base)
        return Standing.SUCCEEDED if done else Standing.LEAVING
    if verdict.over:
        return Standing.SUCCEEDED if verdict.succeeded else Standing.DEAD
    return Standing.LIVING


def preferred(pods: Sequence[Json], standings: Sequence[Standing]) -> int:
    """Return the index of the pod to look at: the best standing, then the newest try, then the newest pod."""

    def rank(index: int) -> tuple[int, int, str]:
        metadata = mapping(mapping(pods[index]).get("metadata"))
        tries = text(mapping(metadata.get("labels")).get("try_number"))
        return -standings[index], int(tries) if tries.isdecimal() else 0, text(metadata.get("creationTimestamp"))

    return max(range(len(pods)), key=rank)


def was_stopped(pod: Json, events: Iterable[Json], base: str) -> bool:
    """Whether the kubelet stopped the base container of a pod that is being deleted, by the pod's events.

    Unlike ``standing`` this compares no clocks of two machines. Base may have ended in the second in which the deletion
    was asked for. Then it counts as stopped unless its start is among the events, and no stop: events that nobody may
    read, or that have expired, prove nothing.
    """
    reasons = {
        event.get("reason")
        for event in mappings(list(events))
        if text(mapping(event.get("involvedObject")).get("fieldPath")).endswith(f"{{{base}}}")
    }
    return "Killing" in reasons or ("Started" not in reasons and not _ended_before_deletion(pod, base, 1))


def could_start(pod: Json, verdict: Verdict) -> bool:
    """Whether a pod that its try gives up may still run its program: when its image comes, say, or a node."""
    phase = mapping(mapping(pod).get("status")).get("phase")
    return verdict.stage is not Stage.GONE and not verdict.started and phase not in ("Succeeded", "Failed")


def _ended_before_deletion(pod: Json, base: str, seconds: int = 0) -> bool:
    """Whether base ended so many seconds before the pod's deletion was asked for, or more.

    ``deletionTimestamp`` is the end of the grace period. Both times are whole seconds.
    """
    metadata = mapping(mapping(pod).get("metadata"))
    deadline, ended = _time(metadata.get("deletionTimestamp")), _finished(pod, base)
    if deadline is None or ended is None:
        return False
    grace = number(metadata.get("deletionGracePeriodSeconds")) or 0
    return ended <= deadline - datetime.timedelta(seconds=grace + seconds)


def _finished(pod: Json, base: str) -> datetime.datetime | None:
    for status in mappings(mapping(mapping(pod).get("status")).get("containerStatuses")):
        if status.get("name") == base:
            return _time(mapping(mapping(status.get("state")).get("terminated")).get("finishedAt"))
    return None


def _time(stamp: Json) -> datetime.datetime | None:
    try:
        moment = datetime.datetime.fromisoformat(text(stamp))
    except ValueError:
        return None
    return moment.replace(microsecond=0) if moment.tzinfo else None
