"""What an operator's task says when the API server does not take its pod."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from kubernetes.client import models as k8s

from crosswind.kube.resources import PODS, Resource

pytestmark = pytest.mark.cluster

QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")


def limit(stand: Any, **hard: str) -> None:
    """Give the namespace a quota, and wait until it counts."""
    quota = {"metadata": {"name": "quota"}, "spec": {"hard": hard}}
    stand.ask(lambda client: client.create(QUOTAS, quota, namespace=stand.namespace))
    ends = time.monotonic() + 30
    while (
        not stand.ask(lambda client: client.get(QUOTAS, "quota", namespace=stand.namespace))
        .get("status", {})
        .get("used")
    ):
        assert time.monotonic() < ends
        time.sleep(0.05)


def occupy(stand: Any) -> None:
    other = stand.operator("sleep 60", task_id="other", name="occupant", random_name_suffix=False)
    context = stand.context | {"run_id": "other"}
    other.get_or_create_pod(other.build_pod_request_obj(context), context)


def test_a_quota_that_is_used_up_is_waited_for(stand: Any) -> None:
    limit(stand, pods="1")
    occupy(stand)
    free = threading.Timer(
        1, lambda: stand.ask(lambda client: client.delete(PODS, "occupant", namespace=stand.namespace, grace_period=0))
    )
    free.start()
    stand.run("true")
    free.join()


def test_a_quota_is_waited_for_no_longer_than_a_node(stand: Any) -> None:
    limit(stand, pods="1")
    occupy(stand)
    with pytest.raises(
        AirflowException, match=r"not created within \d+ seconds: the ResourceQuota quota .* is used up"
    ):
        stand.run("true", schedule_timeout_seconds=1)


def test_a_task_that_is_killed_does_not_wait_for_a_quota(stand: Any) -> None:
    limit(stand, pods="1")
    occupy(stand)
    operator = stand.operator("true")
    threading.Timer(1, operator.on_kill).start()
    began = time.monotonic()
    with pytest.raises(AirflowException, match="killed"):
        operator.execute(stand.context)
    assert time.monotonic() - began < 5


def refuse_by_a_quota_that_wants_limits(stand: Any) -> dict[str, Any]:
    limit(stand, **{"limits.memory": "1Gi"})
    return {}


REFUSALS = {
    "quota that wants limits": (
        refuse_by_a_quota_that_wants_limits,
        r"state limits\.memory.*; set it in container_resources",
    ),
    "no service account": (lambda stand: {"service_account_name": "none"}, r"service account .*none does not exist"),
    "a wrong field": (
        lambda stand: {"annotations": {"bad key!": "x"}},
        r"correct metadata\.annotations in the operator",
    ),
    "no namespace": (
        lambda stand: {"namespace": "no-such"},
        r"namespace no-such does not exist; create it, or correct",
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_is_one_sentence_with_the_mend(stand: Any, printed: Any, kind: str) -> None:
    prepare, sentence = REFUSALS[kind]
    with pytest.raises(AirflowException, match=sentence) as raised:
        stand.run("true", **prepare(stand))
    assert "HTTP response" not in str(raised.value)
    assert "pod_override" not in str(raised.value)
    assert not [line for line in printed.levels if "HTTP response" in line or '"containers"' in line]


def test_a_pod_killed_for_memory_names_the_operator_s_keyword(stand: Any) -> None:
    resources = k8s.V1ResourceRequirements(limits={"memory": "32Mi"})
    with pytest.raises(AirflowException, match=r"OOMKilled\); raise limits\.memory in container_resources"):
        stand.run("head -c 300m /dev/zero | tail > /dev/null", container_resources=resources)


@pytest.mark.parametrize(
    ("dag_id", "task_id"), [("продажи", "load"), ("sales", "загрузка"), ("売上", "読込"), ("продажи-2", "l")]
)
def test_ids_without_an_ascii_letter_work_in_labels_and_selectors(stand: Any, dag_id: str, task_id: str) -> None:
    stand.instance.dag_id, stand.instance.task_id = dag_id, task_id
    first = stand.operator("sleep 1", task_id=task_id)
    request = first.build_pod_request_obj(stand.context)
    first.get_or_create_pod(request, stand.context)
    stand.instance.try_number = 2
    stand.run("true", task_id=task_id)
    assert stand.instance.pushed["pod_name"] == request.metadata.name


@pytest.mark.parametrize(("name", "suffix"), [("загрузка", True), ("загрузка", False)])
def test_a_name_without_an_ascii_letter_is_taken(stand: Any, name: str, suffix: bool) -> None:
    stand.run("true", name=name, random_name_suffix=suffix)
