"""Network policies: for each component, the callers and the destinations that are allowed; all others are refused."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.address_ports import log_store_ports, named_ports, repository_ports, variable_ports
from crosswind.deploy.airflow_config import api_port, statsd_port, trigger_log_port
from crosswind.deploy.objects import RenderedObject, named, new, selector
from crosswind.deploy.pgbouncer_deployment import PGBOUNCER_PORT
from crosswind.deploy.value_sections import IdentityValues, PodValues
from crosswind.deploy.values import Values
from crosswind.types import Manifest

__all__ = ["network"]

_METADATA_SERVICE = {"0.0.0.0/0": "169.254.169.254/32", "::/0": "fd00:ec2::254/128"}
"""All addresses, and in each family the one at which clouds serve the node's credentials."""

_WITH_DATABASE = ["migrations", "scheduler", "api-server", "dag-processor", "triggerer", "admin-user"]

_MESH_CONTROL = {"istio": (15012,), "linkerd": (8080, 8086, 8090)}
_MESH_INBOUND = {"istio": (15008, 15020), "linkerd": (4143, 4191)}


def network(values: Values) -> Iterator[RenderedObject]:
    """Yield a policy for each component, in each namespace where its pods are."""
    if not values.network.policies:
        return
    for component, (callers, called) in _calls(values).items():
        parts = _parts(values, component)
        own = [*_to_ports(variable_ports(*parts)), *_cloud(parts)]
        yield _policy(values, component, values.namespace, callers, [*called, *own])
    for namespace in values.worker_namespaces:
        yield _policy(values, "worker", namespace, [], [*_from_worker(values), *_cloud([values.workers])])


def _calls(values: Values) -> dict[str, tuple[list[Manifest], list[Manifest]]]:
    """Return the rules for ingress and for egress by component."""
    kubernetes = _kubernetes(values)
    database = [_to(values, "pgbouncer", PGBOUNCER_PORT) if values.pgbouncer.config else _database(values)]
    remote, git = _to_ports(log_store_ports(values)), _to_ports(repository_ports(values))
    metrics = [_to(values, "statsd", statsd_port(values), "UDP")] if values.metrics.statsd else []
    tcp, udp = named_ports(values)
    common = [*_base(values), *metrics, *_to_ports(tcp), *_to_ports(udp, protocol="UDP")]
    calls: dict[str, tuple[list[Manifest], list[Manifest]]] = {
        "migrations": ([], [*_base(values), *database]),
        "scheduler": ([], [*common, *database, *kubernetes, *remote]),
        "api-server": (
            _into_api_server(values),
            [*common, *database, *kubernetes, *remote, _to(values, "triggerer", trigger_log_port(values))],
        ),
        "dag-processor": ([], [*common, *database, *git, *remote]),
    }
    if values.triggerer.replicas:
        # Triggers call any service that tasks wait for.
        calls["triggerer"] = (
            [_from(values, ["api-server"], trigger_log_port(values))],
            [*common, *database, _anywhere()],
        )
    if values.reaper.namespaces:
        scraped = {"from": [_namespace(values.metrics.from_namespace)], "ports": _ports(8080)}
        calls["reaper"] = ([scraped], [*_base(values), *kubernetes])
    if values.pgbouncer.config:
        callers = _from(values, _WITH_DATABASE, PGBOUNCER_PORT)
        calls["pgbouncer"] = ([callers], [*_base(values), _database(values)])
    if values.web.admin:
        calls["admin-user"] = ([], [*_base(values), *database])
    if values.metrics.statsd:
        calls["statsd"] = (_into_statsd(values), [])
    return calls


def _parts(values: Values, component: str) -> list[PodValues]:
    """Return the sections of the values about a component's pods."""
    own = getattr(values, component.replace("-", "_"), None)
    return [values.pods, own] if isinstance(own, PodValues) else []


def _cloud(parts: list[PodValues]) -> list[Manifest]:
    """Return the egress rules by which pods with a cloud identity get their credentials."""
    identities = [part for part in parts if isinstance(part, IdentityValues) and part.has_identity]
    rules: list[Manifest] = _to_ports([443]) if identities else []
    if any(part.gcp_service_account for part in identities):
        # GKE's metadata server: its well-known address, and the address on the node that serves it.
        rules.append(_at(("169.254.169.254/32", "169.254.169.252/32"), 80, 988))
    return rules


