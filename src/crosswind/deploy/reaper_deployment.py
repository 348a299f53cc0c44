"""The reaper, for pods that neither the executor nor the pod operator owns. It is off without ``reaper.namespaces``."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy import meshes
from crosswind.deploy.objects import RenderedObject, labels, named, new, selector
from crosswind.deploy.pod_specs import CONTAINER_SECURITY, pod_security, scheduling
from crosswind.deploy.values import Values
from crosswind.deploy.workload_objects import disruption_budget, http_probe
from crosswind.types import Json, Manifest

__all__ = ["reaper"]


def reaper(values: Values) -> Iterator[RenderedObject]:
    """Yield the reapers if the values name namespaces for them."""
    own = values.reaper
    if not own.namespaces:
        return
    match = {"matchLabels": selector(values, "reaper")}
    spec = {"replicas": own.replicas, "selector": match, "template": _template(values)}
    yield RenderedObject(
        "reaper/deployment.yaml",
        "Ends the sidecars of Jobs and other pods whose main container has ended; one replica is active at a time.",
        new(values, "apps/v1/Deployment", named(values, "reaper"), "reaper", spec=spec),
    )
    yield from disruption_budget(values, "reaper", own)


def _template(values: Values) -> Manifest:
    own = values.reaper
    spec: Manifest = {
        "serviceAccountName": named(values, "reaper"),
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "securityContext": pod_security(values),
        "terminationGracePeriodSeconds": 15,
        **scheduling(values, own),
        "containers": [_container(values)],
        "volumes": [{"name": "tmp", "emptyDir": {}}, *values.pods.volumes, *own.volumes],
    }
    if own.affinity:
        spec["affinity"] = own.affinity
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "prometheus.io/path": "/metrics"}
    metadata = {
        # It calls only the Kubernetes API, so it needs no sidecar.
        "labels": labels(values, "reaper") | meshes.unmeshed_labels(values),
        "annotations": {**scraped, **meshes.unmeshed_annotations(values), **values.pods.annotations, **own.annotations},
    }
    return {"metadata": metadata, "spec": spec}


def _container(values: Values) -> Manifest:
    own = values.reaper
    env: list[Json] = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "CONNECTION_CHECK_MAX_COUNT", "value": "0"},  # the image's entrypoint would wait for a database
        *values.pods.env,
        *own.env,
    ]
    return {
        "name": "reaper",
        "image": values.image,
        "imagePullPolicy": values.image_pull_policy,
        "args": ["python", "-m", "crosswind", "reap", *_options(values)],
        "env": [*{variable["name"]: variable for variable in env}.values()],
        "ports": [{"name": "http", "containerPort": 8080}],
        "startupProbe": http_probe("/healthz", "http", period=5, failures=60),
        "livenessProbe": http_probe("/healthz", "http", period=20, failures=3),
        "readinessProbe": http_probe("/readyz", "http", period=10, failures=3),
        "resources": own.resources,
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a folder in the pod
            *values.pods.volume_mounts,
            *own.volume_mounts,
        ],
    }


def _options(values: Values) -> list[str]:
    own = values.reaper
    return [
        *(f"--namespace={namespace}" for namespace in own.namespaces),
        f"--selector={own.selector}",
        f"--permissions={own.permissions}",
        f"--lease={values.namespace}/{named(values, 'reaper')}",
        "--listen=$(POD_IP):8080",
    ]
