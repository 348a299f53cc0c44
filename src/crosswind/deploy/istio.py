"""What Istio is told: encryption, who may call whom, the way in, and the hosts outside."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.configuration import api_port, trigger_log_port
from crosswind.deploy.objects import Rendered, digest, named, new, selector
from crosswind.deploy.values import Values
from crosswind.types import Manifest

__all__ = ["istio"]

_SECURITY = "security.istio.io/v1"


def istio(values: Values) -> Iterator[Rendered]:
    """Yield Istio's objects; nothing for other meshes."""
    if values.mesh.kind != "istio":
        return
    yield from _encryption(values)
    if values.mesh.workers:
        yield _workers_only(values)
    if values.triggerer.replicas:
        yield _logs_only(values)
    if values.mesh.gateway:
        yield _virtual_service(values, values.mesh.gateway)
    for host in _outside(values):
        yield _service_entry(values, host)


def _encryption(values: Values) -> Iterator[Rendered]:
    opened = not values.mesh.workers or bool(values.web.host and not values.mesh.gateway)
    for namespace in values.namespaces if values.mesh.workers else (values.namespace,):
        # one policy may match a pod: where another opens a port, this one is for the whole namespace and gives way
        spec: Manifest = {} if opened else {"selector": {"matchLabels": {"app.kubernetes.io/instance": values.name}}}
        spec["mtls"] = {"mode": "STRICT"}
        name, place = named(values, "strict"), "" if namespace == values.namespace else f"{namespace}-"
        manifest = new(values, f"{_SECURITY}/PeerAuthentication", name, "mesh", namespace=namespace, spec=spec)
        yield Rendered(f"istio/{place}strict.yaml", "Pods take encrypted calls of the mesh alone.", manifest)
    if opened:
        yield _open_port(values)


def _open_port(values: Values) -> Rendered:
    spec = {
        "selector": {"matchLabels": selector(values, "api-server")},
        "mtls": {"mode": "STRICT"},
        "portLevelMtls": {str(api_port(values)): {"mode": "PERMISSIVE"}},
    }
    who = "the ingress controller" if values.mesh.workers else "workers"
    return Rendered(
        "istio/api-server-open.yaml",
        f"This port takes plain calls too, for {who} may be outside the mesh.",
        new(values, f"{_SECURITY}/PeerAuthentication", named(values, "api-server-open"), "mesh", spec=spec),
    )


def _principal(values: Values, namespace: str, component: str) -> str:
    return f"{values.mesh.trust_domain}/ns/{namespace}/sa/{named(values, component)}"


def _workers_only(values: Values) -> Rendered:
    workers = [_principal(values, namespace, "worker") for namespace in values.worker_namespaces]
    path = f"{values.web.path}/execution"
    rule = {
        "from": [{"source": {"notPrincipals": workers}}],
        "to": [{"operation": {"paths": [path, f"{path}/*"]}}],
    }
    spec = {"selector": {"matchLabels": selector(values, "api-server")}, "action": "DENY", "rules": [rule]}
    name = named(values, "execution-api")
    return Rendered(
        "istio/execution-api.yaml",
        "Only workers may call the execution API.",
        new(values, f"{_SECURITY}/AuthorizationPolicy", name, "mesh", spec=spec),
    )


def _logs_only(values: Values) -> Rendered:
    readers = [_principal(values, values.namespace, "api-server")]
    rule = {
        "from": [{"source": {"notPrincipals": readers}}],
        "to": [{"operation": {"ports": [str(trigger_log_port(values))]}}],
    }
    spec = {"selector": {"matchLabels": selector(values, "triggerer")}, "action": "DENY", "rules": [rule]}
    return Rendered(
        "istio/triggerer-logs.yaml",
        "Only API servers may read the triggerers' logs.",
        new(values, f"{_SECURITY}/AuthorizationPolicy", named(values, "triggerer-logs"), "mesh", spec=spec),
    )


def _virtual_service(values: Values, gateway: str) -> Rendered:
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
    return Rendered(
        "istio/web.yaml",
        "Brings people from the gateway to the UI and REST API, and not to the execution API.",
        new(values, "networking.istio.io/v1/VirtualService", named(values, "web"), "mesh", spec=spec),
    )


def _outside(values: Values) -> Iterator[tuple[str, int]]:
    hosts = [*values.mesh.external_hosts]
    database = values.database.host
    if database and not database.endswith((".svc", f".{values.network.cluster_domain}")):
        hosts.insert(0, f"{database}:{values.database.port}")
    for text in dict.fromkeys(hosts):
        name, _, port = text.partition(":")
        yield name, int(port)


def _service_entry(values: Values, host: tuple[str, int]) -> Rendered:
    name, number = host
    encrypted = number == 443
    # a database begins its encryption inside its own protocol, so it is TCP to the proxy
    port = {
        "number": number,
        "name": f"{'tls' if encrypted else 'tcp'}-{number}",
        "protocol": "TLS" if encrypted else "TCP",
    }
    spec = {"hosts": [name], "location": "MESH_EXTERNAL", "resolution": "DNS", "ports": [port]}
    short = named(values, f"{name.replace('.', '-')}-{number}")
    if len(short) > 63:
        short = f"{short[:52].rstrip('-')}-{digest(host, 10)}"
    return Rendered(
        f"istio/{short}.yaml",
        f"Lets pods of the mesh call {name}:{number} where only registered hosts may be called.",
        new(values, "networking.istio.io/v1/ServiceEntry", short, "mesh", spec=spec),
    )
