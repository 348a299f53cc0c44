"""StatsD to Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy import meshes
from crosswind.deploy.configuration import statsd_port, statsd_prefix
from crosswind.deploy.objects import Rendered, as_yaml, digest, labels, named, new, selector
from crosswind.deploy.pods import CONTAINER_SECURITY, scheduling
from crosswind.deploy.values import PodValues, Values, resources
from crosswind.deploy.workloads import http_probe, service
from crosswind.metrics import METRICS, prometheus_name
from crosswind.types import Manifest

__all__ = ["statsd"]

_LABELLED = [metric for metric in METRICS if metric.label and metric.source == "crosswind"]
_FOLDER = "/etc/statsd-exporter"
_MAPPINGS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("dag.*.*.duration", "task_duration", {"dag_id": "$1", "task_id": "$2"}),
    ("dagrun.duration.success.*", "dagrun_duration_success", {"dag_id": "$1"}),
    ("dagrun.duration.failed.*", "dagrun_duration_failed", {"dag_id": "$1"}),
    ("dagrun.schedule_delay.*", "dagrun_schedule_delay", {"dag_id": "$1"}),
    ("ti.start.*.*", "ti_start", {"dag_id": "$1", "task_id": "$2"}),
    ("ti.finish.*.*.*", "ti_finish", {"dag_id": "$1", "task_id": "$2", "state": "$3"}),
    ("pool.open_slots.*", "pool_open_slots", {"pool": "$1"}),
    ("pool.queued_slots.*", "pool_queued_slots", {"pool": "$1"}),
    ("pool.running_slots.*", "pool_running_slots", {"pool": "$1"}),
    *((f"{one.name}.*", prometheus_name(one, "")[1:], {one.label: "$1"}) for one in _LABELLED),
)


def statsd(values: Values) -> Iterator[Rendered]:
    """Yield the exporter with its mappings; nothing when it is switched off."""
    if not values.metrics.statsd:
        return
    prefix = statsd_prefix(values)
    mappings = [
        {"match": f"{prefix}.{match}", "name": f"airflow_{name}", "labels": dict(given)}
        for match, name, given in _MAPPINGS
    ]
    data = {"mappings.yml": as_yaml({"mappings": mappings})}
    yield Rendered(
        "statsd/mappings.yaml",
        "Turns names of Airflow's metrics, which contain DAG and task ids, into labels of Prometheus.",
        new(values, "v1/ConfigMap", named(values, "statsd"), "statsd", data=data),
    )
    yield Rendered(
        "statsd/deployment.yaml",
        "Collects the metrics that all Airflow pods send, and shows them to Prometheus.",
        new(values, "apps/v1/Deployment", named(values, "statsd"), "statsd", spec=_deployment(values, data)),
    )
    told = "The address that Airflow pods send metrics to; UDP, which meshes leave alone."
    ports = [
        {"name": "udp-statsd", "port": statsd_port(values), "targetPort": "udp-statsd", "protocol": "UDP"},
        {"name": "http-metrics", "port": 9102, "targetPort": "http-metrics", "appProtocol": "http"},
    ]
    yield service(values, "statsd", told, ports)


def _deployment(values: Values, data: Manifest) -> Manifest:
    annotations = {
        "checksum/config": digest(data),
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "9102",
        "prometheus.io/path": "/metrics",
    }
    metadata = {
        # no sidecar: Prometheus need not be in the mesh, and StatsD's UDP would not go through it
        "labels": labels(values, "statsd") | meshes.unmeshed_labels(values),
        "annotations": annotations | meshes.unmeshed_annotations(values),
    }
    spec = {
        "serviceAccountName": named(values, "statsd"),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            **({} if values.platform == "openshift" else {"runAsUser": 65534}),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **scheduling(values, PodValues()),
        "containers": [_container(values)],
        "volumes": [{"name": "mappings", "configMap": {"name": named(values, "statsd")}}],
    }
    match = {"matchLabels": selector(values, "statsd")}
    return {"replicas": 1, "selector": match, "template": {"metadata": metadata, "spec": spec}}


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
