from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.engine.recording import RecordedLifecycle, worker_namespaces

from crosswind.engine.housekeeping import Housekeeper
from crosswind.engine.pod_cleanup import PodCleaner
from crosswind.engine.state import RunRegistry, RunStage, RunTimes, TaskEvent, WaitReason, WorkerRun, Workload
from crosswind.engine.sweep import belongs_to_live_dag_test
from crosswind.engine.watcher import WorkerWatcher
from crosswind.engine.worker_pod import WorkerTask
from crosswind.engine.workload_secrets import SecretBatch, workload_secret
from crosswind.kube.client import Client
from crosswind.kube.informer import InformerEvent
from crosswind.kube.resources import PODS, SECRETS
from crosswind.settings import EngineSettings, KubeSettings
from crosswind.sidecars.shutdown import SidecarShutdown
from crosswind.testing import Cluster
from deadlines import scaled

pytestmark = pytest.mark.cluster


class Database:
    """A database in which one other scheduler is alive."""

    def workload_states(self, workloads: Any) -> dict[Workload, Any]:
        return {}

    def load_positions(self, *_: Any) -> list[Any]:
        return []

    def live_executors(self) -> set[str]:
        return {"8"}

    def orphaned_workloads(self, pods: Any, _: Any) -> dict[str, Any]:
        return dict.fromkeys(pods)

    def write_task_log(self, workload: Workload, message: str) -> None:
        raise AssertionError(message)


@dataclass
class Place:
    client: Client
    registry: RunRegistry
    housekeeper: Housekeeper
    cleaner: PodCleaner
    namespace: str
    over: list[WorkerRun]

    def run(self, name: str, **fields: Any) -> WorkerRun:
        """Register a run."""
        task = WorkerTask("dag", name, "run", 1, name)
        run = WorkerRun(Workload(name, task, 1.0, lambda: b"{}"), task, RunTimes(0.0), stage=RunStage.CREATED)
        for field, value in fields.items():
            setattr(run, field, value)
        self.registry.add(run)
        self.registry.set_pod(run, self.namespace, name)
        return run


@pytest.fixture
async def place(cluster: Cluster, namespace: str) -> AsyncIterator[Place]:
    settings = EngineSettings("7", namespaces=(namespace,), token_lifetime=0.0)
    lifecycle = RecordedLifecycle()
    async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
        watcher = WorkerWatcher(client, lifecycle, settings)
        cleaner = PodCleaner(client, lifecycle, settings, SidecarShutdown(client))
        places = worker_namespaces(settings, Database(), watcher)
        housekeeper = Housekeeper(client, lifecycle, settings, Database(), watcher, cleaner, places)
        working = asyncio.create_task(cleaner.run())
        yield Place(client, lifecycle.registry, housekeeper, cleaner, namespace, lifecycle.ended)
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


def pod(name: str, image: str, executor: str, script: str, secret: str = "") -> dict[str, Any]:
    mount = {"secretName": secret, "optional": True, "items": [{"key": "a", "path": "workload.json"}]}
    volumes = [{"name": "crosswind-workload", "secret": mount}] if secret else []
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"kubernetes_executor": "True", "airflow-worker": executor, "crosswind/worker": "true"},
        },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "base", "image": image, "command": ["sh", "-c", script]}],
            "volumes": volumes,
        },
    }


async def names(place: Place, resource: Any, labels: str = "") -> set[str]:
    found = await place.client.list(resource, namespace=place.namespace, labels=labels)
    return {item["metadata"]["name"] for item in found.items}


async def pod_in(place: Place, name: str, phase: str) -> dict[str, Any]:
    async with asyncio.timeout(scaled(20)):
        while (found := await place.client.get(PODS, name, namespace=place.namespace))["status"]["phase"] != phase:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return found


async def test_an_unseen_pod_that_does_not_exist_ends_its_run(place: Place) -> None:
    run = place.run("never", unseen_since=-1000.0)
    await place.housekeeper._check_unseen_pods()
    assert place.over == [run]
    assert "never" in run.message


async def test_an_unseen_pod_that_exists_is_judged(place: Place, cluster: Cluster) -> None:
    made = await place.client.create(PODS, pod("there", cluster.image, "7", "exit 0"), namespace=place.namespace)
    run = place.run("there", unseen_since=-1000.0, uid=made["metadata"]["uid"])
    async with asyncio.timeout(scaled(20)):
        while not place.over:
            run.unseen_since = -1000.0
            await place.housekeeper._check_unseen_pods()
    assert not run.failed


async def test_an_unseen_pod_that_another_executor_adopted_is_forgotten(place: Place, cluster: Cluster) -> None:
    made = await place.client.create(PODS, pod("theirs", cluster.image, "8", "sleep 60"), namespace=place.namespace)
    run = place.run("theirs", unseen_since=-1000.0, uid=made["metadata"]["uid"])
    await place.housekeeper._check_unseen_pods()
    assert run.settled
    assert place.over == []
    assert place.registry.runs == {}


async def test_tokens_of_pods_that_have_not_started_are_renewed(place: Place) -> None:
    first = workload_secret("s", place.namespace, {"a": b"old", "b": b"old"})
    await place.client.create(SECRETS, first, namespace=place.namespace)
    place.registry.secrets.add(SecretBatch("s", place.namespace, -1000.0, {"a": lambda: b"new", "b": lambda: b"new"}))
    place.registry.secrets.mark_read(place.namespace, "s", "b")
    await place.housekeeper._renew_tokens()
    data = (await place.client.get(SECRETS, "s", namespace=place.namespace))["data"]
    assert {key: base64.b64decode(value) for key, value in data.items()} == {"a": b"new", "b": b"old"}


