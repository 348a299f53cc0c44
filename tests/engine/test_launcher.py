"""The launcher, with an API server whose answers a test decides."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine.recording import RecordedLifecycle

from crosswind.engine.launcher import Launcher
from crosswind.engine.pod_composer import PodComposer
from crosswind.engine.state import PodDisposition, RunStage, RunTimes, WorkerRun, Workload
from crosswind.engine.worker_pod import WorkerSettings, WorkerTask
from crosswind.errors import AlreadyExists, Forbidden, ServerError, Unreachable
from crosswind.kube.resources import PODS, SECRETS
from crosswind.settings import EngineSettings
from deadlines import scaled

TEMPLATE = """
apiVersion: v1
kind: Pod
metadata: {name: worker}
spec: {restartPolicy: Never, containers: [{name: base, image: worker}]}
"""


class Api:
    """Records what was created; ``answer`` may raise or wait before."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, dict[str, Any]] = {}
        self.answer: Callable[[object, dict[str, Any]], Any] = lambda kind, manifest: None

    async def create(
        self, kind: object, manifest: dict[str, Any], *, namespace: str, metadata_only: bool = False
    ) -> dict[str, Any]:
        if (waited := self.answer(kind, manifest)) is not None:
            await waited
        return self.store(kind, manifest)

    def store(self, kind: object, manifest: dict[str, Any]) -> dict[str, Any]:
        held, name = self.pods if kind is PODS else self.secrets, manifest["metadata"]["name"]
        if name in held:
            raise AlreadyExists("it exists", status=409)
        held[name] = {**manifest, "metadata": {**manifest["metadata"], "uid": f"uid-{name}"}}
        return held[name]

    async def get(self, kind: object, name: str, **_: object) -> dict[str, Any]:
        return self.pods[name]


class Place:
    def __init__(self, template: Path) -> None:
        self.api, self.lifecycle = Api(), RecordedLifecycle()
        self.registry, self.over = self.lifecycle.registry, self.lifecycle.ended
        self.settings = EngineSettings("7", launch_timeout=0.3, secret_batch=3)
        composer = PodComposer(WorkerSettings(), template=str(template))
        arguments: Any = (self.api, composer, self.lifecycle, self.settings, None)
        self.launcher = Launcher(*arguments)

    @property
    def made(self) -> list[WorkerRun]:
        """The runs whose pods are created, as the answers say."""
        return [run for run in self.registry.runs.values() if run.uid]

    def put(self, *names: str, payload: Callable[[], bytes] = lambda: b'{"token": "t"}') -> list[WorkerRun]:
        now, runs = asyncio.get_running_loop().time(), []
        for name in names:
            task = WorkerTask("dag", name, "run", 1, f"{name}-{'0' * 8}")
            run = WorkerRun(Workload(name, task, 1.0, payload), task, RunTimes(now))
            self.registry.add(run)
            self.launcher.put(run)
            runs.append(run)
        return runs

    async def until(self, happened: Callable[[], object]) -> None:
        async with asyncio.timeout(scaled(20)):
            while not happened():  # noqa: ASYNC110 - of the launcher's own task
                await asyncio.sleep(0.005)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    template = tmp_path / "template.yaml"
    template.write_text(TEMPLATE)
    place = Place(template)
    task = asyncio.create_task(place.launcher.run())
    yield place
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_each_workload_gets_a_pod_and_a_key_in_the_secret_of_its_batch(place: Place) -> None:
    runs = place.put("one", "two", "three", "four")
    await place.until(lambda: len(place.made) == 4)
    assert {run.stage for run in runs} == {RunStage.CREATED}
    assert len(place.api.secrets) == 2  # three at a time
    for run in runs:
        assert run.uid == f"uid-{run.name}"
        (volume,) = place.api.pods[run.name]["spec"]["volumes"]
        secret = place.api.secrets[volume["secret"]["secretName"]]
        assert volume["secret"]["items"][0]["key"] in secret["data"]


