"""Metrics into Airflow's own: StatsD, Datadog or OpenTelemetry, whatever ``[metrics]`` has switched on."""

from __future__ import annotations

from datetime import timedelta

from airflow.observability.stats import Stats

from crosswind.config import Conf
from crosswind.metrics import METRICS, label_value, statsd_name

__all__ = ["AirflowMeter", "airflow_meter"]

_METRICS = {metric.name: metric for metric in METRICS}


def airflow_meter(conf: Conf) -> AirflowMeter | None:
    """Return what tells Airflow's metrics; None where ``[metrics]`` has nothing switched on."""

    def on(option: str) -> bool:
        return bool(conf.getboolean("metrics", option, fallback=False))

    tags = on("otel_on") or on("statsd_datadog_enabled") or on("statsd_influxdb_enabled")
    return AirflowMeter(tags=tags) if tags or on("statsd_on") else None


class AirflowMeter:
    """Implements ``crosswind.runs.metering.Meter``. ``tags``: whether labels can be sent as tags."""

    def __init__(self, *, tags: bool) -> None:
        self._tags = tags

    def count(self, name: str, number: int, value: str) -> None:
        """Add to a counter."""
        stat, tags = self._named(name, value)
        Stats.incr(stat, number, tags=tags)

    def gauge(self, name: str, number: float, value: str) -> None:
        """Set a gauge."""
        stat, tags = self._named(name, value)
        Stats.gauge(stat, number, tags=tags)

    def timing(self, name: str, seconds: float, value: str) -> None:
        """Tell a time."""
        stat, tags = self._named(name, value)
        Stats.timing(stat, timedelta(seconds=seconds), tags=tags)

    def _named(self, name: str, value: str) -> tuple[str, dict[str, str] | None]:
        metric = _METRICS[name]
        value = label_value(value) if value else ""
        tags = {metric.label: value} if value else None
        return (name, tags) if self._tags else (statsd_name(metric, value), tags)
