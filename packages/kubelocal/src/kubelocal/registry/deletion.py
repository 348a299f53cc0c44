"""The effect of a DELETE on an object: a pure decision that the registry carries out.

Rules and messages follow ``k8s.io/apiserver/pkg/registry/rest/delete.go`` and the generic store's ``Delete``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from kubelocal.codec.kinds import Kind
from kubelocal.codec.status_errors import Cause, StatusError, conflict, failure, forbidden, invalid
from kubelocal.storage.list_pages import read_integer
from kubelocal.types import Json, Manifest

__all__ = ["DeleteOptions", "Deletion", "plan_deletion", "read_delete_options", "shortened", "timestamp"]

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
POLICIES = ("Foreground", "Background", "Orphan")
LAST_MOMENT = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
"""The last second that a timestamp can hold: a grace period ends then at the latest."""

UNDELETABLE_NAMESPACES = frozenset({"default", "kube-system", "kube-public"})
BEING_PURGED = (
    "The system is ensuring all content is removed from this namespace."
    "  Upon completion, this namespace will automatically be purged by the system."
)


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """``grace_period``: seconds, None for the object's own. ``uid`` and ``version``: preconditions, "" for none.

    ``propagation``: Orphan, Background, Foreground, or "" for the kind's own.
    """

    grace_period: int | None = None
    uid: str = ""
    version: str = ""
    propagation: str = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Deletion:
    """The object's next state, and whether it goes with it; ``state`` is the object itself when nothing changes."""

    state: Manifest
    gone: bool


def timestamp(moment: float) -> str:
    """Write seconds since 1970 as the API does."""
    return _second(int(moment))


@lru_cache(maxsize=128)
def _second(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_delete_options(body: Manifest, query: Mapping[str, str], *, dry_run: bool = False) -> DeleteOptions:
    """Read the options of a DELETE from its body (decoded) or, without one, from the query; raise 400 or 422.

    ``dry_run``: what the query says of it.
    """
    fields: Mapping[str, Json] = body or query
    propagation, orphan = fields.get("propagationPolicy") or "", fields.get("orphanDependents")
    if problem := _wrong_propagation(propagation, orphan):
        raise invalid("DeleteOptions", "", [problem])
    if orphan is not None:
        propagation = "Orphan" if orphan in {True, "true", "1"} else "Background"
    conditions = body.get("preconditions") or {}
    return DeleteOptions(
        _seconds(fields.get("gracePeriodSeconds")),
        conditions.get("uid") or "",
        conditions.get("resourceVersion") or "",
        propagation,
        dry_run or bool(body.get("dryRun")),
    )


def _wrong_propagation(propagation: str, orphan: Json) -> Cause | None:
    if propagation and propagation not in POLICIES:
        supported = ", ".join(f'"{policy}"' for policy in (*POLICIES, "nil"))
        detail = f'Unsupported value: "{propagation}": supported values: {supported}'
        return Cause("FieldValueNotSupported", detail, "propagationPolicy")
    if propagation and orphan is not None:
        detail = f'Invalid value: "{propagation}": orphanDependents and deletionPropagation cannot be both set'
        return Cause("FieldValueInvalid", detail, "propagationPolicy")
    return None


def _seconds(value: Json) -> int | None:
    if value is None or isinstance(value, int):
        return value
    return read_integer(str(value))


def plan_deletion(kind: Kind, manifest: Manifest, options: DeleteOptions, now: float) -> Deletion:
    """Decide what a DELETE at ``now`` (seconds since 1970) does to an object; raise 409 for a failed precondition."""
    _check_preconditions(kind, manifest["metadata"], options)
    match kind.kind:
        case "Pod":
            return _plan_pod(kind, manifest, options, now)
        case "Namespace":
            return _plan_namespace(manifest, now)
        case _:
            return _plan_plain(kind, manifest, options, now)


def _check_preconditions(kind: Kind, metadata: Manifest, options: DeleteOptions) -> None:
    if options.uid and options.uid != metadata["uid"]:
        raise _mismatch(kind, metadata, "UID", options.uid, metadata["uid"], "deleted and then recreated")
    if options.version and options.version != metadata["resourceVersion"]:
        raise _mismatch(kind, metadata, "ResourceVersion", options.version, metadata["resourceVersion"], "modified")


def _mismatch(
    kind: Kind, metadata: Manifest, what: str, expected: str, recorded: str, likely_cause: str
) -> StatusError:
    why = (
        f"the {what} in the precondition ({expected}) does not match the {what} in record ({recorded})."
        f" The object might have been {likely_cause}"
    )
    name, group = metadata["name"], {"group": kind.group} if kind.group else {}
    words = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    message = f'Operation cannot be fulfilled on {words} "{name}": {why}'
    return failure(409, "Conflict", message, {"name": name, **group, "kind": kind.kind})


def _plan_pod(kind: Kind, pod: Manifest, options: DeleteOptions, now: float) -> Deletion:
    metadata = pod["metadata"]
    finalizers = _finalizers(kind, metadata, options)
    # A second DELETE may only shorten the grace (strategy's CheckGracefulDelete).
    if "deletionTimestamp" in metadata:
        period = None if options.grace_period is None else _bounded(options.grace_period, now)
        if period is None or period >= metadata.get("deletionGracePeriodSeconds", 0):
            return Deletion(pod, False)
        state = shortened(pod, period)
        return Deletion(state, period == 0 and not finalizers)
    period = _pod_grace(pod, options, now)
    marked = _marked(pod, timestamp(now + period), period, finalizers)
    return Deletion(marked, period == 0 and not finalizers)


def _pod_grace(pod: Manifest, options: DeleteOptions, now: float) -> int:
    # No kubelet has the pod, or its containers have ended: nobody would confirm the end, so there is none to wait for.
    if not pod["spec"].get("nodeName") or pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}:
        return 0
    own: int = pod["spec"].get("terminationGracePeriodSeconds", 30)
    return _bounded(own if options.grace_period is None else options.grace_period, now)


