"""The next actions for a Deployment, as a pure function of the Deployment, its ReplicaSets and the time."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from math import ceil

from kubelocal.codec.integers import parse_int
from kubelocal.controllers.job_sync import EventRecord
from kubelocal.controllers.replica_set_sync import WorkloadPlan, owned, template_hash
from kubelocal.types import Manifest

__all__ = ["decide_deployment"]

_HASH = "pod-template-hash"
_REVISION = "deployment.kubernetes.io/revision"


def decide_deployment(deployment: Manifest, sets: list[Manifest], now: datetime) -> WorkloadPlan:
    """Create a ReplicaSet for a new template, move the replicas to it stepwise, and report the progress."""
    sets = sorted(
        sets, key=lambda replica_set: (replica_set["metadata"]["creationTimestamp"], replica_set["metadata"]["name"])
    )
    new = next((replica_set for replica_set in sets if _template(replica_set) == deployment["spec"]["template"]), None)
    old = [replica_set for replica_set in sets if replica_set is not new]
    plan = _status_plan(deployment, new, sets, now)
    if "deletionTimestamp" in deployment["metadata"] or (deployment["spec"].get("paused") and new is None):
        return plan
    revision = str(max((_revision(replica_set) for replica_set in old), default=0) + 1)
    if new is None:
        new_replica_set = _replica_set(deployment, revision, _room(deployment, sets) if _rolling(deployment) else 0)
        event = _scaled("up", new_replica_set["metadata"]["name"], new_replica_set["spec"]["replicas"])
        return replace(plan, create=(new_replica_set,), annotations={_REVISION: revision}, events=(event,))
    if _revision(new) < int(revision):
        return replace(plan, patch=_annotated(new, revision), annotations={_REVISION: revision})
    plan = replace(plan, annotations={_REVISION: str(_revision(new))})
    steps = _rolling_update(deployment, new, old) if _rolling(deployment) else _recreate(deployment, new, old)
    if steps:
        return replace(plan, patch=dict(map(_patch, steps)), events=tuple(_scaling_event(*step) for step in steps))
    return replace(plan, delete=_pruned(deployment, new, old))


def _template(replica_set: Manifest) -> Manifest:
    """Return the template as the Deployment has it."""
    template = copy.copy(replica_set["spec"]["template"])
    metadata = template["metadata"]
    labels = {key: value for key, value in metadata["labels"].items() if key != _HASH}
    return {**template, "metadata": {**metadata, "labels": labels}}


def _replica_set(deployment: Manifest, revision: str, replicas: int) -> Manifest:
    spec, metadata = deployment["spec"], deployment["metadata"]
    mark = {_HASH: template_hash(spec["template"])}
    template = copy.deepcopy(spec["template"])
    labels = {**(template.setdefault("metadata", {}).get("labels") or {}), **mark}
    template["metadata"]["labels"] = labels
    selector = copy.deepcopy(spec["selector"])
    selector["matchLabels"] = {**selector.get("matchLabels", {}), **mark}
    own = {
        "name": f"{metadata['name']}-{mark[_HASH]}",
        "labels": dict(labels),
        "annotations": {_REVISION: revision},
    }
    new_spec = {"replicas": replicas, "minReadySeconds": spec.get("minReadySeconds") or 0}
    new_spec |= {"selector": selector, "template": template}
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": owned(deployment, own), "spec": new_spec}


def _revision(replica_set: Manifest) -> int:
    try:
        return parse_int(replica_set["metadata"].get("annotations", {}).get(_REVISION, "0"))
    except ValueError:  # written by another client
        return 0


def _annotated(replica_set: Manifest, revision: str) -> dict[str, Manifest]:
    return {replica_set["metadata"]["name"]: {"metadata": {"annotations": {_REVISION: revision}}}}


# ------------------------------------------------------------------------------------------------------------ numbers


def _desired_replicas(replica_set: Manifest) -> int:
    return int(replica_set["spec"]["replicas"])


def _status(sets: Iterable[Manifest | None], name: str) -> int:
    return sum(int((replica_set.get("status") or {}).get(name, 0)) for replica_set in sets if replica_set)


def _rolling(deployment: Manifest) -> bool:
    return bool(deployment["spec"]["strategy"]["type"] == "RollingUpdate")


def _limits(deployment: Manifest) -> tuple[int, int]:
    """Return maxSurge and maxUnavailable as numbers of pods."""
    if not _rolling(deployment):
        return 0, _desired_replicas(deployment)
    rolling_update, desired = deployment["spec"]["strategy"]["rollingUpdate"], _desired_replicas(deployment)
    surge, fewer = (
        _share(rolling_update["maxSurge"], desired, up=True),
        _share(rolling_update["maxUnavailable"], desired, up=False),
    )
    return surge, min(desired, fewer) if surge or fewer else 1


def _share(setting: int | str, of: int, *, up: bool) -> int:
    if isinstance(setting, int):
        return setting
    part = int(setting.removesuffix("%")) * of
    return ceil(part / 100) if up else part // 100


def _room(deployment: Manifest, sets: Sequence[Manifest]) -> int:
    """Return how many pods the new ReplicaSet may add."""
    surge, _ = _limits(deployment)
    return max(
        0, min(_desired_replicas(deployment), _desired_replicas(deployment) + surge - sum(map(_desired_replicas, sets)))
    )


# -------------------------------------------------------------------------------------------------------------- steps

Step = tuple[Manifest, int]
"""A ReplicaSet and the replicas that it is to have."""


def _patch(step: Step) -> tuple[str, Manifest]:
    return step[0]["metadata"]["name"], {"spec": {"replicas": step[1]}}


def _scaling_event(replica_set: Manifest, to: int) -> EventRecord:
    return _scaled("up" if to > _desired_replicas(replica_set) else "down", replica_set["metadata"]["name"], to)


def _scaled(direction: str, name: str, to: int) -> EventRecord:
    return EventRecord("ScalingReplicaSet", f"Scaled {direction} replica set {name} to {to}")


def _rolling_update(deployment: Manifest, new: Manifest, old: Sequence[Manifest]) -> list[Step]:
    desired, have = _desired_replicas(deployment), _desired_replicas(new)
    if have > desired:
        return [(new, desired)]
    if have < desired and (more := min(_room(deployment, [new, *old]), desired - have)):
        return [(new, have + more)]
    least = desired - _limits(deployment)[1]
    room = have + sum(map(_desired_replicas, old)) - least - (have - _status([new], "availableReplicas"))
    spare = _status([new, *old], "availableReplicas") - least
    steps: list[Step] = []
    for replica_set in old:
        # deleting pods that are not available reduces no availability
        idle = min(_desired_replicas(replica_set) - _status([replica_set], "availableReplicas"), max(room, 0))
        cut = min(
            _desired_replicas(replica_set),
            idle + max(0, min(spare, room - idle, _desired_replicas(replica_set) - idle)),
        )
        spare, room = spare - (cut - idle), room - cut
        steps += [(replica_set, _desired_replicas(replica_set) - cut)] if cut else []
    return steps


def _recreate(deployment: Manifest, new: Manifest, old: Sequence[Manifest]) -> list[Step]:
    if steps := [(replica_set, 0) for replica_set in old if _desired_replicas(replica_set)]:
        return steps
    if _status(old, "replicas") or _status(old, "terminatingReplicas"):
        return []
    return [(new, _desired_replicas(deployment))] if _desired_replicas(new) != _desired_replicas(deployment) else []


def _pruned(deployment: Manifest, new: Manifest, old: Sequence[Manifest]) -> tuple[str, ...]:
    """Return the old ReplicaSets beyond the revision history limit."""
    if not _complete(deployment, new, [new, *old]):
        return ()
    idle = [
        replica_set
        for replica_set in old
        if not _desired_replicas(replica_set) and not _status([replica_set], "replicas")
    ]
    keep = int(deployment["spec"].get("revisionHistoryLimit", 10))
    surplus = sorted(idle, key=_revision)[: max(0, len(idle) - keep)]
    return tuple(replica_set["metadata"]["name"] for replica_set in surplus)


# ------------------------------------------------------------------------------------------------------------- status


def _complete(deployment: Manifest, new: Manifest | None, sets: Sequence[Manifest]) -> bool:
    desired = _desired_replicas(deployment)
    counts = (_status([new], "replicas"), _status(sets, "replicas"), _status(sets, "availableReplicas"))
    return new is not None and counts == (desired, desired, desired)


def _status_plan(deployment: Manifest, new: Manifest | None, sets: Sequence[Manifest], now: datetime) -> WorkloadPlan:
    available = _status(sets, "availableReplicas")
    status = {
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": _status(sets, "replicas"),
        "updatedReplicas": _status([new], "replicas"),
        "readyReplicas": _status(sets, "readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(0, sum(map(_desired_replicas, sets)) - available),
    }
    before = deployment.get("status") or {}
    progress, wait = _progress(deployment, new, sets, _moved(before, status), now)
    enough = available >= _desired_replicas(deployment) - _limits(deployment)[1]
    availability = (
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        if enough
        else ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    )
    conditions = [_condition(before, "Available", availability, now), _condition(before, "Progressing", progress, now)]
    if _moved(before, status) and progress[1] == "ReplicaSetUpdated":
        conditions[1]["lastUpdateTime"] = _stamp(now)
    return WorkloadPlan({**status, "conditions": conditions}, wait=wait)


def _moved(before: Manifest, status: Manifest) -> bool:
    """Whether a rollout has progressed."""
    fewer = before.get("replicas", 0) - before.get("updatedReplicas", 0)
    return bool(
        any(status[name] > before.get(name, 0) for name in ("updatedReplicas", "readyReplicas", "availableReplicas"))
        or status["replicas"] - status["updatedReplicas"] < fewer
    )


def _progress(
    deployment: Manifest, new: Manifest | None, sets: Sequence[Manifest], moved: bool, now: datetime
) -> tuple[tuple[str, str, str], float | None]:
    """Return status, reason and message of the condition Progressing, and when it may change by itself."""
    if new is None:
        return ("True", "NewReplicaSetCreated", "Created new replica set"), None
    name = new["metadata"]["name"]
    conditions = (deployment.get("status") or {}).get("conditions") or ()
    known: Manifest = next((condition for condition in conditions if condition["type"] == "Progressing"), {})
    # once all pods are new the rollout is over, whatever becomes of them later
    over = known.get("reason") == "NewReplicaSetAvailable" and _status([new], "replicas") == _status(sets, "replicas")
    if over or _complete(deployment, new, sets):
        return ("True", "NewReplicaSetAvailable", f'ReplicaSet "{name}" has successfully progressed.'), None
    since = _time(known["lastUpdateTime"]) if known.get("reason") == "ReplicaSetUpdated" else now
    left = float(deployment["spec"].get("progressDeadlineSeconds") or 600) - (now - since).total_seconds()
    if left <= 0 and not moved:
        return ("False", "ProgressDeadlineExceeded", f'ReplicaSet "{name}" has timed out progressing.'), None
    return ("True", "ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.'), max(left, 1.0)


def _condition(before: Manifest, kind: str, outcome: tuple[str, str, str], now: datetime) -> Manifest:
    status, reason, message = outcome
    old: Manifest = next((condition for condition in before.get("conditions") or () if condition["type"] == kind), {})
    words = {"type": kind, "status": status, "reason": reason, "message": message}
    changed = old.get("status") != status
    return {
        **words,
        "lastUpdateTime": _stamp(now) if changed or old.get("reason") != reason else old["lastUpdateTime"],
        "lastTransitionTime": _stamp(now) if changed else old["lastTransitionTime"],
    }


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
