"""Alert rules and dashboard: every expression parses as PromQL and asks for a metric that the exporter shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from crosswind.deploy.alerts import ALERTS, alerts
from crosswind.deploy.statsd_exporter import _MAPPINGS
from crosswind.deploy.values_file import read_values
from crosswind.metrics import METRICS, prometheus_name

ROOT = Path(__file__).parents[2]
VALUES = read_values("image: x\nmetrics: {alerts: true}\n", "page")
RULES = ROOT / "examples" / "prometheus" / "alerts.yaml"
DASHBOARD = json.loads((ROOT / "examples" / "grafana" / "crosswind.json").read_text())
LABELS = {f"airflow_{name}": set(labels) for _, name, labels in _MAPPINGS} | {
    prometheus_name(metric): {metric.label} if metric.label and metric.source == "crosswind" else set()
    for metric in METRICS
}
LABELS["airflow_scheduler_heartbeat"] = set()  # Airflow's own, without a label
TIMERS = {prometheus_name(metric) for metric in METRICS if metric.kind == "timer"} | {
    f"airflow_{name}" for match, name, _ in _MAPPINGS if "duration" in match or "delay" in match
}


def nodes(expression: Any) -> Iterator[Any]:
    """Yield an expression of PromQL and all below it."""
    yield expression
    for field in ("expr", "lhs", "rhs", "args", "vector_selector"):
        value = getattr(expression, field, None)
        for inner in value if isinstance(value, list) else [value] if value is not None else []:
            yield from nodes(inner)


def check(text: str) -> None:
    """Check an expression: it parses, its metrics exist, and it asks only for labels that they have."""
    selectors = [node for node in nodes(promql_parser.parse(text)) if isinstance(node, promql_parser.VectorSelector)]
    assert selectors, text
    for selector in selectors:
        labels = LABELS[selector.name] | ({"quantile"} if selector.name in TIMERS else set())
        assert {matcher.name for matcher in selector.matchers.matchers} <= labels, text
        for grouped in re.findall(r"by \(([^)]*)\)", text):
            assert set(grouped.replace(" ", "").split(",")) <= labels, text


def rules() -> list[dict[str, Any]]:
    (rendered,) = alerts(VALUES)
    return [rule for group in rendered.manifest["spec"]["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_is_valid(rule: dict[str, Any]) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z]+", rule["alert"])
    check(rule["expr"])
    assert re.fullmatch(r"\d+[smhd]", rule["for"])
    assert rule["labels"]["severity"] in ("critical", "warning")
    # A template may use only labels that the expression keeps.
    labels = {label for grouped in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in grouped.split(",")}
    for text in rule["annotations"].values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels


def test_rules_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)


def test_the_rules_of_the_examples_are_those_that_render_writes() -> None:
    example = yaml.safe_load(RULES.read_text())
    assert example["kind"] == "PrometheusRule"
    (group,) = example["spec"]["groups"]
    without_texts = [{**rule, "annotations": sorted(rule["annotations"])} for rule in group["rules"]]
    assert without_texts == [{**rule, "annotations": sorted(rule["annotations"])} for rule in rules()]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_the_guide_lists_each_rule(alert: Any) -> None:
    guide = (ROOT / "docs" / "guides" / "monitoring.md").read_text()
    assert re.search(rf"^\| `{alert.name}` \|", guide, re.MULTILINE)


def targets() -> list[tuple[str, str]]:
    return [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


@pytest.mark.parametrize(("title", "expression"), targets())
def test_a_panel_of_the_dashboard_asks_for_metrics_that_are_there(title: str, expression: str) -> None:
    assert title
    check(expression)


def test_the_dashboard_filters_by_queue_and_dag() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables.keys() == {"datasource", "queue", "dag"}
    for name, label in (("queue", "queue"), ("dag", "dag_id")):
        metric, variable = re.fullmatch(r"label_values\((\w+), (\w+)\)", variables[name]["definition"]).groups()
        assert variable == label
        assert label in LABELS[metric]
        assert variables[name]["multi"]
        assert variables[name]["includeAll"]
        assert any(f'{label}=~"${name}"' in expression for _, expression in targets())


def test_every_metric_that_has_a_queue_or_a_dag_is_filtered_by_it() -> None:
    for _, expression in targets():
        labels = LABELS[re.findall(r"airflow_\w+", expression)[0]]
        for name, label in (("queue", "queue"), ("dag", "dag_id")):
            assert (label in labels) == (f'{label}=~"${name}"' in expression), expression


def test_panels_do_not_overlap() -> None:
    occupied: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & occupied, panel["title"]
        occupied |= cells


def test_the_exporters_names_are_those_that_airflow_sends() -> None:
    """Airflow's registry has the dotted names; a mapping that none matches would be dead."""
    from airflow._shared.observability.metrics import metrics_registry

    template = Path(metrics_registry.__file__).with_name("metrics_template.yaml")
    sent = {
        re.sub(r"\{[^}]*\}", "*", metric["legacy_name"] if metric["legacy_name"] != "-" else metric["name"])
        for metric in yaml.safe_load(template.read_text())["metrics"]
    }
    ours = {metric.name + ".*" * parts for metric in METRICS for parts in (1, 2 if metric.label else 1)}
    assert {match for match, _, _ in _MAPPINGS} - ours <= sent
