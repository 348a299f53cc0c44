"""Pods that the cluster takes: the operator launches them again in the same try, and its result is the last pod's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from kubernetes.client import V1Pod, V1PodSpec, V1Toleration
from tests.operators.conftest import OperatorRunner
from tests.operators.test_later_tries import Store, base_of, until

from crosswind.errors import ConfigError
from crosswind.kube.resources import PODS
from crosswind.operators import KubernetesPodOperator
from crosswind.podrun.relaunch import losses_before, name_after_losses
from crosswind.provider.hook_client import to_plain_json
from deadlines import scaled
from kubelocal.settings import LocalSettings
from kubelocal.testing import serve_in_thread

STAYS = "trap 'exit 143' TERM; while :; do sleep 0.2 & wait $!; done"
ONCE = f"case $HOSTNAME in *-1) {{}}; exit 0;; esac; {STAYS}"
"""The second pod, whose name ends with the number of losses, does the work; the first one waits to be taken."""

XCOM = "mkdir -p /airflow/xcom; echo '{\"rows\": 7}' > /airflow/xcom/return.json"


def both(test: Any) -> Any:
    return pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])(test)


class Taker:
    """Takes each pod of a namespace once its base container runs, ``times`` times, in a thread of its own."""

    def __init__(self, runner: Any, take: Callable[[Any], None], times: int = 1) -> None:
        self._runner, self._take, self._times = runner, take, times
        self.taken: list[Any] = []
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Taker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(scaled(60))

    def _work(self) -> None:
        end = time.monotonic() + scaled(30)
        while len(self.taken) < self._times and time.monotonic() < end:
            known = {pod["metadata"]["uid"] for pod in self.taken}
            for pod in self._runner.pods():
                if pod["metadata"]["uid"] not in known and base_of(pod).get("running"):
                    self.taken.append(pod)
                    self._take(pod)
            time.sleep(0.05)


def evict(runner: Any) -> Callable[[Any], None]:
    def take(pod: Any) -> None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        runner.call_api(lambda client: client.evict(name, namespace=runner.namespace, uid=uid))

    return take


@pytest.mark.cluster
@both
def test_an_evicted_pod_is_launched_again_and_its_xcom_is_the_task_s(runner: Any, deferrable: bool) -> None:
    with Taker(runner, evict(runner)) as taker:
        value = runner.run(ONCE.format(XCOM), deferrable=deferrable, do_xcom_push=True)
    (first,) = taker.taken
    assert value == {"rows": 7}
    assert runner.instance.pushed["pod_name"] == f"{first['metadata']['name']}-1" or deferrable
    assert runner.instance.pushed["pod_name"] != first["metadata"]["name"]
    assert runner.pods() == []


class SetsItsProgram(KubernetesPodOperator):
    """Sets what its pod runs where many subclasses do."""

    def execute(self, context: Any) -> Any:
        self.cmds = ["sh", "-c", ONCE.format(XCOM)]
        return super().execute(context)


@pytest.mark.cluster
@both
def test_the_pod_after_a_loss_runs_what_execute_has_set(runner: Any, deferrable: bool) -> None:
    with Taker(runner, evict(runner)):
        value = runner.run("true", kind=SetsItsProgram, deferrable=deferrable, do_xcom_push=True)
    assert value == {"rows": 7}


@pytest.mark.cluster
@both
def test_after_as_many_losses_as_are_allowed_the_task_fails_and_says_why(runner: Any, deferrable: bool) -> None:
    with (
        Taker(runner, evict(runner), times=3) as taker,
        pytest.raises(AirflowException, match=r"(?i)evict"),
    ):
        runner.run(STAYS, deferrable=deferrable, infra_retries=2)
    assert [losses_before(pod) for pod in taker.taken] == [0, 1, 2]


@pytest.mark.cluster
@pytest.mark.parametrize("options", [{"infra_retries": 0}, {"executor_config": {"crosswind": {"infra_retries": 0}}}])
def test_a_task_that_must_not_run_twice_fails_with_its_first_loss(runner: Any, options: dict[str, Any]) -> None:
    with Taker(runner, evict(runner)), pytest.raises(AirflowException, match=r"(?i)evict"):
        runner.run(STAYS, **options)


@pytest.mark.cluster
def test_a_program_that_fails_by_itself_is_not_launched_again(runner: Any) -> None:
    with pytest.raises(AirflowException, match="exit code 3"):
        runner.run("exit 3")
    assert losses_before(runner.pods()[0] if runner.pods() else {}) == 0


@pytest.mark.cluster
def test_the_next_pod_starts_when_the_program_of_the_lost_one_has_ended(runner: Any) -> None:
    slow = "trap 'sleep 2; exit 143' TERM; while :; do sleep 0.2 & wait $!; done"
    snapshots: list[dict[int, bool]] = []
    is_over = threading.Event()

    def take(pod: Any) -> None:
        evict(runner)(pod)
        while not is_over.wait(0.02):
            snapshots.append({losses_before(each): bool(base_of(each).get("running")) for each in runner.all_pods()})

    with Taker(runner, take):
        runner.run(f"case $HOSTNAME in *-1) sleep 1; exit 0;; esac; {slow}", termination_grace_period=10)
        is_over.set()
    assert any(1 in snapshot for snapshot in snapshots)
    assert [snapshot for snapshot in snapshots if 1 in snapshot and snapshot.get(0)] == []


@pytest.mark.cluster
def test_a_later_try_follows_the_pod_that_replaced_a_lost_one_and_goes_on_counting(runner: Any, printed: Any) -> None:
    context = runner.context | {"task_state_store": Store()}
    operator = runner.operator(STAYS, infra_retries=1)
    operator._losses = 1  # as after the first loss; then its worker is lost
    request = operator._request_after_losses(operator.build_pod_request_obj(context))
    operator.get_or_create_pod(request, context)
    runner.instance.try_number += 1
    with Taker(runner, evict(runner)), pytest.raises(AirflowException, match=r"(?i)evict"):
        runner.operator(STAYS, infra_retries=1).execute(context)
    assert any("infra_retries allows 1" in message for message in printed.levels)


@pytest.mark.cluster
@both
def test_a_pod_that_a_person_deletes_is_no_loss_unless_the_option_says_so(
    runner: Any, deferrable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete(pod: Any) -> None:
        name = pod["metadata"]["name"]
        runner.call_api(lambda client: client.delete(PODS, name, namespace=runner.namespace, grace_period=1))

    with Taker(runner, delete), pytest.raises(AirflowException, match=r"143|delete"):
        runner.run(ONCE.format("true"), deferrable=deferrable)
    monkeypatch.setenv("AIRFLOW__CROSSWIND__DELETED_IS_LOSS", "True")
    with Taker(runner, delete):
        runner.run(ONCE.format("true"), deferrable=deferrable)


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A cluster of two nodes that run processes, on which the seconds until a loss pass a hundred times faster."""
    served = serve_in_thread(LocalSettings(nodes=2, node_loss_time_scale=0.01))
    with served as cluster:
        runner = OperatorRunner(cluster, "default")
        yield served, runner
        runner.close()


