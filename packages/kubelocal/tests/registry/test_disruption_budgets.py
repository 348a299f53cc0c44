"""Disruption budgets: counted when somebody evicts."""

from __future__ import annotations

from typing import Any

import pytest

from kubelocal.codec.status_errors import StatusError
from kubelocal.registry.deletion import DeleteOptions
from kubelocal.registry.disruption_budgets import BudgetCount, budget_refusal, count_budget
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.storage.store import Store

SELECTOR = {"matchLabels": {"app": "web"}}


def pod(name: str = "p", *, ready: bool = True, phase: str = "Running", **metadata: Any) -> dict[str, Any]:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {
        "metadata": {"name": name, "labels": {"app": "web"}, **metadata},
        "status": {"phase": phase, "conditions": [condition]},
    }


def budget(name: str = "b", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"selector": SELECTOR, **spec}}


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ({"minAvailable": 2}, BudgetCount(3, 2)),
        ({"minAvailable": "50%"}, BudgetCount(3, 2)),
        ({"maxUnavailable": 1}, BudgetCount(3, 3)),
        ({"maxUnavailable": "50%"}, BudgetCount(3, 2)),
        ({}, BudgetCount(3, 1)),
    ],
)
def test_healthy_pods_are_those_that_are_ready_and_stay(spec: dict[str, Any], count: BudgetCount) -> None:
    pods = [*(pod(str(number)) for number in range(3)), pod("sick", ready=False), pod("over", phase="Failed")]
    assert count_budget({"selector": SELECTOR, **spec}, pods) == count
    leaving = [pod("a", deletionTimestamp="2026-01-01T00:00:00Z"), pod("b")]
    assert count_budget({"selector": SELECTOR, "minAvailable": 1}, leaving) == BudgetCount(1, 1)


@pytest.mark.parametrize(
    ("spec", "ready", "refused"),
    [
        ({"minAvailable": 1}, True, False),
        ({"minAvailable": 2}, True, True),
        ({"minAvailable": 2}, False, False),
        ({"minAvailable": 3}, False, True),
        ({"minAvailable": 3, "unhealthyPodEvictionPolicy": "AlwaysAllow"}, False, False),
    ],
)
def test_an_eviction_is_refused_for_want_of_healthy_pods(spec: dict[str, Any], ready: bool, refused: bool) -> None:
    victim = pod("p", ready=ready)
    others = [pod("a"), pod("b")] if not ready else [pod("a")]
    refusal = budget_refusal(victim, [budget(**spec)], [victim, *others])
    assert (refusal is not None) is refused


def test_a_budget_of_other_pods_does_not_matter_and_two_budgets_are_an_error() -> None:
    other = {"metadata": {"name": "o"}, "spec": {"selector": {"matchLabels": {"app": "db"}}, "minAvailable": 9}}
    assert budget_refusal(pod(), [other], [pod()]) is None
    two = budget_refusal(pod(), [budget("a"), budget("b")], [pod()])
    assert two is not None
    assert two.status["code"] == 500


def test_the_eviction_api_answers_429_and_names_the_budget() -> None:
    registry = ClusterRegistry(Store())
    registry.create("Namespace", "", {"metadata": {"name": "ns"}})
    registry.create("PodDisruptionBudget", "ns", budget("keep", minAvailable=1))
    spec = {"nodeName": "n", "containers": [{"name": "base", "image": "x"}]}
    registry.create("Pod", "ns", {"metadata": {"name": "p", "labels": {"app": "web"}}, "spec": spec})
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    registry.update("Pod", "ns", "p", lambda found: found["status"].update(ready), subresource="status")
    with pytest.raises(StatusError) as refused:
        registry.evict("ns", "p", DeleteOptions())
    assert refused.value.status["code"] == 429
    cause = "The disruption budget keep needs 1 healthy pods and has 1 currently"
    assert refused.value.status["details"]["causes"] == [{"reason": "DisruptionBudget", "message": cause}]
    assert "deletionTimestamp" not in registry.get("Pod", "ns", "p")["metadata"]
