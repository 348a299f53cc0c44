"""Every metric of the executor, in one table: its name, its kind, what it says. Values only.

Names are Airflow's own where Airflow or its Kubernetes executor has one. Airflow puts ``[metrics] statsd_prefix`` or
``otel_prefix``, by default ``airflow``, in front.
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
    told: str
    """What it says, for the documentation."""
    label: str = ""
    """What its values are told apart by, "" for nothing."""
    source: Literal["core", "stock", "crosswind"] = "crosswind"
    """Whose name it is: Airflow's core, which emits it for every executor; its Kubernetes executor; ours."""


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
        "Pods by phase: `waiting` to be created, `pending` in the cluster, `running`, `ending` (base has ended, the pod"
        " is still there).",
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
        "Time that a pod spent in a phase, told when it is gone: `waiting` from queued to created, `pending` until base"
        " runs, `running`, `ending` from base's end to the pod's.",
        "phase",
    ),
    Metric(
        "crosswind.pod_failures",
        "counter",
        "Pods that failed: `OOMKilled`, `Evicted`, `Error`, `NotLaunched`...",
        "reason",
    ),
    Metric(
        "crosswind.pushed_back",
        "counter",
        "Requests that the API server pushed back, by status: `429`, `500` and above; `error` where no answer came.",
        "status",
    ),
    Metric("crosswind.creation_pace", "gauge", "Creations that may be under way at once; it halves on push-back."),
    Metric(
        "crosswind.watch_silence",
        "gauge",
        "Seconds since the API server last told of pods, of the watch that has heard nothing for longest. A healthy one"
        " hears something each minute.",
    ),
    Metric("crosswind.logs_to_keep", "gauge", "Pods whose deletion waits until their logs are kept."),
    Metric(
        "crosswind.tasks_held_back",
        "gauge",
        "Tasks that wait because their queue has as many pods as it may (`max_pods`).",
    ),
)
"""All metrics, in the order in which the documentation lists them."""


def label_value(text: str) -> str:
    """Return a label's value as a part of a metric's name may be."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:40] or "unknown"


def statsd_name(metric: Metric, value: str = "") -> str:
    """Return the name on the wire where tags cannot be sent: a value of our own labels is a part of it.

    Names that are not ours stay as Airflow has them, which without tags are told apart by nothing.
    """
    return f"{metric.name}.{value}" if value and metric.source == "crosswind" else metric.name


def prometheus_name(metric: Metric, prefix: str = "airflow") -> str:
    """Return the name that statsd_exporter shows with the mapping of ``crosswind render``."""
    return f"{prefix}_{metric.name}".replace(".", "_")
