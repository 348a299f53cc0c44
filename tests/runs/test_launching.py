"""From workloads to pods, with an API server that answers as a test wants it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from crosswind.errors import AlreadyExists, Forbidden, ServerError, Unreachable
from crosswind.kube.resources import PODS, SECRETS
from crosswind.pods.workers import WorkerSettings, WorkerTask
from crosswind.runs.board import Board
from crosswind.runs.composing import Composer
from crosswind.runs.launching import Launcher
from crosswind.runs.workloads import Pod, Run, Stage, Workload
from crosswind.settings import EngineSettings

TEMPLATE = """
apiVersion: v1
kind: Pod
metadata: {name: worker}
spec: {restartPolicy: Never, containers: [{name: base, image: worker}]}
"""


class Api:
    """Remembers what was created; ``answer`` may raise, or wait, before it does."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, dict[str, Any]] = {}
        self.answer: Callable[[object, dict[str, Any]], Any] = lambda kind, manifest: None

    async def create(self, kind: object, manifest: dict[str, Any], *, namespace: str) -> dict[str, Any]:
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
        self.api, self.board = Api(), Board()
        self.over: list[Run] = []
        self.made: list[Run] = []
        self.settings = EngineSettings("7", launch_timeout=0.3, secret_batch=3)
        composer = Composer(WorkerSettings(), template=str(template))
        arguments: Any = (self.api, composer, self.board, self.settings)
        self.launcher = Launcher(*arguments, over=self.over.append, created=self.made.append)

    def put(self, *names: str, payload: Callable[[], bytes] = lambda: b'{"token": "t"}') -> list[Run]:
        now, runs = asyncio.get_running_loop().time(), []
        for name in names:
            task = WorkerTask("dag", name, "run", 1, f"{name}-{'0' * 8}")
            run = Run(Workload(name, task, 1.0, payload), task, now)
            self.board.add(run)
            self.launcher.put(run)
            runs.append(run)
        return runs

    async def until(self, happened: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not happened():  # noqa: ASYNC110 - the launcher's own task is waited for
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


async def test_each_workload_has_a_pod_and_its_payload_in_the_secret_of_its_batch(place: Place) -> None:
    runs = place.put("one", "two", "three", "four")
    await place.until(lambda: len(place.made) == 4)
    assert {run.stage for run in runs} == {Stage.CREATED}
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
    assert (bad[0].failed, bad[0].pod) == (True, Pod.GONE)


async def test_what_the_server_refuses_for_good_fails_with_its_words(place: Place) -> None:
    def answer(kind: object, manifest: dict[str, Any]) -> None:
        if kind is PODS:
            raise Forbidden("pods is forbidden", status=403)

    place.api.answer = answer
    (run,) = place.put("one")
    await place.until(lambda: place.over)
    assert "pods is forbidden" in run.message
    assert (run.reason, run.pod) == ("NotLaunched", Pod.GONE)
    assert place.board.spent  # its Secret is of no use any more


async def test_a_creation_without_an_answer_that_was_carried_out_is_found(place: Place) -> None:
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


async def test_one_that_is_given_up_without_an_answer_may_have_a_pod_that_must_not_stay(place: Place) -> None:
    def answer(kind: object, manifest: dict[str, Any]) -> None:
        if kind is PODS:
            raise ServerError("overloaded", status=500)

    place.api.answer = answer
    (run,) = place.put("one")
    await place.until(lambda: place.over)
    assert "was not created within" in run.message
    assert (run.pod, run.stage) == (Pod.UNWANTED, Stage.ENDED)


async def test_a_foreign_pod_of_that_name_is_not_taken_for_ours(place: Place) -> None:
    def answer(kind: object, manifest: dict[str, Any]) -> None:
        if kind is PODS:
            foreign = json.loads(json.dumps(manifest))
            foreign["metadata"]["labels"] = {"app": "another"}
            place.api.pods.setdefault(foreign["metadata"]["name"], foreign)

    place.api.answer = answer
    (run,) = place.put("one")
    await place.until(lambda: place.over)
    assert "is not of this task" in run.message


async def test_a_run_that_is_revoked_before_its_turn_gets_no_pod(place: Place) -> None:
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
    assert revoked.unique not in place.board.runs


async def test_a_run_that_is_revoked_while_it_is_created_is_handed_on_to_be_deleted(place: Place) -> None:
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
    await place.until(lambda: place.made)
    assert (run.stage, run.uid) == (Stage.CREATED, f"uid-{run.name}")


async def test_a_run_that_ended_while_its_pod_was_created_stays_ended(place: Place) -> None:
    """The watch may tell of a pod's end before the answer to its creation comes."""
    started, go = asyncio.Event(), asyncio.Event()

    def answer(kind: object, manifest: dict[str, Any]) -> Any:
        if kind is PODS:
            started.set()
            return go.wait()
        return None

    place.api.answer = answer
    (run,) = place.put("one")
    await started.wait()
    run.has_pod(1.0)
    run.begins(2.0)
    go.set()
    await place.until(lambda: place.made)
    assert run.stage is Stage.BEGUN
