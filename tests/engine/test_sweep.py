"""What sweeps in a row do with the same leftovers, and what a refused request costs the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tests.engine.recording import RecordedLifecycle, worker_namespaces

from crosswind import errors
from crosswind.engine.database import WatchPosition
from crosswind.engine.housekeeping import Housekeeper
from crosswind.engine.log_archiver import LogArchiver
from crosswind.engine.pod_cleanup import PodCleaner
from crosswind.engine.pod_composer import PodComposer
from crosswind.engine.sealed_workload import deployment_label
from crosswind.engine.state import WORKER_LABEL, RunStage, Workload
from crosswind.engine.sweep import LeftoverSweep
from crosswind.engine.worker_pod import WorkerSettings, WorkerTask
from crosswind.engine.workload_secrets import SECRET_LABELS
from crosswind.kube.client import Client
from crosswind.settings import ArchiveSettings, EngineSettings
from deadlines import scaled
from kubelocal.storage.selectors import parse_labels


class Database:
    def __init__(self, *places: str | None) -> None:
        self.places = places

    def load_positions(self, server: str, _: float) -> list[WatchPosition]:
        return [WatchPosition("5", server, place, "1") for place in self.places]

    def live_executors(self) -> list[str]:
        return ["7"]

    def orphaned_workloads(self, pods: Any, _: Any) -> dict[str, Any]:
        return dict.fromkeys(pods)


class Api:
    """An API server with leftovers of a dead executor in one namespace; some namespaces may not be read."""

    def __init__(
        self, *, pods: int = 1, secrets: int = 0, refused: frozenset[str] = frozenset(), place: str = "a"
    ) -> None:
        self.refused, self.place = refused, place
        self.pods = [leftover(f"pod-{number}", {"airflow-worker": "5"}, place) for number in range(pods)]
        self.secrets = [leftover(f"secret-{number}", SECRET_LABELS, place) for number in range(secrets)]
        self.listed: list[str] = []
        self.requests: Counter[tuple[str, str]] = Counter()
        self.failures: list[Exception] = []

    async def list_mapped(
        self, resource: Any, take: Callable[[Any], Any], *, namespace: str, labels: str = "", **_: Any
    ) -> Any:
        if namespace in self.refused:
            raise errors.Forbidden("pods is forbidden", status=403)
        self.listed.append(namespace)
        if namespace != self.place:
            return SimpleNamespace(items=[])
        found = self.secrets if resource.plural == "secrets" else self.pods if "notin" in labels else []
        return SimpleNamespace(items=[take(item) for item in found])

    async def get(self, _: Any, name: str, **__: Any) -> Any:
        return next(pod for pod in self.pods if pod["metadata"]["name"] == name)

    async def patch(self, _: Any, name: str, *__: Any, **___: Any) -> None:
        self.requests["patch", name] += 1

    async def delete(self, _: Any, name: str, **__: Any) -> None:
        self.requests["delete", name] += 1
        if self.failures:
            raise self.failures.pop()

    async def log_chunks(self, name: str, **__: Any) -> AsyncIterator[bytes]:
        self.requests["log", name] += 1
        await asyncio.Event().wait()
        yield b""


def leftover(name: str, labels: dict[str, str], place: str) -> dict[str, Any]:
    """Return a Secret, or a pod whose base container has failed."""
    ended = {"name": "base", "state": {"terminated": {"exitCode": 1}}}
    metadata = {
        "name": name,
        "namespace": place,
        "uid": name,
        "labels": labels,
        "annotations": {"task_instance_id": "t"},
    }
    status = {"phase": "Failed", "containerStatuses": [ended]}
    return {"metadata": metadata, "spec": {"containers": [{"name": "base"}]}, "status": status}


class Shutdown:
    """A shutdown of sidecars that takes until it is released."""

    def __init__(self) -> None:
        self.begun = 0
        self.released = asyncio.Event()

    async def end(self, _: Any) -> bool:
        self.begun += 1
        await self.released.wait()
        return True


def sweep_of(
    api: Api,
    cleaner: Any,
    *namespaces: str,
    database: Database | None = None,
    composer: PodComposer | None = None,
    watcher: Any = None,
    lifecycle: RecordedLifecycle | None = None,
) -> LeftoverSweep:
    settings, database = EngineSettings("7", namespaces=namespaces or ("a",)), database or Database()
    places = worker_namespaces(settings, database, watcher, composer)
    return LeftoverSweep(api, lifecycle or RecordedLifecycle(), settings, database, cleaner, places)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def cleaning(api: Api, shutdown: Shutdown, **settings: Any) -> AsyncIterator[PodCleaner]:
    made = PodCleaner(api, RecordedLifecycle(), EngineSettings("7", **settings), shutdown)  # type: ignore[arg-type]
    working = asyncio.create_task(made.run())
    yield made
    working.cancel()
    await asyncio.wait([working])


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_sweeps_during_a_slow_shutdown_of_a_kept_pod_begin_no_second_one() -> None:
    api, shutdown = Api(), Shutdown()
    async with cleaning(api, shutdown, delete_failed_pods=False) as cleaner:
        sweep = sweep_of(api, cleaner)
        for _ in range(3):
            await sweep.sweep()
            await turns()
        assert shutdown.begun == 1
        shutdown.released.set()
        async with asyncio.timeout(scaled(5)):
            await cleaner.wait_until_empty()
    assert api.requests["patch", "pod-0"] == 1


async def test_sweeps_read_the_log_of_a_pod_once_while_it_is_read() -> None:
    api = Api()
    async with cleaning(api, Shutdown()) as cleaner:
        archiver = LogArchiver(api, cleaner, None, ArchiveSettings(days=0))  # type: ignore[arg-type]
        running = asyncio.create_task(archiver.run())
        await archiver.started.wait()
        sweep = sweep_of(api, archiver)
        for _ in range(3):
            await sweep.sweep()
            await turns()
        assert api.requests["log", "pod-0"] == 1
        running.cancel()
        await asyncio.wait([running])


async def test_sweeps_during_an_outage_send_one_deletion_of_each_pod_and_secret() -> None:
    api = Api(pods=2, secrets=2)
    api.failures = [errors.ServerError("etcd leader changed", status=503)] * 4
    async with cleaning(api, Shutdown(), delete_failed_pods=True) as cleaner:
        sweep = sweep_of(api, cleaner)
        for _ in range(6):
            await sweep.sweep()
            await turns()
    assert set(api.requests.values()) == {1}
    assert len(api.requests) == 4


async def test_a_pod_whose_deletion_was_given_up_is_tried_again_by_the_next_sweep() -> None:
    api = Api()
    api.failures = [errors.Forbidden("pods is forbidden", status=403)]
    async with cleaning(api, Shutdown(), delete_failed_pods=True) as cleaner:
        sweep = sweep_of(api, cleaner)
        for _ in range(2):
            await sweep.sweep()
            await cleaner.wait_until_empty()
    assert api.requests["delete", "pod-0"] == 2


async def test_a_namespace_that_may_not_be_read_does_not_stop_the_others() -> None:
    api, put = Api(refused=frozenset("a"), place="b"), []
    sweep = sweep_of(api, SimpleNamespace(put=put.append), "a", "b")
    with pytest.raises(errors.Forbidden):
        await sweep.sweep()
    assert api.listed.count("b") == 3  # orphans, Secrets and pods of our own
    assert [run.name for run in put] == ["pod-0"]


ELSEWHERE = {
    "metadata": {"name": "any", "namespace": "elsewhere"},
    "spec": {"containers": [{"name": "base", "image": "airflow"}]},
}


@pytest.mark.parametrize(
    ("database", "more"),
    [
        (Database("elsewhere", None), {}),
        (Database(), {"composer": PodComposer(WorkerSettings(), template=None, fallback=ELSEWHERE)}),
        (Database(), {"watcher": SimpleNamespace(namespaces=("a", "elsewhere"))}),
    ],
    ids=["stored position", "template", "own watch"],
)
async def test_leftovers_in_a_namespace_that_the_configuration_does_not_name_are_cleaned_up(
    database: Database, more: dict[str, Any]
) -> None:
    api, put = Api(secrets=1, place="elsewhere"), dict[str, Any]()
    cleaner = SimpleNamespace(put=lambda item: put.setdefault(item.name, item))
    sweep = sweep_of(api, cleaner, database=database, **more)
    await sweep.sweep()
    assert put.keys() == {"pod-0"}
    assert sweep.has_suspects
    await sweep.sweep()
    assert put.keys() == {"pod-0", "secret-0"}


async def test_a_namespace_of_a_former_executor_that_may_not_be_read_costs_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api, put = Api(secrets=1, place="elsewhere"), list[Any]()
    database = Database("elsewhere")
    sweep = sweep_of(api, SimpleNamespace(put=put.append), database=database)
    await sweep.sweep()
    api.refused = frozenset({"elsewhere"})
    for _ in range(3):
        await sweep.sweep()
    assert caplog.messages == ["Leftovers in namespace elsewhere are not cleaned up: pods is forbidden"]
    assert not sweep.has_suspects
    assert api.listed.count("a") == 12


async def test_a_sweep_that_fails_for_the_same_reason_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    api, settings = Api(refused=frozenset("a")), EngineSettings("7", namespaces=("a",))
    watcher: Any = SimpleNamespace(take_strays=lambda: False)
    places = worker_namespaces(settings, Database())
    housekeeper = Housekeeper(api, RecordedLifecycle(), settings, Database(), watcher, SimpleNamespace(put=id), places)  # type: ignore[arg-type]
    caplog.set_level("WARNING")
    for refused in ("a", "a", "", "a"):
        api.refused = frozenset(refused)
        housekeeper.sweep_soon()
        await housekeeper._attempt(housekeeper._sweep)
    assert caplog.messages == ["Housekeeping (_sweep) is postponed: pods is forbidden"] * 2


async def test_a_callback_that_is_being_adopted_gets_no_second_run() -> None:
    class Callbacks(Database):
        def orphaned_workloads(self, pods: Any, _: Any) -> dict[str, Any]:
            task = WorkerTask("dag", "callback", "c", 1, "c")
            return {uid: Workload("callback c", task, 0.0, None, exit_decides=True) for uid in pods}

    lifecycle = RecordedLifecycle()
    sweep = sweep_of(Api(), SimpleNamespace(put=id), database=Callbacks(), lifecycle=lifecycle)
    for _ in range(3):
        await sweep.sweep()
    (run,) = lifecycle.registry.runs.values()
    assert run.stage is RunStage.ADOPTING


async def test_a_sweep_that_fails_is_repeated_soon_and_ever_later() -> None:
    api = Api(refused=frozenset("a"))
    settings: Any = EngineSettings("7", namespaces=("a",))
    watcher: Any = SimpleNamespace(take_strays=lambda: False)
    client: Client = api  # type: ignore[assignment]
    places = worker_namespaces(settings, Database())
    housekeeper = Housekeeper(
        client, RecordedLifecycle(), settings, Database(), watcher, SimpleNamespace(put=id), places
    )  # type: ignore[arg-type]
    pauses = []
    for _ in range(9):
        housekeeper._sweep_at = -1.0
        with pytest.raises(errors.Forbidden):
            await housekeeper._sweep()
        pauses.append(housekeeper._sweep_at - asyncio.get_running_loop().time())
    assert pauses[0] <= 5
    assert 100 < pauses[-1] <= 300
    api.refused = frozenset()
    housekeeper._sweep_at = -1.0
    await housekeeper._sweep()
    assert housekeeper._sweep_at - asyncio.get_running_loop().time() > 290
    assert housekeeper._failed_sweeps == 0


class SharedNamespace:
    """An API server with pods and Secrets of several deployments in one namespace; it evaluates label selectors."""

    def __init__(self, pods: list[dict[str, Any]], secrets: list[dict[str, Any]]) -> None:
        self.objects = {"pods": pods, "secrets": secrets}

    async def list_mapped(self, resource: Any, take: Callable[[Any], Any], *, labels: str, **_: Any) -> Any:
        return SimpleNamespace(items=[take(item) for item in self._selected(resource, labels)])

    async def list(self, resource: Any, *, labels: str, **_: Any) -> Any:
        return SimpleNamespace(items=self._selected(resource, labels))

    def _selected(self, resource: Any, labels: str) -> list[dict[str, Any]]:
        requirements = parse_labels(labels)
        found = self.objects[resource.plural]
        return [item for item in found if all(met(item["metadata"]["labels"]) for met in requirements)]


class RowsOf(Database):
    """A database that knows the tasks of some pods; all of them have ended."""

    def __init__(self, *known: str) -> None:
        super().__init__()
        self.known = known

    def orphaned_workloads(self, pods: Any, ours: Any) -> dict[str, Any]:
        return {uid: None for uid in pods if uid in self.known or uid in ours}


STATES: dict[str, dict[str, Any]] = {
    "pending": {"phase": "Pending"},
    "running": {"phase": "Running", "containerStatuses": [{"name": "base", "state": {"running": {}}}]},
    "ended": {"phase": "Failed", "containerStatuses": [{"name": "base", "state": {"terminated": {"exitCode": 1}}}]},
}
OURS, THEIRS = b"our secret", b"their secret"


def deployed(owner: str, secret: bytes, **labels: str) -> dict[str, dict[str, Any]]:
    """Return a pod in each state, and a Secret whose pods wait for a quota, by their names."""
    own = {"kubernetes_executor": "True", "airflow-worker": owner, **WORKER_LABEL, **deployment_label(secret), **labels}
    objects = {state: leftover(state, own, "a") | {"status": status} for state, status in STATES.items()}
    return objects | {"secret": leftover("secret", {**own, **SECRET_LABELS}, "a")}


async def swept_twice(
    objects: dict[str, dict[str, Any]], secret: bytes, database: Database, team: str = ""
) -> set[str]:
    """Return what two sweeps of executor 7 hand to the cleaner."""
    settings = EngineSettings("7", namespaces=("a",), warm_secret=secret, team=team)
    pods = [item for name, item in objects.items() if name != "secret"]
    api: Any = SharedNamespace(pods, [objects["secret"]])
    put: dict[str, Any] = {}
    cleaner: Any = SimpleNamespace(put=lambda item: put.setdefault(item.name, item))
    sweep = LeftoverSweep(api, RecordedLifecycle(), settings, database, cleaner, worker_namespaces(settings, database))
    for _ in range(2):
        await sweep.sweep()
    return set(put)


@pytest.mark.parametrize("owner", ["5", "7"])
@pytest.mark.parametrize("secret", [OURS, b""])
async def test_nothing_of_another_deployment_in_the_namespace_is_touched(owner: str, secret: bytes) -> None:
    """``owner``: the id of its scheduler; this one's is 7. Its database, of which ours knows nothing, numbers alike."""
    assert await swept_twice(deployed(owner, THEIRS), secret, RowsOf()) == set()


