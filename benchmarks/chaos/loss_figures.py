"""The figures of ``losses``, from what was observed. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.chaos.pod_records import PodRecord
from benchmarks.chaos.scenario import Row, at_least, at_most, exactly
from benchmarks.chaos.tries import Tries

__all__ = ["LostPod", "figures", "lost_pods", "overlaps"]

AFTER_END_S, AFTER_MARK_S, AFTER_DEATH_S = 5.0, 10.0, 100.0
UNREACHABLE_S = 55.0
"""How long Kubernetes takes at most until it taints a silent node: ``node-monitor-grace-period`` and one period."""
_TAINT_MANAGER = "DeletionByTaintManager"


def figures(
    records: Sequence[PodRecord],
    tries: Tries,
    *,
    expected_kinds: int,
    least: int,
    tasks: int,
    sensors: int,
    kept_clocks: int,
    late_pokes: int,
    real_nodes: Collection[str],
    attempts: int,
    accepted: int,
    marks: int,
    left: int,
    problems: int,
) -> list[Row]:
    """Return the rows.

    ``least``: the smallest valid number of losses. ``attempts``: requests with old tokens. ``kept_clocks``: sensors
    whose first poke stayed the same over a loss. ``late_pokes``: pokes that began after the timeout and left the sensor
    waiting. Both hold on a machine of any speed, as a limit of a sensor's whole time would not.
    """
    lost = lost_pods(records, tries)
    states = [row.state for row in tries.rows.values()]
    wrong_budgets = [
        row
        for row in tries.rows.values()
        if row.max_tries != tries.losses.get(row.task_id, 0) or row.try_number != row.max_tries + 1
    ]
    rows = [
        at_least("tries lost", len(tries.replaced), least),
        at_least("of them with a real worker", sum(each.pod.node in real_nodes for each in lost), min(2, least // 4)),
        exactly("kinds of loss", len({each.pod.kind for each in lost} - {""}), expected_kinds),
        exactly("tasks that succeeded", states.count("success"), tasks - sensors),
        exactly("tasks whose retries were touched", len(wrong_budgets)),
        at_least("requests to start or end a replaced try", attempts, 2),
        exactly("of them accepted", accepted),
        exactly("callbacks and e-mails", marks),
        exactly("tries that began while the old one ran", sum(map(overlaps, lost))),
        at_least("the same on nodes that were cut off, as documented", sum(map(_runs_cut_off, lost)), 0),
        at_most("base's end to the next try, longest, s", _longest_after_end(lost), AFTER_END_S),
        at_most("taint manager's mark to the next try, longest, s", _longest_after_mark(lost), AFTER_MARK_S),
        at_most(
            "node's death to the next try at Kubernetes' pace, longest, s", _longest_after_death(lost), AFTER_DEATH_S
        ),
    ]
    if sensors:
        lost_pokes = sum(task_id.startswith("sense_") for task_id in tries.losses)
        rows += [
            exactly("sensors that lost a poke", lost_pokes, sensors),
            exactly("sensors whose timeout counts from their first poke", kept_clocks, sensors),
            exactly("sensors that reached their timeout", states.count("skipped"), sensors),
            exactly("pokes after it that let the sensor wait on", late_pokes),
        ]
    return [
        *rows,
        exactly("pods and Secrets left", left),
        exactly("troubles of the workers", problems),
    ]


@dataclass(frozen=True, slots=True)
class LostPod:
    """A pod that was taken, and when its task went on: its try was replaced, or had not begun and got another pod."""

    pod: PodRecord
    next: float
    same_try: bool = False


def lost_pods(records: Sequence[PodRecord], tries: Tries) -> list[LostPod]:
    """Return the pods that were followed by another one. ``records``: in the order of their creation."""
    by_try: dict[str, list[PodRecord]] = {}
    for record in records:
        by_try.setdefault(record.ti_id, []).append(record)
    lost = []
    for ti_id, pods in by_try.items():
        if not pods[0].task_id.startswith("sense_"):  # each poke of a sensor has a pod of its own
            taken = [(pod, after) for pod, after in pairwise(pods) if pod.marked or pod.silenced]
            lost += [LostPod(pod, after.created, same_try=True) for pod, after in taken]
        if ti_id in tries.replaced:
            lost.append(LostPod(pods[-1], tries.replaced[ti_id]))
    return lost


def overlaps(lost: LostPod) -> bool:
    """Whether a task went on before the base container had ended, on a node that answered."""
    return _outlived(lost) and (not lost.pod.silenced or lost.next < lost.pod.silenced)


def _outlived(lost: LostPod) -> bool:
    """Whether a task went on before the base container was known to have ended.

    A worker that starts later is not meant, as Airflow refuses its start: the try has another id by then. If it is the
    same try, nothing would refuse it.
    """
    if not lost.pod.started or (lost.pod.started > lost.next and not lost.same_try):
        return False
    return not lost.pod.ended or lost.next < lost.pod.ended


def _runs_cut_off(lost: LostPod) -> bool:
    """Whether a worker may have run on when its task went on: its node was cut off, not dead.

    The guide to losses says so: nobody there reports an end, so it is not waited for.
    """
    return _outlived(lost) and not overlaps(lost) and lost.pod.kind == "partition"


def _longest_after_end(lost: Collection[LostPod]) -> float:
    delays = [each.next - each.pod.ended for each in lost if each.pod.ended and not each.pod.silenced]
    return max(delays, default=float("inf"))


def _longest_after_mark(lost: Collection[LostPod]) -> float:
    delays = [each.next - each.pod.marked for each in lost if each.pod.mark == _TAINT_MANAGER]
    return max(delays, default=float("inf"))


def _longest_after_death(lost: Collection[LostPod]) -> float:
    """Return the longest time from a node's silence.

    Of the cluster's waits it has Kubernetes' longest, with the toleration of the pod itself; what follows the taint
    manager's mark is measured. The cluster's waits are not: a run shortens them, and any lag of its controllers would
    count many times over.
    """
    dead = [each for each in lost if each.pod.silenced and each.pod.mark == _TAINT_MANAGER]
    times = [UNREACHABLE_S + each.pod.toleration + each.next - each.pod.marked for each in dead]
    return max(times, default=float("inf"))
