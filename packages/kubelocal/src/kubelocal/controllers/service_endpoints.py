"""Which pods stand behind a Service, and by which names pods find Services, as pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kubelocal.controllers.replica_set_sync import owned
from kubelocal.types import Json, Manifest

__all__ = [
    "DOMAIN",
    "SERVICE",
    "Target",
    "endpoint_slice",
    "headless",
    "host_lines",
    "selects",
    "targets",
    "wants_relay",
]

DOMAIN = "svc.cluster.local"
SERVICE = "kubernetes.io/service-name"
"""The label of an EndpointSlice that names its Service."""

Target = tuple[str, int]
"""A pod's address and port."""


def headless(service: Manifest) -> bool:
    """Whether a Service has no address of its own."""
    return bool(service["spec"].get("clusterIP") == "None")


def selects(service: Manifest, pod: Manifest) -> bool:
    """Whether a pod belongs to a Service; one without selector has its endpoints made by hand."""
    selector, labels = service["spec"].get("selector"), pod["metadata"].get("labels", {})
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def endpoint_slice(service: Manifest, pods: Iterable[Manifest]) -> Manifest:
    """Return the EndpointSlice of a Service, one for all its pods."""
    chosen = [pod for pod in pods if selects(service, pod) and _address(pod) and not _ended(pod)]
    chosen.sort(key=lambda pod: str(pod["metadata"]["name"]))
    metadata = service["metadata"]
    own = {"name": metadata["name"], "namespace": metadata["namespace"]}
    marks = {SERVICE: metadata["name"], "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": owned(service, {**own, "labels": {**metadata.get("labels", {}), **marks}}),
        "addressType": "IPv4",
        "endpoints": [_endpoint(service, pod) for pod in chosen],
        "ports": [_port(port, chosen) for port in service["spec"].get("ports", ())],
    }


def _address(pod: Manifest) -> str:
    return str(pod.get("status", {}).get("podIP") or "")


def _ended(pod: Manifest) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _endpoint(service: Manifest, pod: Manifest) -> Manifest:
    conditions = pod["status"].get("conditions") or ()
    serving = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    terminating = "deletionTimestamp" in pod["metadata"]
    ready = bool(service["spec"].get("publishNotReadyAddresses")) or (serving and not terminating)
    name, metadata = pod["spec"].get("hostname"), pod["metadata"]
    endpoint: Manifest = {
        "addresses": [_address(pod)],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "nodeName": pod["spec"].get("nodeName", ""),
        "targetRef": {
            "kind": "Pod",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
    }
    if name and pod["spec"].get("subdomain") == service["metadata"]["name"]:
        endpoint["hostname"] = name
    return endpoint


def _port(port: Manifest, pods: Sequence[Manifest]) -> Manifest:
    """Return a port as the pods have it; a name resolves by the first pod that declares it."""
    target_port = port.get("targetPort") or port["port"]
    number: Json = target_port
    if isinstance(target_port, str):
        known = (named for pod in pods for named in _ports(pod) if named.get("name") == target_port)
        number = next((named["containerPort"] for named in known), None)
    endpoint_port = {"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")}
    if "appProtocol" in port:
        endpoint_port["appProtocol"] = port["appProtocol"]
    return {key: value for key, value in endpoint_port.items() if value is not None}


def _ports(pod: Manifest) -> Iterator[Manifest]:
    for container in pod["spec"]["containers"]:
        yield from container.get("ports") or ()


# ---------------------------------------------------------------------------------------------- reaching a Service


def _ready(endpoints: Manifest) -> list[Manifest]:
    return [
        endpoint for endpoint in endpoints.get("endpoints") or () if endpoint.get("conditions", {}).get("ready", True)
    ]


def targets(service: Manifest, slices: Iterable[Manifest]) -> dict[tuple[int, str], list[Target]]:
    """Return where each port (number and protocol) of a Service leads: to its ready pods."""
    targets_by_port: dict[tuple[int, str], list[Target]] = {}
    ports = {port.get("name", ""): (int(port["port"]), port.get("protocol", "TCP")) for port in _declared(service)}
    for key in ports.values():
        targets_by_port[key] = []
    for endpoints in slices:
        addresses = [address for endpoint in _ready(endpoints) for address in endpoint["addresses"]]
        for port in endpoints.get("ports") or ():
            if (key_of := ports.get(port.get("name", ""))) and port.get("port"):
                targets_by_port[key_of] += [(address, port["port"]) for address in addresses]
    return targets_by_port


def _declared(service: Manifest) -> list[Manifest]:
    return list(service["spec"].get("ports") or ())


def wants_relay(service: Manifest, slices: Iterable[Manifest]) -> bool:
    """Whether a port of the Service has another number than the pods', so that a name alone does not lead there."""
    return any(number != port for (port, _), pods in targets(service, slices).items() for _, number in pods)


def host_lines(
    services: Iterable[Manifest], slices: Iterable[Manifest], namespace: str, *, direct: bool = False
) -> list[str]:
    """Return the lines of a hosts file in a namespace: each Service's names, and those of a headless one's pods.

    ``direct``: names lead to the pods themselves wherever the ports allow it.
    """
    behind: dict[tuple[str, str], list[Manifest]] = {}
    for endpoint_slice in slices:
        key = endpoint_slice["metadata"]["namespace"], endpoint_slice["metadata"].get("labels", {}).get(SERVICE, "")
        behind.setdefault(key, []).append(endpoint_slice)
    lines: list[str] = []
    for service in services:
        name, place = service["metadata"]["name"], service["metadata"]["namespace"]
        names = [f"{name}.{place}.{DOMAIN}", f"{name}.{place}.svc", f"{name}.{place}"]
        names += [name] if place == namespace else []
        own = behind.get((place, name), [])
        pods = [pod for endpoint_slice in own for pod in _ready(endpoint_slice)]
        if headless(service) or (direct and not wants_relay(service, own)):
            addresses = [address for pod in pods for address in pod["addresses"]]
        else:
            addresses = [address] if (address := service["spec"].get("clusterIP")) else []
        lines += ["\t".join([address, *names]) for address in addresses]
        lines += [
            "\t".join([pod["addresses"][0], f"{pod['hostname']}.{names[0]}"]) for pod in pods if "hostname" in pod
        ]
    return sorted(lines)