THEIRS = {"of-living", "of-runs", "of-team"}


async def test_leftovers_of_dead_executors_are_swept_and_live_executors_keep_theirs(
    place: Place, cluster: Cluster
) -> None:
    for name, executor, script in (("dead", "5", "exit 0"), ("runs", "5", "sleep 60"), ("living", "8", "exit 0")):
        manifest = pod(name, cluster.image, executor, script, secret=f"of-{name}")
        await place.client.create(PODS, manifest, namespace=place.namespace)
    for name, executor in (("of-dead", "5"), ("of-runs", "5"), ("of-nobody", "6"), ("of-living", "8")):
        secret = workload_secret(name, place.namespace, {"a": b"x"}, {"airflow-worker": executor})
        await place.client.create(SECRETS, secret, namespace=place.namespace)
    labels = {"airflow-worker": "7", "crosswind/team": "blue"}  # of another team's executor in our scheduler
    teams = workload_secret("of-team", place.namespace, {"a": b"x"}, labels)
    await place.client.create(SECRETS, teams, namespace=place.namespace)
    await pod_in(place, "runs", "Running")  # one that has not started is swept

    async with asyncio.timeout(scaled(20)):
        while await names(place, PODS) != {"living", "runs"} or await names(place, SECRETS) != THEIRS:
            place.housekeeper.sweep_soon()
            await place.housekeeper._sweep()
            await place.cleaner.wait_until_empty()


async def test_a_pod_of_ours_that_no_run_is_for_is_deleted_within_two_rounds(place: Place, cluster: Cluster) -> None:
    """Without its event, it would wait for the sweeps, five minutes apart."""
    place.housekeeper._sweep_at = asyncio.get_running_loop().time() + 300
    manifest = pod("stray", cluster.image, "7", "exit 0")
    await place.client.create(PODS, manifest, namespace=place.namespace)
    made = await pod_in(place, "stray", "Succeeded")
    place.housekeeper._watcher.on_event(InformerEvent("MODIFIED", made, "watch"))
    await place.housekeeper._sweep()
    await place.cleaner.wait_until_empty()
    assert await names(place, PODS) == {"stray"}  # its run might be on its way
    await place.housekeeper._sweep()
    await place.cleaner.wait_until_empty()
    assert await names(place, PODS) == set()


async def test_pods_and_secrets_of_a_dag_test_are_not_swept(place: Place, cluster: Cluster) -> None:
    """The database does not know whether its process is alive, and its pods may still wait for a quota."""
    manifest = pod("done", cluster.image, "local-1234abcd", "exit 0", secret="of-local")
    await place.client.create(PODS, manifest, namespace=place.namespace)
    secret = workload_secret("of-local", place.namespace, {"a": b"x"}, {"airflow-worker": "local-1234abcd"})
    await place.client.create(SECRETS, secret, namespace=place.namespace)
    await pod_in(place, "done", "Succeeded")
    for _ in range(3):
        place.housekeeper.sweep_soon()
        await place.housekeeper._sweep()
        await place.cleaner.wait_until_empty()
    assert await names(place, PODS) == {"done"}
    assert await names(place, SECRETS) == {"of-local"}


@pytest.mark.parametrize(("age", "left"), [(datetime.timedelta(hours=1), True), (datetime.timedelta(days=2), False)])
def test_a_dag_test_counts_as_killed_after_a_day(age: datetime.timedelta, left: bool) -> None:
    made = (datetime.datetime.now(datetime.UTC) - age).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = {"labels": {"airflow-worker": "local-1"}, "creationTimestamp": made}
    assert belongs_to_live_dag_test(metadata) is left
    assert not belongs_to_live_dag_test(metadata | {"labels": {"airflow-worker": "7"}})


async def test_a_secret_without_pods_is_not_swept_by_the_first_sweep(place: Place) -> None:
    await place.client.create(SECRETS, workload_secret("new", place.namespace, {"a": b"x"}), namespace=place.namespace)
    place.housekeeper.sweep_soon()
    await place.housekeeper._sweep()
    await place.cleaner.wait_until_empty()
    assert await names(place, SECRETS) == {"new"}


async def test_tokens_of_adopted_pods_are_renewed_from_the_payload_in_their_secret(place: Place) -> None:
    secret = workload_secret("s", place.namespace, {"a": b"old", "b": b"old"})
    await place.client.create(SECRETS, secret, namespace=place.namespace)
    for unique_id in ("a", "not-there"):
        place.registry.secrets.adopt(place.namespace, "s", unique_id, lambda payload: payload + b" and new")
    await place.housekeeper._renew_tokens()
    await place.housekeeper._renew_tokens()
    data = (await place.client.get(SECRETS, "s", namespace=place.namespace))["data"]
    assert {key: base64.b64decode(value) for key, value in data.items()} == {"a": b"old and new", "b": b"old"}


async def test_a_task_that_waits_long_gets_one_event_with_the_reason(place: Place) -> None:
    now = asyncio.get_running_loop().time()
    place.run("stuck", times=RunTimes(-1000.0), wait=WaitReason(lambda: "no node is large enough", "Unschedulable"))
    place.run("fresh", times=RunTimes(now), wait=WaitReason(lambda: "x", "Unschedulable"))
    await place.housekeeper._send_wait_events()
    await place.housekeeper._send_wait_events()
    (event,) = place.registry.outbox
    assert isinstance(event, TaskEvent)
    assert event.message == "no node is large enough"
