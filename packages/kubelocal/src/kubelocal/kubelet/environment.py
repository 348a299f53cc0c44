"""A container's environment, command and arguments, as the kubelet makes them from a pod's spec. Pure.

Expansion: ``$(NAME)`` is replaced when the pod declares NAME or a Service gives it, ``$$`` becomes ``$``, all else
stays (``third_party/forked/golang/expansion`` of Kubernetes).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from math import ceil

from kubelocal.codec.quantities import amount
from kubelocal.types import Manifest

__all__ = [
    "ContainerConfigError",
    "Lookup",
    "downward",
    "environment",
    "expand",
    "field_value",
    "references",
    "resource_value",
    "service_variables",
]

Lookup = Callable[[str, str], Manifest | None]
"""Find a Secret or ConfigMap (kind, name) of the pod's namespace, or None."""

_REFERENCE = re.compile(r"\$(\$|\(([^)]*)\)|.)", re.DOTALL)
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
_FIELDS: dict[str, tuple[str, ...]] = {
    "metadata.name": ("metadata", "name"),
    "metadata.namespace": ("metadata", "namespace"),
    "metadata.uid": ("metadata", "uid"),
    "spec.nodeName": ("spec", "nodeName"),
    "spec.serviceAccountName": ("spec", "serviceAccountName"),
    "status.hostIP": ("status", "hostIP"),
    "status.podIP": ("status", "podIP"),
}


class ContainerConfigError(Exception):
    """The container's configuration cannot be made: a Secret, ConfigMap or key is missing."""


