"""Finds problems of the composed pods that no section of the values has alone: clashes, unknown volumes, Pod Security.

A pod combines volumes and mounts of the deployment, of ``pods`` and of its component. The API server refuses it if two
of them have the same name or path; only the composed pod shows that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from crosswind.deploy.namespace_objects import enforces_restricted
from crosswind.deploy.references import pod_spec
from crosswind.deploy.tree import render
from crosswind.deploy.values import Values
from crosswind.deploy.worker_template import worker_pod
from crosswind.documents import FieldPath, FieldProblem
from crosswind.pods.field_types import FIELD_TYPES
from crosswind.pods.shape import problems_of_references
from crosswind.types import Json, Manifest

__all__ = ["composed_problems"]

_COPIED = ("volumes", "volume_mounts", "resources")
_UNRESTRICTED = (
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
)
"""Types of volumes that Pod Security's level ``restricted`` allows."""


def composed_problems(values: Values) -> list[FieldProblem]:
    """Return the problems of all pods, each once, at the key of the values that has to change."""
    keys = _keys(values)
    problems: dict[tuple[FieldPath, str], FieldProblem] = {}
    for name, namespaces, spec in _specs(values):
        refused = _restricted(spec) if any(enforces_restricted(values, each) for each in namespaces) else ()
        for problem in (*problems_of_references(spec), *refused):
            path = _in_values(problem.path, spec, keys)
            described = replace(problem, path=path, description=f"{problem.description} ({name})")
            problems.setdefault((path, problem.description), described)
    return [*problems.values()]


def _specs(values: Values) -> Iterator[tuple[str, tuple[str, ...], Manifest]]:
    """Yield the specs of all pods, each with the name of its file and with its namespaces."""
    for rendered in render(values):
        if (spec := pod_spec(rendered.manifest)) is not None:
            yield rendered.path, (rendered.manifest["metadata"]["namespace"],), spec
    yield "workers/pod-template.yaml", values.worker_namespaces, worker_pod(values)["spec"]


def _restricted(spec: Manifest) -> Iterator[FieldProblem]:
    """Yield the volumes for which the label of our own namespace makes the API server refuse the pod."""
    refused = FIELD_TYPES["Volume"].keys() - {"name", *_UNRESTRICTED}
    for index, volume in enumerate(spec.get("volumes") or ()):
        for field in sorted(refused & volume.keys()):
            yield FieldProblem(
                ("volumes", index, field),
                "is refused by Pod Security's level restricted",
                f"use {', '.join(_UNRESTRICTED)}, or write createNamespaces: false and label them yourself",
            )


def _keys(values: Values) -> Mapping[int, FieldPath]:
    """Return the path in the values of each object that pods have from there, by its identity: copies may be equal."""
    keys: dict[int, FieldPath] = {}
    for section, section_field in type(values).model_fields.items():
        part = getattr(values, section)
        for field in _COPIED:
            content = getattr(part, field, None)
            if content is None:
                continue
            path: FieldPath = (str(section_field.alias), str(type(part).model_fields[field].alias))
            keys[id(content)] = path
            if isinstance(content, tuple):
                keys |= {id(item): (*path, index) for index, item in enumerate(content)}
    return keys


def _in_values(path: FieldPath, spec: Manifest, keys: Mapping[int, FieldPath]) -> FieldPath:
    """Return the path in the values for a path in a composed spec."""
    content: Json = spec
    for depth, part in enumerate(path):
        if isinstance(content, Mapping):
            content = content.get(part)
        elif isinstance(content, list) and isinstance(part, int):
            content = content[part]
        if id(content) in keys and isinstance(content, Mapping):
            return (*keys[id(content)], *path[depth + 1 :])
        if isinstance(content, Mapping) and content.get("name") == "dags" and "mountPath" in content:
            return ("dags", "path")
    return ()
