from __future__ import annotations

import datetime
from typing import Any

import pytest
from kubernetes.client import models as k8s

from crosswind.engine.executor_config import PodChoice, read_executor_config, read_loss_choice, to_json, to_pod
from crosswind.engine.losses import LossChoice
from crosswind.errors import OverrideError


def pod(**base: Any) -> k8s.V1Pod:
    return k8s.V1Pod(spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base", **base)]))


@pytest.mark.parametrize("config", [None, {}, {"LocalExecutor": {"x": 1}}])
def test_a_config_without_pod_keys_chooses_nothing(config: object) -> None:
    assert read_executor_config(config) == PodChoice()


def test_a_config_may_have_a_template_and_an_override() -> None:
    choice = read_executor_config({"pod_template_file": "/opt/t.yaml", "pod_override": pod(image="mine")})
    assert choice.template == "/opt/t.yaml"
    assert choice.override == {"spec": {"containers": [{"name": "base", "image": "mine"}]}}


def test_a_config_may_say_what_follows_a_loss() -> None:
    given = {"infra_retries": 0, "after_losses": {1: pod(image="mine"), "3": {"spec": {"priorityClassName": "high"}}}}
    expected = {
        1: {"spec": {"containers": [{"name": "base", "image": "mine"}]}},
        3: {"spec": {"priorityClassName": "high"}},
    }
    assert read_executor_config({"crosswind": given}).losses == LossChoice(0, expected, None)
    assert read_loss_choice({"crosswind": {"node_loss_seconds": 5}, "pod_override": "broken"}) == LossChoice(
        None, None, 5
    )


def test_falsy_values_stay_and_fields_get_kubernetes_names() -> None:
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
    ("config", "message"),
    [
        ([1], "executor_config must be a dict, not list"),
        ({"KubernetesExecutor": {"image": "x"}}, 'use "pod_override"'),
        ({"pod_template_file": 7}, 'executor_config["pod_template_file"] must be a path, not 7'),
        ({"pod_template_file": ""}, "must be a path"),
        ({"crosswind": 3}, 'executor_config["crosswind"] must be a dict with some of infra_retries, after_losses'),
        ({"crosswind": {"retries": 3}}, 'executor_config["crosswind"] has retries; it takes infra_retries'),
        ({"crosswind": {"infra_retries": "3"}}, 'executor_config["crosswind"].infra_retries: must be a whole number'),
        (
            {"crosswind": {"node_loss_seconds": -1}},
            '["crosswind"].node_loss_seconds: must be a whole number of at least 0',
        ),
        ({"crosswind": {"after_losses": {0: pod()}}}, '["crosswind"].after_losses: 0 is not a number of losses'),
        ({"crosswind": {"after_losses": {1: pod(tty="yes")}}}, "after_losses.1.spec.containers[0].tty must be bool"),
        ({"pod_override": {"spec": {}}}, "must be a kubernetes.client.models.V1Pod, not dict"),
        ({"pod_override": k8s.V1PodSpec(containers=[])}, "not V1PodSpec"),
        ({"pod_override": pod(env={"A": "b"})}, "spec.containers[0].env must be a list of V1EnvVar, not dict"),
        ({"pod_override": pod(env=[{"name": "A"}], tty="yes")}, "spec.containers[0].tty must be bool, not str: 'yes'"),
        ({"pod_override": pod(args=[1])}, "spec.containers[0].args[0] must be str, not int: 1"),
        ({"pod_override": pod(resources="big")}, "spec.containers[0].resources must be a V1ResourceRequirements"),
    ],
)
def test_an_error_in_a_config_names_field_and_type(config: object, message: str) -> None:
    with pytest.raises(OverrideError) as caught:
        read_executor_config(config)
    assert message in str(caught.value)


def test_times_become_text() -> None:
    moment = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    metadata = k8s.V1ObjectMeta(creation_timestamp=moment)
    assert to_json(metadata, "V1ObjectMeta", "m") == {"creationTimestamp": "2026-01-02T00:00:00+00:00"}


def test_a_pod_converts_to_json_and_back() -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "labels": {"x": "y"}},
        "spec": {"hostNetwork": False, "containers": [{"name": "base", "resources": {"limits": {"cpu": "1"}}}]},
    }
    assert to_json(to_pod(manifest), "V1Pod", "pod") == manifest
