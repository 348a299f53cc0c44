"""The next actions for ReplicaSets and StatefulSets, as pure functions of the object, its pods and the time.

Not here: the adoption of pods that the object did not make, and ControllerRevisions: a StatefulSet makes every new pod
from its present template, also below a partition.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import orjson

from kubelocal.controllers.job_sync import EventRecord
from kubelocal.types import Json, Manifest

__all__ = [
    "WorkloadPlan",
    "decide_replica_set",
    "decide_stateful_set",
    "fresh_pod",
    "has_ended",
    "is_terminating",
    "owned",
    "revision_of",
    "template_hash",
    "until_available",
]

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_REVISION = "controller-revision-hash"


@dataclass(frozen=True, slots=True)
class WorkloadPlan:
    """What to do for an object now.

    ``status``: its new status. ``annotations``: to be set on it. ``create``: dependents, and claims that may be there
    already. ``delete``: names of dependents. ``patch``: merge patches for dependents, by name. ``wait``: look again
    after so many seconds, None: only when something changes.
    """

    status: Manifest
    annotations: Mapping[str, str] = field(default_factory=dict)
    create: tuple[Manifest, ...] = ()
    delete: tuple[str, ...] = ()
    patch: Mapping[str, Manifest] = field(default_factory=dict)
    events: tuple[EventRecord, ...] = ()
    wait: float | None = None


def owned(owner: Manifest, metadata: Manifest) -> Manifest:
    """Return the metadata of a new dependent, with an owner reference."""
    name, uid = owner["metadata"]["name"], owner["metadata"]["uid"]
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": name, "uid": uid}
    return {**metadata, "ownerReferences": [{**reference, "controller": True, "blockOwnerDeletion": True}]}


def template_hash(template: Manifest) -> str:
    """Return ten letters that change with a pod template; what they are made of differs from Kubernetes'."""
    digest = hashlib.sha256(orjson.dumps(template, option=orjson.OPT_SORT_KEYS)).digest()
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest[:10])


# ------------------------------------------------------------------------------------------------------------- pods


def is_terminating(pod: Manifest) -> bool:
    """Whether the object is being deleted."""
    return "deletionTimestamp" in pod["metadata"]


