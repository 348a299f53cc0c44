"""Which evictions a PodDisruptionBudget allows: pure, after ``pkg/registry/core/pod/storage/eviction.go``.

Kubernetes' disruption controller counts the pods that a budget selects and writes the result into its status. Here they
are counted when a client evicts; pods of every owner count alike, by the number that the selector finds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from kubelocal.codec.status_errors import Cause, StatusError, failure, too_many_requests
from kubelocal.storage.selectors import matches_labels
from kubelocal.types import Json, Manifest

__all__ = ["BudgetCount", "budget_refusal", "count_budget"]

_TERMINAL = ("Succeeded", "Failed")
_VIOLATION = "Cannot evict pod as it would violate the pod's disruption budget."
_SEVERAL = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."


@dataclass(frozen=True, slots=True)
class BudgetCount:
    """The pods of a budget: how many are healthy, and how many have to be."""

    healthy: int
    desired: int

    @property
    def allowed(self) -> int:
        """The number of healthy pods that may be evicted now."""
        return max(0, self.healthy - self.desired)


def budget_refusal(pod: Manifest, budgets: Iterable[Manifest], pods: Sequence[Manifest]) -> StatusError | None:
    """Return the error that refuses an eviction, or None. ``budgets`` and ``pods``: all of the pod's namespace."""
    labels = pod["metadata"].get("labels") or {}
    guards = [budget for budget in budgets if matches_labels(budget["spec"].get("selector"), labels)]
    if not guards:
        return None
    if len(guards) > 1:
        return failure(500, "InternalError", _SEVERAL)
    (budget,) = guards
    count = count_budget(budget["spec"], pods)
    if count.allowed or (not _is_ready(pod) and _unready_may_go(budget["spec"], count)):
        return None
    name = budget["metadata"]["name"]
    detail = f"The disruption budget {name} needs {count.desired} healthy pods and has {count.healthy} currently"
    return too_many_requests(_VIOLATION, 0, causes=[Cause("DisruptionBudget", detail, "")])


def count_budget(spec: Manifest, pods: Iterable[Manifest]) -> BudgetCount:
    """Count the pods that a budget selects."""
    selected = [
        pod
        for pod in pods
        if matches_labels(spec.get("selector"), pod["metadata"].get("labels") or {})
        and pod.get("status", {}).get("phase") not in _TERMINAL
    ]
    healthy = sum(_is_ready(pod) and "deletionTimestamp" not in pod["metadata"] for pod in selected)
    if "maxUnavailable" in spec:
        return BudgetCount(healthy, max(0, len(selected) - _share(spec["maxUnavailable"], len(selected))))
    return BudgetCount(healthy, _share(spec.get("minAvailable", 1), len(selected)))


def _share(value: Json, whole: int) -> int:
    """Return a number, or a percentage of ``whole`` rounded up, as ``GetScaledValueFromIntOrPercent`` does."""
    text = str(value)
    return ceil(int(text[:-1]) * whole / 100) if text.endswith("%") else int(text)


def _is_ready(pod: Manifest) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _unready_may_go(spec: Manifest, count: BudgetCount) -> bool:
    """Whether pods that are not ready may be evicted although no healthy one may."""
    policy = spec.get("unhealthyPodEvictionPolicy") or "IfHealthyBudget"
    return policy == "AlwaysAllow" or bool(count.desired and count.healthy >= count.desired)
