"""What changes of a pod mean for its run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from crosswind.errors import NotFound, Unreachable
from crosswind.kube.informing import InformerEvent
from crosswind.pods.workers import WorkerTask
from crosswind.runs.board import Board
from crosswind.runs.following import Follower
from crosswind.runs.workloads import Claim, Pod, Released, Run, Stage, Workload
from crosswind.settings import EngineSettings

DELETED_AT = "2026-01-01T00:00:00Z"


class Api:
    """Answers a GET with the pod that is there, or an error."""

    def __init__(self) -> None:
        self.pod: dict[str, Any] | Exception = NotFound("no such pod", status=404)
        self.asked = 0

    async def get(self, kind: object, name: str, **_: object) -> dict[str, Any]:
        self.asked += 1
        if isinstance(self.pod, Exception):
            raise self.pod
        return self.pod

    def __getattr__(self, name: str) -> Any:
        async def wait(*_: object, **__: object) -> Any:
            await asyncio.Event().wait()

        return wait


class Followed:
    def __init__(self) -> None:
        self.api, self.board = Api(), Board()
        self.over: list[Run] = []
        self.leaving: list[Run] = []
        settings = EngineSettings("7", namespaces=())
        self.follower = Follower(self.api, self.board, settings, self.over.append, self.leaving.append)  # type: ignore[arg-type]

    def run(self, stage: Stage = Stage.CREATED, **fields: Any) -> Run:
        task = WorkerTask("dag", "task", "run", 1, "u1")
        run = Run(Workload("key", task, 1.0, lambda: b"{}"), task, 0.0, stage=stage, uid="uid", **fields)
        self.board.add(run)
        self.board.placed(run, "n", "pod")
        return run

    def tell(self, kind: Any, pod: dict[str, Any]) -> None:
        self.follower.on_change(InformerEvent(kind, pod, "watch"))


@pytest.fixture
async def followed() -> AsyncIterator[Followed]:
    followed = Followed()
    task = asyncio.create_task(followed.follower.run())
    await asyncio.sleep(0)
    yield followed
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def a_pod(state: dict[str, Any] | None = None, phase: str = "Pending", **metadata: Any) -> dict[str, Any]:
    status: dict[str, Any] = {"phase": phase}
    if state is not None:
        status["containerStatuses"] = [{"name": "base", "state": state}]
    labels = {"airflow-worker": "7"}
    return {
        "metadata": {"name": "pod", "namespace": "n", "uid": "uid", "labels": labels, **metadata},
        "spec": {"containers": [{"name": "base"}]},
        "status": status,
    }


def ended(code: int, reason: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason or ("Completed" if not code else "Error")}}


async def until(happened: Any) -> None:
    async with asyncio.timeout(10):
        while not happened():  # noqa: ASYNC110 - the follower's own task is waited for
            await asyncio.sleep(0.005)


async def test_a_pod_is_created_begins_and_ends(followed: Followed) -> None:
    run = followed.run(Stage.WAITING)
    followed.tell("ADDED", a_pod())
    assert run.stage is Stage.CREATED
    followed.tell("MODIFIED", a_pod({"running": {}}, "Running"))
    assert run.stage is Stage.BEGUN
    followed.tell("MODIFIED", a_pod(ended(0), "Running"))
    assert (run.stage, run.failed, followed.over) == (Stage.ENDED, False, [run])
    assert [type(one) for one in followed.board.outbox] == [Released]
    followed.tell("MODIFIED", a_pod(ended(0), "Succeeded"))
    assert followed.over == [run]


@pytest.mark.parametrize(
    ("state", "reason", "pod"),
    [(ended(137, "OOMKilled"), "OOMKilled", Pod.OURS), ({"waiting": {"reason": "InvalidImageName"}}, "", Pod.UNWANTED)],
)
async def test_a_failure_says_why_and_one_that_waits_for_good_is_not_kept(
    followed: Followed, state: dict[str, Any], reason: str, pod: Pod
) -> None:
    followed.follower._settings = EngineSettings("7", namespaces=(), fatal_reasons=frozenset({"InvalidImageName"}))
    run = followed.run()
    followed.tell("MODIFIED", a_pod(state))
    assert (run.stage, run.failed, run.pod) == (Stage.ENDED, True, pod)
    assert reason in run.reason
    assert run.message


async def test_a_reason_to_wait_is_remembered_until_it_is_over(followed: Followed) -> None:
    run = followed.run()
    followed.tell("MODIFIED", a_pod({"waiting": {"reason": "ErrImagePull"}}))
    assert run.held_up == "ErrImagePull"
    assert run.waits_for is not None
    followed.tell("MODIFIED", a_pod({"waiting": {"reason": "ContainerCreating"}}))
    assert (run.held_up, run.waits_for) == ("", None)


async def test_one_that_is_told_to_be_deleted_while_it_runs_is_leaving(followed: Followed) -> None:
    run = followed.run(Stage.BEGUN)
    followed.tell("MODIFIED", a_pod({"running": {}}, "Running", deletionTimestamp=DELETED_AT))
    assert followed.leaving == [run]
    assert run.stage is Stage.BEGUN


@pytest.mark.parametrize("metadata", [{}, {"deletionTimestamp": DELETED_AT}])
async def test_a_pod_of_which_the_watch_says_deleted_is_looked_for(
    followed: Followed, metadata: dict[str, Any]
) -> None:
    """It may have left the selector: a watch's DELETED says that too, of a pod that is being deleted as well."""
    run = followed.run(Stage.BEGUN)
    followed.api.pod = a_pod({"running": {}}, "Running", **metadata)
    followed.tell("DELETED", a_pod({"running": {}}, "Running", **metadata))
    await until(lambda: followed.api.asked)
    assert (run.stage, run.gone) == (Stage.BEGUN, False)
    followed.api.pod = NotFound("gone", status=404)
    followed.tell("DELETED", a_pod({"running": {}}, "Running", **metadata))
    await until(lambda: run.gone)
    assert (run.failed, followed.over) == (True, [run])


