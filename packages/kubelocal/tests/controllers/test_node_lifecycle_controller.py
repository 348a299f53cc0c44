"""The taints of nodes that are not ready."""

from __future__ import annotations

from typing import Any

import pytest

from kubelocal.controllers.node_lifecycle_controller import tainted

NOW = "2026-01-01T00:00:00Z"
UNREACHABLE = "node.kubernetes.io/unreachable"
NOT_READY = "node.kubernetes.io/not-ready"
OWN = {"key": "mine", "effect": "NoSchedule"}


def taints(key: str) -> list[dict[str, Any]]:
    return [{"key": key, "effect": "NoSchedule"}, {"key": key, "effect": "NoExecute", "timeAdded": NOW}]


@pytest.mark.parametrize(
    ("before", "ready", "after"),
    [
        ([], "True", []),
        ([], "", []),
        ([OWN], "Unknown", [OWN, *taints(UNREACHABLE)]),
        ([OWN], "False", [OWN, *taints(NOT_READY)]),
        ([*taints(NOT_READY), OWN], "Unknown", [OWN, *taints(UNREACHABLE)]),
        ([*taints(UNREACHABLE), OWN], "True", [OWN]),
        (taints(UNREACHABLE), "Unknown", taints(UNREACHABLE)),
    ],
)
def test_a_node_has_the_taints_of_its_condition_and_keeps_others(
    before: list[dict[str, Any]], ready: str, after: list[dict[str, Any]]
) -> None:
    assert tainted(before, ready, NOW) == after
