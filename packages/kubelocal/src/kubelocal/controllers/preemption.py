"""Which pods give way to a pod of higher priority: pure, after the scheduler's plug-in DefaultPreemption."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from kubelocal.controllers.scheduler_filters import NodeCapacity, PodRequest, refusal

__all__ = ["BoundPod", "Preemption", "find_preemption", "victims_on", "with_reserved"]


@dataclass(frozen=True, slots=True)
class BoundPod:
    """A pod that takes room on a node. ``demand``: thousandths of each resource."""

    namespace: str
    name: str
    uid: str
    node: str
    demand: Mapping[str, int]
    priority: int = 0
    terminating: bool = False


@dataclass(frozen=True, slots=True)
class Preemption:
    """The node where a pod will fit, and the pods that have to end before."""

    node: str
    victims: tuple[BoundPod, ...]


def find_preemption(
    ask: PodRequest,
    nodes: Iterable[NodeCapacity],
    pods: Iterable[BoundPod],
    nominated: Mapping[str, Mapping[str, int]],
) -> Preemption | None:
    """Return the best preemption: the victims of least priority, then the fewest.

    ``nominated``: by node, the demand of pods of at least this priority for which others have been preempted there.
    """
    by_node: dict[str, list[BoundPod]] = {}
    for pod in pods:
        by_node.setdefault(pod.node, []).append(pod)
    preemptions = []
    for node in nodes:
        victims = victims_on(ask, node, by_node.get(node.name, ()), nominated.get(node.name, {}))
        if victims:
            preemptions.append(Preemption(node.name, victims))
    return min(preemptions, key=_cost, default=None)


def with_reserved(node: NodeCapacity, reserved: Mapping[str, int] | None) -> NodeCapacity:
    """Return what a node offers when the room reserved for others counts as used."""
    if not reserved:
        return node
    used = Counter(node.used)
    used.update(reserved)
    return replace(node, used=used)


def victims_on(
    ask: PodRequest, node: NodeCapacity, pods: Sequence[BoundPod], nominated: Mapping[str, int]
) -> tuple[BoundPod, ...]:
    """Return the pods of lower priority without which the pod fits on a node; () when it cannot, or fits anyway."""
    lower = [pod for pod in pods if pod.priority < ask.priority]
    trial = replace(node, used=Counter(with_reserved(node, nominated).used))
    used = trial.used
    for pod in lower:
        used.subtract(pod.demand)
    if not lower or refusal(ask, trial):
        return ()
    victims = []
    # The most important pods are spared first; those that are ending already last, as they free their room anyway.
    for pod in sorted(lower, key=lambda each: (each.terminating, -each.priority)):
        used.update(pod.demand)
        if refusal(ask, trial):
            used.subtract(pod.demand)
            victims.append(pod)
    return tuple(victims)


def _cost(preemption: Preemption) -> tuple[int, int, int]:
    priorities = [pod.priority for pod in preemption.victims]
    return max(priorities), sum(priorities), len(priorities)
