from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from crosswind.kube.client import Client
from crosswind.kube.resources import PODS, SECRETS
from crosswind.pods.workers import WorkerTask
from crosswind.pods.workloads import workload_secret
from crosswind.runs.batches import Batch
from crosswind.runs.board import Board
from crosswind.runs.ending import Ender
from crosswind.runs.following import Follower
from crosswind.runs.keeping import Keeper, _is_left_to_itself
from crosswind.runs.stopping import Stopper
from crosswind.runs.workloads import Notice, Run, Stage, Workload
from crosswind.settings import EngineSettings, KubeSettings
from crosswind.testing import Cluster

pytestmark = pytest.mark.cluster


class Ledger:
    """A database in which one other scheduler is alive."""

    def standings(self, workloads: Any) -> dict[Workload, Any]:
        return {}

    def living(self) -> set[str]:
        return {"8"}

    def left_behind(self, pods: Any) -> dict[str, Any]:
        return {}

    def report(self, workload: Workload, message: str) -> None:
        raise AssertionError(message)


@dataclass
class Kept:
    client: Client
    board: Board
    keeper: Keeper
    stopper: Stopper
    namespace: str
    over: list[Run]

    def run(self, name: str, **fields: Any) -> Run:
        """A run that the engine knows."""
        task = WorkerTask("dag", name, "run", 1, name)
        run = Run(Workload(name, task, 1.0, lambda: b"{}"), task, 0.0, stage=Stage.CREATED)
        for field, value in fields.items():
            setattr(run, field, value)
        self.board.add(run)
        self.board.placed(run, self.namespace, name)
        return run


@pytest.fixture
async def kept(cluster: Cluster, namespace: str) -> AsyncIterator[Kept]:
    settings = EngineSettings("7", namespaces=(namespace,), token_lifetime=0.0)
    board, over = Board(), []
    async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
        follower = Follower(client, board, settings, over.append)
        stopper = Stopper(client, board, settings, Ender(client))
        keeper = Keeper(client, board, settings, Ledger(), follower, stopper)
        working = asyncio.create_task(stopper.run())
        yield Kept(client, board, keeper, stopper, namespace, over)
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


async def names(kept: Kept, resource: Any, labels: str = "") -> set[str]:
    found = await kept.client.list(resource, namespace=kept.namespace, labels=labels)
    return {item["metadata"]["name"] for item in found.items}


async def test_a_pod_that_nobody_saw_and_that_is_not_there_ends_its_run(kept: Kept) -> None:
    run = kept.run("never", created_at=-1000.0)
    await kept.keeper._find_unseen()
    assert kept.over == [run]
    assert "never" in run.message


async def test_a_pod_that_nobody_saw_but_is_there_is_judged(kept: Kept, cluster: Cluster) -> None:
    made = await kept.client.create(PODS, pod("there", cluster.image, "7", "exit 0"), namespace=kept.namespace)
    run = kept.run("there", created_at=-1000.0, uid=made["metadata"]["uid"])
    async with asyncio.timeout(20):
        while not kept.over:
            run.seen, run.created_at = False, -1000.0
            await kept.keeper._find_unseen()
    assert not run.failed


async def test_a_pod_that_another_executor_adopted_is_let_go(kept: Kept, cluster: Cluster) -> None:
    made = await kept.client.create(PODS, pod("theirs", cluster.image, "8", "sleep 60"), namespace=kept.namespace)
    run = kept.run("theirs", created_at=-1000.0, uid=made["metadata"]["uid"])
    await kept.keeper._find_unseen()
    assert run.settled
    assert kept.over == []
    assert kept.board.runs == {}


async def test_tokens_of_pods_that_have_not_begun_are_renewed(kept: Kept) -> None:
    first = workload_secret("s", kept.namespace, {"a": b"old", "b": b"old"})
    await kept.client.create(SECRETS, first, namespace=kept.namespace)
    kept.board.batches.add(Batch("s", kept.namespace, -1000.0, {"a": lambda: b"new", "b": lambda: b"new"}))
    kept.board.batches.begun(kept.namespace, "s", "b")
    await kept.keeper._renew_tokens()
    data = (await kept.client.get(SECRETS, "s", namespace=kept.namespace))["data"]
    assert {key: base64.b64decode(value) for key, value in data.items()} == {"a": b"new", "b": b"old"}


THEIRS = {"of-living", "of-runs", "of-team"}


