from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from crosswind.sidecars.safety_checks import (
    ReapScope,
    is_shutdown_target,
    objections,
    spared_containers,
    timing_objections,
)
from crosswind.types import Manifest

SCOPE = ReapScope(frozenset({"airflow"}))
ISTIO = {"name": "istio-proxy", "image": "istio/proxyv2:1.26.4"}
OVER: Manifest = {
    "metadata": {"name": "etl", "namespace": "airflow", "labels": {"kubernetes_executor": "True"}},
    "spec": {
        "restartPolicy": "Never",
        "initContainers": [{"name": "wait"}, {"name": "linkerd-proxy", "restartPolicy": "Always"}],
        "containers": [{"name": "base", "image": "a"}, ISTIO, {"name": "second", "image": "b"}],
    },
    "status": {
        "phase": "Running",
        "initContainerStatuses": [
            {"name": "wait", "state": {"terminated": {"exitCode": 0}}},
            {"name": "linkerd-proxy", "state": {"running": {}}},
        ],
        "containerStatuses": [
            {"name": "base", "state": {"terminated": {"exitCode": 0}}},
            {"name": "istio-proxy", "state": {"running": {}}},
            {"name": "second", "state": {"running": {}}},
        ],
    },
}
RUNNING = {"running": {}}
Change = Callable[[Manifest], Any]


def changed(change: Change) -> Manifest:
    pod = deepcopy(OVER)
    change(pod)
    return pod


def base_of(pod: Manifest) -> Manifest:
    return pod["status"]["containerStatuses"][0]


def test_a_pod_of_airflows_whose_base_is_over_may_be_touched() -> None:
    assert objections(OVER, SCOPE) == []


@pytest.mark.parametrize(
    ("change", "objection"),
    [
        (lambda pod: pod["metadata"].update(namespace="other"), "namespace other is not listed"),
        (lambda pod: pod["metadata"].update(labels={"kubernetes_executor": "False"}), "none of the labels"),
        (lambda pod: pod["spec"]["containers"].pop(0) and pod["status"].pop("containerStatuses"), "no container base"),
        (lambda pod: base_of(pod).update(state=RUNNING), "container base is running"),
        (
            lambda pod: base_of(pod).update(state=RUNNING, lastState={"terminated": {"exitCode": 1}}),
            "container base is running",
        ),
        (lambda pod: pod["status"]["initContainerStatuses"][0].update(state=RUNNING), "init container wait"),
        (lambda pod: pod["status"].update(phase="Succeeded"), "phase is Succeeded"),
        (lambda pod: pod["metadata"].update(deletionTimestamp="now"), "is being deleted"),
        (lambda pod: pod["spec"].update(restartPolicy="Always"), "restartPolicy is Always"),
        (lambda pod: pod["spec"].pop("restartPolicy"), "restartPolicy is Always"),
        (
            lambda pod: (
                pod["spec"].update(restartPolicy="OnFailure"),
                base_of(pod).update(state={"terminated": {"exitCode": 1}}),
            ),
            "restartPolicy is OnFailure",
        ),
        (
            lambda pod: pod["status"]["containerStatuses"].append({"name": "airflow-xcom-sidecar", "state": RUNNING}),
            "still holds the task's result",
        ),
    ],
)
def test_each_check_objects(change: Change, objection: str) -> None:
    objections_found = objections(changed(change), SCOPE)
    assert len(objections_found) == 1
    assert objection in objections_found[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda pod: pod["spec"].update(restartPolicy="OnFailure"),
        lambda pod: pod["spec"]["containers"].reverse(),
        lambda pod: pod["status"]["containerStatuses"].append(
            {"name": "airflow-xcom-sidecar", "state": {"terminated": {"exitCode": 0}}}
        ),
        lambda pod: pod["metadata"].update(labels={"kubernetes_pod_operator": "True"}),
    ],
)
def test_a_similar_pod_raises_no_objection(change: Change) -> None:
    assert objections(changed(change), SCOPE) == []


def test_of_ones_own_pod_it_is_known_whether_its_result_is_read() -> None:
    unread = {"name": "airflow-xcom-sidecar", "state": RUNNING}
    pod = changed(lambda pod: pod["status"]["containerStatuses"].append(unread))
    assert list(timing_objections(pod, own=True)) == []
    assert len(list(timing_objections(pod))) == 1


def test_ones_own_pods_are_asked_for_the_moment_alone() -> None:
    assert list(timing_objections(changed(lambda pod: pod["metadata"].update(namespace="other", labels={})))) == []


@pytest.mark.parametrize(
    ("annotations", "scope", "meant"),
    [
        ({}, SCOPE, ["istio-proxy"]),
        ({"crosswind/end-sidecars": "true"}, SCOPE, ["istio-proxy", "second"]),
        ({"crosswind/end-sidecars": "other, second"}, SCOPE, ["istio-proxy", "second"]),
        ({"crosswind/end-sidecars": "false"}, SCOPE, ["istio-proxy"]),
        ({}, ReapScope(frozenset({"airflow"}), containers=frozenset({"second"})), ["istio-proxy", "second"]),
    ],
)
def test_an_authors_own_container_is_ended_only_by_opt_in(
    annotations: dict[str, str], scope: ReapScope, meant: list[str]
) -> None:
    pod = changed(lambda pod: pod["metadata"].update(annotations=annotations))
    names = ["base", "istio-proxy", "second"]
    assert [name for name in names if is_shutdown_target(pod, name, scope)] == meant
    assert [*spared_containers(pod, scope)] == [name for name in names[1:] if name not in meant]