@both
@pytest.mark.parametrize("random_name_suffix", [True, False], ids=["random-names", "fixed-name"])
def test_a_pod_on_a_dead_node_is_launched_on_another_one(
    nodes: Any, deferrable: bool, random_name_suffix: bool
) -> None:
    served, runner = nodes

    def lose(pod: Any) -> None:
        served.call(lambda cluster: cluster.lose_node(pod["spec"]["nodeName"]))

    with Taker(runner, lose) as taker:
        value = runner.run(
            ONCE.format(XCOM), deferrable=deferrable, do_xcom_push=True, random_name_suffix=random_name_suffix
        )
    assert value == {"rows": 7}
    (first,) = taker.taken
    left = [pod["metadata"]["name"] for pod in runner.all_pods()]
    assert left == [first["metadata"]["name"]], "its object stays while its node is dead"
    served.call(lambda cluster: cluster.recover_node(first["spec"]["nodeName"]))
    until(lambda: not runner.all_pods())


@both
def test_a_node_that_is_shut_down_costs_no_retry(nodes: Any, deferrable: bool) -> None:
    served, runner = nodes

    def shut_down(pod: Any) -> None:
        served.call(lambda cluster: cluster.shut_down_node(pod["spec"]["nodeName"], grace=5))

    with Taker(runner, shut_down):
        runner.run(ONCE.format("true"), deferrable=deferrable)


