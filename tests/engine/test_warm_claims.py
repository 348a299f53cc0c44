"""Claims, with an API server and a database whose answers a test decides."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.engine.recording import RecordedLifecycle

from crosswind.engine import claim_outcome
from crosswind.engine.database import DatabaseState
from crosswind.engine.pod_composer import PodComposer
from crosswind.engine.sealed_workload import open_sealed, pod_key
from crosswind.engine.state import PodClaim, PodDisposition, RunStage, RunTimes, WorkerRun, Workload
from crosswind.engine.waiting_pods import Pool, WaitingPod
from crosswind.engine.warm_claim_patch import CLAIM_LABEL, POOL_LABEL
from crosswind.engine.warm_claims import WarmClaims
from crosswind.engine.warm_pool import WarmPool
from crosswind.engine.warm_requests import CreatePod
from crosswind.engine.worker_pod import WorkerSettings, WorkerTask
from crosswind.errors import Forbidden, Invalid, NotFound, Unreachable
from crosswind.kube.informer import InformerEvent
from crosswind.kube.resources import SECRETS
from crosswind.settings import EngineSettings, WarmOptions, WarmSettings
from crosswind.types import Manifest
from deadlines import eventually

SECRET, NONCE = b"a secret of all schedulers", "00" * 16
TEMPLATE = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "worker"},
    "spec": {"containers": [{"name": "base", "image": "worker"}]},
}
TAKEN = Invalid("the server rejected our request", status=422)


class Api:
    """Pods by name, as a JSON Patch leaves them; ``answer`` may raise before a request or, given True, after it."""

    def __init__(self) -> None:
        self.pods: dict[str, Manifest] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.answer: Callable[[str, str, bool], None] = lambda verb, name, done: None
        self.text = b""

    async def patch(self, _: object, name: str, patch: Any, **__: object) -> Manifest:
        self.requests.append(("patch", name, patch))
        self.answer("patch", name, False)
        pod = self.pods.get(name)
        if pod is None:
            raise NotFound("there is none", status=404)
        if isinstance(patch, list):
            self._apply(pod, patch)
        self.answer("patch", name, True)
        return pod

    def _apply(self, pod: Manifest, patch: list[dict[str, Any]]) -> None:
        for operation in patch:
            part, _, key = operation["path"].removeprefix("/metadata/").partition("/")
            values, key = pod["metadata"][part], key.replace("~1", "/")
            if operation["op"] == "test" and values.get(key) != operation["value"]:
                raise TAKEN
            if operation["op"] == "remove":
                values.pop(key, None)
            elif operation["op"] in ("add", "replace"):
                values[key] = operation["value"]

    async def get(self, _: object, name: str, **__: object) -> Manifest:
        self.requests.append(("get", name, None))
        if name not in self.pods:
            raise NotFound("there is none", status=404)
        return self.pods[name]

    async def log(self, name: str, **options: object) -> bytes:
        self.requests.append(("log", name, options))
        self.answer("log", name, False)
        return self.text

    async def delete(self, _: object, name: str, **options: object) -> None:
        self.requests.append(("delete", name, options))
        self.answer("delete", name, False)
        self.pods.pop(name, None)
        self.answer("delete", name, True)

    def claimed(self, run: WorkerRun) -> list[str]:
        labels = {name: pod["metadata"]["labels"] for name, pod in self.pods.items()}
        return [name for name, values in labels.items() if values.get(CLAIM_LABEL) == run.unique_id]


class Database:
    """Every row has the state ``state``, or ``error`` is raised."""

    def __init__(self) -> None:
        self.state, self.error = DatabaseState.QUEUED, None
        self.host = ""
        self.asked: list[int] = []

    def workload_states(self, workloads: Collection[Workload]) -> Mapping[Workload, DatabaseState]:
        self.asked.append(len(workloads))
        if self.error is not None:
            raise self.error
        return dict.fromkeys(workloads, self.state)

    def hosts(self, workloads: Collection[Workload]) -> Mapping[Workload, str]:
        return dict.fromkeys(workloads, self.host)


class Place:
    def __init__(self) -> None:
        self.api, self.database, self.lifecycle = Api(), Database(), RecordedLifecycle()
        self.cold: list[WorkerRun] = []
        options = WarmSettings(WarmOptions(min=0, max=100), SECRET)
        settings = EngineSettings("7", warm=options)
        composer = PodComposer(WorkerSettings(), template=None, fallback=TEMPLATE)
        client: Any = self.api
        database: Any = self.database
        self.pool = WarmPool(client, composer, self.lifecycle, settings, options, database)
        self.claims = WarmClaims(client, composer, self.lifecycle, settings, self.pool, database, self.cold.append)
        self.lifecycle.parts.follow_claim = self.claims.follow

    def wait(self, *names: str) -> None:
        """Have pods wait for the tasks of the template."""
        fingerprint = self.pool.templates.of_queue("default").fingerprint
        for name in names:
            now = asyncio.get_running_loop().time()
            pod = WaitingPod(f"uid-{name}", name, "default", fingerprint, NONCE, "7", now, ready=True, ready_at=now)
            self.pool.pods.put(pod)
            metadata = {"name": name, "namespace": "default", "uid": pod.uid, "labels": {POOL_LABEL: fingerprint}}
            self.api.pods[name] = {"metadata": {**metadata, "annotations": {}}}

    def run(self, task_id: str = "one", payload: bytes = b'{"token": "t"}', **fields: Any) -> WorkerRun:
        task = WorkerTask("dag", task_id, "run", 1, f"{task_id}-{'0' * 8}", executor_id="7")
        workload = Workload(task_id, task, 1.0, lambda: payload, ref="row")
        run = WorkerRun(workload, task, RunTimes(asyncio.get_running_loop().time()))
        for field, value in fields.items():
            setattr(run, field, value)
        self.lifecycle.registry.add(run)
        return run

    @property
    def outcomes(self) -> dict[str, int]:
        counts = self.lifecycle.metrics.counts.items()
        return {value: number for (name, value), number in counts if name == "crosswind.warm_claims"}


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    place = Place()
    task = asyncio.create_task(place.claims.run())
    yield place
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_outcome, "TOUCH_S", 0.1)
    monkeypatch.setattr(claim_outcome, "GIVE_UP_S", 0.3)


async def test_a_claimed_pod_gets_the_workload_sealed_for_it(place: Place) -> None:
    place.wait("a")
    run = place.run()
    assert place.claims.take(run)
    await eventually(lambda: run.stage is RunStage.CREATED)
    metadata = place.api.pods["a"]["metadata"]
    sealed = metadata["annotations"]["crosswind/workload"]
    assert open_sealed(sealed, pod_key(SECRET, NONCE), "uid-a") == b'{"token": "t"}'
    assert metadata["labels"][CLAIM_LABEL] == run.unique_id
    assert (run.name, run.uid) == ("a", "uid-a")


async def test_of_two_runs_each_gets_a_pod_of_its_own_and_the_third_starts_cold(place: Place) -> None:
    place.wait("a", "b")
    runs = [place.run(name) for name in ("one", "two", "three")]
    assert [place.claims.take(run) for run in runs] == [True, True, False]
    await eventually(lambda: [run.stage for run in runs[:2]] == [RunStage.CREATED] * 2)
    assert {run.name for run in runs[:2]} == {"a", "b"}


async def test_a_pod_that_a_rival_has_claimed_is_passed_over(place: Place) -> None:
    place.wait("a", "b")
    place.api.pods["b"]["metadata"]["labels"] = {CLAIM_LABEL: "of another scheduler"}
    run = place.run()
    place.claims.take(run)
    await eventually(lambda: run.stage is RunStage.CREATED)
    assert run.name == "a"
    assert place.outcomes == {"rival": 1, "hit": 1}
    assert place.lifecycle.registry.pods == {("default", "a"): run}


async def test_a_run_starts_cold_when_rivals_have_all_pods(place: Place) -> None:
    place.wait("a", "b")
    for pod in place.api.pods.values():
        pod["metadata"]["labels"] = {CLAIM_LABEL: "of another scheduler"}
    run = place.run()
    place.claims.take(run)
    await eventually(lambda: place.cold)
    assert place.cold == [run]
    assert (run.claim, run.name, run.uid, run.stage) == (None, "", "", RunStage.WAITING)


async def test_a_pod_that_is_gone_is_passed_over(place: Place) -> None:
    place.wait("a")
    del place.api.pods["a"]
    run = place.run()
    place.claims.take(run)
    await eventually(lambda: place.cold)
    assert place.outcomes == {"stale": 1}


async def test_a_claim_that_succeeded_without_an_answer_is_found_and_no_second_pod_claimed(place: Place) -> None:
    def answer(verb: str, name: str, done: bool) -> None:
        if verb == "patch" and done and len(place.api.requests) == 1:
            raise Unreachable("the connection broke", sent=True)

    place.wait("a", "b")
    place.api.answer = answer
    run = place.run()
    place.claims.take(run)
    await eventually(lambda: run.stage is RunStage.CREATED)
    assert place.api.claimed(run) == [run.name]
    assert place.cold == []


async def test_a_claim_without_an_answer_that_a_rival_won_goes_on(place: Place) -> None:
    def answer(verb: str, name: str, done: bool) -> None:
        if verb == "patch" and not done and len(place.api.requests) == 1:
            place.api.pods[name]["metadata"]["labels"] = {CLAIM_LABEL: "of another scheduler"}
            raise Unreachable("the connection broke", sent=True)

    place.wait("a")
    place.api.answer = answer
    run = place.run()
    place.claims.take(run)
    await eventually(lambda: place.cold)
    assert place.cold == [run]


async def test_a_refusal_for_good_ends_all_claims_for_a_while(place: Place) -> None:
    def answer(verb: str, name: str, done: bool) -> None:
        raise Forbidden("pods is forbidden", status=403)

    place.wait("a", "b")
    place.api.answer = answer
    run, other = place.run(), place.run("two")
    place.claims.take(run)
    await eventually(lambda: place.cold)
    assert not place.claims.take(other)


@pytest.mark.parametrize("claimed", [True, False])
async def test_a_claim_of_a_broken_session_is_resolved_before_the_run_is_launched(place: Place, claimed: bool) -> None:
    place.wait("a")
    run = place.run(claim=PodClaim("pool", NONCE, 0.0), uid="uid-a")
    place.lifecycle.registry.set_pod(run, "default", "a")
    if claimed:
        place.api.pods["a"]["metadata"]["labels"] = {CLAIM_LABEL: run.unique_id}
    place.claims.resolve(run)
    await eventually(lambda: run.stage is RunStage.CREATED if claimed else place.cold)
    assert [verb for verb, *_ in place.api.requests] == ["get"]
    assert run.name == ("a" if claimed else "")


async def test_a_claimed_pod_that_vanished_in_a_broken_session_ends_the_run(place: Place) -> None:
    run = place.run(claim=PodClaim("pool", NONCE, 0.0), uid="uid-a")
    place.lifecycle.registry.set_pod(run, "default", "a")
    place.claims.resolve(run)
    await eventually(lambda: run in place.lifecycle.ended)
    assert run.disposition is PodDisposition.GONE
    assert place.cold == [], "its row decides: the task may have run"


async def test_a_run_revoked_before_its_claim_leaves_the_pod_waiting(place: Place) -> None:
    place.wait("a")
    run = place.run()
    place.claims.take(run)
    run.revoke()
    await eventually(lambda: run.unique_id not in place.lifecycle.registry.runs)
    assert POOL_LABEL in place.api.pods["a"]["metadata"]["labels"]
    assert place.claims.take(place.run("two"))


async def test_a_large_workload_starts_cold(place: Place) -> None:
    place.wait("a")
    assert not place.claims.take(place.run(payload=b"x" * 100_001))
    assert place.claims.take(place.run("two"))


async def test_a_run_whose_pod_cannot_be_composed_is_left_to_the_cold_launch(place: Place) -> None:
    place.wait("a")
    run = place.run()
    run.workload = replace(run.workload, config={"pod_override": "no pod"})
    assert not place.claims.take(run)
    assert place.claims.take(place.run("two"))


async def test_a_run_after_a_failed_claim_starts_cold(place: Place) -> None:
    place.wait("a")
    assert not place.claims.take(place.run(failed_claims=("warm",)))
    assert not place.claims.take(place.run("two", starts_cold=True))
    assert place.claims.take(place.run("three"))


async def test_one_query_asks_about_all_open_claims(place: Place) -> None:
    place.wait(*map(str, range(20)))
    runs = [place.run(str(number)) for number in range(20)]
    for run in runs:
        place.claims.take(run)
    await eventually(lambda: 20 in place.database.asked)
    place.database.state = DatabaseState.RUNNING
    await eventually(lambda: all(run.stage is RunStage.RUNNING for run in runs))
    asked = len(place.database.asked)
    place.wait("next")
    place.claims.take(place.run("next"))
    await eventually(lambda: len(place.database.asked) > asked)
    assert place.database.asked[asked] == 1, "claims that have begun are not asked about again"


@pytest.mark.usefixtures("impatient")
async def test_a_silent_pod_is_touched_once_then_deleted_with_its_uid(place: Place) -> None:
    place.wait("a")
    run = place.run()
    place.claims.take(run)
    await eventually(lambda: run.claim is not None and run.claim.given_up)
    kinds = [(verb, name) for verb, name, _ in place.api.requests]
    assert kinds == [("patch", "a"), ("patch", "a"), ("log", "a"), ("delete", "a")]
    touch, delete = place.api.requests[1][2], place.api.requests[3][2]
    assert touch["metadata"]["uid"] == "uid-a"
    assert (delete["uid"], delete["grace_period"]) == ("uid-a", 1)
    assert run.stage is RunStage.CREATED, "it ends when the watch reports that the pod is gone"


@pytest.mark.usefixtures("impatient")
async def test_a_pod_whose_worker_has_the_workload_is_kept(place: Place) -> None:
    place.wait("a")
    place.api.text = b'2026-11-29T19:00:00.123456789Z {"event":"Executing'
    run = place.run()
    place.claims.take(run)
    await eventually(lambda: run.claim is not None and run.claim.taken)
    asked = len(place.database.asked)
    await eventually(lambda: len(place.database.asked) > asked + 3)
    assert [verb for verb, *_ in place.api.requests] == ["patch", "patch", "log"]
    options = place.api.requests[2][2]
    assert (options["since_seconds"], options["container"]) == (1, "base"), "what it printed at its start says nothing"
    place.database.state = DatabaseState.RUNNING
    await eventually(lambda: run.stage is RunStage.RUNNING)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "error",
    [
        Unreachable("no answer"),
        Forbidden("pods/log is forbidden", status=403),
        b"unable to retrieve container logs for containerd://1",
    ],
)
async def test_a_pod_whose_log_cannot_be_read_is_given_up(place: Place, error: Exception | bytes) -> None:
    def answer(verb: str, name: str, done: bool) -> None:
        if verb == "log" and isinstance(error, Exception):
            raise error

    place.wait("a")
    place.api.answer, place.api.text = answer, error if isinstance(error, bytes) else b""
    run = place.run()
    place.claims.take(run)
    await eventually(lambda: run.claim is not None and run.claim.given_up)


@pytest.mark.usefixtures("impatient")
async def test_nothing_is_given_up_while_the_database_does_not_answer(place: Place) -> None:
    place.wait("a")
    place.database.error = OSError("the database is down")
    run = place.run()
    place.claims.take(run)
    await eventually(lambda: len(place.database.asked) >= 2)
    assert [verb for verb, *_ in place.api.requests] == ["patch"]
    place.database.error, place.database.state = None, DatabaseState.RUNNING
    await eventually(lambda: run.stage is RunStage.RUNNING)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("sent", [True, False])
async def test_a_pod_whose_deletion_may_be_under_way_is_not_kept(place: Place, sent: bool) -> None:
    """Its worker may still report a start, but no longer run the task."""

    def answer(verb: str, name: str, done: bool) -> None:
        if verb == "delete" and place.database.state is DatabaseState.QUEUED:
            assert run.claim is not None
            assert run.claim.given_up, "the watch may report the deletion before it is answered"
            place.database.state = DatabaseState.RUNNING
            raise Unreachable("the connection broke", sent=sent)

    place.wait("a")
    place.api.answer = answer
    run = place.run()
    place.claims.take(run)
    if sent:
        await eventually(lambda: place.lifecycle.cleaned_up == [run])
        assert (run.disposition, run.stage) == (PodDisposition.DELETE, RunStage.CREATED)
    else:
        await eventually(lambda: run.stage is RunStage.RUNNING)


@pytest.mark.parametrize("host", ["warm", "cold"])
async def test_a_late_start_by_the_pod_before_ends_the_run_of_the_next_pod(place: Place, host: str) -> None:
    """The pod that was given up had asked to start the task; the request was carried out when the pod was gone."""
    run = place.run(failed_claims=("warm",), stage=RunStage.CREATED, name="cold", namespace="default", uid="uid-cold")
    place.claims.follow(run)
    await eventually(lambda: place.database.asked)
    assert place.lifecycle.ended == []
    place.database.host, place.database.state = host, DatabaseState.RUNNING
    if host == "cold":
        asked = len(place.database.asked)
        await eventually(lambda: len(place.database.asked) > asked + 1)
        assert place.lifecycle.ended == []
    else:
        await eventually(lambda: place.lifecycle.ended == [run])
        assert run.result is not None
        assert run.result.lost, "Airflow schedules the task again, without using up a retry"
        assert run.disposition is PodDisposition.DELETE


async def test_a_pod_that_ends_while_its_secret_is_created_does_not_wait(place: Place) -> None:
    """The watch has reported its end by the time its creation is complete: it must not count as one that starts."""
    template = place.pool.templates.of_queue("default")
    pool = Pool(template, "default", None)
    place.pool._pools[template.fingerprint] = pool
    pool.creating = 2
    ended: list[str] = []

    async def create(resource: Any, manifest: Manifest, **_: object) -> Manifest:
        uid = f"uid-{manifest['metadata']['name']}"
        made = {**manifest, "metadata": {**manifest["metadata"], "namespace": "default", "uid": uid}}
        if resource is SECRETS and not ended:
            owner = manifest["metadata"]["ownerReferences"][0]
            labels = {POOL_LABEL: template.fingerprint}
            gone = {"metadata": {"name": owner["name"], "namespace": "default", "uid": owner["uid"], "labels": labels}}
            place.pool._on_event(InformerEvent("DELETED", gone, "watch"))
            ended.append(uid)
        return made

    place.api.create = create  # type: ignore[attr-defined]
    for _ in range(2):
        await place.pool._send(CreatePod(pool))
    assert (len(list(place.pool.pods)), pool.creating) == (1, 0)
