"""The text of a ``pod_template_file``, read strictly: what is wrong is told with file, line and mend.

Two rules beyond being a Pod, the same as Airflow's own: a container named ``base`` exists and has an image;
``metadata.name`` is set (its value is replaced in each pod). ``base`` may be at any place in the list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from crosswind.bounded_yaml import parse_with_nodes
from crosswind.errors import ConfigError, TemplateError
from crosswind.pods.documents import doubled, told
from crosswind.pods.fields import SERVER_METADATA
from crosswind.pods.shape import Problem, problems
from crosswind.types import Json, Manifest

__all__ = ["parse_template"]


def parse_template(text: str, where: str) -> Manifest:
    """Return the pod that ``text`` (YAML, one document) describes.

    What only the API server may set (``status``, ``metadata.uid`` and the like, as in the output of ``kubectl get``) is
    left out, so is ``metadata.generateName``. ``where`` is the file's path or name, for messages.

    Raises ``TemplateError``: ``FILE:LINE: FIELD what is wrong; how to mend it``, one line for each problem.
    """
    try:
        root, template = parse_with_nodes(text, where, "the Pod")
    except ConfigError as error:
        raise TemplateError(str(error)) from None
    if root is None:
        raise TemplateError(f"{where}: the file is empty; write a Pod, or leave pod_template_file unset")
    found = [*doubled(root, ())]
    found = found or [*_missing_kind(template), *problems(template)]
    if not found and isinstance(template, dict):
        found = [*_rules(template)]
    if found:
        raise TemplateError("\n".join(told(problem, root, where) for problem in found))
    assert isinstance(template, dict)
    return _without_server_fields(template)


def _missing_kind(template: Json) -> Iterator[Problem]:
    if isinstance(template, Mapping) and "kind" not in template:
        yield Problem((), "has no kind", "write kind: Pod and apiVersion: v1")


def _rules(template: Manifest) -> Iterator[Problem]:
    if not (template.get("metadata") or {}).get("name"):
        yield Problem(
            ("metadata", "name"), "is not set", "give any name; each pod gets its own in place of it (Airflow's rule)"
        )
    spec = template.get("spec") or {}
    containers = spec.get("containers") or []
    names = [container["name"] for container in containers]
    if "base" not in names:
        have = f"there is only {', '.join(names)}" if names else "there is none"
        init = " (an init container does not count)" if _has_init_base(spec) else ""
        yield Problem(
            ("spec", "containers"),
            f"has no container named base, {have}{init}",
            "name the container that runs the Airflow task: base",
        )
    for index, container in enumerate(containers):
        if not (container.get("image") or "").strip():
            mend = "give it the Airflow image" if container["name"] == "base" else "give it an image"
            yield Problem(
                ("spec", "containers", index, "image"), f"of container {container['name']!r} is not set", mend
            )


def _has_init_base(spec: Manifest) -> bool:
    return any(container.get("name") == "base" for container in spec.get("initContainers") or [])


def _without_server_fields(template: Manifest) -> Manifest:
    kept = {field: value for field, value in template.items() if field != "status"}
    drop = SERVER_METADATA | {"generateName"}
    kept["metadata"] = {field: value for field, value in template["metadata"].items() if field not in drop}
    return kept
