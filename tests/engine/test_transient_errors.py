"""A transient failure costs a delay, and no task, no pod and no token."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from tests.engine.recording import RecordedLifecycle, worker_namespaces

from crosswind import errors
from crosswind.engine import pod_cleanup
from crosswind.engine.database import DatabaseState
from crosswind.engine.engine import Engine
from crosswind.engine.housekeeping import Housekeeper
from crosswind.engine.pod_cleanup import PodCleaner
from crosswind.engine.pod_composer import PodComposer
from crosswind.engine.request_queue import AimdLimit, RequestQueue
from crosswind.engine.state import (
    WORKER_LABEL,
    ReportState,
    RunStage,
    RunTimes,
    TaskEvent,
    WorkerRun,
    Workload,
    WorkloadEnded,
)
from crosswind.engine.watcher import WorkerWatcher
from crosswind.engine.worker_pod import WorkerSettings, WorkerTask
from crosswind.engine.workload_secrets import SecretBatch
from crosswind.kube.informer import InformerEvent
from crosswind.settings import EngineSettings, KubeSettings
from crosswind.sidecars.pod_watch import watch_pod
from deadlines import scaled

BASE = {"name": "base", "image": "busybox"}
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [BASE]}}


class Database:
    """A database in which every workload is queued and no other executor exists."""

    def workload_states(self, workloads: Any) -> dict[Workload, Any]:
        return dict.fromkeys(workloads, DatabaseState.QUEUED)

    def live_executors(self) -> list[str]:
        return []

    def load_positions(self, *_: Any) -> list[Any]:
        return []

    def save_positions(self, *_: Any) -> None:
        pass

    def write_task_log(self, *_: Any) -> None:
        pass


class Server:
    """An API server behind the client: accepts everything and records what was created. Connecting may fail."""

    host = "http://api"

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.connects = 0
        self.created: list[str] = []

    async def connect(self, *_: Any) -> Server:
        self.connects += 1
        if self.failures:
            raise self.failures.pop(0)
        return self

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def version(self) -> dict[str, str]:
        return {"major": "1", "minor": "33"}

    async def allowed(self, *_: Any, **__: Any) -> bool:
        return True

    async def get(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}

    async def delete(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}

    async def list_mapped(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(items=[], version="1")

    async def create(self, resource: Any, manifest: Any, **_: Any) -> dict[str, Any]:
        self.created.append(resource.plural)
        return {"metadata": {**manifest["metadata"], "uid": f"u{len(self.created)}"}}

    @contextlib.asynccontextmanager
    async def open_watch(self, _: Any) -> AsyncIterator[AsyncIterator[Any]]:
        async def events() -> AsyncIterator[Any]:
            await asyncio.Event().wait()
            yield

        yield events()


@pytest.fixture
def engine() -> Iterator[Callable[[Server], Engine]]:
    """Start an engine whose client is a ``Server``."""
    started: list[Engine] = []

    def start(server: Server) -> Engine:
        composer = PodComposer(WorkerSettings(), template=None, fallback=POD)
        settings, database = EngineSettings("1", settle_interval=0.2), Database()
        made = Engine(settings, KubeSettings(), composer, database, connect=server.connect)  # type: ignore[arg-type]
        started.append(made)
        made.start()
        return made

    yield start
    for engine in started:
        engine.stop(1)


def workload(number: int, size: int = 100) -> Workload:
    unique_id = f"00000000-0000-4000-8000-{number:012d}"
    task = WorkerTask("dag", f"task{number}", "run", 1, unique_id, executor_id="1", labels=WORKER_LABEL)
    return Workload(number, task, 0.0, lambda: b"x" * size)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + scaled(seconds)
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def failed(engine: Engine, seen: list[WorkloadEnded]) -> list[WorkloadEnded]:
    seen += [outcome for outcome in engine.outcomes() if isinstance(outcome, WorkloadEnded)]
    return seen


@pytest.mark.parametrize(
    "failure",
    [
        errors.CredentialsError('the exec plug-in "aws" ended with exit code 255: Throttling'),
        errors.KubeconfigError("kubeconfig is not YAML"),  # the file is being written
        errors.Unreachable("refused"),
    ],
)
def test_a_connection_that_fails_once_fails_no_task(engine: Any, failure: Exception) -> None:
    server = Server(failure)
    running = engine(server)
    running.launch([workload(number) for number in range(10)])
    until(lambda: server.created.count("pods") == 10)
    assert failed(running, []) == []
    assert server.connects == 2


def test_a_kubeconfig_that_stays_broken_fails_tasks_with_its_message(engine: Any) -> None:
    running = engine(Server(*[errors.KubeconfigError("no context here")] * 9))
    running.launch([workload(1)])
    seen: list[WorkloadEnded] = []
    until(lambda: bool(failed(running, seen)))
    assert "no context here" in seen[0].message


def test_a_workload_too_large_for_a_secret_fails_alone(engine: Any) -> None:
    server = Server()
    running = engine(server)
    running.launch([workload(number) for number in range(10)] + [workload(99, 950_000)])
    until(lambda: server.created.count("pods") == 10)
    seen: list[WorkloadEnded] = []
    until(lambda: bool(failed(running, seen)))
    assert [outcome.workload.key for outcome in seen] == [99]
    assert "950000 bytes" in seen[0].message
    assert server.connects == 1


class UsedUp(Server):
    """Refuses every pod for a quota, with other words each time; as long as it does."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.refuses = 0, True

    async def create(self, resource: Any, manifest: Any, **more: Any) -> dict[str, Any]:
        if resource.plural == "pods":
            self.asked += 1
            if self.refuses:
                raise errors.QuotaExceeded(f"exceeded quota: team, used: pods={self.asked}", status=403)
        return await super().create(resource, manifest, **more)


