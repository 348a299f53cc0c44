"""Server-side apply, and the owners of an object's fields.

Owners are computed from an object's first apply on. Before that ``managedFields`` only names the creator, without
fields, so that objects that are never applied, such as thousands of pods, cost nothing. Source: KEP-555 and
``k8s.io/apimachinery/pkg/util/managedfields``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from kubelocal.codec.kinds import Kind
from kubelocal.codec.schema import Type, type_of
from kubelocal.codec.status_errors import StatusError, failure
from kubelocal.registry.deletion import timestamp
from kubelocal.registry.managed_fields import (
    FieldSet,
    Path,
    changes,
    field_set,
    merge,
    read_fields,
    remove,
    write_fields,
    written_path,
)
from kubelocal.types import Json, Manifest

__all__ = ["Writer", "applied_object", "apply", "created_by", "tracked"]

APPLY, UPDATE = "Apply", "Update"
UNKNOWN_OWNER = "before-first-apply"
UNTRACKED_KINDS = frozenset({"Event", "Lease", "Node", "Pod"})  # created by the thousand, or written all the time
_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "managedFields",
    "selfLink",
)
UNTRACKED_PATHS = frozenset({("f:apiVersion",), ("f:kind",), *(("f:metadata", f"f:{field}") for field in _METADATA)})


@dataclass(frozen=True, slots=True)
class Writer:
    """A field manager and its write: ``subresource`` is "" for the object itself, ``moment`` seconds since 1970."""

    name: str
    moment: float
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class _Owner:
    """An entry of ``managedFields``. ``fields``: None for all fields without another owner, not computed yet."""

    name: str
    operation: str
    api_version: str
    time: str
    fields: FieldSet | None
    subresource: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """The identity of the entry."""
        return self.name, self.operation, self.subresource

    @property
    def held(self) -> FieldSet:
        """The computed fields, none before that."""
        return self.fields or frozenset()

    def keeping(self, paths: FieldSet) -> _Owner:
        """Return the owner with only those of its fields that are among these."""
        return replace(self, fields=self.held & paths)

    def losing(self, paths: FieldSet) -> _Owner:
        """Return the owner without these fields."""
        return replace(self, fields=self.held - paths)

    def __str__(self) -> str:
        if self.operation == APPLY:
            return f'"{self.name}"'
        through = f' with subresource "{self.subresource}"' if self.subresource else ""
        return f'"{self.name}"{through} using {self.api_version}' + (f" at {self.time}" if self.time else "")


def created_by(kind: Kind, manifest: Manifest, writer: Writer) -> None:
    """Record the creator of a new object, in place."""
    if writer.name and kind.kind not in UNTRACKED_KINDS:
        manifest["metadata"]["managedFields"] = _written([_entry(kind, writer, UPDATE, None)])


def tracked(kind: Kind, old: Manifest, new: Manifest, writer: Writer) -> Manifest:
    """Return a changed object with its owners: the writer becomes the only owner of each field that it changed."""
    if "managedFields" not in old["metadata"] or "managedFields" not in new["metadata"]:
        return new
    owners, value_type = _read(old), _type(kind)
    if all(owner.fields is None and owner.name == writer.name for owner in owners):
        return _with(new, owners)
    owners = _computed(kind, old, owners)
    before, after = _owned(value_type, old), _owned(value_type, new)
    changed = changes(value_type, old, new, after)
    if not changed and before <= after:
        return _with(new, owners)
    mine, others = _parted(owners, (writer.name, UPDATE, writer.subresource))
    now = _entry(kind, writer, UPDATE, ((mine.held if mine else frozenset()) | changed) & after)
    return _with(new, [*(owner.losing(changed).keeping(after) for owner in others), now])


def _parted(owners: list[_Owner], key: tuple[str, str, str]) -> tuple[_Owner | None, list[_Owner]]:
    """Return the owner with this key, if any, and the others."""
    return next((owner for owner in owners if owner.key == key), None), [owner for owner in owners if owner.key != key]


def _entry(kind: Kind, writer: Writer, operation: str, fields: FieldSet | None) -> _Owner:
    moment = timestamp(writer.moment)
    return _Owner(writer.name, operation, kind.api_version, moment, fields, writer.subresource)


def applied_object(kind: Kind, applied: Manifest, writer: Writer) -> Manifest:
    """Return the object that an apply creates, with its owner."""
    fields = _owned(_type(kind), applied, writer.subresource)
    return _with(applied, [_entry(kind, writer, APPLY, fields)])


def apply(kind: Kind, live: Manifest, applied: Manifest, writer: Writer, *, force: bool) -> Manifest:
    """Return an object after an apply.

    Applied fields are merged in. Fields that the manager applied before and omits now are removed, unless they have
    another owner. Raises 409 where a field of another owner changes, unless ``force`` takes it over.
    """
    value_type = _type(kind)
    own, others = _parted(_computed(kind, live, _read(live)), (writer.name, APPLY, writer.subresource))
    fields = _owned(value_type, applied, writer.subresource)
    merged = merge(value_type, live, applied)
    lost = changes(value_type, live, merged, fields)
    if not force:
        _check_conflicts(others, lost)
    others = [owner.losing(lost) for owner in others]
    held = fields.union(*(owner.held for owner in others))
    merged = remove(value_type, merged, _removable((own.held if own else frozenset()) - fields, held))
    unchanged = own and own.fields == fields and _same(merged, live)
    now = own if own and unchanged else _entry(kind, writer, APPLY, fields)
    left = _owned(value_type, merged)
    return _with(merged, [*(owner.keeping(left) for owner in others), now])


def _same(merged: Manifest, live: Manifest) -> bool:
    return {**merged, "metadata": None} == {**live, "metadata": None} and merged["metadata"] == live["metadata"]


def _removable(dropped: FieldSet, held: FieldSet) -> FieldSet:
    """Return the paths without an owner, also of the paths below them."""
    prefixes = {path[:length] for path in held for length in range(1, len(path) + 1)}
    return frozenset(path for path in dropped if path not in prefixes)


def _check_conflicts(others: list[_Owner], lost: FieldSet) -> None:
    """Raise 409 when another manager owns one of these fields."""
    conflicts = [(owner, path) for owner in others for path in sorted(owner.held & lost)]
    if conflicts:
        raise _refused(conflicts)


def _refused(conflicts: list[tuple[_Owner, Path]]) -> StatusError:
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {owner}", "field": written_path(path)}
        for owner, path in conflicts
    ]
    if len(conflicts) == 1:
        message = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        lines: dict[str, list[str]] = {}
        for owner, path in conflicts:
            lines.setdefault(f"conflicts with {owner}:", []).append(f"- {written_path(path)}")
        parts = [line for head, paths in sorted(lines.items()) for line in (head, *paths)]
        message = f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(parts)
    return failure(409, "Conflict", message, {"causes": causes})


# ------------------------------------------------------------------------------------------------------------- owners


def _type(kind: Kind) -> Type:
    return type_of(kind.kind, kind.group)


def _owned(value_type: Type, manifest: Manifest, subresource: str = "") -> FieldSet:
    """Return the fields that can have owners: of a subresource only its own part."""
    paths = field_set(value_type, manifest) - UNTRACKED_PATHS
    return frozenset(path for path in paths if path[0] == "f:status") if subresource == "status" else paths


def _computed(kind: Kind, manifest: Manifest, owners: list[_Owner]) -> list[_Owner]:
    """Compute the fields of the owner without any: all that the others do not own. Add such an owner if none exists."""
    known = [owner for owner in owners if owner.fields is not None]
    if owners and len(known) == len(owners):
        return owners
    rest = _owned(_type(kind), manifest).difference(*(owner.held for owner in known))
    since = manifest["metadata"].get("creationTimestamp", "")
    nobody = _Owner(UNKNOWN_OWNER, UPDATE, kind.api_version, since, None)
    creator = next((owner for owner in owners if owner.fields is None), nobody)
    return [replace(creator, fields=frozenset(path for path in rest if path[0] != "f:status")), *known]


def _read(manifest: Manifest) -> list[_Owner]:
    return [
        _Owner(
            entry.get("manager", ""),
            entry.get("operation", UPDATE),
            entry.get("apiVersion", ""),
            entry.get("time", ""),
            read_fields(entry["fieldsV1"]) if "fieldsV1" in entry else None,
            entry.get("subresource", ""),
        )
        for entry in manifest["metadata"].get("managedFields", ())
    ]


def _written(owners: Iterable[_Owner]) -> list[Json]:
    """Write the owners, appliers first; those without fields are dropped."""
    entries: list[Json] = []
    for owner in sorted(owners, key=lambda owner: (owner.operation != APPLY, owner.time, owner.name)):
        if owner.fields is None or owner.fields:
            entry = {"manager": owner.name, "operation": owner.operation, "apiVersion": owner.api_version}
            entry |= {"time": owner.time, "fieldsType": "FieldsV1", "subresource": owner.subresource}
            entry = {field: value for field, value in entry.items() if value}
            entries.append(entry if owner.fields is None else entry | {"fieldsV1": write_fields(owner.fields)})
    return entries


def _with(manifest: Manifest, owners: Iterable[_Owner]) -> Manifest:
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "managedFields"}
    if entries := _written(owners):
        metadata["managedFields"] = entries
    return {**manifest, "metadata": metadata}
