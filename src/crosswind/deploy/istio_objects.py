"""Istio's objects: encryption, authorisation of callers, the route from the gateway, and external hosts."""

from __future__ import annotations

from collections.abc import Iterator

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
    for host in _external_hosts(values):
        yield _service_entry(values, host)


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


def _service_entry(values: Values, host: tuple[str, int]) -> RenderedObject:
    name, number = host
    encrypted = number == 443
    # A database negotiates encryption inside its own protocol, so the proxy must handle it as plain TCP.
    port = {
        "number": number,
        "name": f"{'tls' if encrypted else 'tcp'}-{number}",
        "protocol": "TLS" if encrypted else "TCP",
    }
    spec = {"hosts": [name], "location": "MESH_EXTERNAL", "resolution": "DNS", "ports": [port]}
    short = named(values, f"{name.replace('.', '-')}-{number}")
    if len(short) > 63:
        short = f"{short[:52].rstrip('-')}-{digest(host, 10)}"
    return RenderedObject(
        f"istio/{short}.yaml",
        f"Lets pods of the mesh call {name}:{number} where only registered hosts may be called.",
        new(values, "networking.istio.io/v1/ServiceEntry", short, "mesh", spec=spec),
    )