def test_pods_that_wait_for_a_quota_ask_by_turns(engine: Any) -> None:
    server = UsedUp()
    running = engine(server)
    running.launch([workload(number) for number in range(300)])
    until(lambda: sum(run.wait is not None for run in list(running._registry.runs.values())) == 300)
    asked, began = server.asked, time.monotonic()
    time.sleep(3)
    # Two rounds of one run in two seconds, and the requests that were under way; each run by itself asked every 5 s.
    assert server.asked - asked <= 3 * (time.monotonic() - began)
    assert asked < 100
    server.refuses = False
    until(lambda: server.created.count("pods") == 300)
    assert failed(running, []) == []


class Garbling(Server):
    """Creates a pod, but its answer cannot be read; a second creation is answered with a bare 409."""

    def __init__(self) -> None:
        super().__init__()
        self.pods: dict[str, Any] = {}

    async def create(self, resource: Any, manifest: Any, **more: Any) -> dict[str, Any]:
        made = await super().create(resource, manifest, **more)
        if resource.plural != "pods":
            return made
        if manifest["metadata"]["name"] in self.pods:
            raise errors.Conflict("status 409 without a Status body", status=409)
        self.pods[manifest["metadata"]["name"]] = made
        raise errors.Unreachable("POST /pods: the answer is not understood")

    async def get(self, _: Any, name: str, **__: Any) -> dict[str, Any]:
        return self.pods.get(name, {})


def test_a_pod_whose_creation_got_an_unreadable_answer_is_found(engine: Any) -> None:
    server = Garbling()
    running = engine(server)
    running.launch([workload(1)])
    until(lambda: running.figures()["created"] == 1)
    assert failed(running, []) == []
    assert len(server.pods) == 1


def over(name: str) -> WorkerRun:
    task = WorkerTask("dag", "task", "run", 1, name)
    return WorkerRun(
        Workload(name, task, 0.0, None),
        task,
        RunTimes(0.0),
        stage=RunStage.ENDED,
        name=name,
        namespace="ns",
        uid=name,
        report=ReportState.SETTLED,
    )


