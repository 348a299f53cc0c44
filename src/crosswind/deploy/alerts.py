"""Alert rules for the Prometheus operator: what a person should look at, with where to look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from crosswind.deploy.configuration import statsd_prefix
from crosswind.deploy.objects import Rendered, named, new
from crosswind.deploy.values import Values
from crosswind.types import Manifest

__all__ = ["ALERTS", "Alert", "alerts"]


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule: it fires when ``expression`` has held for ``lasting`` (a duration of Prometheus).

    The exporter's mappings name metrics that have a label; others keep Airflow's prefix, ``PREFIX`` in an expression.
    """

    name: str
    expression: str
    lasting: str
    severity: str
    summary: str
    look: str


ALERTS = (
    Alert(
        "AirflowSchedulerSilent",
        "sum(rate(PREFIX_scheduler_heartbeat[5m])) == 0 or absent(PREFIX_scheduler_heartbeat)",
        "10m",
        "critical",
        "No scheduler has sent a heartbeat for ten minutes; no task starts.",
        "kubectl logs of the scheduler, and whether the database answers",
    ),
    Alert(
        "CrosswindWatchSilent",
        "max(PREFIX_crosswind_watch_silence) > 300",
        "5m",
        "critical",
        "The API server has reported no pod for five minutes; the ends of tasks are seen late.",
        "the scheduler's log, and the API server's load",
    ),
    Alert(
        "CrosswindPodsHeldUp",
        "sum by (reason) (airflow_crosswind_pods_held_up) > 0",
        "15m",
        "warning",
        "Pods of tasks have waited for {{ $labels.reason }} for a quarter of an hour.",
        "the tab Pod of a waiting task, or its event log",
    ),
    Alert(
        "CrosswindPodsFail",
        'sum by (reason) (increase(airflow_crosswind_pod_failures{reason!="Error"}[15m])) > 5',
        "0m",
        "warning",
        "More than five pods of tasks failed by {{ $labels.reason }} in a quarter of an hour.",
        "the event log of the failed tasks; memory limits for OOMKilled, nodes for Evicted",
    ),
    Alert(
        "CrosswindApiPushesBack",
        "sum(rate(airflow_crosswind_pushed_back[5m])) > 1",
        "10m",
        "warning",
        "The API server pushes back more than one request a second; pods are created slowly.",
        "API priority and fairness, quotas, webhooks that answer slowly",
    ),
    Alert(
        "AirflowNoSlots",
        "min(PREFIX_executor_open_slots) == 0 and max(PREFIX_executor_queued_tasks) > 0",
        "15m",
        "warning",
        "All slots have been taken for a quarter of an hour while tasks wait.",
        "[core] parallelism, and tasks that never end",
    ),
    Alert(
        "CrosswindLogsWait",
        "max(PREFIX_crosswind_logs_to_keep) > 100",
        "15m",
        "warning",
        "More than a hundred pods wait until their logs are stored.",
        "whether the metadata database takes writes",
    ),
)
"""All rules, over the metrics of docs/metrics.md as the exporter of these manifests names them."""


def alerts(values: Values) -> Iterator[Rendered]:
    """Yield the rules; nothing unless they are switched on."""
    if not values.metrics.alerts:
        return
    spec = {"groups": [{"name": named(values, "alerts"), "rules": [_rule(values, alert) for alert in ALERTS]}]}
    manifest = new(values, "monitoring.coreos.com/v1/PrometheusRule", named(values, "alerts"), "statsd", spec=spec)
    manifest["metadata"]["labels"] |= values.metrics.alert_labels
    yield Rendered(
        "monitoring/alerts.yaml",
        "Tells Prometheus when a person should look, and where; the Prometheus operator reads it.",
        manifest,
    )


def _rule(values: Values, alert: Alert) -> Manifest:
    return {
        "alert": alert.name,
        "expr": alert.expression.replace("PREFIX", statsd_prefix(values).replace(".", "_")),
        "for": alert.lasting,
        "labels": {"severity": alert.severity, "namespace": values.namespace},
        "annotations": {"summary": alert.summary, "description": f"Look at {alert.look}."},
    }