def expand(text: str, known: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` and ``$$``."""

    def value(match: re.Match[str]) -> str:
        whole, name = match.group(1), match.group(2)
        if whole == "$":
            return "$"
        return match.group(0) if name is None or name not in known else known[name]

    return _REFERENCE.sub(value, text)


def references(text: str) -> list[str]:
    """Return the names that ``$(NAME)`` asks for."""
    return [match.group(2) for match in _REFERENCE.finditer(text) if match.group(2) is not None]


def environment(
    pod: Manifest, container: Manifest, services: Mapping[str, str], lookup: Lookup, allocatable: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables that the kubelet sets in a container; they alone are known to ``$(NAME)``.

    Those of the image and of the runtime (PATH, HOME, HOSTNAME) are not: the kubelet never sees them.

    ``services``: those that lead to Services. ``allocatable``: the node's cpu and memory, for limits that are not set.
    Raises ``ContainerConfigError``.
    """
    result = dict(services)
    for source in container.get("envFrom") or ():
        result |= _all_keys(source, lookup)
    for variable in container.get("env") or ():
        if (source := variable.get("valueFrom")) is not None:
            value = _value_from(source, pod, container, lookup, allocatable)
        else:
            value = expand(variable.get("value") or "", result)
        if value is not None:
            result[variable["name"]] = value
    return result


def service_variables(services: Iterable[Manifest]) -> dict[str, str]:
    """Return the variables that lead to Services which have an address (``pkg/kubelet/envvars``).

    A Service called ``flower`` gives FLOWER_PORT=tcp://10.0.0.7:5555, which has broken programs that read such a
    variable.
    """
    variables: dict[str, str] = {}
    for service in services:
        address, ports = service["spec"].get("clusterIP"), service["spec"].get("ports") or []
        if address in (None, "", "None") or not ports:
            continue
        prefix = _variable_name(service["metadata"]["name"])
        variables |= {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(ports[0]["port"])}
        variables |= {
            f"{prefix}_SERVICE_PORT_{_variable_name(p['name'])}": str(p["port"]) for p in ports if p.get("name")
        }
        variables[f"{prefix}_PORT"] = _link(address, ports[0])
        for port in ports:
            protocol = port.get("protocol") or "TCP"
            link = f"{prefix}_PORT_{port['port']}_{protocol}"
            variables |= {link: _link(address, port), f"{link}_PROTO": protocol.lower()}
            variables |= {f"{link}_PORT": str(port["port"]), f"{link}_ADDR": address}
    return variables


def _variable_name(name: str) -> str:
    return name.upper().replace("-", "_")


def _link(address: str, port: Manifest) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"{(port.get('protocol') or 'TCP').lower()}://{host}:{port['port']}"


def _all_keys(source: Manifest, lookup: Lookup) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    kind, reference = (
        ("Secret", source["secretRef"]) if "secretRef" in source else ("ConfigMap", source["configMapRef"])
    )
    source_object = _find(kind, reference, lookup)
    return {} if source_object is None else {prefix + key: text(value) for key, value in data_of(source_object).items()}


def _find(kind: str, reference: Manifest, lookup: Lookup) -> Manifest | None:
    source_object = lookup(kind, reference.get("name", ""))
    if source_object is None and not reference.get("optional"):
        raise ContainerConfigError(f'{kind.lower()} "{reference.get("name", "")}" not found')
    return source_object


def data_of(source_object: Manifest) -> dict[str, bytes]:
    """Return the content of a Secret or ConfigMap by key."""
    if source_object["kind"] == "Secret":
        return {key: base64.b64decode(value or "") for key, value in (source_object.get("data") or {}).items()}
    plain = {key: value.encode() for key, value in (source_object.get("data") or {}).items()}
    return plain | {key: base64.b64decode(value) for key, value in (source_object.get("binaryData") or {}).items()}


def text(value: bytes) -> str:
    """Read bytes as the environment does: any byte is allowed."""
    return value.decode(errors="surrogateescape")


def _value_from(
    source: Manifest, pod: Manifest, container: Manifest, lookup: Lookup, allocatable: Mapping[str, str]
) -> str | None:
    for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
        if reference := source.get(field):
            return _key(kind, reference, pod, lookup)
    if reference := source.get("fieldRef"):
        return field_value(pod, reference["fieldPath"])
    if reference := source.get("resourceFieldRef"):
        return resource_value(_named(pod, reference.get("containerName"), container), reference, allocatable)
    raise ContainerConfigError(f"env source {', '.join(source)} is not known to this kubelet")


def _key(kind: str, reference: Manifest, pod: Manifest, lookup: Lookup) -> str | None:
    source_object = _find(kind, reference, lookup)
    if source_object is None:
        return None
    data = data_of(source_object)
    if reference["key"] in data:
        return text(data[reference["key"]])
    if reference.get("optional"):
        return None
    where = f"{pod['metadata']['namespace']}/{reference['name']}"
    word = "Secret" if kind == "Secret" else "ConfigMap"
    raise ContainerConfigError(f"couldn't find key {reference['key']} in {word} {where}")


def _named(pod: Manifest, name: str | None, default: Manifest) -> Manifest:
    spec = pod["spec"]
    every = [*spec["containers"], *(spec.get("initContainers") or ())]
    return next((container for container in every if container["name"] == name), default)


def field_value(pod: Manifest, path: str) -> str:
    """Return what a ``fieldRef`` means; raises ``ContainerConfigError`` for a field that may not be asked for."""
    if match := _SUBSCRIPT.fullmatch(path):
        return str((pod["metadata"].get(match.group(1)) or {}).get(match.group(2), ""))
    if path in ("metadata.labels", "metadata.annotations"):
        pairs = sorted((pod["metadata"].get(path.split(".")[1]) or {}).items())
        return "\n".join(f'{key}="{_escaped(value)}"' for key, value in pairs)
    if path in ("status.podIPs", "status.hostIPs"):
        return ",".join(pod_ip["ip"] for pod_ip in pod.get("status", {}).get(path.split(".")[1]) or ())
    if path not in _FIELDS:
        raise ContainerConfigError(f"unsupported fieldPath: {path}")
    part, key = _FIELDS[path]
    return str(pod.get(part, {}).get(key, ""))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource_value(container: Manifest, reference: Manifest, allocatable: Mapping[str, str]) -> str:
    """Return what a ``resourceFieldRef`` means: a whole number of divisors, rounded up; no limit is the node's."""
    kind, _, resource = reference["resource"].partition(".")
    quantity = (container.get("resources") or {}).get(kind, {}).get(resource)
    if quantity is None:
        quantity = allocatable.get(resource, "0") if kind == "limits" else "0"
    divisor = amount(str(reference.get("divisor") or "1")) or 1
    return str(ceil(amount(str(quantity)) / divisor))


def downward(pod: Manifest, item: Manifest, allocatable: Mapping[str, str]) -> str:
    """Return the content of a downward API file."""
    if "fieldRef" in item:
        return field_value(pod, item["fieldRef"]["fieldPath"])
    reference = item["resourceFieldRef"]
    return resource_value(_named(pod, reference.get("containerName"), {}), reference, allocatable)
