"""How long a pod stays bound to a node that does not answer, where its author has not said so. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from crosswind.types import Manifest

__all__ = ["node_loss_tolerations"]

_NODE_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
"""Taints of a node that does not answer. The admission plug-in DefaultTolerationSeconds tolerates them for 300 s."""


def node_loss_tolerations(tolerations: Iterable[Mapping[str, Any]], seconds: int) -> list[Manifest]:
    """Return the tolerations to add to those that a pod has; none for a taint that one of them tolerates already.

    ``seconds``: 0 leaves the time to the cluster.

    >>> node_loss_tolerations([{"operator": "Exists"}], 30)
    []
    """
    pod_tolerations = list(tolerations)
    missing = (
        [taint for taint in _NODE_TAINTS if not any(_tolerates(toleration, taint) for toleration in pod_tolerations)]
        if seconds
        else []
    )
    return [
        {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds} for taint in missing
    ]


def _tolerates(toleration: Mapping[str, Any], taint: str) -> bool:
    every_key = not toleration.get("key") and toleration.get("operator") == "Exists"
    return (toleration.get("key") == taint or every_key) and toleration.get("effect") in (None, "", "NoExecute")
