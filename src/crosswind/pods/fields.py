"""Checked, typed access to the fields of a pod that came as JSON.

A pod comes from an API server, a file or a user, so a field may be missing, null or of another type. ``as_pod`` is the
one place where JSON becomes a ``Pod``. The other functions check each object and each list before they return it, so
that code which reads a pod through them raises for no JSON. Plain values (``phase``, ``exitCode``) are checked where
they are used, by ``text`` and ``number``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crosswind.types import (
    AnyPod,
    Container,
    ContainerState,
    ContainerStatus,
    ObjectMeta,
    OwnerReference,
    Pod,
    PodCondition,
    PodEvent,
    PodSpec,
    PodStatus,
)

__all__ = [
    "JSON_OBJECT",
    "annotations_of",
    "as_events",
    "as_pod",
    "conditions_of",
    "container_of",
    "container_state",
    "container_statuses_of",
    "containers_of",
    "init_containers_of",
    "is_native",
    "labels_of",
    "mapping",
    "mappings",
    "metadata_of",
    "number",
    "owners_of",
    "spec_of",
    "status_of",
    "text",
    "texts",
]

# A pod is judged at each of its changes, so these are built once; dict comes first, because most objects are dicts and
# an instance check against an abstract class costs ten times as much.
JSON_OBJECT, _LIST = (dict, Mapping), (list, tuple)


def _object(value: object) -> Any:
    # Any, so that callers state the type of the field; typing.cast would cost a call for each field of each pod
    return value if isinstance(value, JSON_OBJECT) else {}


def mapping(value: object) -> Mapping[str, Any]:
    """Return ``value`` if it is an object of JSON, else an empty one."""
    return value if isinstance(value, JSON_OBJECT) else {}


def mappings(value: object) -> list[Any]:
    """Return the objects in ``value`` if it is a list, else none."""
    return [item for item in value if isinstance(item, JSON_OBJECT)] if isinstance(value, _LIST) else []


def text(value: object) -> str:
    """Return ``value`` if it is text, else ""."""
    return value if isinstance(value, str) else ""


def texts(value: object) -> list[str]:
    """Return the items of a list as text, none of any other value."""
    return [str(item) for item in value] if isinstance(value, _LIST) else []


def number(value: object) -> int | None:
    """Return ``value`` if it is a whole number, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def as_pod(value: AnyPod) -> Pod:
    """Return JSON as a pod; a value other than an object becomes an empty pod."""
    pod: Pod = _object(value)
    return pod


def as_events(values: object) -> list[PodEvent]:
    """Return the objects of a list of Events."""
    return mappings(values)


def metadata_of(pod: Pod) -> ObjectMeta:
    """Return ``metadata``."""
    metadata: ObjectMeta = _object(pod.get("metadata"))
    return metadata


def spec_of(pod: Pod) -> PodSpec:
    """Return ``spec``."""
    spec: PodSpec = _object(pod.get("spec"))
    return spec


def status_of(pod: Pod) -> PodStatus:
    """Return ``status``."""
    status: PodStatus = _object(pod.get("status"))
    return status


def labels_of(pod: Pod) -> Mapping[str, str]:
    """Return the pod's labels."""
    return mapping(metadata_of(pod).get("labels"))


def annotations_of(pod: Pod) -> Mapping[str, str]:
    """Return the pod's annotations."""
    return mapping(metadata_of(pod).get("annotations"))


def owners_of(pod: Pod) -> list[OwnerReference]:
    """Return the pod's owners."""
    return mappings(metadata_of(pod).get("ownerReferences"))


def containers_of(pod: Pod) -> list[Container]:
    """Return the regular containers of the spec."""
    return mappings(spec_of(pod).get("containers"))


def init_containers_of(pod: Pod) -> list[Container]:
    """Return the init containers of the spec, native sidecars among them."""
    return mappings(spec_of(pod).get("initContainers"))


def container_of(pod: Pod, name: str) -> Container:
    """Return the regular or init container of a name, {} when there is none."""
    declared = (*init_containers_of(pod), *containers_of(pod))
    return next((container for container in declared if container.get("name") == name), Container())


def container_statuses_of(pod: Pod) -> list[ContainerStatus]:
    """Return the statuses of the regular containers."""
    return mappings(status_of(pod).get("containerStatuses"))


def container_state(value: object) -> ContainerState:
    """Return ``value``, the ``state`` or ``lastState`` of a status, if it is an object of JSON, else an empty one."""
    state: ContainerState = _object(value)
    return state


def time_of_state(pod: Pod, container: str, state: str, field: str) -> str:
    """Return a time of a regular container's state, such as ``finishedAt`` of ``terminated``; "" when it is missing."""
    states = (status.get("state") for status in container_statuses_of(pod) if status.get("name") == container)
    return text(mapping(mapping(next(states, None)).get(state)).get(field))


def conditions_of(pod: Pod) -> list[PodCondition]:
    """Return the pod's conditions."""
    return mappings(status_of(pod).get("conditions"))


def is_native(container: Container) -> bool:
    """Return whether an init container of a spec is a native sidecar (KEP-753)."""
    return container.get("restartPolicy") == "Always"
