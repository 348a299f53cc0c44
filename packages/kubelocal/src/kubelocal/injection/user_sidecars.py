"""Injection of any container that a settings file declares.

::

    sidecars:
      - when: {'namespace.metadata.labels["logs"]': shipped, 'pod.metadata.annotations["no-logs"]': false}
        container: {name: log-shipper, image: fluent/fluent-bit:3.2}
        native: false    # true: a native sidecar
        first: false     # true: before the pod's own containers
        volumes: []

``when`` and placeholders in ``container`` and ``volumes`` are those of ``kubelocal.codec.object_templates``, with
``pod`` and ``namespace``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kubelocal.codec.object_templates import check_fields, compile_condition, compile_template
from kubelocal.errors import SettingError
from kubelocal.injection.injector import Injector, add
from kubelocal.types import Manifest
from kubelocal.yaml_input import parse, read_text

__all__ = ["declared", "load"]

FIELDS = {"when": dict, "container": dict, "native": bool, "first": bool, "volumes": list}


def load(path: Path) -> list[Injector]:
    """Return one injector per declared sidecar. ``SettingError``: the file cannot be read or a field is wrong."""
    document = parse(read_text(path, what="sidecars file"), f"sidecars file {path}")
    sidecars = document.get("sidecars") if isinstance(document, dict) else None
    if not isinstance(sidecars, list):
        raise SettingError(f"sidecars file {path}: write a mapping with the list `sidecars`")
    return [declared(entry, f"sidecars file {path}: sidecars[{index}]") for index, entry in enumerate(sidecars)]


def declared(entry: Any, where: str) -> Injector:
    """Return the injector of one entry; ``where`` begins the message of a ``SettingError``."""
    check_fields(entry, FIELDS, where)
    if not {"name", "image"} <= entry.get("container", {}).keys():
        raise SettingError(f"{where}.container: name and image are needed")
    try:
        matches = compile_condition(entry.get("when", {}))
        render = compile_template({"container": entry["container"], "volumes": entry.get("volumes", [])})
    except ValueError as error:
        raise SettingError(f"{where}: {error}") from error
    name, native, first = entry["container"]["name"], entry.get("native", False), entry.get("first", False)

    def inject(pod: Manifest, namespace: Manifest) -> Manifest:
        scope = {"pod": pod, "namespace": namespace}
        there = (*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ()))
        if any(container["name"] == name for container in there) or not matches(scope):
            return pod
        rendered = render(scope)
        if native:
            sidecar = {**rendered["container"], "restartPolicy": "Always"}
            early, late = ([sidecar], []) if first else ([], [sidecar])
            return add(pod, volumes=rendered["volumes"], init_first=early, init_last=late)
        early, late = ([rendered["container"]], []) if first else ([], [rendered["container"]])
        return add(pod, volumes=rendered["volumes"], first=early, last=late)

    return inject
