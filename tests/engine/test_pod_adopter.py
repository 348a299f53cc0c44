"""What the adopter asks of the API server and the database, and which tasks it adopts or loses."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection
from types import SimpleNamespace
from typing import Any

import pytest
from tests.engine.recording import RecordedLifecycle

from crosswind import errors
from crosswind.engine import adoption
from crosswind.engine.adoption import PodAdopter
from crosswind.engine.database import DatabaseState, WatchPosition
from crosswind.engine.state import WORKER_LABEL, AdoptionRequest, RunStage, WorkerRun, Workload
from crosswind.engine.watcher import WorkerWatcher
from crosswind.engine.worker_pod import WorkerTask, worker_name
from crosswind.settings import EngineSettings
from deadlines import scaled

FORMER, NEW = "5", "7"
FORMER_PODS = f"kubernetes_executor=True,airflow-worker={FORMER}"
ALL_WORKERS = ",".join(f"{key}={value}" for key, value in WORKER_LABEL.items())


class Api:
    """An API server with pods; a list raises the error that ``failures`` has for its namespace or its labels."""

    host = "https://api"

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.pods = list(pods)
        self.failures: dict[str | None, Exception] = {}
        self.lists: list[tuple[str | None, str]] = []

    async def list_mapped(
        self, _: Any, take: Callable[[Any], Any], *, namespace: str | None, labels: str, **__: Any
    ) -> Any:
        self.lists.append((namespace, labels))
        if (failure := self.failures.get(namespace) or self.failures.get(labels)) is not None:
            raise failure
        selected = dict(label.split("=") for label in labels.split(","))
        pods = [pod for pod in self.pods if namespace in (None, pod["metadata"]["namespace"])]
        pods = [pod for pod in pods if selected.items() <= pod["metadata"]["labels"].items()]
        return SimpleNamespace(items=[take(pod) for pod in pods], version="1")

    @contextlib.asynccontextmanager
    async def open_watch(self, _: Any) -> AsyncIterator[AsyncIterator[Any]]:
        async def events() -> AsyncIterator[Any]:
            await asyncio.Event().wait()
            yield

        yield events()

    async def patch(self, _: Any, name: str, body: Any, *, namespace: str) -> None:
        (pod,) = [pod for pod in self.pods if pod["metadata"]["name"] == name]
        pod["metadata"]["labels"] |= body["metadata"]["labels"]

    def searches(self) -> list[str | None]:
        """Return the namespaces in which the pods of all executors were listed."""
        return [namespace for namespace, labels in self.lists if labels == ALL_WORKERS]


class Database:
    """A database with the positions of former executors; ``failures`` are raised by the next calls for them."""

    def __init__(self) -> None:
        self.positions: list[WatchPosition] = []
        self.failures: list[Exception] = []
        self.state = DatabaseState.RUNNING
        self.alive_questions = self.state_questions = 0

    def load_positions(self, _: str, __: float) -> list[WatchPosition]:
        if self.failures:
            raise self.failures.pop(0)
        return self.positions

    def workload_states(self, workloads: Collection[Workload]) -> dict[Workload, DatabaseState]:
        self.state_questions += 1
        return dict.fromkeys(workloads, self.state)

    def live_executors(self) -> list[str]:
        self.alive_questions += 1
        return []


class Adopting:
    """An adopter that runs, and what is around it."""

    def __init__(self, api: Api, database: Database, *namespaces: str | None) -> None:
        self.api, self.database, self.lifecycle = api, database, RecordedLifecycle()
        settings = EngineSettings(NEW, namespaces=namespaces)
        watcher = WorkerWatcher(api, self.lifecycle, settings)  # type: ignore[arg-type]
        housekeeper: Any = SimpleNamespace(sweep_soon=lambda: None)
        self.adopter = PodAdopter(api, self.lifecycle, settings, database, watcher, housekeeper)  # type: ignore[arg-type]

    def request(self, task: WorkerTask) -> WorkerRun:
        """Request the adoption of a task of the former executor; return its run."""
        workload = Workload(task.task_id, task, 0.0, None)
        key = task.dag_id, task.task_id, task.run_id, task.try_number, task.map_index
        request = AdoptionRequest(task.ti_id, key, workload, owner=FORMER, unique_id=task.unique_id)
        self.lifecycle.request_adoption([request])
        self.adopter.wake()
        return self.lifecycle.registry.newest[task.task_id]


@contextlib.asynccontextmanager
async def adopting(api: Api, database: Database, *namespaces: str | None) -> AsyncIterator[Adopting]:
    made = Adopting(api, database, *namespaces)
    working = asyncio.create_task(made.adopter.run())
    yield made
    working.cancel()
    await asyncio.wait([working])


async def until(happened: Callable[[], Any]) -> None:
    async with asyncio.timeout(scaled(15)):
        while not happened():  # noqa: ASYNC110 - of the adopter's own tasks
            await asyncio.sleep(0.005)


def a_task(name: str) -> WorkerTask:
    return WorkerTask("dag", name, "run", 1, f"unique-{name}", ti_id=f"ti-{name}")


def pod_of(task: WorkerTask, namespace: str) -> dict[str, Any]:
    """Return the running pod of a task of the former executor."""
    labels = {"kubernetes_executor": "True", "airflow-worker": FORMER, **WORKER_LABEL}
    metadata = {
        "name": worker_name(task),
        "namespace": namespace,
        "uid": task.ti_id,
        "resourceVersion": "1",
        "labels": labels,
        "annotations": {"task_instance_id": task.ti_id},
    }
    status = {"phase": "Running", "containerStatuses": [{"name": "base", "state": {"running": {}}}]}
    return {"metadata": metadata, "spec": {"containers": [{"name": "base"}]}, "status": status}


def adopted(run: WorkerRun) -> bool:
    """Whether a run's pod runs and carries the new executor's label."""
    return run.stage is RunStage.RUNNING and run.adoption is None


async def test_during_an_outage_searches_are_rare_and_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    api = Api()
    api.failures[ALL_WORKERS] = errors.Unreachable("refused")
    caplog.set_level(logging.WARNING, adoption.__name__)
    async with adopting(api, Database(), "a") as former:
        run = former.request(a_task("task"))
        await until(api.searches)
        await asyncio.sleep(2)
        assert len(api.searches()) <= 3
        assert len([record for record in caplog.records if record.name == adoption.__name__]) == 1
        assert run.stage is RunStage.ADOPTING
        del api.failures[ALL_WORKERS]
        await until(lambda: run.stage is RunStage.ENDED)
    assert run.reason == "PodLost"


async def test_a_namespace_that_refuses_does_not_stop_the_adoption_in_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    there, lost = a_task("there"), a_task("lost")
    api = Api(pod_of(there, "a"))
    api.failures["b"] = errors.Forbidden("pods is forbidden", status=403)
    async with adopting(api, Database(), "a", "b") as former:
        found, missing = former.request(there), former.request(lost)
        await until(lambda: adopted(found))
        assert api.pods[0]["metadata"]["labels"]["airflow-worker"] == NEW
        await until(lambda: "may be in namespaces that could not be searched: b: pods is forbidden" in caplog.text)
        assert missing.stage is RunStage.ADOPTING


async def test_a_namespace_of_a_former_watch_that_refuses_does_not_stop_the_adoption() -> None:
    task, database = a_task("task"), Database()
    database.positions = [WatchPosition(FORMER, Api.host, namespace, "") for namespace in ("gone", None)]
    api = Api(pod_of(task, "a"))
    api.failures = {name: errors.Forbidden("pods is forbidden", status=403) for name in ("gone", None)}
    async with adopting(api, database, "a") as former:
        run = former.request(task)
        await until(lambda: adopted(run))


async def test_no_task_is_lost_while_a_namespace_gives_no_answer() -> None:
    task = a_task("task")
    api = Api(pod_of(task, "b"))
    api.failures["b"] = errors.ServerError("etcd leader changed", status=503)
    async with adopting(api, Database(), "a", "b") as former:
        run = former.request(task)
        await until(lambda: len([place for place, _ in api.lists if place == "b"]) > 2)
        assert run.stage is RunStage.ADOPTING
        del api.failures["b"]
        await until(lambda: adopted(run))


async def test_a_task_that_ends_while_its_pod_may_not_be_looked_for_frees_its_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(adoption, "_UNLISTED_S", 0.5)
    api, database = Api(), Database()
    api.failures["b"] = errors.Forbidden("pods is forbidden", status=403)
    async with adopting(api, database, "a", "b") as former:
        run = former.request(a_task("task"))
        await until(lambda: database.state_questions)
        assert run.stage is RunStage.ADOPTING
        database.state = DatabaseState.SETTLED
        await until(lambda: run.stage is RunStage.ENDED)
    assert not run.failed


async def test_the_database_is_seldom_asked_whether_an_executor_without_tasks_is_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(adoption, "_OUTDATED_HEARTBEAT_S", 0.0)
    database = Database()
    database.positions = [WatchPosition(FORMER, Api.host, "a", "")]
    async with adopting(Api(), database, "a"):
        await until(lambda: database.alive_questions)
        await asyncio.sleep(2)
    assert database.alive_questions == 1
