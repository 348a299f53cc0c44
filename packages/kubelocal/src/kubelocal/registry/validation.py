"""Validation of objects: the causes of an invalid one, with the paths and messages of Kubernetes 1.36.

Rules are tables by type and, where fields depend on each other, functions: those of pods are in ``pod_validation``,
those of other kinds in ``object_validation``. They are compiled once per type into one walk that skips types without
rules.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

from kubelocal.codec import field_errors
from kubelocal.codec.kinds import Kind
from kubelocal.codec.schema import Type, struct, type_of
from kubelocal.codec.status_errors import Cause
from kubelocal.registry import name_validation, object_validation, pod_validation
from kubelocal.registry.validation_rules import ObjectCheck, Rule
from kubelocal.types import Manifest

__all__ = ["validate", "validate_metadata"]

Walk: TypeAlias = Callable[[Any, str, list[Cause]], None]
RULES: dict[str, tuple[Rule, ...]] = {**pod_validation.RULES, **object_validation.RULES}
OBJECT_CHECKS: dict[str, ObjectCheck] = {
    **pod_validation.OBJECT_CHECKS,
    **object_validation.OBJECT_CHECKS,
    "V1PodTemplateSpec": lambda template, path, causes: _validate_labels(
        template.get("metadata") or {}, f"{path}.metadata", causes
    ),
}
# not validated, because components write it, not users; metadata has its own check
SKIPPED = {"V1Pod.status", "V1Node.status", "V1Job.status"}
EMPTY: tuple[Any, ...] = (None, "", [])
ANNOTATIONS_LIMIT = 256 << 10
# kinds whose names are DNS labels or path segments; all others are DNS subdomains
LABEL_NAMES, PATH_NAMES = {"Namespace"}, {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


def validate(kind: Kind, manifest: Manifest) -> list[Cause]:
    """Return the causes of an invalid object. It must be defaulted and have its name."""
    causes = validate_metadata(kind, manifest)
    if walk := _walk(type_of(kind.kind, kind.group).name):
        walk(manifest, "", causes)
    return causes


def validate_metadata(kind: Kind, manifest: Manifest) -> list[Cause]:
    """Return the causes of invalid metadata."""
    metadata = manifest.get("metadata") or {}
    name, causes = metadata.get("name", ""), list[Cause]()
    if not name:
        causes.append(field_errors.required("metadata.name", "name or generateName is required"))
    else:
        causes += field_errors.broken_rules("metadata.name", name, _name_complaints(kind, name))
    _validate_labels(metadata, "metadata", causes)
    for i, finalizer in enumerate(metadata.get("finalizers", ())):
        complaints = name_validation.label_key(finalizer)
        causes += field_errors.broken_rules(f"metadata.finalizers[{i}]", finalizer, complaints)
    if owners := metadata.get("ownerReferences"):
        _validate_owners(owners, causes)
    return causes


def _validate_labels(metadata: Manifest, path: str, causes: list[Cause]) -> None:
    """Append the causes of invalid labels and annotations, also of a template."""
    for key, value in (metadata.get("labels") or {}).items():
        if complaints := name_validation.label_key(key):
            causes += field_errors.broken_rules(f"{path}.labels", key, complaints)
        if complaints := name_validation.label_value(value):
            causes += field_errors.broken_rules(f"{path}.labels", value, complaints)
    size = 0
    for key, value in (metadata.get("annotations") or {}).items():
        if complaints := name_validation.label_key(key.lower()):
            causes += field_errors.broken_rules(f"{path}.annotations", key, complaints)
        size += len(key.encode()) + len(value.encode())
    if size > ANNOTATIONS_LIMIT:
        causes.append(field_errors.too_long(f"{path}.annotations", ANNOTATIONS_LIMIT))


def _name_complaints(kind: Kind, name: str) -> list[str]:
    if kind.kind in LABEL_NAMES:
        return list(name_validation.dns_label(name))
    if kind.kind == "Service":
        return list(name_validation.dns_1035_label(name))
    if kind.kind in PATH_NAMES:
        problems = [f"may not contain '{sign}'" for sign in "/%" if sign in name]
        return [f"may not be '{name}'"] if name in (".", "..") else problems
    return list(name_validation.dns_subdomain(name))


def _validate_owners(owners: list[Manifest], causes: list[Cause]) -> None:
    for owner in owners:
        causes += [
            field_errors.invalid(f"metadata.ownerReferences.{field}", "", f"{field} must not be empty")
            for field in ("apiVersion", "kind", "name", "uid")
            if not owner.get(field)
        ]
    if len([owner for owner in owners if owner.get("controller")]) > 1:
        detail = "Only one reference can have Controller set to true"
        causes.append(field_errors.invalid("metadata.ownerReferences", owners, detail))


@cache
def _walk(name: str) -> Walk | None:
    """Compile the rules of a type and of the types below it; None without any."""
    rules, check_object = RULES.get(name, ()), OBJECT_CHECKS.get(name)
    required = [(rule.field, rule.detail) for rule in rules if rule.required]
    checks = {rule.field: rule.check for rule in rules if rule.check}
    below = {
        field.name: walk
        for field in struct(name).fields.values()
        if f"{name}.{field.name}" not in SKIPPED and (walk := _walk_below(field.type))
    }
    steps = {field: (checks.get(field), below.get(field)) for field in checks.keys() | below.keys()}
    if not rules and not check_object and not below:
        return None

    def walk_struct(value: Manifest, path: str, causes: list[Cause]) -> None:
        prefix = f"{path}." if path else ""
        for field, detail in required:
            if not (item := value.get(field)) and item in EMPTY:
                causes.append(field_errors.required(prefix + field, detail))
        for field, item in value.items():
            if field in steps and (item or item not in EMPTY):
                check, walk = steps[field]
                if check:
                    causes.extend(check(item, prefix + field))
                if walk:
                    walk(item, prefix + field, causes)
        if check_object:
            check_object(value, path, causes)

    return walk_struct


def _walk_below(field_type: Type) -> Walk | None:
    """Compile the walk of a field that is a struct or a list of structs."""
    if field_type.form == "struct":
        return _walk(field_type.name)
    item_type = field_type.inner if field_type.form == "list" else None
    walk = _walk(item_type.name) if item_type and item_type.form == "struct" else None

    def walk_list(value: Any, path: str, causes: list[Cause]) -> None:
        assert walk is not None
        for i, item in enumerate(value):
            walk(item, f"{path}[{i}]", causes)

    return walk_list if walk else None
