"""What the adopter asks of the API server and the database, and which tasks it adopts or loses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client import models as k8s
from tests.engine.recording import RecordedLifecycle, worker_namespaces

from crosswind import errors
from crosswind.engine import adoption
from crosswind.engine.adoption import PodAdopter, may_have_pod
from crosswind.engine.database import DatabaseState, WatchPosition
from crosswind.engine.pod_composer import PodComposer
from crosswind.engine.queues import QueueSettings
from crosswind.engine.state import WORKER_LABEL, AdoptionRequest, RunStage, WorkerRun, Workload
from crosswind.engine.watcher import WorkerWatcher
from crosswind.engine.worker_pod import Delivery, WorkerSettings, WorkerTask, worker_name
from crosswind.engine.workload_secrets import InlineWorkload, SecretWorkload
from crosswind.settings import EngineSettings
from deadlines import scaled

FORMER, NEW = "5", "7"
FORMER_PODS = f"kubernetes_executor=True,airflow-worker={FORMER}"
FORBIDDEN = errors.Forbidden("pods is forbidden", status=403)
BASE_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "any"},
    "spec": {"containers": [{"name": "base", "image": "airflow"}]},
}
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
        self.configs: dict[str, Mapping[str, object]] = {}
        """By the task's name."""
        self.state = DatabaseState.RUNNING
        self.alive_questions = self.state_questions = 0

    def load_positions(self, _: str, __: float) -> list[WatchPosition]:
        if self.failures:
            raise self.failures.pop(0)
        return self.positions

    def executor_configs(self, workloads: Collection[Workload]) -> dict[Workload, Mapping[str, object] | None]:
        return {workload: self.configs.get(workload.task.task_id) for workload in workloads}

    def workload_states(self, workloads: Collection[Workload]) -> dict[Workload, DatabaseState]:
        self.state_questions += 1
        return dict.fromkeys(workloads, self.state)

    def live_executors(self) -> list[str]:
        self.alive_questions += 1
        return []


class Adopting:
    """An adopter that runs, and what is around it."""

    def __init__(
        self, api: Api, database: Database, *namespaces: str | None, composer: PodComposer | None = None
    ) -> None:
        self.api, self.database, self.lifecycle = api, database, RecordedLifecycle()
        settings = EngineSettings(NEW, namespaces=namespaces)
        watcher = WorkerWatcher(api, self.lifecycle, settings)  # type: ignore[arg-type]
        housekeeper: Any = SimpleNamespace(sweep_soon=lambda: None)
        composer = composer or composing()
        places = worker_namespaces(settings, database, watcher, composer)
        self.adopter = PodAdopter(api, self.lifecycle, settings, database, watcher, housekeeper, places)  # type: ignore[arg-type]

    def request(self, task: WorkerTask) -> WorkerRun:
        """Request the adoption of a task of the former executor; return its run."""
        workload = Workload(task.task_id, task, 0.0, None)
        key = task.dag_id, task.task_id, task.run_id, task.try_number, task.map_index
        request = AdoptionRequest(task.ti_id, key, workload, owner=FORMER, unique_id=task.unique_id)
        self.lifecycle.request_adoption([request])
        self.adopter.wake()
        return self.lifecycle.registry.newest[task.task_id]


@contextlib.asynccontextmanager
async def adopting(
    api: Api, database: Database, *namespaces: str | None, composer: PodComposer | None = None
) -> AsyncIterator[Adopting]:
    made = Adopting(api, database, *namespaces, composer=composer)
    working = asyncio.create_task(made.adopter.run())
    yield made
    working.cancel()
    await asyncio.wait([working])


async def until(happened: Callable[[], Any]) -> None:
    async with asyncio.timeout(scaled(15)):
        while not happened():  # noqa: ASYNC110 - of the adopter's own tasks
            await asyncio.sleep(0.005)


def composing(template: Mapping[str, Any] = BASE_POD, **more: Any) -> PodComposer:
    """Return a composer whose pods are in namespace a unless ``template`` or more says something else."""
    return PodComposer(WorkerSettings(namespace="a"), template=None, fallback=dict(template), **more)


def in_namespace(name: str) -> dict[str, Any]:
    return {"pod_override": k8s.V1Pod(metadata=k8s.V1ObjectMeta(namespace=name))}


def a_task(name: str, queue: str = "default") -> WorkerTask:
    return WorkerTask("dag", name, "run", 1, f"unique-{name}", ti_id=f"ti-{name}", queue=queue)


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
    there, here, elsewhere = a_task("there"), a_task("here"), a_task("elsewhere")
    api, database = Api(pod_of(there, "a")), Database()
    api.failures["b"], database.configs["elsewhere"] = FORBIDDEN, in_namespace("b")
    async with adopting(api, database, "a", "b") as former:
        found, lost, kept = former.request(there), former.request(here), former.request(elsewhere)
        await until(lambda: adopted(found))
        assert api.pods[0]["metadata"]["labels"]["airflow-worker"] == NEW
        await until(lambda: lost.stage is RunStage.ENDED)
        await until(lambda: "may be in namespaces that could not be searched: b: pods is forbidden" in caplog.text)
    assert lost.reason == "PodLost"
    assert kept.stage is RunStage.ADOPTING


