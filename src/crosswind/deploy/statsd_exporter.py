"""The exporter that converts StatsD metrics to Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy import meshes
from crosswind.deploy.airflow_config import statsd_port, statsd_prefix
from crosswind.deploy.objects import RenderedObject, as_yaml, digest, labels, named, new, selector
from crosswind.deploy.pod_specs import CONTAINER_SECURITY, scheduling
from crosswind.deploy.value_sections import PodValues, resources
from crosswind.deploy.values import Values
from crosswind.deploy.workload_objects import http_probe, service
from crosswind.metrics import METRICS, Metric, prometheus_name
from crosswind.types import Manifest

__all__ = ["pod_user", "statsd"]

_OWN = [metric for metric in METRICS if metric.source == "crosswind"]
_FOLDER = "/etc/statsd-exporter"


def _labels(metric: Metric) -> Iterator[dict[str, str]]:
    """Yield the labels of one of our metrics, by the parts after its name: without a team, and with one."""
    if metric.label:
        yield {metric.label: "$1"}
        yield {metric.label: "$1", "team_name": "$2"}
    else:
        yield {"team_name": "$1"}


_MAPPINGS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("dag.*.*.duration", "task_duration", {"dag_id": "$1", "task_id": "$2"}),
    ("dag.*.*.scheduled_duration", "task_scheduled_duration", {"dag_id": "$1", "task_id": "$2"}),
    ("dagrun.duration.success.*", "dagrun_duration_success", {"dag_id": "$1"}),
    ("dagrun.duration.failed.*", "dagrun_duration_failed", {"dag_id": "$1"}),
    ("dagrun.schedule_delay.*", "dagrun_schedule_delay", {"dag_id": "$1"}),
    ("ti.scheduled.*.*.*", "ti_scheduled", {"queue": "$1", "dag_id": "$2", "task_id": "$3"}),
    ("ti.queued.*.*.*", "ti_queued", {"queue": "$1", "dag_id": "$2", "task_id": "$3"}),
    ("ti.running.*.*.*", "ti_running", {"queue": "$1", "dag_id": "$2", "task_id": "$3"}),
    ("ti.deferred.*.*.*", "ti_deferred", {"queue": "$1", "dag_id": "$2", "task_id": "$3"}),
    ("ti.start.*.*", "ti_start", {"dag_id": "$1", "task_id": "$2"}),
    ("ti.finish.*.*.*", "ti_finish", {"dag_id": "$1", "task_id": "$2", "state": "$3"}),
    ("pool.open_slots.*", "pool_open_slots", {"pool": "$1"}),
    ("pool.queued_slots.*", "pool_queued_slots", {"pool": "$1"}),
    ("pool.running_slots.*", "pool_running_slots", {"pool": "$1"}),
    *(
        (metric.name + ".*" * len(labels), prometheus_name(metric, "")[1:], labels)
        for metric in _OWN
        for labels in _labels(metric)
    ),
)
"""Pattern of StatsD's name, Prometheus' name, labels."""


def statsd(values: Values) -> Iterator[RenderedObject]:
    """Yield the exporter with its mappings if ``metrics.statsd`` is on."""
    if not values.metrics.statsd:
        return
    prefix = statsd_prefix(values)
    mappings = [
        {"match": f"{prefix}.{pattern}", "name": f"airflow_{name}", "labels": dict(metric_labels)}
        for pattern, name, metric_labels in _MAPPINGS
    ]
    data = {"mappings.yml": as_yaml({"mappings": mappings})}
    yield RenderedObject(
        "statsd/mappings.yaml",
        "Converts DAG and task ids in the names of Airflow's metrics to labels of Prometheus.",
        new(values, "v1/ConfigMap", named(values, "statsd"), "statsd", data=data),
    )
    yield RenderedObject(
        "statsd/deployment.yaml",
        "Collects the metrics that all Airflow pods send, and serves them to Prometheus.",
        new(values, "apps/v1/Deployment", named(values, "statsd"), "statsd", spec=_deployment(values, data)),
    )
    reason = "The address that Airflow pods send metrics to, by UDP, which meshes do not redirect."
    ports = [
        {"name": "udp-statsd", "port": statsd_port(values), "targetPort": "udp-statsd", "protocol": "UDP"},
        {"name": "http-metrics", "port": 9102, "targetPort": "http-metrics", "appProtocol": "http"},
    ]
    yield service(values, "statsd", reason, ports)


def _deployment(values: Values, data: Manifest) -> Manifest:
    annotations = {
        "checksum/config": digest(data),
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "9102",
        "prometheus.io/path": "/metrics",
    }
    metadata = {
        # No sidecar: Prometheus may be outside the mesh, and the proxy does not handle StatsD's UDP.
        "labels": labels(values, "statsd") | meshes.unmeshed_labels(values),
        "annotations": annotations | meshes.unmeshed_annotations(values),
    }
    spec = {
        "serviceAccountName": named(values, "statsd"),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_user(values),
        **scheduling(values, PodValues()),
        "containers": [_container(values)],
        "volumes": [{"name": "mappings", "configMap": {"name": named(values, "statsd")}}],
    }
    match = {"matchLabels": selector(values, "statsd")}
    return {"replicas": 1, "selector": match, "template": {"metadata": metadata, "spec": spec}}


def pod_user(values: Values) -> Manifest:
    """Return the exporter's user. On OpenShift the namespace's range determines it."""
    user = {} if values.platform == "openshift" else {"runAsUser": 65534}
    return {"runAsNonRoot": True, **user, "seccompProfile": {"type": "RuntimeDefault"}}


def _container(values: Values) -> Manifest:
    return {
        "name": "statsd",
        "image": values.metrics.image,
        "args": [
            "--statsd.cache-size=1000",
            "--statsd.cache-type=lru",
            f"--statsd.mapping-config={_FOLDER}/mappings.yml",
            f"--statsd.listen-udp=:{statsd_port(values)}",
        ],
        "ports": [
            {"name": "udp-statsd", "containerPort": statsd_port(values), "protocol": "UDP"},
            {"name": "http-metrics", "containerPort": 9102},
        ],
        "livenessProbe": http_probe("/metrics", "http-metrics", period=30, failures=3),
        "readinessProbe": http_probe("/metrics", "http-metrics", period=10, failures=3),
        "resources": resources("50m", "128Mi"),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [{"name": "mappings", "mountPath": _FOLDER, "readOnly": True}],
    }
