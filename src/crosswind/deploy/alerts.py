"""Alert rules for the Prometheus operator. Each names a symptom that needs a person, and where to look first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from crosswind.deploy.airflow_config import statsd_prefix
from crosswind.deploy.objects import RenderedObject, named, new
from crosswind.deploy.values import Values
from crosswind.types import Manifest

__all__ = ["ALERTS", "Alert", "alerts"]


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule: it fires when ``expression`` has held for ``lasting``, a duration in Prometheus' notation.

    The exporter's mappings rename metrics that have a label. The others keep Airflow's prefix, which stands as
    ``PREFIX`` in an expression.
    """

    name: str
    expression: str
    lasting: str
    severity: str
    summary: str
    where_to_look: str


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
        "The API server has reported no pod for five minutes; the scheduler notices the ends of tasks late.",
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
        "More than five pods of tasks failed with reason {{ $labels.reason }} in a quarter of an hour.",
        "the event log of the failed tasks; memory limits for OOMKilled, nodes for Evicted",
    ),
    Alert(
        "CrosswindApiPushesBack",
        "sum(rate(airflow_crosswind_pushed_back[5m])) > 1",
        "10m",
        "warning",
        "The API server rejects more than one request a second (429 or 5xx); pods are created slowly.",
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
        "whether the metadata database accepts writes",
    ),
)
"""All rules. They use the metrics of docs/reference/metrics.md by the names that the rendered exporter gives them."""


def alerts(values: Values) -> Iterator[RenderedObject]:
    """Yield one PrometheusRule if ``metrics.alerts`` is on."""
    if not values.metrics.alerts:
        return
    spec = {"groups": [{"name": named(values, "alerts"), "rules": [_rule(values, alert) for alert in ALERTS]}]}
    manifest = new(values, "monitoring.coreos.com/v1/PrometheusRule", named(values, "alerts"), "statsd", spec=spec)
    manifest["metadata"]["labels"] |= values.metrics.alert_labels
    yield RenderedObject(
        "monitoring/alerts.yaml",
        "Alert rules for Prometheus: when a person should look, and where. The Prometheus operator reads them.",
        manifest,
    )


def _rule(values: Values, alert: Alert) -> Manifest:
    return {
        "alert": alert.name,
        "expr": alert.expression.replace("PREFIX", statsd_prefix(values).replace(".", "_")),
        "for": alert.lasting,
        "labels": {"severity": alert.severity, "namespace": values.namespace},
        "annotations": {"summary": alert.summary, "description": f"Look at {alert.where_to_look}."},
    }
