"""The error of an operator's task when the API server refuses its pod."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from kubernetes.client import models as k8s

from crosswind.kube.resources import PODS, Resource
from deadlines import scaled

pytestmark = pytest.mark.cluster

QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")


def limit(runner: Any, **hard: str) -> None:
    """Give the namespace a quota, and wait until it counts."""
    quota = {"metadata": {"name": "quota"}, "spec": {"hard": hard}}
    runner.call_api(lambda client: client.create(QUOTAS, quota, namespace=runner.namespace))
    ends = time.monotonic() + scaled(30)
    while (
        not runner.call_api(lambda client: client.get(QUOTAS, "quota", namespace=runner.namespace))
        .get("status", {})
        .get("used")
    ):
        assert time.monotonic() < ends
        time.sleep(0.05)


def occupy(runner: Any) -> None:
    other = runner.operator("sleep 60", task_id="other", name="occupant", random_name_suffix=False)
    context = runner.context | {"run_id": "other"}
    other.get_or_create_pod(other.build_pod_request_obj(context), context)


def test_a_quota_that_is_used_up_is_waited_for(runner: Any) -> None:
    limit(runner, pods="1")
    occupy(runner)
    free = threading.Timer(
        1,
        lambda: runner.call_api(
            lambda client: client.delete(PODS, "occupant", namespace=runner.namespace, grace_period=0)
        ),
    )
    free.start()
    runner.run("true")
    free.join()


def test_a_quota_is_waited_for_no_longer_than_a_node(runner: Any) -> None:
    limit(runner, pods="1")
    occupy(runner)
    with pytest.raises(
        AirflowException, match=r"not created within \d+ seconds: the ResourceQuota quota .* is used up"
    ):
        runner.run("true", schedule_timeout_seconds=1)


def test_a_task_that_is_killed_does_not_wait_for_a_quota(runner: Any) -> None:
    limit(runner, pods="1")
    occupy(runner)
    operator = runner.operator("true")
    threading.Timer(1, operator.on_kill).start()
    began = time.monotonic()
    with pytest.raises(AirflowException, match="killed"):
        operator.execute(runner.context)
    assert time.monotonic() - began < scaled(5)


def refuse_by_a_quota_that_wants_limits(runner: Any) -> dict[str, Any]:
    limit(runner, **{"limits.memory": "1Gi"})
    return {}


REFUSALS = {
    "quota that wants limits": (
        refuse_by_a_quota_that_wants_limits,
        r"specify limits\.memory.*; set it in container_resources",
    ),
    "no service account": (lambda runner: {"service_account_name": "none"}, r"service account .*none does not exist"),
    "a wrong field": (
        lambda runner: {"annotations": {"bad key!": "x"}},
        r"correct metadata\.annotations in the operator",
    ),
    "no namespace": (
        lambda runner: {"namespace": "no-such"},
        r"namespace no-such does not exist; create it, or correct",
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_is_one_sentence_with_the_fix(runner: Any, printed: Any, kind: str) -> None:
    prepare, sentence = REFUSALS[kind]
    with pytest.raises(AirflowException, match=sentence) as raised:
        runner.run("true", **prepare(runner))
    assert "HTTP response" not in str(raised.value)
    assert "pod_override" not in str(raised.value)
    assert not [line for line in printed.levels if "HTTP response" in line or '"containers"' in line]


def test_a_pod_killed_for_memory_names_the_operator_s_keyword(runner: Any) -> None:
    resources = k8s.V1ResourceRequirements(limits={"memory": "32Mi"})
    with pytest.raises(AirflowException, match=r"OOMKilled\); raise limits\.memory in container_resources"):
        runner.run("head -c 300m /dev/zero | tail > /dev/null", container_resources=resources)


@pytest.mark.parametrize(
    ("dag_id", "task_id"), [("продажи", "load"), ("sales", "загрузка"), ("売上", "読込"), ("продажи-2", "l")]
)
def test_ids_without_an_ascii_letter_work_in_labels_and_selectors(runner: Any, dag_id: str, task_id: str) -> None:
    runner.instance.dag_id, runner.instance.task_id = dag_id, task_id
    first = runner.operator("sleep 1", task_id=task_id)
    request = first.build_pod_request_obj(runner.context)
    first.get_or_create_pod(request, runner.context)
    runner.instance.try_number = 2
    runner.run("true", task_id=task_id)
    assert runner.instance.pushed["pod_name"] == request.metadata.name


@pytest.mark.parametrize(("name", "suffix"), [("загрузка", True), ("загрузка", False)])
def test_a_name_without_an_ascii_letter_is_taken(runner: Any, name: str, suffix: bool) -> None:
    runner.run("true", name=name, random_name_suffix=suffix)
