"""Conversion from and to the stored form: Events of ``events.k8s.io``, and the Scale of a workload."""

from __future__ import annotations

from collections.abc import Iterator

from kubelocal.codec import field_errors
from kubelocal.codec.kinds import BODIES, EVENTS, KINDS, Kind
from kubelocal.codec.status_errors import Cause, invalid
from kubelocal.storage.store import Entry
from kubelocal.types import Manifest

__all__ = ["check_new_event", "rescaled", "scale_of", "shown", "stored", "stored_kind"]

EVENT_FIELDS = {
    "count": "deprecatedCount",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "involvedObject": "regarding",
    "lastTimestamp": "deprecatedLastTimestamp",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
}
"""The fields of a core Event that have another name in ``events.k8s.io``; the others have the same."""

STORED_FIELDS = {shown: stored for stored, shown in EVENT_FIELDS.items()}
NOTE_LIMIT, NAME_LIMIT = 1024, 128


def stored_kind(kind: Kind) -> Kind:
    """Return the kind under which objects of a kind are stored."""
    return KINDS[kind.kind] if kind is EVENTS else kind


def shown(kind: Kind, entry: Entry) -> Entry:
    """Convert a stored state to the requested kind."""
    if kind is not EVENTS:
        return entry
    event = {EVENT_FIELDS.get(field, field): value for field, value in entry.object.items()}
    return Entry({**event, "kind": kind.kind, "apiVersion": kind.api_version}, entry.version)


def stored(kind: Kind, manifest: Manifest) -> Manifest:
    """Convert a client's object of a kind to the stored form."""
    if kind is not EVENTS:
        return manifest
    core = stored_kind(kind)
    event = {STORED_FIELDS.get(field, field): value for field, value in manifest.items()}
    event.setdefault("involvedObject", {})
    return {**event, "kind": core.kind, "apiVersion": core.api_version}


def check_new_event(kind: Kind, manifest: Manifest) -> None:
    """Raise 422 for a new Event of ``events.k8s.io`` without the fields that only this group requires."""
    if kind is EVENTS and (causes := [*_lacking(manifest), *_unfit(manifest)]):
        raise invalid(kind.kind, (manifest.get("metadata") or {}).get("name", ""), causes)


def _lacking(event: Manifest) -> list[Cause]:
    required_fields = ("eventTime", "reportingController", "reportingInstance", "action", "reason")
    return [field_errors.required(field) for field in required_fields if not event.get(field)]


def _unfit(event: Manifest) -> Iterator[Cause]:
    limits = {"reportingInstance": NAME_LIMIT, "action": NAME_LIMIT, "reason": NAME_LIMIT, "note": NOTE_LIMIT}
    for field, longest in limits.items():
        if len(event.get(field, "")) > longest:
            yield field_errors.invalid(field, "", f"can have at most {longest} characters")
    if event.get("type") not in ("Normal", "Warning"):
        yield field_errors.invalid("type", "", f"has invalid value: {event.get('type', '')}")
    for field in sorted(event.keys() & STORED_FIELDS.keys()):
        if field.startswith("deprecated") and event[field]:
            yield field_errors.invalid(field, event[field], "needs to be unset")


# ------------------------------------------------------------------------------------------------------------- scale


def scale_of(workload: Manifest) -> Manifest:
    """Return the ``Scale`` of a workload with replicas."""
    metadata, replicas = workload["metadata"], workload["spec"].get("replicas", 0)
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status = {"replicas": workload.get("status", {}).get("replicas", 0), "selector": _written(workload["spec"])}
    return {
        "kind": "Scale",
        "apiVersion": BODIES["Scale"].api_version,
        "metadata": {field: metadata[field] for field in kept if field in metadata},
        "spec": {"replicas": replicas} if replicas else {},
        "status": {field: value for field, value in status.items() if value != ""},
    }


def _written(spec: Manifest) -> str:
    """Write a label selector in query syntax."""
    selector = spec.get("selector") or {}
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for expression in selector.get("matchExpressions") or ():
        key, operator, values = expression["key"], expression["operator"], ",".join(expression.get("values") or ())
        forms = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key}
        parts.append(forms.get(operator, f"!{key}"))
    return ",".join(parts)


def rescaled(workload: Manifest, scale: Manifest) -> Manifest:
    """Return a workload with the replicas and resourceVersion of a ``Scale``; raise 422 for an invalid one."""
    given, name = scale.get("metadata") or {}, workload["metadata"]["name"]
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if replicas < 0:
        detail = f"Invalid value: {replicas}: must be greater than or equal to 0"
        raise invalid("Scale", name, [Cause("FieldValueInvalid", detail, "spec.replicas")])
    metadata = {
        **workload["metadata"],
        **{field: given[field] for field in ("uid", "resourceVersion") if given.get(field)},
    }
    metadata["name"] = given.get("name", name)
    return {**workload, "metadata": metadata, "spec": {**workload["spec"], "replicas": replicas}}
