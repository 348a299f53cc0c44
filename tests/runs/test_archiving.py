"""An archiver on a cluster, with a database that can be out of reach."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from crosswind.errors import CrosswindError, Forbidden, ServerError, TooManyRequests, Unreachable
from crosswind.kube.client import Client
from crosswind.kube.requests import Request
from crosswind.kube.resources import PODS
from crosswind.kube.transport import Reply
from crosswind.pods.kept_logs import lines_of
from crosswind.pods.workers import WorkerTask
from crosswind.runs import archiving
from crosswind.runs.archiving import Archiver, PodLog
from crosswind.runs.board import Board
from crosswind.runs.ending import Ender
from crosswind.runs.following import Follower
from crosswind.runs.keeping import Keeper
from crosswind.runs.stopping import Stopper
from crosswind.runs.workloads import Report, Run, Stage, Workload
from crosswind.settings import ArchiveSettings, EngineSettings, KubeSettings
from crosswind.testing import Cluster

pytestmark = pytest.mark.cluster


@dataclass
class Database:
    """Takes logs, but for the first ``failures`` times."""

    failures: float = 0
    rows: dict[str, PodLog] = field(default_factory=dict)
    cleaned: list[float] = field(default_factory=list)

    def store(self, logs: Sequence[PodLog]) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise ConnectionError("the database is away")
        self.rows |= {one.pod: one for one in logs}

    def clean(self, days: float) -> None:
        self.cleaned.append(days)

    def living(self) -> set[str]:
        """Return the executors that are alive, as a ledger does."""
        return set()

    def left_behind(self, pods: Any) -> dict[str, Any]:
        return {}

    def lines(self) -> list[str]:
        return [line for one in self.rows.values() for line in lines_of(one.content)]


@dataclass
class Place:
    client: Client
    board: Board
    archiver: Archiver
    database: Database
    keeper: Keeper
    namespace: str
    image: str

    async def ended(self, name: str, script: str, ti_id: str = "ti") -> Run:
        """Have a pod run to its end; return its run."""
        manifest = {
            "metadata": {
                "name": name,
                "labels": {"kubernetes_executor": "True", "airflow-worker": "5", "crosswind/worker": "true"},
                "annotations": {"task_instance_id": ti_id} if ti_id else {},
            },
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "base", "image": self.image, "command": ["sh", "-c", script]}],
            },
        }
        made = await self.client.create(PODS, manifest, namespace=self.namespace)
        await until(lambda: self.phase(name), "Succeeded")
        task = WorkerTask("dag", name, "run", 1, name, ti_id=ti_id)
        run = Run(Workload(name, task, 1.0, None), task, 0.0, stage=Stage.ENDED, report=Report.SETTLED)
        run.uid = made["metadata"]["uid"]
        self.board.add(run)
        self.board.placed(run, self.namespace, name)
        return run

    async def phase(self, name: str) -> str:
        return str((await self.client.get(PODS, name, namespace=self.namespace))["status"].get("phase"))

    async def names(self) -> set[str]:
        found = await self.client.list(PODS, namespace=self.namespace)
        return {pod["metadata"]["name"] for pod in found.items}


async def until(ask: Callable[[], Any], wanted: Any) -> None:
    async with asyncio.timeout(20):
        while await ask() != wanted:  # noqa: ASYNC110 - other processes are waited for
            await asyncio.sleep(0.02)


@pytest.fixture
async def place(cluster: Cluster, namespace: str) -> AsyncIterator[Place]:
    settings = EngineSettings("7", namespaces=(namespace,), archive=ArchiveSettings(folder="/logs"))
    board, database = Board(), Database()
    async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
        stopper = Stopper(client, board, settings, Ender(client))
        archiver = Archiver(client, stopper, database, settings.archive or ArchiveSettings())
        follower = Follower(client, board, settings, lambda run: None)
        keeper = Keeper(client, board, settings, database, follower, archiver)  # type: ignore[arg-type]
        working = asyncio.create_task(archiver.run())
        await asyncio.sleep(0)
        yield Place(client, board, archiver, database, keeper, namespace, cluster.image)
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


async def test_a_log_is_kept_before_its_pod_goes(place: Place) -> None:
    run = await place.ended("one", "echo said")
    place.archiver.put(run)
    assert len(place.archiver) == 1
    await place.archiver.idle()
    assert place.database.lines() == ["said"]
    (row,) = place.database.rows.values()
    assert (row.pod, row.ti_id, row.name, row.size) == (run.uid, "ti", f"{place.namespace}/one", 5)
    assert await place.names() == set()


async def test_many_logs_are_stored_together(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    store = place.database.store
    monkeypatch.setattr(place.database, "store", lambda logs: (calls.append(len(logs)), store(logs)))
    runs = [await place.ended(f"pod-{number}", f"echo {number}") for number in range(5)]
    for run in runs:
        place.archiver.put(run)
        place.archiver.put(run)
    await place.archiver.idle()
    assert sorted(place.database.lines()) == ["0", "1", "2", "3", "4"]
    assert sum(calls) == 5
    assert len(calls) < 5


async def test_a_pod_stays_until_the_database_has_its_log(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "_DATABASE_DOWN", 0.1)
    place.database.failures = 3
    run = await place.ended("one", "echo said")
    place.archiver.put(run)

    async def failures() -> float:
        assert await place.names() == {"one"} or not place.database.failures
        return place.database.failures

    await until(failures, 0)
    await place.archiver.idle()
    assert place.database.lines() == ["said"]
    assert await place.names() == set()


async def test_a_pod_goes_at_last_though_its_log_could_not_be_stored(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(archiving, "_DATABASE_DOWN", 0.1)
    monkeypatch.setattr(archiving, "_PATIENCE", 0.5)
    place.database.failures = float("inf")
    run = await place.ended("one", "echo said")
    place.archiver.put(run)
    await place.archiver.idle()
    assert await place.names() == set()
    assert f"The log of pod {place.namespace}/one is not kept" in caplog.text


async def test_what_is_no_task_is_not_kept(place: Place) -> None:
    place.archiver.put(await place.ended("callback", "echo said", ti_id=""))
    await place.archiver.idle()
    assert place.database.rows == {}
    assert await place.names() == set()


async def test_pods_of_dead_schedulers_are_kept_before_they_are_swept(place: Place) -> None:
    run = await place.ended("left", "echo said", ti_id="theirs")
    place.board.runs.clear()
    place.board.pods.clear()
    place.keeper._swept_at = -1000.0
    await place.keeper._sweep()
    await place.archiver.idle()
    (row,) = place.database.rows.values()
    assert (row.pod, row.ti_id) == (run.uid, "theirs")
    assert place.database.lines() == ["said"]
    assert await place.names() == set()


class Refusing:
    """A connection on which ``pods/log`` is answered with errors, then with what the server says."""

    def __init__(self, client: Client, *errors: CrosswindError) -> None:
        self._beneath, self._errors = client._transport, iter(errors)

    async def open(self, request: Request, authorization: str | None) -> Reply:
        if request.subject == "pods/log" and (error := next(self._errors, None)):
            raise error
        return await self._beneath.open(request, authorization)


async def test_logs_that_may_not_be_read_go_with_their_pods_which_is_told_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused = [Forbidden("no", status=403) for _ in range(2)]
    runs = [await place.ended(name, "echo said") for name in ("one", "two")]
    monkeypatch.setattr(place.client, "_transport", Refusing(place.client, *refused))
    for run in runs:
        place.archiver.put(run)
    await place.archiver.idle()
    assert await place.names() == set()
    assert place.database.rows == {}
    assert caplog.text.count("Give the scheduler's service account get on pods/log") == 1


async def test_a_log_is_asked_for_again_when_there_was_no_answer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await place.ended("one", "echo said")
    troubles = [Unreachable("cut"), ServerError("no", status=500), TooManyRequests("slower", status=429)]
    monkeypatch.setattr(place.client, "_transport", Refusing(place.client, *troubles))
    place.archiver.put(run)
    await place.archiver.idle()
    assert place.database.lines() == ["said"]


async def test_old_logs_are_cleaned_at_start(place: Place) -> None:
    async def cleaned() -> list[float]:
        return place.database.cleaned

    await until(cleaned, [30.0])


async def test_memory_stays_small_however_long_a_log_is(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    run = await place.ended("long", "head -c 12000000 /dev/zero | tr '\\\\0' x | fold -w 99")
    place.archiver.put(run)
    await place.archiver.idle()
    (row,) = place.database.rows.values()
    assert row.size > 12_000_000
    kept = [*lines_of(row.content)]
    assert 9_500_000 < sum(map(len, kept)) < 10_600_000
    assert len(row.content) < 200_000