async def test_what_dead_executors_left_is_swept_and_the_living_keep_theirs(kept: Kept, cluster: Cluster) -> None:
    for name, executor, script in (("dead", "5", "exit 0"), ("runs", "5", "sleep 60"), ("living", "8", "exit 0")):
        manifest = pod(name, cluster.image, executor, script, secret=f"of-{name}")
        await kept.client.create(PODS, manifest, namespace=kept.namespace)
    for name, executor in (("of-dead", "5"), ("of-runs", "5"), ("of-nobody", "6"), ("of-living", "8")):
        secret = workload_secret(name, kept.namespace, {"a": b"x"}, {"airflow-worker": executor})
        await kept.client.create(SECRETS, secret, namespace=kept.namespace)
    labels = {"airflow-worker": "7", "crosswind/team": "blue"}  # another one in our scheduler
    teams = workload_secret("of-team", kept.namespace, {"a": b"x"}, labels)
    await kept.client.create(SECRETS, teams, namespace=kept.namespace)

    async with asyncio.timeout(20):
        while await names(kept, PODS) != {"living", "runs"} or await names(kept, SECRETS) != THEIRS:
            kept.keeper.sweep_soon()
            await kept.keeper._sweep()
            await kept.stopper.idle()


async def test_what_a_dag_test_has_made_is_left_to_it(kept: Kept, cluster: Cluster) -> None:
    """Nothing says whether its process is alive: its Secrets may be for pods that a quota keeps waiting."""
    manifest = pod("done", cluster.image, "local-1234abcd", "exit 0", secret="of-local")
    await kept.client.create(PODS, manifest, namespace=kept.namespace)
    secret = workload_secret("of-local", kept.namespace, {"a": b"x"}, {"airflow-worker": "local-1234abcd"})
    await kept.client.create(SECRETS, secret, namespace=kept.namespace)
    async with asyncio.timeout(20):
        while (await kept.client.get(PODS, "done", namespace=kept.namespace))["status"].get("phase") != "Succeeded":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    for _ in range(3):
        kept.keeper.sweep_soon()
        await kept.keeper._sweep()
        await kept.stopper.idle()
    assert await names(kept, PODS) == {"done"}
    assert await names(kept, SECRETS) == {"of-local"}


@pytest.mark.parametrize(("age", "left"), [(datetime.timedelta(hours=1), True), (datetime.timedelta(days=2), False)])
def test_a_dag_test_is_taken_for_killed_after_a_day(age: datetime.timedelta, left: bool) -> None:
    made = (datetime.datetime.now(datetime.UTC) - age).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = {"labels": {"airflow-worker": "local-1"}, "creationTimestamp": made}
    assert _is_left_to_itself(metadata) is left
    assert not _is_left_to_itself(metadata | {"labels": {"airflow-worker": "7"}})


async def test_a_secret_that_is_newer_than_its_pods_is_not_swept_at_once(kept: Kept) -> None:
    await kept.client.create(SECRETS, workload_secret("new", kept.namespace, {"a": b"x"}), namespace=kept.namespace)
    kept.keeper.sweep_soon()
    await kept.keeper._sweep()
    await kept.stopper.idle()
    assert await names(kept, SECRETS) == {"new"}


async def test_tokens_of_adopted_pods_are_renewed_from_what_their_secret_holds(kept: Kept) -> None:
    secret = workload_secret("s", kept.namespace, {"a": b"old", "b": b"old"})
    await kept.client.create(SECRETS, secret, namespace=kept.namespace)
    for unique in ("a", "not-there"):
        kept.board.batches.join(kept.namespace, "s", unique, lambda payload: payload + b" and new")
    await kept.keeper._renew_tokens()
    await kept.keeper._renew_tokens()
    data = (await kept.client.get(SECRETS, "s", namespace=kept.namespace))["data"]
    assert {key: base64.b64decode(value) for key, value in data.items()} == {"a": b"old and new", "b": b"old"}


async def test_authors_of_tasks_that_wait_long_are_told_why_once(kept: Kept) -> None:
    kept.run("stuck", asked_at=-1000.0, waits_for=lambda: "no node is large enough")
    kept.run("fresh", asked_at=asyncio.get_running_loop().time(), waits_for=lambda: "x")
    await kept.keeper._tell_waiting()
    await kept.keeper._tell_waiting()
    (notice,) = kept.board.outbox
    assert isinstance(notice, Notice)
    assert notice.message == "no node is large enough"