@pytest.mark.parametrize("owner", ["5", "7"])
async def test_leftovers_of_this_deployment_are_cleaned_up_also_when_their_rows_were_deleted(owner: str) -> None:
    assert await swept_twice(deployed(owner, OURS), OURS, RowsOf()) == {"pending", "ended", "secret"}


async def test_pods_of_former_versions_are_cleaned_up_if_the_database_knows_their_tasks() -> None:
    without_label = deployed("5", b"")
    assert await swept_twice(without_label, OURS, RowsOf()) == {"secret"}
    assert await swept_twice(without_label, OURS, RowsOf("pending", "ended")) == {"pending", "ended", "secret"}


@pytest.mark.parametrize("team", ["", "blue"])
async def test_pods_of_other_teams_are_cleaned_up_by_these_teams_executors(team: str) -> None:
    of_blue = deployed("5", OURS, **{"crosswind/team": "blue"})
    swept = await swept_twice(of_blue, OURS, RowsOf("pending", "ended"), team)
    assert swept == ({"pending", "ended", "secret"} if team else set())


async def test_a_pod_whose_task_has_not_ended_in_the_database_is_left_for_its_adoption() -> None:
    api, put = Api(), list[Any]()
    sweep = sweep_of(api, SimpleNamespace(put=put.append), database=RowsOf())
    for _ in range(2):
        await sweep.sweep()
    assert put == []
    assert not api.requests