@pytest.mark.parametrize(
    ("name", "before", "losses", "after"),
    [
        ("report", 0, 1, "report-1"),
        ("report-1", 1, 2, "report-2"),
        ("report-1", 0, 1, "report-1-1"),
        ("x" * 63, 0, 1, "x" * 61 + "-1"),
        ("x" * 61 + "-9", 9, 10, "x" * 60 + "-10"),
        ("x" * 60 + ".yz", 0, 1, "x" * 60 + "-1"),
    ],
)
def test_the_name_of_the_next_pod_ends_with_the_number_of_losses(
    name: str, before: int, losses: int, after: str
) -> None:
    assert name_after_losses(name, before, losses) == after


@pytest.mark.parametrize("label", ["", "x", "-1", "٣", "1.5"])
def test_a_label_that_is_no_number_counts_as_no_loss(label: str) -> None:
    assert losses_before({"metadata": {"labels": {"crosswind/losses": label}}}) == 0


@pytest.mark.parametrize("value", [-1, True, "3", 1.5])
def test_an_invalid_limit_is_refused(value: Any, runner: Any) -> None:
    with pytest.raises((ValueError, AirflowException), match="infra_retries must be a whole number"):
        runner.operator(infra_retries=value)


def node_tolerations(operator: Any, runner: Any) -> dict[str, int | None]:
    """Return the seconds for which the operator's pod tolerates taints, by the taint's key."""
    spec = operator.build_pod_request_obj(runner.context).spec
    plain = to_plain_json(spec.tolerations or [])
    return {toleration.get("key", "*"): toleration.get("tolerationSeconds") for toleration in plain}


NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
FOR_EVER = {"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute"}
EVERY_TAINT = {"operator": "Exists"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, {NOT_READY: 30, UNREACHABLE: 30}),
        ({"infra_retries": 0}, {}),
        ({"executor_config": {"crosswind": {"infra_retries": 0}}}, {}),
        ({"executor_config": {"crosswind": {"node_loss_seconds": 90}}}, {NOT_READY: 90, UNREACHABLE: 90}),
        ({"executor_config": {"crosswind": {"node_loss_seconds": 0}}}, {}),
        ({"executor_config": {"crosswind": {"node_loss_seconds": "soon"}}}, {NOT_READY: 30, UNREACHABLE: 30}),
        ({"tolerations": [V1Toleration(**FOR_EVER)]}, {UNREACHABLE: None, NOT_READY: 30}),
        ({"tolerations": [EVERY_TAINT]}, {"*": None}),
        ({"full_pod_spec": V1Pod(spec=V1PodSpec(containers=[], tolerations=[EVERY_TAINT]))}, {"*": None}),
    ],
)
def test_a_pod_leaves_a_dead_node_as_soon_as_a_worker_pod_unless_its_author_says_otherwise(
    arguments: dict[str, Any], expected: dict[str, int | None], runner: Any
) -> None:
    assert node_tolerations(runner.operator("true", **arguments), runner) == expected


def test_the_tolerations_of_a_dead_node_are_the_configurations(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CROSSWIND__NODE_LOSS_SECONDS", "200")
    assert node_tolerations(runner.operator("true"), runner) == {NOT_READY: 200, UNREACHABLE: 200}
    monkeypatch.setenv("AIRFLOW__CROSSWIND__NODE_LOSS_SECONDS", "-1")
    with pytest.raises(ConfigError, match="node_loss_seconds: must be a whole number of at least 0, not -1"):
        runner.operator("true").build_pod_request_obj(runner.context)
