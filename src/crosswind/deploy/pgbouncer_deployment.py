"""PgBouncer, which pools the connections of all of Airflow's processes to the database."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.objects import RenderedObject, labels, named, new, selector
from crosswind.deploy.pod_specs import CONTAINER_SECURITY, scheduling
from crosswind.deploy.values import Values
from crosswind.deploy.workload_objects import disruption_budget, service
from crosswind.types import Manifest

__all__ = ["PGBOUNCER_PORT", "pgbouncer"]

PGBOUNCER_PORT = 6543
_FOLDER = "/etc/pgbouncer"


def pgbouncer(values: Values) -> Iterator[RenderedObject]:
    """Yield PgBouncer if the values name a Secret with its configuration."""
    own = values.pgbouncer
    if own.config is None:
        return
    match = {"matchLabels": selector(values, "pgbouncer")}
    template = {"metadata": {"labels": labels(values, "pgbouncer")}, "spec": _pod(values, own.config)}
    if own.annotations or values.pods.annotations:
        template["metadata"]["annotations"] = {**values.pods.annotations, **own.annotations}
    spec = {"replicas": own.replicas, "selector": match, "template": template}
    yield RenderedObject(
        "pgbouncer/deployment.yaml",
        "Pools the connections to the database; without it each process opens several of its own.",
        new(values, "apps/v1/Deployment", named(values, "pgbouncer"), "pgbouncer", spec=spec),
    )
    port = {"name": "tcp-pgbouncer", "port": PGBOUNCER_PORT, "targetPort": "tcp-pgbouncer"}
    yield service(values, "pgbouncer", "The database's address for all of Airflow's programs.", [port])
    yield from disruption_budget(values, "pgbouncer", own)


def _pod(values: Values, secret: str) -> Manifest:
    own = values.pgbouncer
    items = [{"key": key, "path": key} for key in ("pgbouncer.ini", "users.txt")]
    probe = {"tcpSocket": {"port": "tcp-pgbouncer"}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6}
    container: Manifest = {
        "name": "pgbouncer",
        "image": own.image,
        "imagePullPolicy": values.image_pull_policy,
        "command": ["pgbouncer", f"{_FOLDER}/pgbouncer.ini"],
        "env": [*values.pods.env, *own.env],
        "ports": [{"name": "tcp-pgbouncer", "containerPort": PGBOUNCER_PORT}],
        "livenessProbe": probe,
        "readinessProbe": probe,
        "resources": own.resources,
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [
            {"name": "config", "mountPath": _FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a folder in the pod
            *values.pods.volume_mounts,
            *own.volume_mounts,
        ],
    }
    spec: Manifest = {
        "serviceAccountName": named(values, "pgbouncer"),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            **({} if values.platform == "openshift" else {"runAsUser": 65534}),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **scheduling(values, own),
        "containers": [{name: value for name, value in container.items() if value != []}],
        "volumes": [
            {"name": "config", "secret": {"secretName": secret, "items": items}},
            {"name": "tmp", "emptyDir": {}},
            *values.pods.volumes,
            *own.volumes,
        ],
    }
    if own.affinity:
        spec["affinity"] = own.affinity
    return spec
