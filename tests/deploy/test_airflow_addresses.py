"""Network policies follow the addresses that the values name."""

from __future__ import annotations

from typing import Any

import pytest

from crosswind.deploy.address_ports import repository_port
from crosswind.deploy.network_policies import network
from crosswind.deploy.values import Values


def called(component: str, values: dict[str, Any]) -> set[tuple[str, int]]:
    """Return protocol and port of all calls that a component's policy allows."""
    rendered = network(Values.model_validate({"image": "x", **values}))
    (policy,) = (item.manifest for item in rendered if item.path == f"network/{component}.yaml")
    rules = policy["spec"].get("egress", [])
    return {(port["protocol"], port["port"]) for rule in rules for port in rule.get("ports", [])}


@pytest.mark.parametrize(
    ("repo", "port"),
    [
        ("https://github.com/a/b.git", 443),
        ("https://git.example.org:8443/a/b.git", 8443),
        ("http://gitea.git.svc.cluster.local:3000/a/b.git", 3000),
        ("http://gitea.git/a/b.git", 80),
        ("ssh://git@bitbucket.example.org:7999/a/b.git", 7999),
        ("ssh://git@bitbucket.example.org/a/b.git", 22),
        ("ssh://git@[2001:db8::1]:7999/a.git", 7999),
        ("git@github.com:a/b.git", 22),
        ("git@github.com:7999/a/b.git", 22),
        ("github-alias:a/b.git", 22),
        ("git://git.example.org/a/b.git", 9418),
        ("file:///srv/dags.git", None),
        ("/srv/dags.git", None),
        ("https://git.example.org:port/x", 443),
    ],
)
def test_a_repository_is_reached_at_its_port(repo: str, port: int | None) -> None:
    assert repository_port(repo) == port


@pytest.mark.parametrize("source", ["git-sync", "bundle"])
def test_the_dag_processor_reaches_its_repository(source: str) -> None:
    dags = {"source": source, "repo": "ssh://git@git.example.org:7999/a.git"}
    assert ("TCP", 7999) in called("dag-processor", {"dags": dags})
    assert ("TCP", 22) not in called("dag-processor", {"dags": dags})


def test_the_dag_processor_reaches_the_repositories_of_a_list_of_bundles() -> None:
    bundles = '[{"name": "a", "classpath": "x", "kwargs": {"repo_url": "https://git.example.org:8443/a.git"}}]'
    assert ("TCP", 8443) in called("dag-processor", {"config": {"dag_processor": {"dag_bundle_config_list": bundles}}})


@pytest.mark.parametrize(
    ("url", "port"), [("s3://bucket/x", 443), ("hdfs://name:9000/x", 9000), ("hdfs://name/x", 8020), ("gs://b", 443)]
)
def test_log_stores_are_reached_at_their_port(url: str, port: int) -> None:
    for component in ("scheduler", "api-server", "dag-processor"):
        assert ("TCP", port) in called(component, {"logs": {"to": "remote", "url": url}})


def test_proxies_and_endpoints_in_variables_are_reached() -> None:
    env = [
        {"name": "HTTPS_PROXY", "value": "http://proxy.example.org:3128"},
        {"name": "AWS_ENDPOINT_URL_S3", "value": "http://minio.minio:9000"},
        {"name": "NO_PROXY", "value": "10.0.0.0/8"},
    ]
    for component in ("scheduler", "api-server", "dag-processor", "migrations"):
        assert {("TCP", 3128), ("TCP", 9000)} <= called(component, {"pods": {"env": env}})
    assert ("TCP", 3128) in called("dag-processor", {"dagProcessor": {"env": env}})
    assert ("TCP", 3128) not in called("scheduler", {"dagProcessor": {"env": env}})


def test_addresses_in_options_are_reached() -> None:
    config = {
        "metrics": {"statsd_on": True, "statsd_host": "statsd.monitoring", "statsd_port": 8125},
        "traces": {"otel_host": "collector", "otel_port": 4318},
        "elasticsearch": {"host": "http://elastic:9200"},
    }
    calls = called("scheduler", {"metrics": {"statsd": False}, "config": config})
    assert {("UDP", 8125), ("TCP", 4318), ("TCP", 9200)} <= calls
