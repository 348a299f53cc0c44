"""Emits Crosswind's metrics through Airflow's ``Stats``: to StatsD, Datadog or OpenTelemetry, as ``[metrics]`` says."""

from __future__ import annotations

from datetime import timedelta

from airflow.observability.stats import Stats

from crosswind.metrics import METRICS, label_value, statsd_name
from crosswind.provider.config import AirflowConf

__all__ = ["AirflowMeter", "airflow_meter"]

_METRICS = {metric.name: metric for metric in METRICS}


def airflow_meter(conf: AirflowConf, team: str = "") -> AirflowMeter | None:
    """Return the meter for the backend that ``[metrics]`` turns on; None when all are off.

    ``team``: of the executor, "" for none. A scheduler has an executor for each team, and each emits its own gauges.
    """

    def is_on(option: str) -> bool:
        return bool(conf.getboolean("metrics", option, fallback=False))

    with_tags = is_on("otel_on") or is_on("statsd_datadog_enabled") or is_on("statsd_influxdb_enabled")
    return AirflowMeter(with_tags=with_tags, team=team) if with_tags or is_on("statsd_on") else None


class AirflowMeter:
    """Implements ``crosswind.engine.metrics_reporter.MetricsSink``. ``with_tags``: whether the backend accepts tags."""

    def __init__(self, *, with_tags: bool, team: str = "") -> None:
        self._with_tags = with_tags
        self._team = team

    def count(self, name: str, number: int, value: str) -> None:
        """Add to a counter."""
        stat, tags = self.stat(name, value)
        Stats.incr(stat, number, tags=tags)

    def gauge(self, name: str, number: float, value: str) -> None:
        """Set a gauge."""
        stat, tags = self.stat(name, value)
        Stats.gauge(stat, number, tags=tags)

    def timing(self, name: str, seconds: float, value: str) -> None:
        """Record a duration."""
        stat, tags = self.stat(name, value)
        Stats.timing(stat, timedelta(seconds=seconds), tags=tags)

    def stat(self, name: str, value: str) -> tuple[str, dict[str, str] | None]:
        """Return name and tags of a metric on the wire. The tag of a team has core's name."""
        metric = _METRICS[name]
        value = label_value(value) if value else ""
        tags = ({metric.label: value} if value else {}) | ({"team_name": self._team} if self._team else {})
        return (name if self._with_tags else statsd_name(metric, value, self._team)), tags or None
