"""One table of metrics: what the dashboard asks for, what the documentation lists and what the exporter shows."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from crosswind.deploy.statsd_exporter import statsd
from crosswind.deploy.values import Values
from crosswind.metrics import METRICS, Metric, label_value, prometheus_name, statsd_name
from crosswind.provider.stats import AirflowMeter

ROOT = Path(__file__).parents[2]
BY_PROMETHEUS = {prometheus_name(metric): metric for metric in METRICS}


@functools.cache
def mappings() -> list[dict[str, Any]]:
    """Return the exporter's mappings that ``crosswind render`` writes."""
    (config,) = [
        rendered.manifest for rendered in statsd(Values(image="x")) if rendered.manifest["kind"] == "ConfigMap"
    ]
    mappings: list[dict[str, Any]] = yaml.safe_load(config["data"]["mappings.yml"])["mappings"]
    return mappings


@functools.cache
def exported(stat: str) -> tuple[str, dict[str, str]]:
    """Return name and labels of a metric on the wire, as statsd_exporter has them: the first mapping that matches."""
    for mapping in mappings():
        pattern = re.escape(mapping["match"]).replace(r"\*", r"([^.]*)")
        if match := re.fullmatch(pattern, stat):
            filled = {
                key: re.sub(r"\$(\d)", lambda m: match[int(m[1])], text) for key, text in mapping["labels"].items()
            }
            return mapping["name"], filled
    return re.sub(r"[^A-Za-z0-9_:]", "_", stat), {}


def asked() -> dict[str, str]:
    """Return the metrics that the dashboard asks for, each with all that is asked of it."""
    board = json.loads((ROOT / "examples" / "grafana" / "crosswind.json").read_text())
    queries: dict[str, str] = {}
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            (name,) = re.findall(r"airflow_\w+", target["expr"])
            queries[name] = queries.get(name, "") + target["expr"] + target["legendFormat"]
    return queries


def test_the_dashboard_asks_for_each_metric_by_its_name_and_label() -> None:
    assert asked().keys() >= BY_PROMETHEUS.keys()
    for name, text in asked().items():
        if name not in BY_PROMETHEUS:
            continue  # Airflow's own: tests/deploy/test_monitoring.py
        metric = BY_PROMETHEUS[name]
        assert ("quantile=" in text) is (metric.kind == "timer"), name
        assert ("rate(" in text) is (metric.kind == "counter"), name
        if metric.source == "crosswind":
            assert re.findall(r"by \((\w+)\)", text)[:1] == ([metric.label] if metric.label else []), name


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_the_exporter_shows_each_under_its_name(metric: Metric) -> None:
    value = "Some_reason" if metric.label else ""
    labels = {metric.label: value} if metric.label and metric.source == "crosswind" else {}
    assert exported(f"airflow.{statsd_name(metric, value)}") == (prometheus_name(metric), labels)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_each_team_has_its_own_series_where_the_metric_is_ours(metric: Metric) -> None:
    own = metric.source == "crosswind"
    labels = {metric.label: "Some_reason"} if metric.label else {}
    value = labels.get(metric.label, "")
    assert AirflowMeter(with_tags=True, team="blue").stat(metric.name, value) == (
        metric.name,
        labels | {"team_name": "blue"},
    )
    name, _ = AirflowMeter(with_tags=False, team="blue").stat(metric.name, value)
    assert exported(f"airflow.{name}") == (prometheus_name(metric), labels | {"team_name": "blue"} if own else {})


def test_the_team_is_never_taken_for_the_value_of_a_label() -> None:
    meter = AirflowMeter(with_tags=False, team="bl ue")
    assert meter.stat("crosswind.pods", "")[0] == "crosswind.pods.unknown.bl_ue"
    assert AirflowMeter(with_tags=False).stat("crosswind.pods", "") == ("crosswind.pods", None)


def test_the_documentation_lists_each() -> None:
    text = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| `\w+\.", line)]
    assert rows == [
        f"| `{metric.name}` | {metric.kind} | {f'`{metric.label}`' if metric.label else ''} | {metric.description} |"
        for metric in METRICS
    ]


def test_values_of_labels_are_parts_of_names() -> None:
    assert [label_value(text) for text in ("OOMKilled", "a.b c/d", "", "x" * 99)] == [
        "OOMKilled",
        "a_b_c_d",
        "unknown",
        "x" * 40,
    ]
