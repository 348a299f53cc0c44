"""Whether an object may exist: its causes for refusal, with paths and words as Kubernetes 1.36 has them.

Rules are tables by type and, where fields depend on each other, functions: those of pods are in ``pod_rules``, of other
kinds in ``object_rules``. They are compiled once per type into one walk that skips types without rules.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

from crosswind.local import causes, naming_rules, object_rules, pod_rules
from crosswind.local.kinds import Kind
from crosswind.local.rules import Rule, Whole
from crosswind.local.schema import Type, struct, type_of
from crosswind.local.statuses import Cause
from crosswind.types import Manifest

__all__ = ["validate", "validate_metadata"]

Walk: TypeAlias = Callable[[Any, str, list[Cause]], None]
RULES: dict[str, tuple[Rule, ...]] = {**pod_rules.RULES, **object_rules.RULES}
WHOLES: dict[str, Whole] = {
    **pod_rules.WHOLES,
    **object_rules.WHOLES,
    "V1PodTemplateSpec": lambda template, path, found: _validate_labels(
        template.get("metadata") or {}, f"{path}.metadata", found
    ),
}
# parts that need not be valid to be stored: written by components, not by users; metadata has its own check
SKIPPED = {"V1Pod.status", "V1Node.status", "V1Job.status"}
EMPTY: tuple[Any, ...] = (None, "", [])
ANNOTATIONS_LIMIT = 256 << 10
# kinds whose names are DNS labels, or path segments; all others are DNS subdomains
LABEL_NAMES, PATH_NAMES = {"Namespace"}, {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


def validate(kind: Kind, manifest: Manifest) -> list[Cause]:
    """Return why a defaulted object may not exist, nothing if it may. Its name must be made by then."""
    found = validate_metadata(kind, manifest)
    if walk := _walk(type_of(kind.kind, kind.group).name):
        walk(manifest, "", found)
    return found


def validate_metadata(kind: Kind, manifest: Manifest) -> list[Cause]:
    """Return what is wrong with an object's metadata."""
    metadata = manifest.get("metadata") or {}
    name, found = metadata.get("name", ""), list[Cause]()
    if not name:
        found.append(causes.required("metadata.name", "name or generateName is required"))
    else:
        found += causes.lacking("metadata.name", name, _name_complaints(kind, name))
    _validate_labels(metadata, "metadata", found)
    for i, finalizer in enumerate(metadata.get("finalizers", ())):
        found += causes.lacking(f"metadata.finalizers[{i}]", finalizer, naming_rules.label_key(finalizer))
    if owners := metadata.get("ownerReferences"):
        _validate_owners(owners, found)
    return found


def _validate_labels(metadata: Manifest, path: str, found: list[Cause]) -> None:
    """Append what is wrong with labels and annotations, also those of a template."""
    for key, value in (metadata.get("labels") or {}).items():
        if complaints := naming_rules.label_key(key):
            found += causes.lacking(f"{path}.labels", key, complaints)
        if complaints := naming_rules.label_value(value):
            found += causes.lacking(f"{path}.labels", value, complaints)
    size = 0
    for key, value in (metadata.get("annotations") or {}).items():
        if complaints := naming_rules.label_key(key.lower()):
            found += causes.lacking(f"{path}.annotations", key, complaints)
        size += len(key.encode()) + len(value.encode())
    if size > ANNOTATIONS_LIMIT:
        found.append(causes.too_long(f"{path}.annotations", ANNOTATIONS_LIMIT))


def _name_complaints(kind: Kind, name: str) -> list[str]:
    if kind.kind in LABEL_NAMES:
        return list(naming_rules.dns_label(name))
    if kind.kind == "Service":
        return list(naming_rules.dns_1035_label(name))
    if kind.kind in PATH_NAMES:
        problems = [f"may not contain '{sign}'" for sign in "/%" if sign in name]
        return [f"may not be '{name}'"] if name in (".", "..") else problems
    return list(naming_rules.dns_subdomain(name))


def _validate_owners(owners: list[Manifest], found: list[Cause]) -> None:
    for owner in owners:
        found += [
            causes.invalid(f"metadata.ownerReferences.{field}", "", f"{field} must not be empty")
            for field in ("apiVersion", "kind", "name", "uid")
            if not owner.get(field)
        ]
    if len([owner for owner in owners if owner.get("controller")]) > 1:
        told = "Only one reference can have Controller set to true"
        found.append(causes.invalid("metadata.ownerReferences", owners, told))


@cache
def _walk(name: str) -> Walk | None:
    """Compile the rules of a type and of what is below it; None if there are none."""
    rules, whole = RULES.get(name, ()), WHOLES.get(name)
    required = [(rule.field, rule.detail) for rule in rules if rule.required]
    checks = {rule.field: rule.check for rule in rules if rule.check}
    below = {
        field.name: walk
        for field in struct(name).fields.values()
        if f"{name}.{field.name}" not in SKIPPED and (walk := _walk_below(field.type))
    }
    steps = {field: (checks.get(field), below.get(field)) for field in checks.keys() | below.keys()}
    if not rules and not whole and not below:
        return None

    def walk_struct(value: Manifest, path: str, found: list[Cause]) -> None:
        prefix = f"{path}." if path else ""
        for field, detail in required:
            if not (item := value.get(field)) and item in EMPTY:
                found.append(causes.required(prefix + field, detail))
        for field, item in value.items():
            if field in steps and (item or item not in EMPTY):
                check, walk = steps[field]
                if check:
                    found.extend(check(item, prefix + field))
                if walk:
                    walk(item, prefix + field, found)
        if whole:
            whole(value, path, found)

    return walk_struct


def _walk_below(wanted: Type) -> Walk | None:
    """Compile the walk of a field that is, or is a list of, structs."""
    if wanted.form == "struct":
        return _walk(wanted.name)
    walk = (
        _walk(wanted.inner.name) if wanted.form == "list" and wanted.inner and wanted.inner.form == "struct" else None
    )

    def walk_list(value: Any, path: str, found: list[Cause]) -> None:
        assert walk is not None
        for i, item in enumerate(value):
            walk(item, f"{path}[{i}]", found)

    return walk_list if walk else None
