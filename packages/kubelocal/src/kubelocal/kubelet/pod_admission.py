"""Whether a node takes a pod that has been bound to it, by whomever: pure, worded as a kubelet 1.36 words it."""

from __future__ import annotations

from dataclasses import replace

from kubelocal.controllers.scheduler_filters import NodeCapacity, PodRequest, is_suitable

__all__ = ["rejection"]

FIRST = ("pods", "cpu", "memory")
"""Resources in the order in which they are checked, before all others."""


def rejection(ask: PodRequest, room: NodeCapacity) -> tuple[str, str] | None:
    """Return why a node rejects a pod, as reason and message, or None.

    After ``pkg/kubelet/lifecycle/predicate.go``: resources first, then labels, then taints of the effect NoExecute.
    Other taints, and a cordon, keep the scheduler away and not the kubelet. A resource that the node does not offer at
    all is not the node's to count.
    """
    for name in (*FIRST, *(name for name in room.allocatable if name not in FIRST)):
        need, used, capacity = ask.demand.get(name, 0), room.used[name], room.allocatable.get(name)
        if need and capacity is not None and used + need > capacity:
            requested, in_use, most = (_whole(name, value) for value in (need, used, capacity))
            numbers = f"requested: {requested}, used: {in_use}, capacity: {most}"
            return f"OutOf{name}", f"Node didn't have enough resource: {name}, {numbers}"
    if not is_suitable(ask, replace(room, taints=())):
        return "NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
    hard = [taint for taint in room.taints if taint.get("effect") == "NoExecute"]
    if not is_suitable(ask, replace(room, taints=hard)):
        return "TaintToleration", "Predicate TaintToleration failed: node(s) had untolerated taint(s)"
    return None


def _whole(name: str, thousandths: int) -> int:
    """Return an amount in the unit in which a kubelet counts: CPU in thousandths, all else whole."""
    return thousandths if name == "cpu" else -(-thousandths // 1000)
