"""Decides which waiting pods are deleted, and how many are missing, once it is decided how many shall wait. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crosswind.engine.waiting_pods import WaitingPod

__all__ = ["START_TIMEOUT_S", "gap", "is_late"]

START_TIMEOUT_S = 300.0
"""Seconds after which a pod that is not ready counts as failed."""
_RENEW_SHARE = 0.9
"""Share of ``max_age`` after which a pod's replacement is created."""


def is_late(pod: WaitingPod, now: float) -> bool:
    """Return whether a pod has had its time to become ready."""
    return not pod.ready and not pod.ended and now - pod.created > START_TIMEOUT_S


def gap(
    pods: Sequence[WaitingPod], size: int, creating: int, max_age: float, now: float
) -> tuple[int, list[WaitingPod]]:
    """Return how many pods are missing, and which are to be deleted.

    ``pods``: those of one pool and scheduler. ``size``: how many shall wait. ``creating``: how many are being created.
    A pod that a claim is under way for does not count any longer.
    """
    free = [pod for pod in pods if not (pod.retiring or pod.reserved)]
    over = [pod for pod in free if _is_over(pod, max_age, now)]
    staying = [pod for pod in free if pod not in over]
    young = [pod for pod in staying if now - pod.created < max_age * _RENEW_SHARE]
    missing = max(0, size - len(young) - creating)
    return missing, [*over, *_spare(staying, young, size)]


def _is_over(pod: WaitingPod, max_age: float, now: float) -> bool:
    return pod.ended or pod.deleting or now - pod.created > max_age or is_late(pod, now)


def _spare(staying: list[WaitingPod], young: list[WaitingPod], size: int) -> Iterator[WaitingPod]:
    """Yield the pods beyond ``size``: old ones as soon as ready ones replace them, then those that are not ready."""
    ready = sum(pod.ready for pod in young)
    order = sorted(staying, key=lambda pod: (pod in young, pod.ready, pod.ready_at))
    for pod in order[: max(0, len(staying) - size)]:
        if pod not in young and ready < size:
            return
        yield pod
