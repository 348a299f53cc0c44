"""All objects of a deployment, in the order in which they depend on each other, and the files they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from crosswind.deploy.admin_user import admin_user
from crosswind.deploy.alerts import alerts
from crosswind.deploy.api_server import api_server
from crosswind.deploy.configuration import config_maps
from crosswind.deploy.dag_processor import dag_processor
from crosswind.deploy.delivery import delivered
from crosswind.deploy.external_secrets import external_secrets
from crosswind.deploy.ingress import ingress
from crosswind.deploy.istio import istio
from crosswind.deploy.migrations import migrations
from crosswind.deploy.namespaces import namespaces
from crosswind.deploy.network import network
from crosswind.deploy.objects import Rendered, as_yaml, file_text
from crosswind.deploy.pgbouncer import pgbouncer
from crosswind.deploy.rbac import rbac
from crosswind.deploy.reaper import reaper
from crosswind.deploy.scheduler import scheduler
from crosswind.deploy.statsd import statsd
from crosswind.deploy.triggerer import triggerer
from crosswind.deploy.values import Values
from crosswind.deploy.volumes import volumes
from crosswind.deploy.worker_admission import worker_admission
from crosswind.deploy.workers import workers

__all__ = ["KUSTOMIZATION", "files", "render"]

KUSTOMIZATION = "Kustomization"
"""A name that kustomize knows and that ``kubectl apply -f``, which takes files by their ending, leaves out."""

_PARTS: tuple[Callable[[Values], Iterator[Rendered]], ...] = (
    namespaces,
    external_secrets,
    config_maps,
    volumes,
    rbac,
    network,
    istio,
    statsd,
    alerts,
    pgbouncer,
    migrations,
    admin_user,
    worker_admission,
    workers,
    scheduler,
    api_server,
    dag_processor,
    triggerer,
    reaper,
    ingress,
)


def render(values: Values) -> list[Rendered]:
    """Return all objects; an object comes after those that it refers to."""
    return [*delivered(values, (rendered for part in _PARTS for rendered in part(values)))]


def files(objects: list[Rendered]) -> dict[str, str]:
    """Return the tree: text by path. Applied in the order of paths, namespaces come first."""
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(rendered.path for rendered in objects),
    }
    found = {rendered.path: file_text(rendered) for rendered in objects}
    assert len(found) == len(objects)
    return {**found, KUSTOMIZATION: as_yaml(kustomization)}