async def test_a_workload_that_cannot_be_composed_fails_alone(place: Place) -> None:
    def broken() -> bytes:
        raise ValueError("no token")

    good, bad = place.put("good"), place.put("bad", payload=broken)
    await place.until(lambda: place.made and place.over)
    assert (place.made, place.over) == (good, bad)
    assert bad[0].message == "no token"
    assert (bad[0].failed, bad[0].disposition) == (True, PodDisposition.GONE)


async def test_a_refusal_for_good_fails_the_run_with_the_servers_message(place: Place) -> None:
    def answer(kind: object, manifest: dict[str, Any]) -> None:
        if kind is PODS:
            raise Forbidden("pods is forbidden", status=403)

    place.api.answer = answer
    (run,) = place.put("one")
    await place.until(lambda: place.over)
    assert "pods is forbidden" in run.message
    assert (run.reason, run.disposition) == ("NotLaunched", PodDisposition.GONE)
    assert place.lifecycle.deleted_secrets  # no pod needs its Secret


async def test_a_pod_whose_creation_got_no_answer_is_found(place: Place) -> None:
    lost = []

    def answer(kind: object, manifest: dict[str, Any]) -> None:
        if kind is PODS and not lost:
            lost.append(place.api.store(kind, manifest))
            raise Unreachable("the connection broke", sent=True)

    place.api.answer = answer
    (run,) = place.put("one")
    await place.until(lambda: place.made)
    assert run.uid == f"uid-{run.name}"
    assert len(place.api.pods) == 1


async def test_a_run_given_up_without_an_answer_has_a_possible_pod_deleted(place: Place) -> None:
    def answer(kind: object, manifest: dict[str, Any]) -> None:
        if kind is PODS:
            raise ServerError("overloaded", status=500)

    place.api.answer = answer
    (run,) = place.put("one")
    await place.until(lambda: place.over)
    assert "was not created within" in run.message
    assert (run.disposition, run.stage) == (PodDisposition.DELETE, RunStage.ENDED)


async def test_a_pod_of_the_same_name_with_other_labels_is_not_ours(place: Place) -> None:
    def answer(kind: object, manifest: dict[str, Any]) -> None:
        if kind is PODS:
            foreign = json.loads(json.dumps(manifest))
            foreign["metadata"]["labels"] = {"app": "another"}
            place.api.pods.setdefault(foreign["metadata"]["name"], foreign)

    place.api.answer = answer
    (run,) = place.put("one")
    await place.until(lambda: place.over)
    assert "is not of this task" in run.message


async def test_a_run_revoked_before_its_creation_gets_no_pod(place: Place) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    def answer(kind: object, manifest: dict[str, Any]) -> Any:
        if kind is SECRETS:
            started.set()
            return go.wait()
        return None

    place.api.answer = answer
    kept, revoked = place.put("kept", "revoked")
    await started.wait()
    revoked.revoke()
    go.set()
    await place.until(lambda: place.made)
    assert place.made == [kept]
    assert list(place.api.pods) == [kept.name]
    assert revoked.unique_id not in place.registry.runs


async def test_a_pod_whose_run_was_revoked_during_its_creation_is_deleted(place: Place) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    def answer(kind: object, manifest: dict[str, Any]) -> Any:
        if kind is PODS:
            started.set()
            return go.wait()
        return None

    place.api.answer = answer
    (run,) = place.put("one")
    await started.wait()
    run.revoke()
    go.set()
    await place.until(lambda: place.lifecycle.cleaned_up)
    assert place.lifecycle.cleaned_up == [run]
    assert (run.stage, run.uid) == (RunStage.CREATED, f"uid-{run.name}")


async def test_a_run_that_ended_while_its_pod_was_created_stays_ended(place: Place) -> None:
    """The watch may report a pod's end before the creation is answered."""
    started, go = asyncio.Event(), asyncio.Event()

    def answer(kind: object, manifest: dict[str, Any]) -> Any:
        if kind is PODS:
            started.set()
            return go.wait()
        return None

    place.api.answer = answer
    (run,) = place.put("one")
    await started.wait()
    run.mark_created(1.0)
    run.mark_running(2.0)
    go.set()
    await place.until(lambda: place.made)
    assert run.stage is RunStage.RUNNING
