"""A pod operator whose worker is asked to end: it deletes its pod, and then fails because the pod is gone."""

from __future__ import annotations

from typing import Any

import pytest
from rig import Rig, at_rest, until

from crosswind.event_loop import run_in_own_loop
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def phases(cluster: Cluster, dag_id: str) -> list[str]:
    """Return the phases of the pods that an operator of this DAG made."""

    async def ask() -> Any:
        async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
            return (await client.list(PODS, namespace="default", labels=f"dag_id={dag_id}")).items

    return [pod["status"].get("phase", "") for pod in run_in_own_loop(ask, 30)]


@pytest.mark.parametrize("whom", ["process 1", "all"])
@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("operator", ["pod", "stock_pod"])
def test_a_pod_operator_that_fails_after_sigterm_stays_running(
    rig: Rig, cluster: Cluster, operator: str, retries: int, whom: str
) -> None:
    dag_id = f"{operator}_{retries}"
    environment = {"CLUSTER": str(cluster.kubeconfig), "CLUSTER_IMAGE": cluster.image}
    run = rig.start(dag_id, environment=environment)
    until(lambda: run.process.poll() is not None or phases(cluster, dag_id) == ["Running"], "the pod")
    if whom == "all":  # the supervisor acts last, and then forwards the signal once more
        child = run.child
        with run.supervisor_stopped():
            run.signal("all")
            until(lambda: at_rest(child))
            assert not run.has("callback")
    else:
        run.signal()
    assert run.ended() == 143
    assert run.record["reason"] == "terminated"
    assert run.state == "running"
    assert not run.has("callback")
    until(lambda: not phases(cluster, dag_id), "the pod's deletion")
