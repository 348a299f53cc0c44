"""What a failure that passes costs: a delay, and no task, no pod and no token."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from crosswind import errors
from crosswind.kube.informing import InformerEvent
from crosswind.pods.workers import WorkerSettings, WorkerTask
from crosswind.runs import engine as engines
from crosswind.runs import keeping, stopping
from crosswind.runs.batches import Batch
from crosswind.runs.board import Board
from crosswind.runs.composing import Composer
from crosswind.runs.dispatching import Dispatcher
from crosswind.runs.engine import Engine
from crosswind.runs.following import Follower
from crosswind.runs.keeping import Keeper
from crosswind.runs.pacing import Pace
from crosswind.runs.sighting import watching
from crosswind.runs.stopping import Stopper
from crosswind.runs.workloads import WORKER_LABEL, Ended, Report, Run, Stage, Standing, Workload
from crosswind.settings import EngineSettings, KubeSettings

BASE = {"name": "base", "image": "busybox"}
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [BASE]}}


class Ledger:
    """A database that knows of nothing else."""

    def standings(self, workloads: Any) -> dict[Workload, Any]:
        return dict.fromkeys(workloads, Standing.QUEUED)

    def living(self) -> list[str]:
        return []

    def positions(self, *_: Any) -> list[Any]:
        return []

    def remember(self, *_: Any) -> None:
        pass

    def report(self, *_: Any) -> None:
        pass


class Server:
    """An API server behind the client's edge: takes everything, remembers what was created. ``connects`` may fail."""

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

    async def gather(self, *_: Any, **__: Any) -> Any:
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
def engine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Start an engine with a server in the place of the client's connection."""
    started: list[Engine] = []

    def start(server: Server) -> Engine:
        monkeypatch.setattr(engines, "Client", SimpleNamespace(connect=server.connect))
        composer = Composer(WorkerSettings(), template=None, fallback=POD)
        made = Engine(EngineSettings("1", settle_interval=0.2), KubeSettings(), composer, Ledger())  # type: ignore[arg-type]
        started.append(made)
        made.start()
        return made

    yield start
    for one in started:
        one.stop(1)


def workload(number: int, size: int = 100) -> Workload:
    unique = f"00000000-0000-4000-8000-{number:012d}"
    task = WorkerTask("dag", f"task{number}", "run", 1, unique, executor_id="1", labels=WORKER_LABEL)
    return Workload(number, task, 0.0, lambda: b"x" * size)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def failed(engine: Engine, seen: list[Ended]) -> list[Ended]:
    seen += [one for one in engine.outcomes() if isinstance(one, Ended)]
    return seen


