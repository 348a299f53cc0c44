"""What a node rejects, by a table."""

from __future__ import annotations

from typing import Any

import pytest

from kubelocal.controllers.scheduler_filters import capacity_of, request_of
from kubelocal.kubelet.pod_admission import rejection

ROOM: dict[str, Any] = {"cpu": "2", "memory": "1Gi", "pods": "2", "example.com/chip": "1"}
NODE: dict[str, Any] = {"metadata": {"name": "n", "labels": {"zone": "a"}}, "status": {"allocatable": ROOM}}
ELSEWHERE = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}
BY_NAME = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}


def affinity(term: dict[str, Any]) -> dict[str, Any]:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return {"affinity": {"nodeAffinity": required}}


def taint(effect: str) -> list[dict[str, str]]:
    return [{"key": "k", "value": "v", "effect": effect}]


@pytest.mark.parametrize(
    ("requests", "spec", "taints", "reason"),
    [
        ({"cpu": "1"}, {}, [], None),
        ({"cpu": "1001m"}, {}, [], "OutOfcpu"),
        ({"memory": "2Gi"}, {}, [], "OutOfmemory"),
        ({"memory": "2Gi", "cpu": "2"}, {}, [], "OutOfcpu"),
        ({"example.com/chip": "2"}, {}, [], "OutOfexample.com/chip"),
        ({"example.com/other": "2"}, {}, [], None),
        ({"ephemeral-storage": "2Gi"}, {}, [], None),
        ({}, {"nodeSelector": {"zone": "a"}}, [], None),
        ({}, {"nodeSelector": {"zone": "b"}}, [], "NodeAffinity"),
        ({}, affinity(ELSEWHERE), [], "NodeAffinity"),
        ({}, affinity(BY_NAME), [], None),
        ({"cpu": "2"}, {"nodeSelector": {"zone": "b"}}, [], "OutOfcpu"),
        ({}, {}, taint("NoSchedule"), None),
        ({}, {}, taint("NoExecute"), "TaintToleration"),
        ({}, {"tolerations": [{"operator": "Exists"}]}, taint("NoExecute"), None),
        ({}, {}, [{"key": "k"}], None),
    ],
)
def test_a_node_rejects_what_it_has_no_room_or_no_labels_for(
    requests: dict[str, str], spec: dict[str, Any], taints: list[dict[str, str]], reason: str | None
) -> None:
    room = capacity_of({**NODE, "spec": {"taints": taints, "unschedulable": True}})
    room.used.update(pods=1000, cpu=1000)
    pod = {"spec": {"containers": [{"resources": {"requests": requests}}], **spec}}
    problem = rejection(request_of(pod), room)
    assert (problem and problem[0]) == reason


def test_a_full_node_rejects_any_pod_and_says_how_full_it_is() -> None:
    room = capacity_of(NODE)
    room.used.update(pods=2000)
    message = "Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2"
    assert rejection(request_of({"spec": {"containers": [{}]}}), room) == ("OutOfpods", message)
