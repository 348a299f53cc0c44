"""The metrics that an executor emits, as a StatsD server receives them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow._shared.observability.metrics import stats
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from benchmarks.chaos.proxying import Proxy
from kubernetes.client import models as k8s
from sqlalchemy import delete
from tests.provider.test_stats import BY_PROMETHEUS, exported

from crosswind.engine import metrics_reporter
from crosswind.kube.resources import PODS
from crosswind.testing import Cluster
from deadlines import scaled

pytestmark = pytest.mark.cluster

OF_WAITING_PODS = {name for name in BY_PROMETHEUS if "_warm_" in name or "_cold_starts" in name}
"""Emitted where ``[crosswind] warm`` is on, alone."""

KINDS = {"c": "counter", "g": "gauge", "ms": "timer"}


class Received:
    """The packets that arrive at a UDP port, read at once: the kernel drops packets that wait too long."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.packets: list[tuple[str, float, str]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while packet := self._socket.recv(65536).decode():
            for line in packet.splitlines():
                stat, _, rest = line.partition(":")
                number, kind = rest.split("|")[:2]
                self.packets.append((stat, float(number), KINDS[kind]))

    def names(self) -> set[str]:
        return {stat for stat, _, _ in self.packets}

    def shown(self) -> set[str]:
        """Return the names that Prometheus would have."""
        return {exported(name)[0] for name in self.names()}

    def close(self) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join(scaled(5))
        self._socket.close()


@pytest.fixture
def metered(running: Any, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bench whose executor emits metrics, and reaches the cluster through a proxy."""
    monkeypatch.setattr(metrics_reporter, "REPORT_EVERY_S", 0.2)
    received = Received()
    running.set("metrics", statsd_on="True", statsd_host="127.0.0.1", statsd_port=str(received.port))
    with Proxy(cluster.kubeconfig, tmp_path) as proxy:
        running.proxy, running.received = proxy, received
        running.set("kubernetes_executor", config_file=str(proxy.kubeconfig))
        yield running
        running.end()
    received.close()
    stats._get_backend().statsd.close()


def lose(bench: Any) -> None:
    """Evict the pod of a task of a DAG run that runs."""
    with create_session() as session:
        session.add(DagRun(dag_id="dag", run_id="run", run_type="manual", state="running"))
    bench.script("sleep 600")
    key = bench.queue("lost")
    bench.state(key, "running")

    def running() -> Any:
        return [
            pod for pod in bench.pods() if "-lost-" in pod["metadata"]["name"] and pod["status"]["phase"] == "Running"
        ]

    (pod,) = bench.until(running)
    mark = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    status = {"status": {"conditions": [*pod["status"]["conditions"], mark]}}
    where = {"namespace": bench.namespace}
    bench.ask(lambda client: client.patch(PODS, pod["metadata"]["name"], status, subresource="status", **where))
    bench.ask(lambda client: client.delete(PODS, pod["metadata"]["name"], **where))
    bench.until(lambda: key not in bench.executor.running)
    with create_session() as session:
        session.execute(delete(DagRun))


def test_every_metric_is_emitted_in_a_run_with_failures(metered: Any) -> None:
    metered.set("kubernetes_executor", delete_worker_pods_on_failure="False", pod_launch_failure_retries="0")
    answers = iter([429, 500])
    metered.proxy.fault = lambda method, target: next(answers, None) if method == "POST" and "/pods" in target else None
    metered.start()
    done = metered.queue("done")
    metered.state(done, "success")
    metered.beat()
    metered.until(lambda: not metered.executor.running)
    base = k8s.V1Container(name="base", resources=k8s.V1ResourceRequirements(requests={"cpu": "9999"}))
    stuck = metered.queue("stuck", {"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[base]))})
    metered.until(lambda: "airflow.crosswind.pods_held_up.Unschedulable" in metered.received.names())
    metered.executor.fail(stuck)
    metered.script("sleep 1; exit 3")
    failing = metered.queue("failing")
    metered.failure(failing)
    lose(metered)
    metered.until(metered.is_empty)
    received = metered.received
    metered.until(lambda: received.shown() >= BY_PROMETHEUS.keys() - OF_WAITING_PODS)
    ours = {
        name for name in received.names() if name.startswith(("airflow.crosswind.", "airflow.kubernetes_executor."))
    }
    assert {exported(name)[0] for name in ours} <= BY_PROMETHEUS.keys()
    assert {"airflow.crosswind.pushed_back.429", "airflow.crosswind.pushed_back.500"} <= ours
    assert "airflow.crosswind.pod_failures.Error" in ours
    failures = [number for name, number, _ in received.packets if ".pod_failures." in name]
    assert sum(failures) == 2
    assert "airflow.crosswind.losses.EvictionByEvictionAPI" in ours
    for stat, number, kind in received.packets:
        if stat in ours:
            assert BY_PROMETHEUS[exported(stat)[0]].kind == kind
            assert number >= 0
