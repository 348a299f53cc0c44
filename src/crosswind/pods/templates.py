"""Parses a ``pod_template_file`` strictly: each problem is reported with file, line and fix.

A template must be a Pod and follow two more rules, which are Airflow's own: a container named ``base`` exists and has
an image; ``metadata.name`` is set (each pod gets its own value). ``base`` may be at any place in the list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from crosswind.documents import FieldProblem, parse_document
from crosswind.errors import ConfigError, TemplateError
from crosswind.pods.fragment_shape import without_nulls
from crosswind.pods.shape import SERVER_METADATA, problems, problems_of_references
from crosswind.types import Json, Manifest

__all__ = ["parse_template"]


def parse_template(text: str, where: str) -> Manifest:
    """Return the pod that ``text`` (YAML, one document) describes.

    Fields that only the API server sets (``status``, ``metadata.uid`` and the like, as ``kubectl get`` prints them),
    ``metadata.generateName`` and nulls are dropped. ``where``: the file's path or name, for messages.

    Raises ``TemplateError``: ``FILE:LINE: FIELD the problem; the fix``, one line per problem.
    """
    try:
        document = parse_document(text, where, "the Pod")
    except ConfigError as error:
        raise TemplateError(str(error)) from None
    template = document.content
    if document.root is None:
        raise TemplateError(f"{where}: the file is empty; write a Pod, or leave pod_template_file unset")
    errors = [*document.repeated_keys] or [*_missing_kind(template), *problems(template)]
    if not errors and isinstance(template, dict):
        errors = [*_rules(template), *problems_of_references(template.get("spec") or {}, ("spec",))]
    if errors:
        raise TemplateError(document.describe(errors))
    assert isinstance(template, dict)
    return _without_server_fields(without_nulls("Pod", template))


def _missing_kind(template: Json) -> Iterator[FieldProblem]:
    if isinstance(template, Mapping) and "kind" not in template:
        yield FieldProblem((), "has no kind", "write kind: Pod and apiVersion: v1")


def _rules(template: Manifest) -> Iterator[FieldProblem]:
    if not (template.get("metadata") or {}).get("name"):
        yield FieldProblem(
            ("metadata", "name"), "is not set", "give any name; each pod gets its own in place of it (Airflow's rule)"
        )
    spec = template.get("spec") or {}
    containers = spec.get("containers") or []
    names = [container["name"] for container in containers]
    if "base" not in names:
        have = f"there is only {', '.join(names)}" if names else "there is none"
        init = " (an init container does not count)" if _has_init_base(spec) else ""
        yield FieldProblem(
            ("spec", "containers"),
            f"has no container named base, {have}{init}",
            "name the container that runs the Airflow task: base",
        )
    for index, container in enumerate(containers):
        if not (container.get("image") or "").strip():
            fix = "give it the Airflow image" if container["name"] == "base" else "give it an image"
            yield FieldProblem(
                ("spec", "containers", index, "image"), f"of container {container['name']!r} is not set", fix
            )


def _has_init_base(spec: Manifest) -> bool:
    return any(container.get("name") == "base" for container in spec.get("initContainers") or [])


def _without_server_fields(template: Manifest) -> Manifest:
    kept = {field: value for field, value in template.items() if field != "status"}
    drop = SERVER_METADATA | {"generateName"}
    kept["metadata"] = {field: value for field, value in template["metadata"].items() if field not in drop}
    return kept
