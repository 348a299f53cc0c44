"""The archiver on a cluster, with a log store that may not answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.engine.recording import RecordedLifecycle, worker_namespaces

from crosswind.engine import log_archiver
from crosswind.engine.housekeeping import Housekeeper
from crosswind.engine.log_archiver import LogArchiver, PodLog
from crosswind.engine.pod_cleanup import PodCleaner
from crosswind.engine.state import ReportState, RunRegistry, RunStage, RunTimes, WorkerRun, Workload
from crosswind.engine.watcher import WorkerWatcher
from crosswind.engine.worker_pod import WorkerTask
from crosswind.errors import CrosswindError, Forbidden, ServerError, TooManyRequests, Unreachable
from crosswind.kube.client import Client
from crosswind.kube.credentials import load
from crosswind.kube.requests import Request
from crosswind.kube.resources import PODS
from crosswind.kube.transport import HttpTransport, Reply, Transport
from crosswind.pods.kept_logs import lines_of
from crosswind.settings import ArchiveSettings, EngineSettings, KubeSettings
from crosswind.sidecars.shutdown import SidecarShutdown
from crosswind.testing import Cluster
from deadlines import scaled

pytestmark = pytest.mark.cluster


@dataclass
class Database:
    """Stores logs, except for the first ``failures`` calls."""

    failures: float = 0
    rows: dict[str, PodLog] = field(default_factory=dict)
    calls: list[int] = field(default_factory=list)
    """The number of logs in each call."""
    cleaned: list[float] = field(default_factory=list)

    def store(self, logs: Sequence[PodLog]) -> None:
        self.calls.append(len(logs))
        if self.failures > 0:
            self.failures -= 1
            raise ConnectionError("the database is away")
        self.rows |= {log.pod: log for log in logs}

    def delete_older_than(self, days: float) -> None:
        self.cleaned.append(days)

    def load_positions(self, *_: Any) -> list[Any]:
        return []

    def live_executors(self) -> set[str]:
        """Return the executors that are alive, as the metadata database does."""
        return set()

    def orphaned_workloads(self, pods: Any, _: Any) -> dict[str, Any]:
        return dict.fromkeys(pods)

    def lines(self) -> list[str]:
        return [line for log in self.rows.values() for line in lines_of(log.content)]


class RefusingLogs:
    """A transport that answers requests for logs by ``log_errors``, and all others and later ones by the cluster."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.log_errors: list[CrosswindError] = []
        self.log_requests = 0

    async def open(self, request: Request, authorization: str | None) -> Reply:
        if request.subject == "pods/log":
            self.log_requests += 1
            if self.log_errors:
                raise self.log_errors.pop(0)
        return await self._inner.open(request, authorization)


@dataclass
class Place:
    client: Client
    transport: RefusingLogs
    registry: RunRegistry
    archiver: LogArchiver
    database: Database
    housekeeper: Housekeeper
    namespace: str
    image: str

    async def ended(self, name: str, script: str, ti_id: str = "ti") -> WorkerRun:
        """Run a pod to its end; return its run."""
        run = await self.created(name, script, ti_id)
        await until(lambda: self.phase(name), "Succeeded")
        run.stage, run.report = RunStage.ENDED, ReportState.SETTLED
        return run

    async def created(self, name: str, script: str, ti_id: str = "ti", **spec: Any) -> WorkerRun:
        """Create a pod; return its run, which was not seen to start."""
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
                **spec,
            },
        }
        made = await self.client.create(PODS, manifest, namespace=self.namespace)
        task = WorkerTask("dag", name, "run", 1, name, ti_id=ti_id)
        run = WorkerRun(Workload(name, task, 1.0, None), task, RunTimes(0.0), stage=RunStage.CREATED)
        run.uid = made["metadata"]["uid"]
        self.registry.add(run)
        self.registry.set_pod(run, self.namespace, name)
        return run

    async def phase(self, name: str) -> str:
        return str((await self.client.get(PODS, name, namespace=self.namespace))["status"].get("phase"))

    async def names(self) -> set[str]:
        found = await self.client.list(PODS, namespace=self.namespace)
        return {pod["metadata"]["name"] for pod in found.items}


async def until(ask: Callable[[], Any], expected: Any) -> None:
    async with asyncio.timeout(scaled(20)):
        while await ask() != expected:  # noqa: ASYNC110 - of other processes
            await asyncio.sleep(0.02)


@pytest.fixture
async def place(cluster: Cluster, namespace: str) -> AsyncIterator[Place]:
    settings = EngineSettings("7", namespaces=(namespace,), archive=ArchiveSettings(folder="/logs"))
    lifecycle, database = RecordedLifecycle(), Database()
    server, credentials = await load(KubeSettings(kubeconfig=str(cluster.kubeconfig)))
    http = HttpTransport(server)
    transport = RefusingLogs(http)
    client = Client(transport, credentials)
    cleaner = PodCleaner(client, lifecycle, settings, SidecarShutdown(client))
    archiver = LogArchiver(client, cleaner, database, settings.archive or ArchiveSettings())
    watcher = WorkerWatcher(client, lifecycle, settings)
    places = worker_namespaces(settings, database, watcher)
    housekeeper = Housekeeper(client, lifecycle, settings, database, watcher, archiver, places)  # type: ignore[arg-type]
    working = asyncio.create_task(archiver.run())
    await archiver.started.wait()
    yield Place(client, transport, lifecycle.registry, archiver, database, housekeeper, namespace, cluster.image)
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working
    await http.close()