def _policy(
    values: Values, component: str, namespace: str, callers: list[Manifest], called: list[Manifest]
) -> RenderedObject:
    inbound = _MESH_INBOUND.get(values.mesh.kind, ())
    mesh = [{"ports": _ports(*inbound)}] if inbound and component != "statsd" else []
    spec: Manifest = {
        "podSelector": {"matchLabels": selector(values, component)},
        "policyTypes": ["Ingress", "Egress"],
    }
    # An empty list means the same as no list, but the API server drops it, and every diff would show it.
    spec |= {name: rules for name, rules in (("ingress", [*callers, *mesh]), ("egress", called)) if rules}
    place = "" if namespace == values.namespace else f"{namespace}-"
    manifest = new(
        values,
        "networking.k8s.io/v1/NetworkPolicy",
        named(values, component),
        component,
        namespace=namespace,
        spec=spec,
    )
    return RenderedObject(
        f"network/{place}{component}.yaml", f"Allowed callers and destinations of the {component}.", manifest
    )


def _ports(*numbers: int, protocol: str = "TCP") -> list[Manifest]:
    return [{"protocol": protocol, "port": number} for number in numbers]


def _base(values: Values) -> list[Manifest]:
    """Allow DNS at any address, because it may be served by pods or by the node, and the mesh's control plane."""
    rules: list[Manifest] = [{"ports": [*_ports(53, protocol="UDP"), *_ports(53)]}]
    if control := _MESH_CONTROL.get(values.mesh.kind):
        rules.append({"to": [{"namespaceSelector": {}}], "ports": _ports(*control)})
    return rules


def _database(values: Values) -> Manifest:
    return _at(values.database.cidrs, values.database.port)


def _kubernetes(values: Values) -> list[Manifest]:
    return [_at(values.network.kubernetes_api, 443, 6443)]


def _at(cidrs: tuple[str, ...], *ports: int) -> Manifest:
    """Allow ports at some addresses, or at all, pods included: not every network plug-in matches pods by ipBlock."""
    rule: Manifest = {"to": [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]} if cidrs else {}
    return {**rule, "ports": _ports(*ports)}


def _to_ports(numbers: list[int], protocol: str = "TCP") -> list[Manifest]:
    return [{"ports": _ports(*numbers, protocol=protocol)}] if numbers else []


def _anywhere() -> Manifest:
    outside = [{"ipBlock": {"cidr": cidr, "except": [hole]}} for cidr, hole in _METADATA_SERVICE.items()]
    return {"to": [{"namespaceSelector": {}}, *outside]}


def _from_worker(values: Values) -> list[Manifest]:
    """Allow tasks all destinations except the node's credentials: which ones a task needs only its author knows."""
    return [*_base(values), _anywhere()]


def _to(values: Values, component: str, port: int, protocol: str = "TCP") -> Manifest:
    pods = {"podSelector": {"matchLabels": selector(values, component)}}
    return {"to": [pods], "ports": _ports(port, protocol=protocol)}


def _from(values: Values, components: list[str], port: int) -> Manifest:
    pods = [{"podSelector": {"matchLabels": selector(values, component)}} for component in components]
    return {"from": pods, "ports": _ports(port)}


def _into_api_server(values: Values) -> list[Manifest]:
    workers = [_pods_in(values, namespace, "worker") for namespace in values.worker_namespaces]
    ports = _ports(api_port(values))
    rules: list[Manifest] = [{"from": workers, "ports": ports}]
    if values.web.host:
        rules.append({"from": [_namespace(values.web.from_namespace)], "ports": ports})
    return rules


def _into_statsd(values: Values) -> list[Manifest]:
    senders = [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/instance": values.name}},
        }
        for namespace in values.namespaces
    ]
    return [
        {"from": senders, "ports": _ports(statsd_port(values), protocol="UDP")},
        {"from": [_namespace(values.metrics.from_namespace)], "ports": _ports(9102)},
    ]


def _pods_in(values: Values, namespace: str, component: str) -> Manifest:
    pods = {"podSelector": {"matchLabels": selector(values, component)}}
    return {**_namespace(namespace), **pods} if namespace != values.namespace else pods


def _namespace(name: str | None) -> Manifest:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}} if name else {}}
