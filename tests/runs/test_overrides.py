from __future__ import annotations

import datetime
from typing import Any

import pytest
from kubernetes.client import models as k8s

from crosswind.errors import OverrideError
from crosswind.runs.overrides import PodChoice, read_executor_config, to_json, to_pod


def pod(**base: Any) -> k8s.V1Pod:
    return k8s.V1Pod(spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base", **base)]))


@pytest.mark.parametrize("config", [None, {}, {"LocalExecutor": {"x": 1}}])
def test_a_config_that_says_nothing_of_pods_asks_for_nothing(config: object) -> None:
    assert read_executor_config(config) == PodChoice()


def test_template_and_override_may_stand_side_by_side() -> None:
    choice = read_executor_config({"pod_template_file": "/opt/t.yaml", "pod_override": pod(image="mine")})
    assert choice.template == "/opt/t.yaml"
    assert choice.override == {"spec": {"containers": [{"name": "base", "image": "mine"}]}}


def test_falsy_values_are_kept_and_names_are_those_of_kubernetes() -> None:
    value = k8s.V1Pod(
        spec=k8s.V1PodSpec(
            automount_service_account_token=False,
            termination_grace_period_seconds=0,
            tolerations=[],
            containers=[k8s.V1Container(name="base", env=[k8s.V1EnvVar(name="EMPTY", value="")])],
        )
    )
    override = read_executor_config({"pod_override": value}).override
    assert override == {
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [],
            "containers": [{"name": "base", "env": [{"name": "EMPTY", "value": ""}]}],
        }
    }


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ([1], "executor_config must be a dict, is list"),
        ({"KubernetesExecutor": {"image": "x"}}, 'use "pod_override"'),
        ({"pod_template_file": 7}, 'executor_config["pod_template_file"] must be a path, is 7'),
        ({"pod_template_file": ""}, "must be a path"),
        ({"pod_override": {"spec": {}}}, "must be a kubernetes.client.models.V1Pod, is dict"),
        ({"pod_override": k8s.V1PodSpec(containers=[])}, "is V1PodSpec"),
        ({"pod_override": pod(env={"A": "b"})}, "spec.containers[0].env must be a list of V1EnvVar, is dict"),
        ({"pod_override": pod(env=[{"name": "A"}], tty="yes")}, "spec.containers[0].tty must be bool, is str: 'yes'"),
        ({"pod_override": pod(args=[1])}, "spec.containers[0].args[0] must be str, is int: 1"),
        ({"pod_override": pod(resources="big")}, "spec.containers[0].resources must be a V1ResourceRequirements"),
    ],
)
def test_a_wrong_config_is_told_with_field_and_type(config: object, told: str) -> None:
    with pytest.raises(OverrideError) as caught:
        read_executor_config(config)
    assert told in str(caught.value)


def test_times_become_text() -> None:
    moment = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    metadata = k8s.V1ObjectMeta(creation_timestamp=moment)
    assert to_json(metadata, "V1ObjectMeta", "m") == {"creationTimestamp": "2026-01-02T00:00:00+00:00"}


def test_a_pod_survives_the_way_there_and_back() -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "labels": {"x": "y"}},
        "spec": {"hostNetwork": False, "containers": [{"name": "base", "resources": {"limits": {"cpu": "1"}}}]},
    }
    assert to_json(to_pod(manifest), "V1Pod", "pod") == manifest