async def test_a_log_is_stored_before_its_pod_is_deleted(place: Place) -> None:
    run = await place.ended("one", "echo said")
    place.archiver.put(run)
    assert len(place.archiver) == 1
    await place.archiver.wait_until_empty()
    assert place.database.lines() == ["said"]
    (row,) = place.database.rows.values()
    assert (row.pod, row.ti_id, row.name, row.size) == (run.uid, "ti", f"{place.namespace}/one", 5)
    assert await place.names() == set()


async def test_the_log_of_a_pod_that_is_given_up_after_it_ran_unseen_is_stored(place: Place) -> None:
    run = await place.created("unseen", "echo said")
    await until(lambda: place.phase("unseen"), "Succeeded")
    run.revoke()
    place.archiver.put(run)
    await place.archiver.wait_until_empty()
    assert place.database.lines() == ["said"]
    assert await place.names() == set()


async def test_pods_that_are_given_up_while_they_wait_cost_one_request_each_and_no_waiting(place: Place) -> None:
    nowhere = {"nodeSelector": {"disk": "of-unobtainium"}}
    runs = [await place.created(f"waits-{number}", "echo said", **nowhere) for number in range(5)]
    runs += [await place.created("no-image", "echo said", volumes=[{"name": "v", "configMap": {"name": "missing"}}])]
    for run in runs:
        run.revoke()
        place.archiver.put(run)
    async with asyncio.timeout(scaled(10)):
        await place.archiver.wait_until_empty()
    assert await place.names() == set()
    assert place.database.calls == []
    assert place.transport.log_requests == len(runs)


async def test_many_logs_are_stored_together(place: Place) -> None:
    runs = [await place.ended(f"pod-{number}", f"echo {number}") for number in range(5)]
    for run in runs:
        place.archiver.put(run)
        place.archiver.put(run)
    await place.archiver.wait_until_empty()
    assert sorted(place.database.lines()) == ["0", "1", "2", "3", "4"]
    assert sum(place.database.calls) == 5
    assert len(place.database.calls) < 5


@pytest.mark.usefixtures("soon_stored_again")
async def test_a_pod_stays_until_the_database_has_its_log(place: Place) -> None:
    place.database.failures = 3
    run = await place.ended("one", "echo said")
    place.archiver.put(run)

    async def failures() -> float:
        assert await place.names() == {"one"} or not place.database.failures
        return place.database.failures

    await until(failures, 0)
    await place.archiver.wait_until_empty()
    assert place.database.lines() == ["said"]
    assert await place.names() == set()


@pytest.mark.usefixtures("soon_stored_again")
async def test_a_pod_is_deleted_in_the_end_although_its_log_could_not_be_stored(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_archiver, "_STORE_DEADLINE_S", 0.5)
    place.database.failures = float("inf")
    run = await place.ended("one", "echo said")
    place.archiver.put(run)
    await place.archiver.wait_until_empty()
    assert await place.names() == set()
    assert f"The log of pod {place.namespace}/one is not stored" in caplog.text


async def test_the_log_of_a_callback_is_not_stored(place: Place) -> None:
    place.archiver.put(await place.ended("callback", "echo said", ti_id=""))
    await place.archiver.wait_until_empty()
    assert place.database.rows == {}
    assert await place.names() == set()


async def test_logs_of_orphaned_pods_are_stored_before_the_sweep_deletes_the_pods(place: Place) -> None:
    run = await place.ended("left", "echo said", ti_id="theirs")
    place.registry.runs.clear()
    place.registry.pods.clear()
    await place.housekeeper._sweep()
    await place.archiver.wait_until_empty()
    (row,) = place.database.rows.values()
    assert (row.pod, row.ti_id) == (run.uid, "theirs")
    assert place.database.lines() == ["said"]
    assert await place.names() == set()


async def test_logs_without_read_permission_are_reported_once_and_deleted_with_their_pods(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.transport.log_errors = [Forbidden("no", status=403) for _ in range(2)]
    runs = [await place.ended(name, "echo said") for name in ("one", "two")]
    for run in runs:
        place.archiver.put(run)
    await place.archiver.wait_until_empty()
    assert await place.names() == set()
    assert place.database.rows == {}
    assert caplog.text.count("Give the scheduler's service account get on pods/log") == 1


async def test_reading_a_log_is_retried_after_transient_errors(place: Place) -> None:
    run = await place.ended("one", "echo said")
    place.transport.log_errors = [
        Unreachable("cut"),
        ServerError("no", status=500),
        TooManyRequests("slower", status=429),
    ]
    place.archiver.put(run)
    await place.archiver.wait_until_empty()
    assert place.database.lines() == ["said"]


async def test_old_logs_are_deleted_at_start(place: Place) -> None:
    async def cleaned() -> list[float]:
        return place.database.cleaned

    await until(cleaned, [30.0])


async def test_memory_stays_small_however_long_a_log_is(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    run = await place.ended("long", "head -c 12000000 /dev/zero | tr '\\\\0' x | fold -w 99")
    place.archiver.put(run)
    await place.archiver.wait_until_empty()
    (row,) = place.database.rows.values()
    assert row.size > 12_000_000
    kept = [*lines_of(row.content)]
    assert 9_500_000 < sum(map(len, kept)) < 10_600_000
    assert len(row.content) < 200_000
