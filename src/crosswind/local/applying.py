"""Server-side apply, and who owns which field of an object.

An object has owners from its first apply on. Before that its ``managedFields`` at most name who created it, without
fields: those are counted when somebody else writes. So what is never applied, such as pods by the thousand, costs
nothing. Source: KEP-555 and ``k8s.io/apimachinery/pkg/util/managedfields``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from crosswind.local.deleting import timestamp
from crosswind.local.field_sets import (
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
from crosswind.local.kinds import Kind
from crosswind.local.schema import Type, type_of
from crosswind.local.statuses import StatusError, failure
from crosswind.types import Json, Manifest

__all__ = ["Writer", "applied_object", "apply", "created_by", "tracked"]

APPLY, UPDATE = "Apply", "Update"
UNKNOWN_OWNER = "before-first-apply"
UNTRACKED_KINDS = frozenset({"Event", "Lease", "Node", "Pod"})  # made by the thousand, or written all the time
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
UNOWNED = frozenset({("f:apiVersion",), ("f:kind",), *(("f:metadata", f"f:{field}") for field in _METADATA)})


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes to an object, and how: ``subresource`` is "" for the object itself, ``moment`` is in seconds."""

    name: str
    moment: float
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class _Owner:
    """An entry of ``managedFields``. ``fields``: None for what nobody else owns, not counted yet."""

    name: str
    operation: str
    api_version: str
    time: str
    fields: FieldSet | None
    subresource: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from the others."""
        return self.name, self.operation, self.subresource

    @property
    def held(self) -> FieldSet:
        """The fields that are known to be its own."""
        return self.fields or frozenset()

    def keeping(self, paths: FieldSet) -> _Owner:
        """Return it with those of its fields alone that are among these."""
        return replace(self, fields=self.held & paths)

    def losing(self, paths: FieldSet) -> _Owner:
        """Return it without these fields."""
        return replace(self, fields=self.held - paths)

    def __str__(self) -> str:
        if self.operation == APPLY:
            return f'"{self.name}"'
        through = f' with subresource "{self.subresource}"' if self.subresource else ""
        return f'"{self.name}"{through} using {self.api_version}' + (f" at {self.time}" if self.time else "")


def created_by(kind: Kind, manifest: Manifest, writer: Writer) -> None:
    """Note in a new object, in place, who created it."""
    if writer.name and kind.kind not in UNTRACKED_KINDS:
        manifest["metadata"]["managedFields"] = _written([_entry(kind, writer, UPDATE, None)])


def tracked(kind: Kind, old: Manifest, new: Manifest, writer: Writer) -> Manifest:
    """Return an object that was changed with its owners: who changed a field owns it alone."""
    if "managedFields" not in old["metadata"] or "managedFields" not in new["metadata"]:
        return new
    owners, wanted = _read(old), _type(kind)
    if all(owner.fields is None and owner.name == writer.name for owner in owners):
        return _with(new, owners)
    owners = _counted(kind, old, owners)
    before, after = _owned(wanted, old), _owned(wanted, new)
    changed = changes(wanted, old, new, after)
    if not changed and before <= after:
        return _with(new, owners)
    mine, others = _parted(owners, (writer.name, UPDATE, writer.subresource))
    now = _entry(kind, writer, UPDATE, ((mine.held if mine else frozenset()) | changed) & after)
    return _with(new, [*(owner.losing(changed).keeping(after) for owner in others), now])


def _parted(owners: list[_Owner], key: tuple[str, str, str]) -> tuple[_Owner | None, list[_Owner]]:
    """Return the owner with this key, if there is one, and the others."""
    return next((owner for owner in owners if owner.key == key), None), [owner for owner in owners if owner.key != key]


def _entry(kind: Kind, writer: Writer, operation: str, fields: FieldSet | None) -> _Owner:
    moment = timestamp(writer.moment)
    return _Owner(writer.name, operation, kind.api_version, moment, fields, writer.subresource)


def applied_object(kind: Kind, given: Manifest, writer: Writer) -> Manifest:
    """Return the object that an apply creates, with its owner."""
    fields = _owned(_type(kind), given, writer.subresource)
    return _with(given, [_entry(kind, writer, APPLY, fields)])


def apply(kind: Kind, live: Manifest, given: Manifest, writer: Writer, *, force: bool) -> Manifest:
    """Return what an apply makes of an object.

    What is applied is merged in; what the writer applied before and leaves out now is removed, unless somebody else
    owns it. Raises 409 where it changes what somebody else owns, unless ``force`` takes that over.
    """
    wanted = _type(kind)
    own, others = _parted(_counted(kind, live, _read(live)), (writer.name, APPLY, writer.subresource))
    fields = _owned(wanted, given, writer.subresource)
    merged = merge(wanted, live, given)
    lost = changes(wanted, live, merged, fields)
    if not force:
        _check_conflicts(others, lost)
    others = [owner.losing(lost) for owner in others]
    held = fields.union(*(owner.held for owner in others))
    merged = remove(wanted, merged, _removable((own.held if own else frozenset()) - fields, held))
    unchanged = own and own.fields == fields and _same(merged, live)
    now = own if own and unchanged else _entry(kind, writer, APPLY, fields)
    left = _owned(wanted, merged)
    return _with(merged, [*(owner.keeping(left) for owner in others), now])


def _same(merged: Manifest, live: Manifest) -> bool:
    return {**merged, "metadata": None} == {**live, "metadata": None} and merged["metadata"] == live["metadata"]


def _removable(dropped: FieldSet, held: FieldSet) -> FieldSet:
    """Return the paths that nobody holds any more, nor anything below them."""
    prefixes = {path[:length] for path in held for length in range(1, len(path) + 1)}
    return frozenset(path for path in dropped if path not in prefixes)


def _check_conflicts(others: list[_Owner], lost: FieldSet) -> None:
    """Raise 409 when one of these fields is another's."""
    conflicts = [(owner, path) for owner in others for path in sorted(owner.held & lost)]
    if conflicts:
        raise _refused(conflicts)


def _refused(conflicts: list[tuple[_Owner, Path]]) -> StatusError:
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {owner}", "field": written_path(path)}
        for owner, path in conflicts
    ]
    if len(conflicts) == 1:
        told = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        lines: dict[str, list[str]] = {}
        for owner, path in conflicts:
            lines.setdefault(f"conflicts with {owner}:", []).append(f"- {written_path(path)}")
        parts = [line for head, paths in sorted(lines.items()) for line in (head, *paths)]
        told = f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(parts)
    return failure(409, "Conflict", told, {"causes": causes})


# ------------------------------------------------------------------------------------------------------------- owners


def _type(kind: Kind) -> Type:
    return type_of(kind.kind, kind.group)


def _owned(wanted: Type, manifest: Manifest, subresource: str = "") -> FieldSet:
    """Return what of an object can have owners; of a subresource its part alone."""
    paths = field_set(wanted, manifest) - UNOWNED
    return frozenset(path for path in paths if path[0] == "f:status") if subresource == "status" else paths


def _counted(kind: Kind, manifest: Manifest, owners: list[_Owner]) -> list[_Owner]:
    """Give the owner whose fields are not counted all that the others do not own; there is one in any case."""
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
    """Write owners, those that apply first; who owns nothing any more is left out."""
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
