"""Istio's objects: encryption, authorisation of callers, the route from the gateway, and external hosts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from crosswind.deploy.addresses import is_ip
from crosswind.deploy.airflow_config import api_port, trigger_log_port
from crosswind.deploy.objects import RenderedObject, digest, named, new, selector
from crosswind.deploy.values import Values
from crosswind.types import Manifest

__all__ = ["istio"]

_SECURITY = "security.istio.io/v1"


def istio(values: Values) -> Iterator[RenderedObject]:
    """Yield Istio's objects if Istio is the mesh."""
    if values.mesh.kind != "istio":
        return
    yield from _encryption(values)
    if values.mesh.workers:
        yield _workers_only(values)
    if values.triggerer.replicas:
        yield _logs_only(values)
    if values.mesh.gateway:
        yield _virtual_service(values, values.mesh.gateway)
    hosts = [*_external_hosts(values)]
    names = Counter(_entry_name(values, host) for host in hosts)
    for host in hosts:
        name = _entry_name(values, host)
        yield _service_entry(values, host, _with_digest(name, host) if names[name] > 1 else name)


def _encryption(values: Values) -> Iterator[RenderedObject]:
    opens_port = not values.mesh.workers or bool(values.web.host and not values.mesh.gateway)
    for namespace in values.namespaces if values.mesh.workers else (values.namespace,):
        # Istio applies one PeerAuthentication with a selector to a pod. Where _open_port has one for the API server,
        # this one has no selector: it holds for the namespace, and the more specific one takes precedence.
        deployment = {"selector": {"matchLabels": {"app.kubernetes.io/instance": values.name}}}
        spec: Manifest = {} if opens_port else deployment
        spec["mtls"] = {"mode": "STRICT"}
        name, place = named(values, "strict"), "" if namespace == values.namespace else f"{namespace}-"
        manifest = new(values, f"{_SECURITY}/PeerAuthentication", name, "mesh", namespace=namespace, spec=spec)
        yield RenderedObject(f"istio/{place}strict.yaml", "Pods accept encrypted calls of the mesh only.", manifest)
    if opens_port:
        yield _open_port(values)


def _open_port(values: Values) -> RenderedObject:
    spec = {
        "selector": {"matchLabels": selector(values, "api-server")},
        "mtls": {"mode": "STRICT"},
        "portLevelMtls": {str(api_port(values)): {"mode": "PERMISSIVE"}},
    }
    callers = "the ingress controller" if values.mesh.workers else "workers"
    return RenderedObject(
        "istio/api-server-open.yaml",
        f"This port accepts unencrypted calls too, because {callers} may be outside the mesh.",
        new(values, f"{_SECURITY}/PeerAuthentication", named(values, "api-server-open"), "mesh", spec=spec),
    )


def _principal(values: Values, namespace: str, component: str) -> str:
    return f"{values.mesh.trust_domain}/ns/{namespace}/sa/{named(values, component)}"


def _workers_only(values: Values) -> RenderedObject:
    workers = [_principal(values, namespace, "worker") for namespace in values.worker_namespaces]
    path = f"{values.web.path}/execution"
    rule = {
        "from": [{"source": {"notPrincipals": workers}}],
        "to": [{"operation": {"paths": [path, f"{path}/*"]}}],
    }
    spec = {"selector": {"matchLabels": selector(values, "api-server")}, "action": "DENY", "rules": [rule]}
    name = named(values, "execution-api")
    return RenderedObject(
        "istio/execution-api.yaml",
        "Only workers may call the execution API.",
        new(values, f"{_SECURITY}/AuthorizationPolicy", name, "mesh", spec=spec),
    )


def _logs_only(values: Values) -> RenderedObject:
    readers = [_principal(values, values.namespace, "api-server")]
    rule = {
        "from": [{"source": {"notPrincipals": readers}}],
        "to": [{"operation": {"ports": [str(trigger_log_port(values))]}}],
    }
    spec = {"selector": {"matchLabels": selector(values, "triggerer")}, "action": "DENY", "rules": [rule]}
    return RenderedObject(
        "istio/triggerer-logs.yaml",
        "Only API servers may read the triggerers' logs.",
        new(values, f"{_SECURITY}/AuthorizationPolicy", named(values, "triggerer-logs"), "mesh", spec=spec),
    )


def _virtual_service(values: Values, gateway: str) -> RenderedObject:
    host = f"{named(values, 'api-server')}.{values.namespace}.svc.{values.network.cluster_domain}"
    execution = f"{values.web.path}/execution"
    routes: list[Manifest] = [
        {
            "match": [{"uri": {"exact": execution}}, {"uri": {"prefix": f"{execution}/"}}],
            "directResponse": {"status": 404},
        },
        {
            "match": [{"uri": {"prefix": values.web.path or "/"}}],
            "route": [{"destination": {"host": host, "port": {"number": 8080}}}],
            "timeout": "0s",  # logs are streamed
        },
    ]
    spec = {"hosts": [values.web.host], "gateways": [gateway], "http": routes}
    return RenderedObject(
        "istio/web.yaml",
        "Routes people from the gateway to the UI and REST API, and not to the execution API.",
        new(values, "networking.istio.io/v1/VirtualService", named(values, "web"), "mesh", spec=spec),
    )


def _external_hosts(values: Values) -> Iterator[tuple[str, int]]:
    hosts = [*values.mesh.external_hosts]
    database = values.database.host
    if database and not database.endswith((".svc", f".{values.network.cluster_domain}")):
        hosts.insert(0, f"{database}:{values.database.port}")
    for text in dict.fromkeys(hosts):
        name, _, port = text.partition(":")
        yield name, int(port)


def _entry_name(values: Values, host: tuple[str, int]) -> str:
    name = named(values, f"{host[0].replace('.', '-')}-{host[1]}")
    return _with_digest(name, host) if len(name) > 63 else name


def _with_digest(name: str, host: tuple[str, int]) -> str:
    """Return a name of its own for a host: those of ``a.b`` and ``a-b`` are else the same."""
    return f"{name[:52].rstrip('-')}-{digest(host, 10)}"


def _service_entry(values: Values, host: tuple[str, int], name: str) -> RenderedObject:
    address, number = host
    # A database negotiates encryption inside its own protocol, so the proxy must handle it as plain TCP. So it must
    # where the caller names an IP address: without a name in TLS' first message, no TLS route applies.
    encrypted = number == 443 and not is_ip(address)
    port = {
        "number": number,
        "name": f"{'tls' if encrypted else 'tcp'}-{number}",
        "protocol": "TLS" if encrypted else "TCP",
    }
    spec: Manifest = {"hosts": [address], "location": "MESH_EXTERNAL", "resolution": "DNS", "ports": [port]}
    if is_ip(address):
        # An entry needs a host name, which an address is none of. RFC 2606 reserves .invalid: no caller resolves it.
        unused = f"{address.replace('.', '-')}.invalid"
        spec |= {"hosts": [unused], "addresses": [address], "resolution": "STATIC", "endpoints": [{"address": address}]}
    return RenderedObject(
        f"istio/{name}.yaml",
        f"Lets pods of the mesh call {address}:{number} where only registered hosts may be called.",
        new(values, "networking.istio.io/v1/ServiceEntry", name, "mesh", spec=spec),
    )
