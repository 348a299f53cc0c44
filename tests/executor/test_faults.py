"""An API server that pushes back, loses answers and cuts watches: nothing is lost, nothing runs twice."""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.chaos.proxying import Fault, Proxy

from crosswind.pods.kept_logs import lines_of
from crosswind.provider.log_store import read_logs
from crosswind.testing import Cluster

pytestmark = pytest.mark.cluster

PODS = re.compile(r"/api/v1/namespaces/[^/]+/pods$")
SECRETS = re.compile(r"/api/v1/namespaces/[^/]+/secrets$")


@pytest.fixture
def faulty(running: Any, cluster: Cluster, tmp_path: Path) -> Iterator[Any]:
    """A bench whose executor reaches the cluster through a proxy."""
    with Proxy(cluster.kubeconfig, tmp_path) as proxy:
        running.proxy = proxy
        running.set("kubernetes_executor", config_file=str(proxy.kubeconfig))
        yield running
        running.end()


def first(times: int, path: re.Pattern[str], answer: int | str) -> Fault:
    """Answer the first creations with this."""
    left = itertools.count(times, -1)
    return lambda method, target: answer if method == "POST" and path.search(target) and next(left) > 0 else None


def run_all(bench: Any, count: int) -> None:
    """Run tasks to their end, and check that each had one pod."""
    bench.start()
    for number in range(count):
        bench.state(bench.queue(f"task{number}"), "success")
    bench.beat()
    bench.until(lambda: not bench.executor.running)
    bench.until(bench.is_empty)
    assert bench.events == {}
    assert bench.pods() == []


@pytest.mark.parametrize("answer", [429, 500, "lost"])
@pytest.mark.parametrize("path", [PODS, SECRETS], ids=["pods", "secrets"])
def test_creations_are_retried_after_transient_errors(faulty: Any, path: re.Pattern[str], answer: Any) -> None:
    faulty.proxy.fault = first(3, path, answer)
    run_all(faulty, 4)


def test_a_forbidden_secret_fails_the_task_and_names_the_alternative(faulty: Any) -> None:
    faulty.proxy.fault = first(9, SECRETS, 403)
    faulty.start()
    assert "workload_delivery = args" in faulty.failure(faulty.queue())


def test_workloads_as_arguments_need_no_secret(faulty: Any) -> None:
    faulty.script("true")
    faulty.set("crosswind", workload_delivery="args")
    faulty.proxy.fault = first(99, SECRETS, 403)
    run_all(faulty, 2)
    assert not any("secrets" in path for method, path in faulty.proxy.seen if method == "POST")


def test_events_missed_by_a_cut_watch_are_found_by_the_next_list(faulty: Any) -> None:
    faulty.script("sleep 60")
    faulty.set("kubernetes_executor", pod_launch_failure_retries="0")
    faulty.start()
    key = faulty.queue()
    (pod,) = faulty.until(faulty.pods)
    faulty.proxy.fault = lambda method, path: 500 if "watch" in path else None
    faulty.proxy.cut()

    async def delete(client: Any) -> None:
        from crosswind.kube import resources

        await client.delete(resources.PODS, pod["metadata"]["name"], namespace=faulty.namespace, grace_period=0)

    faulty.ask(delete)
    faulty.until(lambda: not faulty.pods())
    faulty.proxy.fault = lambda method, path: None
    assert "deleted" in faulty.failure(key)


def test_the_pod_of_a_task_that_ran_unseen_is_kept_and_its_slot_is_free_at_once(faulty: Any) -> None:
    """Its worker reached Airflow while the scheduler could not see pods."""
    faulty.script("echo said")
    faulty.set("kubernetes_executor", delete_worker_pods="False")
    faulty.proxy.fault = lambda method, path: 500 if method == "GET" and "/pods" in path else None
    faulty.start()
    faulty.queue()
    faulty.until(lambda: [pod for pod in faulty.pods() if pod["status"].get("phase") == "Succeeded"])
    columns = "state = 'success', hostname = 'pod', queued_dttm = ?, last_heartbeat_at = ?"
    faulty.database(f"update task_instance set {columns}", "2030-01-01 00:00:00.000000", "2030-01-01 00:00:05.000000")
    faulty.until(lambda: not faulty.executor.running)
    faulty.proxy.fault = lambda method, path: None
    faulty.until(faulty.is_empty, 60)
    (pod,) = faulty.pods()
    assert pod["metadata"]["labels"]["airflow_executor_done"] == "True"
    assert faulty.events == {}


@pytest.mark.usefixtures("serialized")
def test_a_task_cleared_while_it_runs_unseen_keeps_its_log_and_runs_again(faulty: Any) -> None:
    """Its worker reached Airflow while the scheduler could not see pods, and ends by itself after the clear."""
    faulty.script("echo said; sleep 16; exit 1")
    faulty.proxy.fault = lambda method, path: 500 if method == "GET" and PODS.search(path.partition("?")[0]) else None
    faulty.start()
    key = faulty.queue()
    faulty.until(lambda: [pod for pod in faulty.pods() if pod["status"].get("phase") == "Running"])
    faulty.state(key, "restarting")
    faulty.until(lambda: [pod for pod in faulty.pods() if pod["status"].get("phase") == "Failed"], 40)
    faulty.proxy.fault = lambda method, path: None
    assert faulty.until(lambda: faulty.events.get(key), 40)[0][0] == "success"
    faulty.state(key, "scheduled")
    faulty.until(faulty.is_empty, 40)
    stored = [line for log in read_logs(uuid.UUID(faulty.ids[key])) for line in lines_of(log.content)]
    assert stored[0] == "said"


def test_deletions_are_retried_after_transient_errors(faulty: Any) -> None:
    left = itertools.count(2, -1)
    faulty.proxy.fault = lambda method, path: 429 if method == "DELETE" and next(left) > 0 else None
    run_all(faulty, 2)


def test_a_server_that_does_not_answer_at_first_delays_the_launch(faulty: Any) -> None:
    faulty.start()
    faulty.proxy.fault = lambda method, path: 500
    faulty.state(faulty.queue(), "success")
    faulty.until(lambda: len(faulty.proxy.seen) >= 2)
    faulty.proxy.fault = lambda method, path: None
    faulty.until(lambda: not faulty.executor.running)
    faulty.until(faulty.is_empty)
    assert faulty.events == {}


def test_tasks_survive_an_outage_of_the_api_server(faulty: Any) -> None:
    faulty.start()
    key = faulty.queue("early")
    faulty.state(key, "success")
    faulty.proxy.fault = lambda method, path: 500
    faulty.proxy.cut()
    faulty.beat()
    faulty.state(faulty.queue("late"), "success")
    faulty.beat()
    faulty.proxy.fault = lambda method, path: None
    faulty.until(lambda: not faulty.executor.running)
    faulty.until(faulty.is_empty)
    assert faulty.events == {}