@pytest.mark.parametrize(
    "failure",
    [
        errors.Unauthorized("expired", status=401),
        errors.CredentialsError("the exec plug-in failed"),
        errors.KubeconfigError("kubeconfig is not YAML"),
        errors.ServerError("etcd leader changed", status=503),
        errors.Unreachable("refused"),
    ],
)
async def test_a_deletion_is_retried_after_a_transient_error(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    monkeypatch.setattr(pod_cleanup, "_FIRST_RETRY_S", 0.05)
    deleted = asyncio.Event()
    failures = [failure, failure]

    class Deletes:
        async def delete(self, *_: Any, **__: Any) -> None:
            if failures:
                raise failures.pop()
            deleted.set()

    lifecycle, run = RecordedLifecycle(), over("p")
    lifecycle.registry.add(run)
    cleaner = PodCleaner(Deletes(), lifecycle, EngineSettings("1"), None)  # type: ignore[arg-type]
    working = asyncio.create_task(cleaner.run())
    cleaner.put(run)
    await asyncio.wait_for(deleted.wait(), scaled(20))
    assert not run.pod_gone, "the watch reports it"
    working.cancel()


class Sweeps:
    """Lists pods for the selector of our own label."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.pods = pods

    async def list_mapped(self, resource: Any, take: Callable[[Any], Any], *, labels: str = "", **_: Any) -> Any:
        ours = f"airflow-worker={'7'}" in labels and resource.plural == "pods"
        return SimpleNamespace(items=[take(pod) for pod in self.pods] if ours else [])


def labelled(name: str, **status: Any) -> dict[str, Any]:
    labels = {"airflow-worker": "7", "crosswind/worker": "true"}
    metadata = {"name": name, "namespace": "default", "uid": name, "labels": labels}
    return {"metadata": metadata, "spec": {"containers": [{"name": "base"}]}, "status": status}


async def test_a_pod_with_our_label_and_no_run_is_cleaned_up_by_the_second_sweep() -> None:
    ended = {"name": "base", "state": {"terminated": {"exitCode": 0}}}
    running = {"name": "base", "state": {"running": {}}}
    client = Sweeps(
        labelled("finished", phase="Succeeded", containerStatuses=[ended]),
        labelled("pending", phase="Pending"),
        labelled("running", phase="Running", containerStatuses=[running]),
        labelled("known", phase="Succeeded", containerStatuses=[ended]),
    )
    lifecycle, settings, put = RecordedLifecycle(), EngineSettings("7"), []
    known = over("known")
    lifecycle.registry.add(known)
    lifecycle.registry.set_pod(known, "default", "known")
    watcher = WorkerWatcher(client, lifecycle, settings)  # type: ignore[arg-type]
    watcher.on_event(InformerEvent("ADDED", client.pods[0], "watch"))
    places = worker_namespaces(settings, Database(), watcher)
    housekeeper = Housekeeper(client, lifecycle, settings, Database(), watcher, SimpleNamespace(put=put.append), places)  # type: ignore[arg-type]
    for _ in range(2):
        assert put == []
        housekeeper.sweep_soon()
        await housekeeper._sweep()
    assert {run.name for run in put} == {"finished", "pending"}
    assert all(pod_cleanup.must_delete(run, settings) for run in put if run.name == "pending")


async def test_a_failed_token_renewal_is_retried_and_delays_no_other(caplog: pytest.LogCaptureFixture) -> None:
    renewed: list[str] = []
    failures = [errors.ServerError("etcd leader changed", status=503)]

    class Patches:
        async def patch(self, _: Any, name: str, *args: Any, **__: Any) -> None:
            if name == "bad" and failures:
                raise failures.pop()
            renewed.append(name)

    lifecycle, settings = RecordedLifecycle(), EngineSettings("1")
    housekeeper = Housekeeper(Patches(), lifecycle, settings, None, None, None, None)  # type: ignore[arg-type]
    now = asyncio.get_running_loop().time()
    bad, good = (
        SecretBatch(name, "ns", now - settings.token_lifetime / 2 - 1, {"u": lambda: b"payload"})
        for name in ("bad", "good")
    )
    lifecycle.registry.secrets.add(bad)
    lifecycle.registry.secrets.add(good)
    await housekeeper._attempt(housekeeper._renew_tokens)
    assert renewed == ["good"]
    assert "etcd leader changed" in caplog.text
    assert now < bad.renew_at <= asyncio.get_running_loop().time() + 60
    bad.renew_at = now + 3600
    await housekeeper._attempt(housekeeper._renew_tokens)
    assert renewed == ["good"]
    bad.renew_at = now
    await housekeeper._attempt(housekeeper._renew_tokens)
    await housekeeper._attempt(housekeeper._renew_tokens)
    assert renewed == ["good", "bad"]


async def test_a_pod_watch_survives_every_error() -> None:
    pod = {"metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "1"}}
    watched = asyncio.Event()
    failures = [errors.CredentialsError("the plug-in failed"), errors.KubeconfigError("not YAML"), KeyError("metadata")]

    class Reads:
        async def get(self, *_: Any, **__: Any) -> Any:
            if failures:
                raise failures.pop(0)
            return pod

        async def watch(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
            watched.set()
            await asyncio.Event().wait()
            yield

    async with watch_pod(Reads(), pod):  # type: ignore[arg-type]
        await asyncio.wait_for(watched.wait(), scaled(20))


@pytest.mark.parametrize(
    "status",
    [
        lambda number: {
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": f"0/{number} nodes are available: {number} Insufficient memory.",
                }
            ]
        },
        lambda number: {
            "containerStatuses": [
                {"name": "base", "state": {"waiting": {"reason": "CrashLoopBackOff", "message": f"back-off {number}s"}}}
            ]
        },
    ],
)
async def test_a_pod_whose_reason_to_wait_has_ever_new_words_sends_one_event(
    status: Callable[[int], dict[str, Any]],
) -> None:
    lifecycle, settings = RecordedLifecycle(), EngineSettings("7", wait_report_delay=0.0)
    watcher = WorkerWatcher(None, lifecycle, settings)  # type: ignore[arg-type]
    housekeeper = Housekeeper(None, lifecycle, settings, None, watcher, None, None)  # type: ignore[arg-type]
    task = WorkerTask("dag", "task", "run", 1, "unique", executor_id="7")
    run = WorkerRun(Workload("key", task, 1.0, None), task, RunTimes(-1e6), stage=RunStage.CREATED)
    lifecycle.registry.add(run)
    lifecycle.registry.set_pod(run, "default", "pod")
    for number in range(1, 101):
        watcher.on_event(InformerEvent("MODIFIED", labelled("pod", phase="Pending", **status(number)), "watch"))
        await housekeeper._send_wait_events()
    (event,) = lifecycle.registry.outbox
    assert isinstance(event, TaskEvent)
    assert "1" in event.message


async def test_a_retry_after_of_an_hour_pauses_creations_for_a_minute() -> None:
    page = errors.ServerError("maintenance", status=503, retry_after=3600)
    heard = asyncio.Event()

    async def work(_: str) -> None:
        raise page

    def refused(_: str, __: Exception) -> float:
        heard.set()
        return 0.2

    queue = RequestQueue[str](work, refused, AimdLimit())
    running = asyncio.create_task(queue.run())
    queue.put("a")
    await heard.wait()
    assert 50 < queue.limit.resume_at - asyncio.get_running_loop().time() <= 60
    running.cancel()