def _bounded(period: int, now: float) -> int:
    # The API server takes a negative grace for 1 (rest.BeforeDelete), so that a mistake does not delete at once.
    return 1 if period < 0 else min(period, int(LAST_MOMENT - now))


def shortened(manifest: Manifest, period: int) -> Manifest:
    """Return the state of a marked object whose grace is shortened to ``period`` seconds."""
    metadata = manifest["metadata"]
    earlier = timedelta(seconds=metadata.get("deletionGracePeriodSeconds", 0) - period)
    moment = datetime.fromisoformat(metadata["deletionTimestamp"]) - earlier
    times = {"deletionTimestamp": timestamp(moment.timestamp()), "deletionGracePeriodSeconds": period}
    return {**manifest, "metadata": {**metadata, **times}}


def _plan_namespace(namespace: Manifest, now: float) -> Deletion:
    name = namespace["metadata"]["name"]
    if name in UNDELETABLE_NAMESPACES:
        raise forbidden("Namespace", name, "this namespace may not be deleted")
    if "deletionTimestamp" in namespace["metadata"]:
        raise conflict("Namespace", name, BEING_PURGED)
    marked = _marked(namespace, timestamp(now), None, namespace["metadata"].get("finalizers") or [])
    return Deletion({**marked, "status": {**marked.get("status", {}), "phase": "Terminating"}}, False)


def _plan_plain(kind: Kind, manifest: Manifest, options: DeleteOptions, now: float) -> Deletion:
    metadata = manifest["metadata"]
    finalizers = _finalizers(kind, metadata, options)
    if not finalizers:
        return Deletion({**manifest, "metadata": dict(metadata)}, True)
    if "deletionTimestamp" not in metadata:
        return Deletion(_marked(manifest, timestamp(now), 0, finalizers), False)
    if finalizers == metadata.get("finalizers"):
        return Deletion(manifest, False)
    return Deletion({**manifest, "metadata": {**metadata, "finalizers": finalizers}}, False)


def _marked(manifest: Manifest, when: str, grace: int | None, finalizers: list[str]) -> Manifest:
    metadata = {**manifest["metadata"], "deletionTimestamp": when}
    if grace is not None:
        metadata["deletionGracePeriodSeconds"] = grace
    # Setting deletionTimestamp counts as a change of the spec (rest.BeforeDelete).
    if "generation" in metadata:
        metadata["generation"] += 1
    if finalizers:
        metadata["finalizers"] = finalizers
    return {**manifest, "metadata": metadata}


def _finalizers(kind: Kind, metadata: Manifest, options: DeleteOptions) -> list[str]:
    """Return the finalizers that hold the object, with the one that the propagation policy asks for."""
    present: list[str] = metadata.get("finalizers") or []
    policy = {"Orphan": ORPHAN, "Foreground": FOREGROUND, "Background": ""}.get(options.propagation)
    if policy is None:
        earlier = next((finalizer for finalizer in (ORPHAN, FOREGROUND) if finalizer in present), "")
        # Jobs of batch/v1 orphan by default for the sake of old clients; kubectl sends Background itself.
        policy = earlier or (ORPHAN if kind.kind == "Job" else "")
    others = [finalizer for finalizer in present if finalizer not in {ORPHAN, FOREGROUND}]
    return [*others, policy] if policy else others
