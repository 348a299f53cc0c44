from __future__ import annotations

from typing import Any

import pytest

from kubelocal.controllers.service_endpoints import endpoint_slice, host_lines, targets, wants_relay


def service(*, name: str = "web", ports: Any = None, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "n", "uid": "u"}
    given = {"selector": {"app": "web"}, "ports": ports or [{"name": "http", "port": 80, "targetPort": "http"}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": given}


def pod(name: str, address: str, *, ready: bool = True, phase: str = "Running", **spec: Any) -> dict[str, Any]:
    container = {"name": "web", "ports": [{"name": "http", "containerPort": 8080}]}
    return {
        "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "web"}},
        "spec": {"containers": [container], "nodeName": "x", **spec},
        "status": {"phase": phase, "podIP": address, "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


PODS = [
    pod("b", "10.0.0.2"),
    pod("a", "10.0.0.1"),
    pod("slow", "10.0.0.3", ready=False),
    pod("done", "10.0.0.4", phase="Succeeded"),
    pod("new", ""),
    {**pod("other", "10.0.0.5"), "metadata": {"name": "other", "namespace": "n", "uid": "o", "labels": {"app": "db"}}},
]


def test_a_slice_lists_the_pods_that_are_meant_and_says_which_are_ready() -> None:
    found = endpoint_slice(service(), PODS)
    listed = [(one["addresses"][0], one["conditions"]["ready"]) for one in found["endpoints"]]
    assert listed == [("10.0.0.1", True), ("10.0.0.2", True), ("10.0.0.3", False)]
    assert found["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert found["metadata"]["labels"]["kubernetes.io/service-name"] == "web"


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({}, {(80, "TCP"): [("10.0.0.1", 8080), ("10.0.0.2", 8080)]}),
        (
            {"publishNotReadyAddresses": True},
            {(80, "TCP"): [("10.0.0.1", 8080), ("10.0.0.2", 8080), ("10.0.0.3", 8080)]},
        ),
        (
            {"ports": [{"port": 53, "protocol": "UDP"}]},
            {(53, "UDP"): [("10.0.0.1", 53), ("10.0.0.2", 53)]},
        ),
        ({"ports": [{"port": 80, "targetPort": "unknown"}]}, {(80, "TCP"): []}),
        ({"selector": {"app": "nobody"}}, {(80, "TCP"): []}),
    ],
)
def test_ports_lead_to_ready_pods(spec: dict[str, Any], wanted: dict[Any, Any]) -> None:
    given = service(**spec)
    assert targets(given, [endpoint_slice(given, PODS)]) == wanted


@pytest.mark.parametrize(
    ("port", "relay"), [({"port": 8080, "targetPort": "http"}, False), ({"port": 80, "targetPort": "http"}, True)]
)
def test_a_relay_is_for_ports_that_differ(port: dict[str, Any], relay: bool) -> None:
    given = service(ports=[port])
    assert wants_relay(given, [endpoint_slice(given, PODS)]) is relay


NAMES = "web.n.svc.cluster.local\tweb.n.svc\tweb.n"


@pytest.mark.parametrize(
    ("spec", "namespace", "direct", "lines"),
    [
        ({"clusterIP": "10.1.0.1"}, "n", False, [f"10.1.0.1\t{NAMES}\tweb"]),
        ({"clusterIP": "10.1.0.1"}, "other", False, [f"10.1.0.1\t{NAMES}"]),
        ({"clusterIP": "10.1.0.1"}, "other", True, [f"10.1.0.1\t{NAMES}"]),  # port 80 is 8080 in the pods
        (
            {"clusterIP": "10.1.0.1", "ports": [{"port": 8080}]},
            "other",
            True,
            [f"10.0.0.1\t{NAMES}", f"10.0.0.2\t{NAMES}"],
        ),
        ({"clusterIP": "None"}, "other", False, [f"10.0.0.1\t{NAMES}", f"10.0.0.2\t{NAMES}"]),
        ({}, "n", False, []),
    ],
)
def test_names_lead_to_the_service_or_to_its_pods(
    spec: dict[str, Any], namespace: str, direct: bool, lines: list[str]
) -> None:
    given = service(**spec)
    assert host_lines([given], [endpoint_slice(given, PODS)], namespace, direct=direct) == lines


def test_pods_of_a_headless_service_have_names_of_their_own() -> None:
    given = service(clusterIP="None")
    named = pod("web-0", "10.0.0.9", hostname="web-0", subdomain="web")
    assert "10.0.0.9\tweb-0.web.n.svc.cluster.local" in host_lines([given], [endpoint_slice(given, [named])], "n")
