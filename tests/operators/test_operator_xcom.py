from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from airflow.sdk.exceptions import TaskDeferred
from benchmarks.operator_cells import first_event
from kubernetes.client import models as k8s

from crosswind.errors import XComError
from crosswind.kube.resources import PODS

pytestmark = pytest.mark.cluster

FILE = "/airflow/xcom/return.json"
STAYS = "trap 'exit 0' TERM; while :; do sleep 0.2 & wait $!; done"
DEAF = "trap '' TERM; while :; do sleep 1; done"
LONG = f"{{ printf '\"'; head -c %d /dev/zero | tr \"\\0\" x; printf '\"'; }} > {FILE}"


@pytest.fixture
def collected(runner: Any) -> Iterator[None]:
    """Let go of everything within the test, where what it leaves open is excused."""
    yield
    runner.close()
    gc.collect()


def both(test: Any) -> Any:
    return pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])(test)


@both
@pytest.mark.parametrize("value", [None, 0, "text with \u00fc and \n", {"a": [1, 2.5, None]}, []], ids=repr)
def test_a_value_comes_as_it_was_written(runner: Any, value: Any, deferrable: bool) -> None:
    script = f"cat > {FILE} <<'END'\n{json.dumps(value, ensure_ascii=False)}\nEND"
    assert runner.run(script, do_xcom_push=True, deferrable=deferrable) == value


@pytest.mark.parametrize("size", [3990, 4001, 70_000, 10_000_000])
@pytest.mark.parametrize("beside", ["", STAYS], ids=["alone", "beside-a-sidecar"])
def test_a_long_value_comes_whole(runner: Any, size: int, beside: str) -> None:
    pod = runner.with_sidecar(beside) if beside else None
    assert runner.run(LONG % size, do_xcom_push=True, full_pod_spec=pod) == "x" * size


@pytest.mark.timeout(60)
def test_a_long_value_comes_from_beside_a_sidecar_that_nothing_ends(runner: Any) -> None:
    assert runner.run(LONG % 70_000, do_xcom_push=True, full_pod_spec=runner.with_sidecar(DEAF)) == "x" * 70_000


def test_a_value_beyond_the_limit_is_refused_with_the_fix(runner: Any) -> None:
    with pytest.raises(XComError, match="10485760 are possible"):
        runner.run(LONG % 10_500_000, do_xcom_push=True)


@both
def test_no_file_and_an_empty_one_are_no_value(runner: Any, deferrable: bool) -> None:
    assert runner.run("true", do_xcom_push=True, deferrable=deferrable) is None
    assert (
        runner.run(f": > {FILE}", do_xcom_push=True, deferrable=deferrable, full_pod_spec=runner.with_sidecar(STAYS))
        is None
    )


def test_what_is_no_json_fails_with_where(runner: Any) -> None:
    with pytest.raises(XComError, match=r"return\.json is not JSON"):
        runner.run(f"echo hello > {FILE}", do_xcom_push=True)


def test_the_last_of_several_values_counts_also_beside_a_sidecar(runner: Any) -> None:
    script = f"echo 1 > {FILE}; sleep 1.5; echo 2 > {FILE}.new; mv {FILE}.new {FILE}"
    assert runner.run(script, do_xcom_push=True, full_pod_spec=runner.with_sidecar(STAYS)) == 2


def test_a_task_that_fails_still_pushes_what_it_left(runner: Any) -> None:
    with pytest.raises(AirflowException, match="exit code 5"):
        runner.run(f"echo '{{\"a\": 1}}' > {FILE}; exit 5", do_xcom_push=True)
    assert runner.instance.pushed["return_value"] == {"a": 1}


def test_a_value_survives_the_removal_of_a_deferred_pod(runner: Any) -> None:
    options = {"do_xcom_push": True, "deferrable": True}
    with pytest.raises(TaskDeferred) as deferred:
        runner.operator(f"echo 7 > {FILE}", **options).execute(runner.context)
    event = asyncio.run(first_event(*deferred.value.trigger.serialize()))
    runner.call_api(lambda client: client.delete(PODS, event["name"], namespace=runner.namespace, grace_period=0))
    while runner.pods():
        time.sleep(0.05)
    assert runner.operator(**options).trigger_reentry(runner.context, event) == 7


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # stock's exec leaves its socket open
@pytest.mark.usefixtures("collected")
def test_stock_s_way_can_be_chosen(runner: Any) -> None:
    value = runner.run(f"echo 3 > {FILE}", do_xcom_push=True, xcom_sidecar="stock")
    assert value == 3
    pod = runner.operator(do_xcom_push=True, xcom_sidecar="stock").build_pod_request_obj(runner.context)
    assert [container.name for container in pod.spec.containers] == ["base", "airflow-xcom-sidecar"]


def test_the_sidecar_takes_base_s_security_context_unless_it_gets_its_own(runner: Any) -> None:
    context = k8s.V1SecurityContext(run_as_user=1234, allow_privilege_escalation=False)
    operator = runner.operator(do_xcom_push=True, container_security_context=context)
    xcom_sidecar = operator.build_pod_request_obj(runner.context).spec.init_containers[-1]
    assert (xcom_sidecar.name, xcom_sidecar.security_context.run_as_user) == ("crosswind-xcom", 1234)
    own = k8s.V1SecurityContext(run_as_user=99)
    operator = runner.operator(
        do_xcom_push=True, container_security_context=context, xcom_sidecar_container_security_context=own
    )
    assert operator.build_pod_request_obj(runner.context).spec.init_containers[-1].security_context.run_as_user == 99


def test_an_unknown_way_is_refused(runner: Any) -> None:
    with pytest.raises(ValueError, match="native or stock"):
        runner.operator(xcom_sidecar="other")


@both
@pytest.mark.parametrize("size", [1300, 3900])
def test_a_value_comes_whole_from_a_pod_of_many_containers(runner: Any, size: int, deferrable: bool) -> None:
    """The kubelet shares 12 KiB of termination messages among them."""
    pod = runner.with_sidecar("exit 0")
    native = [
        k8s.V1Container(
            name=f"proxy-{number}", image=runner.cluster.image, restart_policy="Always", command=["sh", "-c", STAYS]
        )
        for number in range(6)
    ]
    pod.spec.init_containers = [k8s.V1Container(name="before", image=runner.cluster.image, command=["true"]), *native]
    assert runner.run(LONG % size, do_xcom_push=True, full_pod_spec=pod, deferrable=deferrable) == "x" * size


def test_the_sidecar_is_silent_while_the_task_works(runner: Any) -> None:
    runner.run(f"sleep 3; echo 1 > {FILE}", do_xcom_push=True, on_finish_action="keep_pod")
    name = runner.pods()[0]["metadata"]["name"]
    log = runner.call_api(lambda client: client.log(name, namespace=runner.namespace, container="crosswind-xcom"))
    words = log.decode().split("\n\nbegin")[0].split()
    assert words in (["none"], ["none", "busy"])