@pytest.mark.parametrize(
    "failure",
    [
        errors.CredentialsError('the exec plug-in "aws" ended with exit code 255: Throttling'),
        errors.KubeconfigError("kubeconfig is not YAML"),  # somebody is writing it
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
    seen: list[Ended] = []
    until(lambda: bool(failed(running, seen)))
    assert "no context here" in seen[0].message


def test_a_workload_that_fits_no_secret_fails_alone(engine: Any) -> None:
    server = Server()
    running = engine(server)
    running.launch([workload(number) for number in range(10)] + [workload(99, 950_000)])
    until(lambda: server.created.count("pods") == 10)
    seen: list[Ended] = []
    until(lambda: bool(failed(running, seen)))
    assert [one.workload.key for one in seen] == [99]
    assert "950000 bytes" in seen[0].message
    assert server.connects == 1


class Garbling(Server):
    """Creates what it is told to, and answers with something else: first to the creation, then that there is one."""

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


def test_a_pod_whose_creation_is_answered_with_nonsense_is_taken_for_what_it_is(engine: Any) -> None:
    server = Garbling()
    running = engine(server)
    running.launch([workload(1)])
    until(lambda: running.figures()["created"] == 1)
    assert failed(running, []) == []
    assert len(server.pods) == 1


def over(name: str) -> Run:
    task = WorkerTask("dag", "task", "run", 1, name)
    return Run(
        Workload(name, task, 0.0, None),
        task,
        0.0,
        stage=Stage.ENDED,
        name=name,
        namespace="ns",
        uid=name,
        report=Report.SETTLED,
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
async def test_a_deletion_that_fails_for_now_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    monkeypatch.setattr(stopping, "_RETRY", 0.05)
    deleted = asyncio.Event()
    failures = [failure, failure]

    class Deletes:
        async def delete(self, *_: Any, **__: Any) -> None:
            if failures:
                raise failures.pop()
            deleted.set()

    board, run = Board(), over("p")
    board.add(run)
    stopper = Stopper(Deletes(), board, EngineSettings("1"), None)  # type: ignore[arg-type]
    working = asyncio.create_task(stopper.run())
    stopper.put(run)
    await asyncio.wait_for(deleted.wait(), 20)
    assert not run.gone, "the watch says when it is"
    working.cancel()


class Sweeps:
    """Lists pods, as the labels that are asked for say."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.pods = pods

    async def gather(self, resource: Any, take: Callable[[Any], Any], *, labels: str = "", **_: Any) -> Any:
        ours = f"airflow-worker={'7'}" in labels and resource.plural == "pods"
        return SimpleNamespace(items=[take(pod) for pod in self.pods] if ours else [])


def labelled(name: str, **status: Any) -> dict[str, Any]:
    labels = {"airflow-worker": "7", "crosswind/worker": "true"}
    metadata = {"name": name, "namespace": "default", "uid": name, "labels": labels}
    return {"metadata": metadata, "spec": {"containers": [{"name": "base"}]}, "status": status}


async def test_a_pod_with_our_label_that_no_run_is_for_is_dealt_with_by_the_second_sweep() -> None:
    ended = {"name": "base", "state": {"terminated": {"exitCode": 0}}}
    running = {"name": "base", "state": {"running": {}}}
    client = Sweeps(
        labelled("finished", phase="Succeeded", containerStatuses=[ended]),
        labelled("pending", phase="Pending"),
        labelled("running", phase="Running", containerStatuses=[running]),
        labelled("known", phase="Succeeded", containerStatuses=[ended]),
    )
    board, settings, put = Board(), EngineSettings("7"), []
    known = over("known")
    board.add(known)
    board.placed(known, "default", "known")
    follower = Follower(client, board, settings, lambda run: None)  # type: ignore[arg-type]
    follower.on_change(InformerEvent("ADDED", client.pods[0], "watch"))
    keeper = Keeper(client, board, settings, Ledger(), follower, SimpleNamespace(put=put.append))  # type: ignore[arg-type]
    for _ in range(2):
        assert put == []
        keeper.sweep_soon()
        await keeper._sweep()
    assert {run.name for run in put} == {"finished", "pending"}
    assert all(stopping.is_deleted(run, settings) for run in put if run.name == "pending")


async def test_a_renewal_of_tokens_that_fails_is_tried_again_and_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [10_000.0]
    monkeypatch.setattr(keeping, "_now", lambda: clock[0])
    renewed: list[tuple[str, float]] = []
    failures = [errors.ServerError("etcd leader changed", status=503)]

    class Patches:
        async def patch(self, _: Any, name: str, *args: Any, **__: Any) -> None:
            if name == "bad" and failures:
                raise failures.pop()
            renewed.append((name, clock[0]))

    board, settings = Board(), EngineSettings("1")
    keeper = Keeper(Patches(), board, settings, None, None, None)  # type: ignore[arg-type]
    for name in ("bad", "good"):
        board.batches.add(Batch(name, "ns", clock[0] - settings.token_lifetime / 2 - 1, {"u": lambda: b"payload"}))
    await keeper._attempt(keeper._renew_tokens)
    assert renewed == [("good", 10_000.0)]
    assert "etcd leader changed" in caplog.text
    clock[0] += 60
    await keeper._attempt(keeper._renew_tokens)
    await keeper._attempt(keeper._renew_tokens)
    assert renewed == [("good", 10_000.0), ("bad", 10_060.0)]


async def test_a_pod_in_sight_stays_in_sight_when_the_credentials_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = {"metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "1"}}
    watched = asyncio.Event()
    failures = [errors.CredentialsError("the exec plug-in failed"), errors.KubeconfigError("not YAML")]

    class Reads:
        async def get(self, *_: Any, **__: Any) -> Any:
            if failures:
                raise failures.pop(0)
            return pod

        async def watch(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
            watched.set()
            await asyncio.Event().wait()
            yield

    async with watching(Reads(), pod):  # type: ignore[arg-type]
        await asyncio.wait_for(watched.wait(), 20)


async def test_a_page_that_asks_for_an_hour_stops_creations_for_a_minute() -> None:
    page = errors.ServerError("maintenance", status=503, retry_after=3600)
    heard = asyncio.Event()

    async def work(_: str) -> None:
        raise page

    def refused(_: str, __: Exception) -> float:
        heard.set()
        return 0.2

    dispatcher = Dispatcher[str](work, refused, Pace())
    running = asyncio.create_task(dispatcher.run())
    dispatcher.put("a")
    await heard.wait()
    assert 50 < dispatcher.pace.resume_at - asyncio.get_running_loop().time() <= 60
    running.cancel()