def has_ended(pod: Manifest) -> bool:
    """Whether all containers of the pod have ended for good."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _ready_since(pod: Manifest) -> datetime | None:
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == "Ready" and condition["status"] == "True":
            return datetime.fromisoformat(condition["lastTransitionTime"])
    return None


def until_available(pods: Iterable[Manifest], spec: Manifest, now: datetime) -> list[float]:
    """Return for each ready pod in how many seconds it counts as available, 0 or less if it does."""
    long = timedelta(seconds=spec.get("minReadySeconds") or 0)
    return [(since + long - now).total_seconds() for pod in pods if (since := _ready_since(pod))]


def _counts(pods: list[Manifest], spec: Manifest, now: datetime) -> tuple[Manifest, float | None]:
    """Return the numbers of a status, and when they change by themselves."""
    left = until_available(pods, spec, now)
    numbers = {
        "replicas": len(pods),
        "readyReplicas": len(left),
        "availableReplicas": sum(seconds <= 0 for seconds in left),
    }
    return numbers, min((seconds for seconds in left if seconds > 0), default=None)


def fresh_pod(owner: Manifest, metadata: Manifest) -> Manifest:
    """Return a pod of an object's template."""
    template = copy.deepcopy(owner["spec"]["template"])
    given = template.get("metadata") or {}
    kept = {key: given[key] for key in ("labels", "annotations", "finalizers") if given.get(key)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": owned(owner, kept | metadata), "spec": template["spec"]}


def _worth(pod: Manifest) -> tuple[bool, bool, bool, str]:
    """Sort key: pods whose loss costs least come first; of equal ones the youngest."""
    running = pod.get("status", {}).get("phase") == "Running"
    return bool(pod["spec"].get("nodeName")), running, _ready_since(pod) is not None, _age(pod)


def _age(pod: Manifest) -> str:
    """Text that sorts the youngest first."""
    return "".join(chr(255 - ord(sign)) for sign in pod["metadata"]["creationTimestamp"])


# ------------------------------------------------------------------------------------------------------ replica sets


def decide_replica_set(replica_set: Manifest, pods: list[Manifest], now: datetime) -> WorkloadPlan:
    """Keep as many pods as wanted; those that ended are replaced and stay to be looked at."""
    spec = replica_set["spec"]
    active = [pod for pod in pods if not has_ended(pod) and not is_terminating(pod)]
    numbers, wait = _counts(active, spec, now)
    status = {
        **numbers,
        "fullyLabeledReplicas": len(active),
        "terminatingReplicas": sum(is_terminating(pod) and not has_ended(pod) for pod in pods),
        "observedGeneration": replica_set["metadata"]["generation"],
    }
    if is_terminating(replica_set):
        return WorkloadPlan(status)
    missing = int(spec["replicas"]) - len(active)
    if missing < 0:
        surplus = sorted(active, key=_worth)[:-missing]
        return WorkloadPlan(status, delete=tuple(pod["metadata"]["name"] for pod in surplus), wait=wait)
    name = {"generateName": f"{replica_set['metadata']['name']}-"}
    return WorkloadPlan(status, create=tuple(fresh_pod(replica_set, name) for _ in range(missing)), wait=wait)


# ----------------------------------------------------------------------------------------------------- stateful sets


def decide_stateful_set(stateful_set: Manifest, pods: list[Manifest], now: datetime) -> WorkloadPlan:
    """Keep the pods ``NAME-0`` to ``NAME-(n-1)``, one after the other or, if so asked, all at once."""
    spec, name = stateful_set["spec"], stateful_set["metadata"]["name"]
    revision = f"{name}-{template_hash(spec['template'])}"
    have = {number: pod for pod in pods if (number := _ordinal(pod, name)) is not None}
    replicas = int(spec["replicas"])
    status, wait = _stateful_status(stateful_set, have, revision, now)
    if is_terminating(stateful_set):
        return WorkloadPlan(status)
    ordered = spec.get("podManagementPolicy") != "Parallel"
    create: list[Manifest] = []
    for number in range(replicas):
        if number not in have:
            create += [*_claims(stateful_set, number), _numbered(stateful_set, number, revision)]
        if ordered and not _healthy(have.get(number)):
            break
    delete = [number for number, pod in have.items() if has_ended(pod)]
    if not create and not delete:
        delete = _surplus(have, replicas, ordered) or _outdated(spec, have, revision)
    names = tuple(have[number]["metadata"]["name"] for number in delete if not is_terminating(have[number]))
    return WorkloadPlan(status, create=tuple(create), delete=names, wait=wait)


def _surplus(have: Mapping[int, Manifest], replicas: int, ordered: bool) -> list[int]:
    """Return the pods that are too many, the highest first; in order, one at a time while the others are well."""
    surplus = sorted((number for number in have if number >= replicas), reverse=True)
    if ordered and not all(_healthy(have.get(number)) for number in range(replicas)):
        return surplus[:1] if surplus and is_terminating(have[surplus[0]]) else []
    return surplus[:1] if ordered else surplus


def _ordinal(pod: Manifest, name: str) -> int | None:
    number = pod["metadata"]["name"].removeprefix(f"{name}-")
    return int(number) if number.isdigit() else None


def _healthy(pod: Manifest | None) -> bool:
    return pod is not None and not is_terminating(pod) and _ready_since(pod) is not None


def revision_of(pod: Manifest) -> str:
    """Return the hash of the template that the pod was made from."""
    return str(pod["metadata"].get("labels", {}).get(_REVISION, ""))


def _outdated(spec: Manifest, have: Mapping[int, Manifest], revision: str) -> list[int]:
    """Return the next pod to be replaced: from the highest down, each when those above it are well."""
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return []
    first = (strategy.get("rollingUpdate") or {}).get("partition") or 0
    for number in sorted((number for number in have if number >= first), reverse=True):
        if revision_of(have[number]) != revision:
            return [number]
        if not _healthy(have[number]):
            return []
    return []


def _stateful_status(
    stateful_set: Manifest, have: Mapping[int, Manifest], revision: str, now: datetime
) -> tuple[Manifest, float | None]:
    pods = [pod for pod in have.values() if not has_ended(pod)]
    numbers, wait = _counts([pod for pod in pods if not is_terminating(pod)], stateful_set["spec"], now)
    numbers["replicas"] = len(pods)
    updated = sum(revision_of(pod) == revision for pod in pods)
    current = stateful_set.get("status", {}).get("currentRevision") or revision
    if updated == numbers["readyReplicas"] == len(pods) == int(stateful_set["spec"]["replicas"]):
        current = revision
    status = {
        **numbers,
        "currentReplicas": sum(revision_of(pod) == current for pod in pods),
        "updatedReplicas": updated,
        "currentRevision": current,
        "updateRevision": revision,
        "collisionCount": 0,
        "observedGeneration": stateful_set["metadata"]["generation"],
    }
    return status, wait


def _numbered(stateful_set: Manifest, number: int, revision: str) -> Manifest:
    """Return the pod of a number, with the name by which others find it."""
    name = f"{stateful_set['metadata']['name']}-{number}"
    pod = fresh_pod(stateful_set, {"name": name})
    marks = {
        "statefulset.kubernetes.io/pod-name": name,
        "apps.kubernetes.io/pod-index": str(number),
        _REVISION: revision,
    }
    pod["metadata"]["labels"] = {**pod["metadata"].get("labels", {}), **marks}
    pod["spec"] |= {"hostname": name, "subdomain": stateful_set["spec"].get("serviceName", "")}
    claims = [claim["metadata"]["name"] for claim in stateful_set["spec"].get("volumeClaimTemplates") or ()]
    if claims:
        others = [volume for volume in pod["spec"].get("volumes") or () if volume["name"] not in claims]
        own: list[Json] = [
            {"name": claim, "persistentVolumeClaim": {"claimName": f"{claim}-{name}"}} for claim in claims
        ]
        pod["spec"]["volumes"] = [*others, *own]
    return pod


def _claims(stateful_set: Manifest, number: int) -> list[Manifest]:
    """Return the claims of a pod; they have no owner, so that they outlive it."""
    name = f"{stateful_set['metadata']['name']}-{number}"
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {**claim["metadata"], "name": f"{claim['metadata']['name']}-{name}"},
            "spec": claim["spec"],
        }
        for claim in stateful_set["spec"].get("volumeClaimTemplates") or ()
    ]