async def test_a_pod_that_another_executor_has_adopted_is_let_go(followed: Followed) -> None:
    run = followed.run(Stage.BEGUN)
    followed.api.pod = a_pod({"running": {}}, "Running", labels={"airflow-worker": "8"})
    followed.tell("DELETED", a_pod({"running": {}}, "Running"))
    await until(lambda: run.gone)
    assert (run.settled, run.failed, followed.over) == (True, False, [])
    assert run.unique not in followed.board.runs


async def test_one_that_cannot_be_looked_for_is_looked_for_later(followed: Followed) -> None:
    run = followed.run(Stage.BEGUN, seen=True)
    followed.api.pod = Unreachable("no answer")
    followed.tell("DELETED", a_pod({"running": {}}, "Running"))
    await until(lambda: followed.api.asked)
    assert (run.seen, run.gone, run.stage) == (False, False, Stage.BEGUN)


async def test_another_pod_of_that_name_is_not_ours(followed: Followed) -> None:
    run = followed.run()
    followed.tell("MODIFIED", a_pod(ended(0), uid="another"))
    assert run.stage is Stage.CREATED
    followed.tell("MODIFIED", a_pod(ended(0)) | {"metadata": {"name": "unknown", "namespace": "n", "uid": "x"}})
    assert followed.over == []


async def test_a_revoked_run_is_forgotten_without_a_word_when_its_pod_is_gone(followed: Followed) -> None:
    run = followed.run(Stage.BEGUN)
    run.revoke()
    followed.tell("MODIFIED", a_pod(ended(1), "Failed"))
    followed.tell("DELETED", a_pod(ended(1), "Failed", deletionTimestamp=DELETED_AT))
    assert (followed.over, list(followed.board.outbox), followed.board.runs) == ([], [], {})


async def test_a_claimed_pod_is_its_former_executors_until_it_has_our_label(followed: Followed) -> None:
    run = followed.run(Stage.BEGUN)
    run.claim = Claim("ti", ("dag", "task", "run", 1, -1), run.workload, owner="5")
    followed.api.pod = a_pod({"running": {}}, "Running", labels={"airflow-worker": "5"})
    followed.tell("DELETED", a_pod({"running": {}}, "Running"))
    await until(lambda: followed.api.asked)
    assert not run.gone
