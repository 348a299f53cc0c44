"""The Ingress for people. The execution API shares the UI's port and must not be reachable from outside."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.objects import RenderedObject, named, new
from crosswind.deploy.values import Values
from crosswind.types import Manifest

__all__ = ["ingress"]


def ingress(values: Values) -> Iterator[RenderedObject]:
    """Yield an Ingress if the UI has a host name and no gateway of a mesh serves it."""
    if not values.web.host or values.mesh.gateway:
        return
    nowhere = named(values, "nowhere")
    ports = [{"name": "http", "port": 8080}]
    yield RenderedObject(
        "ingress/nowhere.yaml",
        "A Service without pods: an Ingress cannot refuse a path, so it routes the execution API to this Service.",
        new(values, "v1/Service", nowhere, "ingress", spec={"type": "ClusterIP", "ports": ports}),
    )
    manifest = new(values, "networking.k8s.io/v1/Ingress", named(values, "web"), "ingress", spec=_spec(values, nowhere))
    if values.web.annotations:
        manifest["metadata"]["annotations"] = dict(values.web.annotations)
    yield RenderedObject(
        "ingress/ingress.yaml", "Routes people to the UI and REST API, and not to the execution API.", manifest
    )


def _spec(values: Values, nowhere: str) -> Manifest:
    paths = [_path(f"{values.web.path}/execution", nowhere), _path(values.web.path or "/", named(values, "api-server"))]
    spec: Manifest = {"rules": [{"host": values.web.host, "http": {"paths": paths}}]}
    if values.web.ingress_class:
        spec["ingressClassName"] = values.web.ingress_class
    if values.web.tls_secret:
        spec["tls"] = [{"hosts": [values.web.host], "secretName": values.web.tls_secret}]
    return spec


def _path(path: str, service: str) -> Manifest:
    return {
        "path": path,
        "pathType": "Prefix",
        "backend": {"service": {"name": service, "port": {"name": "http"}}},
    }