@pytest.mark.parametrize(
    "delivery", [SecretWorkload("secret", "unique-task"), InlineWorkload("{}")], ids=["secret", "args"]
)
async def test_a_pod_that_a_mutation_hook_has_renamed_is_adopted(delivery: Delivery) -> None:
    def rename(pod: dict[str, Any]) -> dict[str, Any]:
        return pod | {"metadata": pod["metadata"] | {"name": f"prod-{pod['metadata']['name']}"[:63]}}

    task, composer = a_task("task"), composing(mutate=rename)
    made, state = composer.compose(Workload("task", task, 0.0, None), task, delivery), pod_of(task, "a")
    metadata = state["metadata"] | {name: made["metadata"][name] for name in ("name", "annotations")}
    pod = {**made, **state, "metadata": metadata, "spec": made["spec"]}
    assert metadata["name"].startswith("prod-")
    async with adopting(Api(pod), Database(), "a", composer=composer) as former:
        run = former.request(task)
        await until(lambda: adopted(run))
    assert (run.name, run.unique_id) == (metadata["name"], task.unique_id)


async def test_a_namespace_of_a_former_watch_that_refuses_does_not_stop_the_adoption() -> None:
    task, database = a_task("task"), Database()
    database.positions = [WatchPosition(FORMER, Api.host, namespace, "") for namespace in ("gone", None)]
    api = Api(pod_of(task, "a"))
    api.failures = {"gone": FORBIDDEN, None: FORBIDDEN}
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


@pytest.mark.parametrize("ended", [DatabaseState.SETTLED, DatabaseState.SETTLED_AFTER_START, DatabaseState.DELETED])
async def test_a_task_that_ends_while_its_pod_may_not_be_looked_for_frees_its_slot(
    ended: DatabaseState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "_UNLISTED_S", 0.5)
    api, database = Api(), Database()
    api.failures["b"], database.configs["task"] = FORBIDDEN, in_namespace("b")
    async with adopting(api, database, "a", "b") as former:
        run = former.request(a_task("task"))
        await until(lambda: database.state_questions)
        assert run.stage is RunStage.ADOPTING
        database.state = ended
        await until(lambda: run.stage is RunStage.ENDED)
    assert not run.failed


def elsewhere_by_hook(pod: dict[str, Any]) -> dict[str, Any]:
    return {**pod, "metadata": {**pod["metadata"], "namespace": "elsewhere"}}


ELSEWHERE = {**BASE_POD, "metadata": {"name": "any", "namespace": "elsewhere"}}


@pytest.mark.parametrize(
    ("composer", "config"),
    [
        (composing(), in_namespace("elsewhere")),
        (composing(), {"crosswind": {"after_losses": {"1": ELSEWHERE}}}),
        (composing(ELSEWHERE), None),
        (composing(queues={"default": QueueSettings(namespace="elsewhere")}), None),
        (composing(mutate=elsewhere_by_hook), None),
    ],
    ids=["pod_override", "after_losses", "template", "queue", "hook"],
)
async def test_a_pod_in_a_namespace_that_no_configuration_and_no_position_names_is_adopted(
    composer: PodComposer, config: Mapping[str, object] | None
) -> None:
    task, database = a_task("task"), Database()
    database.configs = {"task": config} if config else {}
    async with adopting(Api(pod_of(task, "elsewhere")), database, "a", composer=composer) as former:
        run = former.request(task)
        await until(lambda: adopted(run))


async def test_a_database_that_does_not_answer_with_positions_delays_the_adoption(
    caplog: pytest.LogCaptureFixture,
) -> None:
    task, database = a_task("task"), Database()
    database.positions = [WatchPosition(FORMER, Api.host, "elsewhere", "")]
    database.failures = [OSError("the database is away")] * 3  # the first is that of the look ahead of requests
    async with adopting(Api(pod_of(task, "elsewhere")), database, "a") as former:
        run = former.request(task)
        await until(lambda: not database.failures)
        await until(lambda: adopted(run))
    assert caplog.text.count("could not be adopted, retrying") == 1
    assert caplog.text.count("Traceback") == 1


async def test_a_task_whose_namespace_cannot_be_determined_is_not_lost(tmp_path: Path) -> None:
    template, database = tmp_path / "pod.yaml", Database()
    database.configs["task"] = {"pod_template_file": str(template)}
    api = Api()
    async with adopting(api, database, "a") as former:
        run = former.request(a_task("task"))
        await until(api.searches)
        assert run.stage is RunStage.ADOPTING
        template.write_text(json.dumps(BASE_POD))
        await until(lambda: run.stage is RunStage.ENDED)
    assert run.reason == "PodLost"


@pytest.mark.parametrize(
    ("own", "searched", "refused", "former", "may"),
    [
        ({"a"}, {"a", "b"}, set(), {"a", "b"}, False),
        ({"a"}, {"a"}, {"b"}, {"a", "b"}, False),  # it belongs into a, in which it is not
        ({"b"}, {"a"}, {"b"}, {"a"}, True),
        ({"a", "b"}, {"a"}, {"b"}, set(), True),
        ({"a"}, {"a", "b"}, {"z"}, {"z"}, True),  # the configuration has changed: it may be in z
        ({"a"}, {"a", "b"}, {None}, {None}, True),
        ({"a"}, {"a", "b"}, {"y"}, set(), False),
        (None, {"a", "b"}, set(), set(), True),
        (None, {None}, set(), {"z"}, False),
    ],
)
def test_a_task_is_lost_when_it_has_no_pod_where_its_pod_may_be(
    own: set[str] | None, searched: set[str | None], refused: set[str | None], former: set[str | None], may: bool
) -> None:
    assert may_have_pod(own, searched, refused, {"a", "b"}, former) is may


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
