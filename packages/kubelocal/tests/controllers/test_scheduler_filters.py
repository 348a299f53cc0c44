from __future__ import annotations

from typing import Any

import pytest

from kubelocal.controllers.scheduler_filters import (
    FilterFailure,
    capacity_of,
    demand,
    refusal,
    request_of,
    unschedulable,
)


def container(restart: str = "", **requests: str) -> dict[str, Any]:
    made: dict[str, Any] = {"name": "c", "resources": {"requests": requests}}
    return made | ({"restartPolicy": restart} if restart else {})


def pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "ns"},
        "spec": {"containers": list(containers or [container()]), **spec},
    }


def node(name: str = "n", *, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    allocatable = {"cpu": "2", "memory": "4Gi", "pods": "2", "example.com/gpu": "1"}
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": spec, "status": {"allocatable": allocatable}}


TAINT = {"key": "dedicated", "value": "etl", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("spec", "cpu"),
    [
        ({"containers": [container(cpu="500m"), container(cpu="1")]}, 1500),
        ({"containers": [container(cpu="1")], "initContainers": [container(cpu="3"), container(cpu="2")]}, 3000),
        ({"containers": [container(cpu="1")], "initContainers": [container("Always", cpu="200m")]}, 1200),
        ({"containers": [container()], "initContainers": [container("Always", cpu="1"), container(cpu="2")]}, 3000),
        ({"containers": [container()], "initContainers": [container(cpu="2"), container("Always", cpu="1")]}, 2000),
        ({"containers": [container(cpu="1")], "overhead": {"cpu": "250m"}}, 1250),
    ],
    ids=["sum", "hungriest init", "native sidecar adds", "init after sidecar", "init before sidecar", "overhead"],
)
def test_demand_follows_the_rules_of_native_sidecars(spec: dict[str, Any], cpu: int) -> None:
    assert demand(spec)["cpu"] == cpu


UNTOLERATED = FilterFailure(("node(s) had untolerated taint(s)",))
ELSEWHERE = FilterFailure(("node(s) didn't match Pod's node affinity/selector",))
CORDON = {"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}


@pytest.mark.parametrize(
    ("asking", "offering", "used", "outcome"),
    [
        (pod(), node(), {}, None),
        (pod(container(cpu="3")), node(), {}, FilterFailure(("Insufficient cpu",))),
        (pod(container(cpu="2")), node(), {"cpu": 1}, FilterFailure(("Insufficient cpu",), True)),
        (pod(container(cpu="3", memory="5Gi")), node(), {}, FilterFailure(("Insufficient cpu", "Insufficient memory"))),
        (pod(container(**{"example.com/gpu": "2"})), node(), {}, FilterFailure(("Insufficient example.com/gpu",))),
        (pod(container(**{"example.com/none": "1"})), node(), {}, FilterFailure(("Insufficient example.com/none",))),
        (pod(), node(), {"pods": 2000}, FilterFailure(("Too many pods",), True)),
        (pod(), node(taints=[TAINT]), {}, UNTOLERATED),
        (pod(), node(taints=[TAINT | {"effect": "PreferNoSchedule"}]), {}, None),
        (pod(tolerations=[{"operator": "Exists"}]), node(taints=[TAINT]), {}, None),
        (pod(tolerations=[{"key": "dedicated", "value": "etl"}]), node(taints=[TAINT]), {}, None),
        (pod(tolerations=[{"key": "dedicated", "value": "web"}]), node(taints=[TAINT]), {}, UNTOLERATED),
        (pod(), node(unschedulable=True), {}, FilterFailure(("node(s) were unschedulable",))),
        (pod(tolerations=[CORDON]), node(unschedulable=True), {}, None),
        (pod(nodeSelector={"disk": "ssd"}), node(labels={"disk": "ssd"}), {}, None),
        (pod(nodeSelector={"disk": "ssd"}), node(), {}, ELSEWHERE),
    ],
)
def test_a_node_takes_a_pod_or_says_why_not(
    asking: Any, offering: Any, used: Any, outcome: FilterFailure | None
) -> None:
    room = capacity_of(offering)
    room.used.update(used)
    assert refusal(request_of(asking), room) == outcome


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ({"key": "zone", "operator": "In", "values": ["a", "b"]}, True),
        ({"key": "zone", "operator": "NotIn", "values": ["a"]}, False),
        ({"key": "rack", "operator": "NotIn", "values": ["a"]}, True),
        ({"key": "rack", "operator": "Exists"}, False),
        ({"key": "rack", "operator": "DoesNotExist"}, True),
        ({"key": "cores", "operator": "Gt", "values": ["4"]}, True),
        ({"key": "cores", "operator": "Lt", "values": ["4"]}, False),
        ({"key": "zone", "operator": "Gt", "values": ["4"]}, False),
    ],
)
def test_node_affinity_matches_expressions(expression: dict[str, Any], matches: bool) -> None:
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    asking = pod(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}})
    room = capacity_of(node(labels={"zone": "a", "cores": "8"}))
    assert (refusal(request_of(asking), room) is None) == matches


CPU, BUSY = FilterFailure(("Insufficient cpu",)), FilterFailure(("Insufficient cpu",), True)


@pytest.mark.parametrize(
    ("refusals", "message"),
    [
        ([], "no nodes available to schedule pods"),
        (
            [CPU],
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: "
            "0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
        ),
        (
            [BUSY, ELSEWHERE, ELSEWHERE],
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match Pod's node affinity/selector. "
            "no new claims to deallocate, preemption: 0/3 nodes are available: "
            "1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.",
        ),
    ],
)
def test_the_message_counts_reasons_over_nodes(refusals: list[FilterFailure], message: str) -> None:
    assert unschedulable(refusals) == message
