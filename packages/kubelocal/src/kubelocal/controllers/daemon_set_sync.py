"""The next actions for a DaemonSet, as a pure function of the DaemonSet, its pods, the nodes and the time.

Not here: ControllerRevisions, and ``maxSurge``: a pod is replaced after the old one has gone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from datetime import datetime
from math import ceil

from kubelocal.controllers.replica_set_sync import (
    WorkloadPlan,
    fresh_pod,
    has_ended,
    is_terminating,
    revision_of,
    template_hash,
    until_available,
)
from kubelocal.controllers.scheduler_filters import capacity_of, is_suitable, request_of
from kubelocal.types import Json, Manifest

__all__ = ["decide_daemon_set"]

REVISION = "controller-revision-hash"
GENERATION = "pod-template-generation"
TOLERATED = {
    "node.kubernetes.io/not-ready": "NoExecute",
    "node.kubernetes.io/unreachable": "NoExecute",
    "node.kubernetes.io/disk-pressure": "NoSchedule",
    "node.kubernetes.io/memory-pressure": "NoSchedule",
    "node.kubernetes.io/pid-pressure": "NoSchedule",
    "node.kubernetes.io/unschedulable": "NoSchedule",
}
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def decide_daemon_set(
    daemon_set: Manifest, pods: list[Manifest], now: datetime, nodes: Iterable[Manifest]
) -> WorkloadPlan:
    """Keep one pod on each node that suits; replace those of an older template a few at a time."""
    revision = template_hash(daemon_set["spec"]["template"])
    eligible_nodes = [node["metadata"]["name"] for node in nodes if _suits(daemon_set, node)]
    placed = _placed(pods)
    status, wait = _status(daemon_set, eligible_nodes, placed, revision, now)
    if is_terminating(daemon_set):
        return WorkloadPlan(status)
    create = tuple(_pod(daemon_set, node, revision) for node in eligible_nodes if node not in placed)
    delete = _surplus(eligible_nodes, placed)
    if not create and not delete:
        delete = _outdated(daemon_set, [placed[node][0] for node in eligible_nodes], revision, now)
    names = tuple(pod["metadata"]["name"] for pod in delete if not is_terminating(pod))
    return WorkloadPlan(status, create=create, delete=names, wait=wait)


def _placed(pods: list[Manifest]) -> dict[str, list[Manifest]]:
    """Return the pods of each node, the oldest first."""
    placed: dict[str, list[Manifest]] = {}
    for pod in sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"]):
        placed.setdefault(_node_of(pod), []).append(pod)
    return placed


def _surplus(eligible_nodes: list[str], placed: Mapping[str, list[Manifest]]) -> list[Manifest]:
    """Return the pods on nodes that do not suit, those beside an older one, and those that ended."""
    surplus = list[Manifest]()
    for node, there in placed.items():
        if node in eligible_nodes and not has_ended(there[0]):
            surplus += there[1:]
        else:
            surplus += there
    return surplus


def _suits(daemon_set: Manifest, node: Manifest) -> bool:
    """Whether the daemon's pod may run on a node, full or not."""
    probe = _pod(daemon_set, node["metadata"]["name"], "")
    return is_suitable(request_of(probe), capacity_of(node))


def _node_of(pod: Manifest) -> str:
    """Return the node that a pod is on or is made for."""
    if node := pod["spec"].get("nodeName"):
        return str(node)
    required = pod["spec"].get("affinity", {}).get("nodeAffinity", {}).get(_REQUIRED, {})
    fields = [field for term in required.get("nodeSelectorTerms", ()) for field in term.get("matchFields", ())]
    return next((str(field["values"][0]) for field in fields if field.get("key") == "metadata.name"), "")


def _pod(daemon_set: Manifest, node: str, revision: str) -> Manifest:
    pod = fresh_pod(daemon_set, {"generateName": f"{daemon_set['metadata']['name']}-"})
    generation = str(daemon_set["metadata"].get("generation", 1))
    pod["metadata"]["labels"] = {**pod["metadata"].get("labels", {}), REVISION: revision, GENERATION: generation}
    spec = pod["spec"]
    affinity = spec.get("affinity") or {}
    node_affinity = affinity.get("nodeAffinity") or {}
    here: Json = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = (node_affinity.get(_REQUIRED) or {}).get("nodeSelectorTerms") or [{}]
    required = {"nodeSelectorTerms": [{**term, "matchFields": [*term.get("matchFields", ()), here]} for term in terms]}
    spec["affinity"] = {**affinity, "nodeAffinity": {**node_affinity, _REQUIRED: required}}
    own = [{"key": key, "operator": "Exists", "effect": effect} for key, effect in TOLERATED.items()]
    spec["tolerations"] = [*(spec.get("tolerations") or ()), *own]
    return pod


def _outdated(daemon_set: Manifest, pods: list[Manifest], revision: str, now: datetime) -> list[Manifest]:
    """Return the pods to replace next: as many as may be away at a time, those that are away already first."""
    strategy = daemon_set["spec"].get("updateStrategy", {})
    if strategy.get("type") == "OnDelete":
        return []
    limit = max(_share(strategy.get("rollingUpdate", {}).get("maxUnavailable", 1), len(pods)), 1)
    well = [pod for pod in pods if _is_available(daemon_set, pod, now)]
    room = max(limit - (len(pods) - len(well)), 0)
    old = sorted((pod for pod in pods if revision_of(pod) != revision), key=well.__contains__)
    return old[: sum(pod not in well for pod in old) + room]


def _share(limit: Json, of: int) -> int:
    return int(limit) if isinstance(limit, int) else ceil(int(str(limit).removesuffix("%")) * of / 100)


def _is_available(daemon_set: Manifest, pod: Manifest, now: datetime) -> bool:
    left = until_available([pod], daemon_set["spec"], now)
    return not is_terminating(pod) and bool(left) and left[0] <= 0


def _status(
    daemon_set: Manifest, eligible_nodes: list[str], placed: Mapping[str, list[Manifest]], revision: str, now: datetime
) -> tuple[Manifest, float | None]:
    there = [placed[node][0] for node in eligible_nodes if node in placed]
    left = until_available(itertools.filterfalse(is_terminating, there), daemon_set["spec"], now)
    available = sum(seconds <= 0 for seconds in left)
    status = {
        "currentNumberScheduled": len(there),
        "numberMisscheduled": sum(
            not has_ended(pods[0]) for node, pods in placed.items() if node not in eligible_nodes
        ),
        "desiredNumberScheduled": len(eligible_nodes),
        "numberReady": len(left),
        "observedGeneration": daemon_set["metadata"].get("generation", 1),
        "updatedNumberScheduled": sum(revision_of(pod) == revision for pod in there),
        "numberAvailable": available,
        "numberUnavailable": len(eligible_nodes) - available,
    }
    return status, min((seconds for seconds in left if seconds > 0), default=None)
