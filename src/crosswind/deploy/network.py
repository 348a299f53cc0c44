"""Network policies: for each component who may call it and whom it may call; everything else is refused."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.addresses import log_store_ports, named_ports, repository_ports, variable_ports
from crosswind.deploy.configuration import api_port, statsd_port, trigger_log_port
from crosswind.deploy.objects import Rendered, named, new, selector
from crosswind.deploy.pgbouncer import PGBOUNCER_PORT
from crosswind.deploy.values import Identity, PodValues, Values
from crosswind.types import Manifest

__all__ = ["network"]

_METADATA_SERVICE = {"0.0.0.0/0": "169.254.169.254/32", "::/0": "fd00:ec2::254/128"}
"""The address at which clouds give away the node's credentials, in all that there is."""

_WITH_DATABASE = ["migrations", "scheduler", "api-server", "dag-processor", "triggerer", "admin-user"]

_MESH_CONTROL = {"istio": (15012,), "linkerd": (8080, 8086, 8090)}
_MESH_INBOUND = {"istio": (15008, 15020), "linkerd": (4143, 4191)}


def network(values: Values) -> Iterator[Rendered]:
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
    """Return, by component, the rules for calls in and for calls out."""
    kubernetes = _kubernetes(values)
    database = [_to(values, "pgbouncer", PGBOUNCER_PORT) if values.pgbouncer.config else _database(values)]
    remote, git = _to_ports(log_store_ports(values)), _to_ports(repository_ports(values))
    metrics = [_to(values, "statsd", statsd_port(values), "UDP")] if values.metrics.statsd else []
    tcp, udp = named_ports(values)
    common = [*_base(values), *metrics, *_to_ports(tcp), *_to_ports(udp, protocol="UDP")]
    found: dict[str, tuple[list[Manifest], list[Manifest]]] = {
        "migrations": ([], [*_base(values), *database]),
        "scheduler": ([], [*common, *database, *kubernetes, *remote]),
        "api-server": (
            _into_api_server(values),
            [*common, *database, *kubernetes, *remote, _to(values, "triggerer", trigger_log_port(values))],
        ),
        "dag-processor": ([], [*common, *database, *git, *remote]),
    }
    if values.triggerer.replicas:
        # triggers call whatever tasks wait for
        found["triggerer"] = (
            [_from(values, ["api-server"], trigger_log_port(values))],
            [*common, *database, _anywhere()],
        )
    if values.reaper.namespaces:
        scraped = {"from": [_namespace(values.metrics.from_namespace)], "ports": _ports(8080)}
        found["reaper"] = ([scraped], [*_base(values), *kubernetes])
    if values.pgbouncer.config:
        callers = _from(values, _WITH_DATABASE, PGBOUNCER_PORT)
        found["pgbouncer"] = ([callers], [*_base(values), _database(values)])
    if values.web.admin:
        found["admin-user"] = ([], [*_base(values), *database])
    if values.metrics.statsd:
        found["statsd"] = (_into_statsd(values), [])
    return found


def _parts(values: Values, component: str) -> list[PodValues]:
    """Return what the values say of a component's pods."""
    own = getattr(values, component.replace("-", "_"), None)
    return [values.pods, own] if isinstance(own, PodValues) else []


def _cloud(parts: list[PodValues]) -> list[Manifest]:
    """Return the calls by which pods with an identity at a cloud get their credentials."""
    owns = [part for part in parts if isinstance(part, Identity) and part.has_identity]
    rules: list[Manifest] = _to_ports([443]) if owns else []
    if any(part.gcp_service_account for part in owns):
        # GKE's metadata server, by its address and behind it on the node
        rules.append(_at(("169.254.169.254/32", "169.254.169.252/32"), 80, 988))
    return rules


def _policy(
    values: Values, component: str, namespace: str, callers: list[Manifest], called: list[Manifest]
) -> Rendered:
    inbound = _MESH_INBOUND.get(values.mesh.kind, ())
    mesh = [{"ports": _ports(*inbound)}] if inbound and component != "statsd" else []
    spec: Manifest = {
        "podSelector": {"matchLabels": selector(values, component)},
        "policyTypes": ["Ingress", "Egress"],
    }
    # an empty list means the same as none, but kubectl apply would find it missing each time
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
    return Rendered(
        f"network/{place}{component}.yaml", f"Who may call the {component}, and whom it may call.", manifest
    )


def _ports(*numbers: int, protocol: str = "TCP") -> list[Manifest]:
    return [{"protocol": protocol, "port": number} for number in numbers]


def _base(values: Values) -> list[Manifest]:
    """DNS wherever it is served (in pods, or on the node), and the mesh's control plane."""
    rules: list[Manifest] = [{"ports": [*_ports(53, protocol="UDP"), *_ports(53)]}]
    if control := _MESH_CONTROL.get(values.mesh.kind):
        rules.append({"to": [{"namespaceSelector": {}}], "ports": _ports(*control)})
    return rules


def _database(values: Values) -> Manifest:
    return _at(values.database.cidrs, values.database.port)


def _kubernetes(values: Values) -> list[Manifest]:
    return [_at(values.network.kubernetes_api, 443, 6443)]


def _at(cidrs: tuple[str, ...], *ports: int) -> Manifest:
    """Allow ports at some addresses, or at all: pods as well, which not every network counts among addresses."""
    rule: Manifest = {"to": [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]} if cidrs else {}
    return {**rule, "ports": _ports(*ports)}


def _to_ports(numbers: list[int], protocol: str = "TCP") -> list[Manifest]:
    return [{"ports": _ports(*numbers, protocol=protocol)}] if numbers else []


def _anywhere() -> Manifest:
    outside = [{"ipBlock": {"cidr": cidr, "except": [hole]}} for cidr, hole in _METADATA_SERVICE.items()]
    return {"to": [{"namespaceSelector": {}}, *outside]}


def _from_worker(values: Values) -> list[Manifest]:
    """Tasks may call everything but the node's credentials: what they need is their authors' business."""
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
