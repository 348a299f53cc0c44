"""Where a pod may run: pure decisions, worded as the scheduler of Kubernetes 1.36 words them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil
from typing import Any

import orjson

from kubelocal.codec.integers import parse_int
from kubelocal.codec.quantities import amount
from kubelocal.types import Json, Manifest

__all__ = [
    "FilterFailure",
    "NodeCapacity",
    "PodRequest",
    "capacity_of",
    "claim_missing",
    "demand",
    "is_suitable",
    "refusal",
    "request_of",
    "tolerates",
    "unschedulable",
]

UNSCHEDULABLE_TAINT = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
FINITE = ("cpu", "memory", "ephemeral-storage", "pods")


@dataclass(frozen=True, slots=True)
class PodRequest:
    """What a pod asks of a node; ``demand`` in thousandths of each resource. Equal asks have equal answers."""

    demand: Mapping[str, int]
    node_selector: Mapping[str, str]
    affinity: Sequence[Json]
    tolerations: Sequence[Json]
    priority: int
    claims: Sequence[tuple[str, str]] = ()
    """Namespace and name of each persistent volume claim."""

    def key(self) -> bytes:
        """Return what equal asks have in common."""
        return orjson.dumps(self, option=orjson.OPT_SORT_KEYS)


@dataclass(slots=True)
class NodeCapacity:
    """What a node offers, and how much of it is taken (thousandths)."""

    name: str
    labels: Mapping[str, str]
    taints: Sequence[Json]
    allocatable: Mapping[str, int]
    used: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class FilterFailure:
    """Why a node does not take a pod, and whether it would if pods on it ended."""

    reasons: tuple[str, ...]
    may_change: bool = False


@lru_cache(4096)
def _in_thousandths(quantity: str) -> int:
    return ceil(amount(quantity) * 1000)


def _thousandths(resources: Mapping[str, Any] | None) -> Counter[str]:
    return Counter({name: _in_thousandths(str(value)) for name, value in (resources or {}).items()})


def _requests(container: Manifest) -> Counter[str]:
    return _thousandths(container.get("resources", {}).get("requests"))


def demand(spec: Manifest) -> Counter[str]:
    """Return what a pod needs of each resource, in thousandths, itself included (``pods``).

    Containers add up; native sidecars add to them and to each init container after them; of init containers the
    largest one counts (KEP-753, "Resources calculation").
    """
    regular: Counter[str] = Counter()
    for container in spec["containers"]:
        regular.update(_requests(container))
    if not (spec.get("initContainers") or spec.get("overhead")):
        regular["pods"] += 1000
        return +regular  # without those that it needs none of
    sidecars: Counter[str] = Counter()
    peak: Counter[str] = Counter()
    for container in spec.get("initContainers", ()):
        if container.get("restartPolicy") == "Always":
            sidecars += _requests(container)
            peak |= sidecars
        else:
            peak |= sidecars + _requests(container)
    return (peak | (regular + sidecars)) + _thousandths(spec.get("overhead")) + Counter(pods=1000)


def request_of(pod: Manifest) -> PodRequest:
    """Read what a pod asks."""
    spec = pod["spec"]
    required = (
        spec.get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", {})
    )
    return PodRequest(
        dict(demand(spec)),
        spec.get("nodeSelector") or {},
        required.get("nodeSelectorTerms", ()),
        spec.get("tolerations") or (),
        spec.get("priority") or 0,
        tuple(_claims(pod)),
    )


def _claims(pod: Manifest) -> Iterable[tuple[str, str]]:
    for volume in pod["spec"].get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            yield pod["metadata"]["namespace"], volume["persistentVolumeClaim"]["claimName"]


def capacity_of(node: Manifest) -> NodeCapacity:
    """Read what a node offers."""
    spec, metadata = node.get("spec") or {}, node["metadata"]
    taints = list(spec.get("taints") or ())
    if spec.get("unschedulable"):
        taints.insert(0, UNSCHEDULABLE_TAINT)
    labels = {**metadata.get("labels", {}), "metadata.name": metadata["name"]}
    return NodeCapacity(metadata["name"], labels, taints, _thousandths(node.get("status", {}).get("allocatable")))


def tolerates(toleration: Json, taint: Json) -> bool:
    """Whether a toleration covers a taint."""
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    return bool(toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", ""))


def _is_kept_off(taints: Iterable[Json], tolerations: Collection[Json]) -> Json | None:
    hard = (taint for taint in taints if taint["effect"] != "PreferNoSchedule")
    return next((taint for taint in hard if not any(tolerates(toleration, taint) for toleration in tolerations)), None)


def _holds(expression: Json, labels: Mapping[str, str]) -> bool:
    operator, values, label_value = expression["operator"], expression.get("values", ()), labels.get(expression["key"])
    if operator in ("Gt", "Lt"):
        try:
            left, right = parse_int(label_value or ""), parse_int(values[0])
        except ValueError:
            return False
        return left > right if operator == "Gt" else left < right
    if operator in ("Exists", "DoesNotExist"):
        return (label_value is not None) is bool(operator == "Exists")
    return (label_value in values) is bool(operator == "In")


def _matches(ask: PodRequest, labels: Mapping[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in ask.node_selector.items()):
        return False
    terms = ([*term.get("matchExpressions", ()), *term.get("matchFields", ())] for term in ask.affinity)
    return not ask.affinity or any(term and all(_holds(requirement, labels) for requirement in term) for term in terms)


def is_suitable(ask: PodRequest, room: NodeCapacity) -> bool:
    """Whether a pod may run on a node by taints and labels, however full it is."""
    return not _is_kept_off(room.taints, ask.tolerations) and _matches(ask, room.labels)


def refusal(ask: PodRequest, room: NodeCapacity) -> FilterFailure | None:
    """Return why a node does not accept a pod, or None; the first filter that refuses counts, as in Kubernetes."""
    taint = _is_kept_off(room.taints, ask.tolerations) if room.taints else None
    if taint:
        cordoned = taint is UNSCHEDULABLE_TAINT
        return FilterFailure(("node(s) were unschedulable" if cordoned else "node(s) had untolerated taint(s)",))
    if (ask.node_selector or ask.affinity) and not _matches(ask, room.labels):
        return FilterFailure(("node(s) didn't match Pod's node affinity/selector",))
    short = [
        name for name, need in ask.demand.items() if need and need > room.allocatable.get(name, 0) - room.used[name]
    ]
    if not short:
        return None
    reasons = tuple("Too many pods" if name == "pods" else f"Insufficient {name}" for name in short)
    return FilterFailure(reasons, all(ask.demand[name] <= room.allocatable.get(name, 0) for name in short))


def _counted(words: Iterable[str]) -> str:
    return ", ".join(sorted(f"{count} {word}" for word, count in Counter(words).items()))


def unschedulable(refusals: Collection[FilterFailure], preemption: str = "") -> str:
    """Return why no node accepts a pod. ``preemption``: why no pod is preempted now, "" where that would not help."""
    if not refusals:
        return "no nodes available to schedule pods"
    if preemption:
        reasons = _counted(reason for failure in refusals for reason in failure.reasons)
        return f"0/{len(refusals)} nodes are available: {reasons}. preemption: {preemption}"
    return _worded(
        _counted(reason for failure in refusals for reason in failure.reasons),
        [failure.may_change for failure in refusals],
    )


def claim_missing(name: str, nodes: int) -> str:
    """Word that a pod's persistent volume claim is not there, whatever the nodes offer."""
    return _worded(f'persistentvolumeclaim "{name}" not found', [False] * nodes)


def _worded(reasons: str, may_change: Collection[bool]) -> str:
    every = f"0/{len(may_change)} nodes are available"
    helps = {True: "No preemption victims found for incoming pod", False: "Preemption is not helpful for scheduling"}
    preemption = _counted(helps[node_may_change] for node_may_change in may_change)
    return f"{every}: {reasons}. no new claims to deallocate, preemption: {every}: {preemption}."
