"""All objects of a deployment in the order of their dependencies, and the files that hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from crosswind.deploy.admin_user import admin_user
from crosswind.deploy.airflow_config import config_maps
from crosswind.deploy.alerts import alerts
from crosswind.deploy.api_server_deployment import api_server
from crosswind.deploy.dag_processor_deployment import dag_processor
from crosswind.deploy.external_secrets import external_secrets
from crosswind.deploy.gitops import annotate_for_delivery
from crosswind.deploy.ingress import ingress
from crosswind.deploy.istio_objects import istio
from crosswind.deploy.migrations import migrations
from crosswind.deploy.namespace_objects import namespaces
from crosswind.deploy.network_policies import network
from crosswind.deploy.objects import RenderedObject, as_yaml, file_text
from crosswind.deploy.pgbouncer_deployment import pgbouncer
from crosswind.deploy.rbac_objects import rbac
from crosswind.deploy.reaper_deployment import reaper
from crosswind.deploy.scheduler_deployment import scheduler
from crosswind.deploy.statsd_exporter import statsd
from crosswind.deploy.triggerer_stateful_set import triggerer
from crosswind.deploy.values import Values
from crosswind.deploy.volume_claims import volumes
from crosswind.deploy.worker_admission import worker_admission
from crosswind.deploy.worker_template import workers

__all__ = ["KUSTOMIZATION", "files", "render"]

KUSTOMIZATION = "Kustomization"
"""A name that kustomize recognises, and that ``kubectl apply -f`` skips because it has no known extension."""

_PARTS: tuple[Callable[[Values], Iterator[RenderedObject]], ...] = (
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


def render(values: Values) -> list[RenderedObject]:
    """Return all objects, each after the objects that it refers to."""
    return [*annotate_for_delivery(values, (rendered for part in _PARTS for rendered in part(values)))]


def files(objects: list[RenderedObject]) -> dict[str, str]:
    """Return the text of each file by its path. In the order of the paths, namespaces come first."""
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(rendered.path for rendered in objects),
    }
    texts = {rendered.path: file_text(rendered) for rendered in objects}
    assert len(texts) == len(objects), "two objects have the same path"
    return {**texts, KUSTOMIZATION: as_yaml(kustomization)}
