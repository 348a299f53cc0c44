"""Names the fields that a pod has in the cluster and that nobody asked for: injectors and admission added them. Pure.

A field is one text: its kind, the container where it is in one, and its name: ``labels/istio.io/rev``,
``env/base/HTTP_PROXY``. Values are not compared: the API server fills in defaults, and ours are known by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from crosswind.pods.fields import mapping, mappings

__all__ = ["added_fields", "asked_fields", "field_names"]

_OURS = ("labels/crosswind/", "annotations/crosswind/")
"""The executor sets these while a pod lives, so that an earlier state of the pod lacks them."""
_IN_CONTAINERS = {"env": "name", "volumeMounts": "mountPath"}


def field_names(pod: Mapping[str, Any]) -> list[str]:
    """Return the labels, annotations, volumes and containers of a manifest, and each container's env and mounts."""
    metadata, spec = mapping(pod.get("metadata")), mapping(pod.get("spec"))
    names = [f"labels/{name}" for name in mapping(metadata.get("labels"))]
    names += [f"annotations/{name}" for name in mapping(metadata.get("annotations"))]
    names += [f"volumes/{volume.get('name')}" for volume in mappings(spec.get("volumes"))]
    for container in (*mappings(spec.get("initContainers")), *mappings(spec.get("containers"))):
        name = container.get("name")
        names.append(f"containers/{name}")
        for part, key in _IN_CONTAINERS.items():
            names += [f"{part}/{name}/{item.get(key)}" for item in mappings(container.get(part))]
    return names


def asked_fields(manifest: Mapping[str, Any]) -> frozenset[str]:
    """Return the fields of a pod that is about to be created. Equal pods share one object: thousands wait at once."""
    return _shared(frozenset(field_names(manifest)))


@lru_cache(maxsize=256)
def _shared(fields: frozenset[str]) -> frozenset[str]:
    return fields


def added_fields(pod: Mapping[str, Any], asked: Iterable[str]) -> list[str]:
    """Return the fields of a pod that were not asked for, without those of containers that were not either."""
    asked = frozenset(asked)
    return [name for name in field_names(pod) if name not in asked and not _is_expected(name, asked)]


def _is_expected(name: str, asked: frozenset[str]) -> bool:
    kind, _, rest = name.partition("/")
    if kind == "containers":  # they have a list of their own, with how each ended
        return True
    if kind in _IN_CONTAINERS:
        return f"containers/{rest.partition('/')[0]}" not in asked
    return name.startswith(_OURS)
