"""Tasks on nodes that die, are cut off or shut down are scheduled again, without using up a retry."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from sqlalchemy import delete

from crosswind.event_loop import run_in_own_loop
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS
from crosswind.provider.pod_rows import read_pods
from crosswind.settings import KubeSettings
from deadlines import scaled
from kubelocal.settings import LocalSettings
from kubelocal.testing import serve_in_thread

pytestmark = pytest.mark.timeout(120)

TEMPLATE = """
apiVersion: v1
kind: Pod
metadata: {name: worker}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers: [{name: base, image: busybox, command: [sh, -c, sleep 600]}]
"""


@pytest.fixture(scope="module")
def served() -> Iterator[Any]:
    served = serve_in_thread(LocalSettings(nodes=2, node_loss_time_scale=0.02))
    with served as cluster:
        served.kubeconfig = cluster.kubeconfig  # type: ignore[attr-defined]
        yield served


@pytest.fixture
def losing(bench: Any, served: Any) -> Iterator[Any]:
    """A bench with a DAG run that runs, and one task in it, on a node that can be lost."""
    bench.template(TEMPLATE)
    bench.set("kubernetes_executor", config_file=str(served.kubeconfig), namespace="default")
    with create_session() as session:
        session.add(DagRun(dag_id="dag", run_id="run", run_type="manual", state="running"))

    def pods() -> list[Any]:
        async def listed() -> Any:
            async with await Client.connect(KubeSettings(kubeconfig=str(served.kubeconfig))) as client:
                return await client.list(PODS, namespace="default", labels="kubernetes_executor=True")

        return list(run_in_own_loop(listed, scaled(20)).items)

    bench.pods = pods
    bench.start()
    yield bench
    with create_session() as session:
        session.execute(delete(DagRun))


def begun(bench: Any) -> tuple[Any, str]:
    """Launch a task and wait until it runs; return its key and its node."""
    key = bench.queue()
    (pod,) = bench.until(lambda: [pod for pod in bench.pods() if pod["status"].get("phase") == "Running"])
    bench.state(key, "running")
    return key, pod["spec"]["nodeName"]


def is_replaced(bench: Any, key: Any, reason: str) -> None:
    """Wait until the slot is free, and check that the row is to be scheduled, under a new id."""
    bench.until(lambda: key not in bench.executor.running)
    ((ti_id, state, number, most),) = bench.rows("select id, state, try_number, max_tries from task_instance")
    assert ti_id != bench.ids[key]
    assert (state, number, most) == (None, 1, 1)
    assert bench.events == {}
    ((event, extra, _),) = bench.event_log()
    assert event == "pod lost"
    assert "The cluster took the pod while the task ran" in extra
    bench.until(bench.is_empty)
    (record,) = bench.until(lambda: read_pods([str(uuid.UUID(bench.ids[key]))]))
    assert (record.outcome, record.reason) == ("lost", reason)


@pytest.mark.parametrize("dead", [True, False], ids=["dead", "cut off"])
def test_the_task_of_a_node_that_does_not_answer_is_scheduled_again_while_its_pod_is_still_there(
    losing: Any, served: Any, dead: bool
) -> None:
    key, node = begun(losing)
    served.call(lambda cluster: cluster.lose_node(node, dead=dead))
    losing.until(lambda: key not in losing.executor.running)
    (pod,) = losing.pods()
    assert pod["status"]["phase"] == "Running"
    assert "deletionTimestamp" in pod["metadata"]
    served.call(lambda cluster: cluster.recover_node(node))
    is_replaced(losing, key, "DeletionByTaintManager")


def test_the_task_of_a_node_that_shuts_down_is_scheduled_again(losing: Any, served: Any) -> None:
    key, node = begun(losing)
    served.call(lambda cluster: cluster.shut_down_node(node, grace=2.0))
    losing.until(lambda: key not in losing.executor.running)
    served.call(lambda cluster: cluster.recover_node(node))
    is_replaced(losing, key, "TerminationByKubelet")
