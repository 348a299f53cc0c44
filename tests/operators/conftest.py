"""An operator executed as the task runner and the triggerer do it, against the test's cluster."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from airflow.sdk import DAG
from benchmarks.operator_cells import Instance, execute, release
from kubernetes.client import models as k8s

from crosswind.event_loop import run_in_own_loop
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS
from crosswind.operators import KubernetesPodOperator
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster
from crosswind.types import Manifest
from deadlines import scaled


@dataclass
class OperatorRunner:
    """Creates operators for a namespace, runs them, and reads the pods of the namespace."""

    cluster: Cluster
    namespace: str
    instance: Instance = field(default_factory=lambda: Instance("task"))
    operators: list[Any] = field(default_factory=list)
    kubeconfig: str = ""

    def operator(
        self, script: str = "true", task_id: str = "task", kind: Any = KubernetesPodOperator, **options: Any
    ) -> Any:
        """Return an operator whose base container runs a shell script."""
        defaults = {
            "kubernetes_conn_id": None,
            "config_file": str(self.cluster.kubeconfig),
            "namespace": self.namespace,
            "image": self.cluster.image,
            "image_pull_policy": self.cluster.pull_policy,
            "cmds": ["sh", "-c", script],
            "termination_grace_period": 2,
            "log_pod_spec_on_failure": False,
        }
        with DAG("dag", schedule=None):
            self.operators.append(kind(task_id=task_id, **defaults | options))
        return self.operators[-1]

    def with_sidecar(self, script: str, name: str = "side") -> k8s.V1Pod:
        """Return a ``full_pod_spec`` with a second container that runs a shell script."""
        side = k8s.V1Container(name=name, image=self.cluster.image, command=["sh", "-c", script])
        spec = k8s.V1PodSpec(containers=[k8s.V1Container(name="base"), side])
        return k8s.V1Pod(metadata=k8s.V1ObjectMeta(), spec=spec)

    @property
    def context(self) -> Any:
        """The context of the one task instance."""
        return {"ti": self.instance, "run_id": "run", "dag": DAG("dag", schedule=None)}

    def run(self, script: str = "true", **options: Any) -> Any:
        """Run the task to its end, through the triggerer if it is deferred."""
        return execute(lambda: self.operator(script, **options), self.instance)

    def close(self) -> None:
        """Close the connections of all operators."""
        while self.operators:
            release(self.operators.pop())

    def pods(self) -> list[Manifest]:
        """Return the pods that are not being deleted."""
        return [pod for pod in self.all_pods() if "deletionTimestamp" not in pod["metadata"]]

    def all_pods(self) -> list[Manifest]:
        """Return all pods, also those that are being deleted."""
        return list(self.call_api(lambda client: client.list(PODS, namespace=self.namespace)).items)

    def call_api(self, call: Callable[[Client], Any]) -> Any:
        """Run ``call`` with a client of the cluster."""

        async def work() -> Any:
            async with await Client.connect(KubeSettings(kubeconfig=str(self.cluster.kubeconfig))) as client:
                return await call(client)

        return run_in_own_loop(work, scaled(20))


@pytest.fixture
def runner(cluster: Cluster, namespace: str) -> Iterator[OperatorRunner]:
    runner = OperatorRunner(cluster, namespace)
    yield runner
    runner.close()


_LINE = re.compile(r"^\S+Z \[(\w+) *\] (.*?) *\[airflow\.task\.operators\.", re.MULTILINE)


class Printed:
    """The task's log, which Airflow writes to stdout in these tests."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys, self._text = capsys, ""

    @property
    def levels(self) -> dict[str, str]:
        """Return the level of each message."""
        self._text += self._capsys.readouterr().out
        return {message: level for level, message in _LINE.findall(self._text)}

    def lines(self, container: str = "base") -> list[str]:
        """Return the lines of a container's log."""
        self._text += self._capsys.readouterr().out
        prefix = f"[{container}] "
        return [text.removeprefix(prefix) for _, text in _LINE.findall(self._text) if text.startswith(prefix)]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    return Printed(capsys)
