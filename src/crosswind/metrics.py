"""All metrics of the executor in one table. Values only.

A metric that Airflow or its Kubernetes executor emits keeps their name. Airflow prepends ``[metrics] statsd_prefix`` or
``otel_prefix``, by default ``airflow``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["METRICS", "Metric", "label_value", "prometheus_name", "statsd_name"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. Timers are in seconds in Prometheus, in milliseconds on StatsD's wire."""

    name: str
    kind: Literal["counter", "gauge", "timer"]
    description: str
    """For the documentation and the dashboard."""
    label: str = ""
    """Name of its label, "" for none."""
    source: Literal["core", "stock", "crosswind"] = "crosswind"
    """Who defines it: Airflow's core, which emits it for every executor; its Kubernetes executor; or Crosswind."""


_STATUS = "by HTTP status; `error` where no answer came"

METRICS = (
    Metric("executor.open_slots", "gauge", "Slots that are free.", source="core"),
    Metric("executor.queued_tasks", "gauge", "Tasks that wait for a slot.", source="core"),
    Metric("executor.running_tasks", "gauge", "Tasks that have a slot.", source="core"),
    Metric(
        "kubernetes_executor.pod_creation_status",
        "counter",
        f"Requests to create a pod, {_STATUS}.",
        "status",
        source="stock",
    ),
    Metric(
        "kubernetes_executor.pod_deletion_status",
        "counter",
        f"Requests to delete a pod, {_STATUS}.",
        "status",
        source="stock",
    ),
    Metric(
        "kubernetes_executor.pod_patching_status",
        "counter",
        f"Requests to change a pod (adoption, marks on kept pods), {_STATUS}.",
        "status",
        source="stock",
    ),
    Metric("kubernetes_executor.pod_creation", "timer", "Time of a request to create a pod.", source="stock"),
    Metric("kubernetes_executor.pod_deletion", "timer", "Time of a request to delete a pod.", source="stock"),
    Metric("kubernetes_executor.pod_patching", "timer", "Time of a request to change a pod.", source="stock"),
    Metric(
        "crosswind.pods",
        "gauge",
        "Pods by phase: `waiting` to be created, `pending` in the cluster, `running`, `ending` (base has "
        "terminated, the pod still exists).",
        "phase",
    ),
    Metric(
        "crosswind.pods_held_up",
        "gauge",
        "Pods that wait or pend for a known reason: `Unschedulable`, `ImagePullBackOff`, `QuotaExceeded`...",
        "reason",
    ),
    Metric(
        "crosswind.pod_phase",
        "timer",
        "Time that a pod spent in a phase, emitted when it is deleted: `waiting` from queued to created, `pending` "
        "until base runs, `running`, `ending` from the end of base to the deletion of the pod.",
        "phase",
    ),
    Metric(
        "crosswind.pod_failures",
        "counter",
        "Pods that failed: `OOMKilled`, `Evicted`, `Error`, `NotLaunched`...",
        "reason",
    ),
    Metric(
        "crosswind.losses",
        "counter",
        "Tries that the cluster took and that cost no retry: `EvictionByEvictionAPI`, `PreemptionByScheduler`,"
        " `DeletionByTaintManager`...",
        "reason",
    ),
    Metric(
        "crosswind.pushed_back",
        "counter",
        "Requests that the API server rejected as overloaded, by status: `429`, `500` and above; `error` where no "
        "answer came.",
        "status",
    ),
    Metric(
        "crosswind.creation_pace",
        "gauge",
        "Maximum number of concurrent pod creations; it halves when the API server rejects a request as overloaded.",
    ),
    Metric(
        "crosswind.watch_silence",
        "gauge",
        "Seconds since the API server last reported a pod, of the watch that has been silent longest. A healthy watch"
        " reports every minute.",
    ),
    Metric("crosswind.logs_to_keep", "gauge", "Pods whose deletion waits until their logs are stored."),
    Metric(
        "crosswind.warm_pods", "gauge", "Pods that wait for a task and are ready, by pool (queue and digits).", "pool"
    ),
    Metric("crosswind.warm_pods_starting", "gauge", "Pods that will wait for a task and are not ready yet."),
    Metric(
        "crosswind.warm_claims",
        "counter",
        "Claims of waiting pods: `hit`; `rival` (another scheduler was first), `stale` (the pod was gone), `failed`"
        " (the task did not start, or the request failed), after which the task gets another pod.",
        "outcome",
    ),
    Metric(
        "crosswind.cold_starts",
        "counter",
        "Tasks that got a pod of their own although `[crosswind] warm` is set: `empty` (no pod was waiting), `size`,"
        " `args`, `no_task`, `failed_claim`, or what the pod's manifest has, such as `hostname` and `hook`.",
        "reason",
    ),
    Metric("crosswind.warm_claim", "timer", "Time from the decision to claim a pod to the API server's answer."),
    Metric("crosswind.warm_start", "timer", "Time from a task's launch to its state RUNNING, in a claimed pod."),
    Metric("crosswind.warm_idle_seconds", "counter", "Total seconds for which ready pods have waited."),
    Metric(
        "crosswind.tasks_held_back",
        "gauge",
        "Tasks that wait because their queue has reached `max_pods`.",
    ),
)
"""All metrics, in the order in which the documentation lists them."""


def label_value(text: str) -> str:
    """Return a label's value as a valid part of a metric's name."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:40] or "unknown"


def statsd_name(metric: Metric, value: str = "", team: str = "") -> str:
    """Return the name on the wire for a protocol without tags: of our own metrics, label and team become parts of it.

    Other names stay as Airflow has them, so that the values of their labels, and those of teams, add up.
    """
    if metric.source != "crosswind":
        return metric.name
    label = value or ("unknown" if team and metric.label else "")
    return ".".join(filter(None, (metric.name, label, team and label_value(team))))


def prometheus_name(metric: Metric, prefix: str = "airflow") -> str:
    """Return the name that statsd_exporter exports with the mapping of ``crosswind render``."""
    return f"{prefix}_{metric.name}".replace(".", "_")
