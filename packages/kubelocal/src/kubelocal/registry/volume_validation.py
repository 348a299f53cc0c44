"""Validation rules of volumes and security contexts, with the messages of ``pkg/apis/core/validation``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubelocal.codec import field_errors
from kubelocal.codec.status_errors import Cause
from kubelocal.registry.validation_rules import exactly_one
from kubelocal.types import Manifest

__all__ = ["downward_file", "projected", "security_context"]

FIELD_PATHS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_ONE = exactly_one(
    ("fieldRef", "resourceFieldRef"),
    "one of fieldRef and resourceFieldRef is required",
    "fieldRef and resourceFieldRef can not be specified simultaneously",
)


def downward_file(item: Manifest, path: str, causes: list[Cause]) -> None:
    """A downward API file holds a field that is fixed before scheduling, or a resource of a named container."""
    _ONE(item, path, causes)
    field = (item.get("fieldRef") or {}).get("fieldPath", "")
    if field and field not in FIELD_PATHS and not re.fullmatch(r"metadata\.(labels|annotations)\['[^']+'\]", field):
        causes.append(field_errors.unsupported(f"{path}.fieldRef.fieldPath", field, FIELD_PATHS))
    resource = item.get("resourceFieldRef")
    if resource is not None and not resource.get("containerName"):
        causes.append(field_errors.required(f"{path}.resourceFieldRef.containerName"))


def projected(volume: Manifest, path: str, causes: list[Cause]) -> None:
    """Two sources of a projected volume may not have equal explicit paths."""
    seen: set[str] = set()
    for source in volume.get("sources") or ():
        for name, place in _written(source):
            if place in seen:
                causes.append(field_errors.invalid(path, name, "conflicting duplicate paths"))
            seen.add(place)


def _written(source: Manifest) -> Iterator[tuple[str, str]]:
    """Yield name and path of each file that a source names."""
    for kind in ("secret", "configMap", "downwardAPI"):
        part = source.get(kind) or {}
        for item in part.get("items") or ():
            yield part.get("name") or item.get("path", ""), item.get("path", "")
    if path := (source.get("serviceAccountToken") or {}).get("path"):
        yield path, path


def security_context(context: Manifest, path: str, causes: list[Cause]) -> None:
    """A privileged container cannot set allowPrivilegeEscalation to false."""
    if context.get("allowPrivilegeEscalation") is not False:
        return
    added = (context.get("capabilities") or {}).get("add") or ()
    for what, is_set in (
        ("`privileged` to true", context.get("privileged")),
        ("`capabilities.Add` CAP_SYS_ADMIN", "CAP_SYS_ADMIN" in added),
    ):
        if is_set:
            detail = f"cannot set `allowPrivilegeEscalation` to false and {what}"
            causes.append(field_errors.invalid(path, dict(context), detail))
