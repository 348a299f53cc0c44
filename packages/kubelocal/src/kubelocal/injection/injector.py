"""The steps of every injector: render a template and merge the result into a copy of the pod."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, TypeAlias

import yaml

from kubelocal.codec.object_templates import Render, compile_template
from kubelocal.types import Manifest

__all__ = ["Injector", "add", "add_proxy", "annotations_of", "compact", "labels_of", "template"]

Injector: TypeAlias = Callable[[Manifest, Manifest], Manifest]
"""Maps a pod and its namespace to the pod to store: the same pod where it injects nothing."""


@cache
def template(name: str) -> Render:
    """Return the compiled template ``NAME.yaml`` of this package."""
    return compile_template(yaml.safe_load(files(__package__).joinpath(f"{name}.yaml").read_text()))


def labels_of(thing: Manifest) -> Mapping[str, str]:
    """Return an object's labels."""
    return thing["metadata"].get("labels") or {}


def annotations_of(thing: Manifest) -> Mapping[str, str]:
    """Return an object's annotations."""
    return thing["metadata"].get("annotations") or {}


def compact(value: object) -> str:
    """Write JSON without spaces, as Go does."""
    return json.dumps(value, separators=(",", ":"))


def add(
    pod: Manifest,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    volumes: Iterable[Manifest] = (),
    init_first: Iterable[Manifest] = (),
    init_last: Iterable[Manifest] = (),
    first: Iterable[Manifest] = (),
    last: Iterable[Manifest] = (),
) -> Manifest:
    """Merge fields into a pod; labels, annotations, volumes and fields of containers that the user wrote stay."""
    metadata = dict(pod["metadata"])
    for field, added in (("labels", labels), ("annotations", annotations)):
        if added:
            metadata[field] = {**added, **(metadata.get(field) or {})}
    spec = dict(pod["spec"])
    spec["containers"] = _joined(first, spec["containers"], last)
    if inits := _joined(init_first, spec.get("initContainers") or (), init_last):
        spec["initContainers"] = inits
    if joined := _joined((), volumes, spec.get("volumes") or ()):
        spec["volumes"] = joined
    return {**pod, "metadata": metadata, "spec": spec}


def add_proxy(pod: Manifest, rendered: Mapping[str, Any], *, native: bool, hold: bool) -> Manifest:
    """Put a mesh's proxy and its init container into a pod.

    A native proxy comes right after its init container and before the user's, so that these are in the mesh. With
    ``hold`` it is the first container, which the others wait for; else the last.
    """
    init, proxy = rendered["init"], rendered["proxy"]
    added = {key: rendered[key] for key in ("annotations", "labels", "volumes")}
    if native:
        return add(pod, init_first=[init, proxy], **added)
    return add(pod, init_last=[init], first=[proxy] if hold else (), last=() if hold else [proxy], **added)


def _joined(first: Iterable[Manifest], middle: Iterable[Manifest], last: Iterable[Manifest]) -> list[Manifest]:
    """Join lists of named things; what the user names as an injected thing has its fields win over the injector's."""
    first, middle, last = list(first), list(middle), list(last)
    injected = {container["name"] for container in (*first, *last)}
    own = {container["name"]: container for container in middle if container["name"] in injected}
    joined = [*first, *(container for container in middle if container["name"] not in own), *last]
    return [container | own[container["name"]] if container["name"] in own else container for container in joined]
