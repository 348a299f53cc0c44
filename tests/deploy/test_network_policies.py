"""Each call that Airflow makes is allowed by the caller's policy and by the destination's."""

from __future__ import annotations

from typing import Any

import pytest
from deployments import NAMES, of_kind, pods

from crosswind.deploy.network_policies import network
from crosswind.deploy.values import Values

Pod = dict[str, Any]


def pod(name: str, component: str) -> Pod:
    return next(each for each in pods(name) if each["metadata"]["labels"]["app.kubernetes.io/component"] == component)


def policy(name: str, of: Pod) -> dict[str, Any]:
    (spec,) = [
        manifest["spec"]
        for manifest in of_kind(name, "NetworkPolicy")
        if manifest["metadata"]["namespace"] == of["metadata"]["namespace"]
        and manifest["spec"]["podSelector"]["matchLabels"].items() <= of["metadata"]["labels"].items()
    ]
    return dict(spec)


def reaches(rule: dict[str, Any], side: str, owner: Pod, other: Pod, port: int, protocol: str) -> bool:
    if (
        not any(allowed["port"] == port and allowed["protocol"] == protocol for allowed in rule.get("ports", []))
        and "ports" in rule
    ):
        return False
    return side not in rule or any(_is(peer, owner, other) for peer in rule[side])


def _is(peer: dict[str, Any], owner: Pod, other: Pod) -> bool:
    if "ipBlock" in peer:
        return False
    spaces = peer.get("namespaceSelector")
    labels = {} if spaces is None else spaces.get("matchLabels", {})
    namespace = other["metadata"]["namespace"]
    if spaces is None and namespace != owner["metadata"]["namespace"]:
        return False
    if labels and labels != {"kubernetes.io/metadata.name": namespace}:
        return False
    return bool(peer.get("podSelector", {}).get("matchLabels", {}).items() <= other["metadata"]["labels"].items())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("caller", "called", "port", "protocol", "allowed"),
    [
        ("worker", "api-server", 8080, "TCP", True),
        ("worker", "statsd", 9125, "UDP", True),
        ("scheduler", "statsd", 9125, "UDP", True),
        ("dag-processor", "statsd", 9125, "UDP", True),
        ("api-server", "triggerer", 8794, "TCP", True),
        ("scheduler", "triggerer", 8794, "TCP", False),
        ("worker", "scheduler", 8974, "TCP", False),
        ("migrations", "api-server", 8080, "TCP", False),
    ],
)
def test_a_call_is_allowed_or_refused(
    name: str, caller: str, called: str, port: int, protocol: str, allowed: bool
) -> None:
    if not {caller, called} <= {each["metadata"]["labels"]["app.kubernetes.io/component"] for each in pods(name)}:
        pytest.skip("the deployment does not have both components")
    source, target = pod(name, caller), pod(name, called)
    egress, ingress = policy(name, source).get("egress", []), policy(name, target).get("ingress", [])
    leaves = any(reaches(rule, "to", source, target, port, protocol) for rule in egress)
    enters = any(reaches(rule, "from", target, source, port, protocol) for rule in ingress)
    assert (leaves and enters) == allowed


def test_workers_reach_everything_but_the_credentials_of_their_node() -> None:
    rules = policy("minimal", pod("minimal", "worker"))["egress"]
    blocks = [peer["ipBlock"] for rule in rules for peer in rule.get("to", []) if "ipBlock" in peer]
    assert {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]} in blocks


def test_database_is_called_at_its_own_port_and_addresses() -> None:
    rules = policy("air-gapped", pod("air-gapped", "scheduler"))["egress"]
    assert {"to": [{"ipBlock": {"cidr": "10.1.2.0/24"}}], "ports": [{"protocol": "TCP", "port": 5433}]} in rules


def test_policies_can_be_left_out() -> None:
    assert not [*network(Values.model_validate({"image": "x", "network": {"policies": False}}))]
