"""What the watcher reports of a pod's changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from tests.engine.recording import RecordedLifecycle

from crosswind.engine.state import (
    AdoptionRequest,
    PodClaim,
    PodDisposition,
    RunStage,
    RunTimes,
    SlotReleased,
    WorkerRun,
    Workload,
)
from crosswind.engine.watcher import WorkerWatcher
from crosswind.engine.worker_pod import WorkerTask
from crosswind.errors import NotFound, Unreachable
from crosswind.kube.informer import InformerEvent
from crosswind.pods.naming import team_label
from crosswind.settings import EngineSettings
from deadlines import scaled

DELETED_AT = "2026-01-01T00:00:00Z"


class Api:
    """Answers a GET with a pod or an error."""

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


class Watched:
    def __init__(self, team: str = "") -> None:
        self.api, self.lifecycle = Api(), RecordedLifecycle()
        self.registry = self.lifecycle.registry
        self.over, self.leaving = self.lifecycle.ended, self.lifecycle.read_ahead
        settings = EngineSettings("7", namespaces=(), team=team)
        self.watcher = WorkerWatcher(self.api, self.lifecycle, settings)  # type: ignore[arg-type]

    def run(self, stage: RunStage = RunStage.CREATED, **fields: Any) -> WorkerRun:
        task = WorkerTask("dag", "task", "run", 1, "u1")
        run = WorkerRun(
            Workload("key", task, 1.0, lambda: b"{}"), task, RunTimes(0.0), stage=stage, uid="uid", **fields
        )
        self.registry.add(run)
        self.registry.set_pod(run, "n", "pod")
        return run

    def send(self, kind: Any, pod: dict[str, Any]) -> None:
        self.watcher.on_event(InformerEvent(kind, pod, "watch"))


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    watched = Watched()
    task = asyncio.create_task(watched.watcher.run())
    await watched.watcher.started.wait()
    yield watched
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
    async with asyncio.timeout(scaled(10)):
        while not happened():  # noqa: ASYNC110 - the follower's own task is waited for
            await asyncio.sleep(0.005)


async def test_a_run_follows_its_pod_from_creation_to_end(watched: Watched) -> None:
    run = watched.run(RunStage.WAITING)
    watched.send("ADDED", a_pod())
    assert run.stage is RunStage.CREATED
    watched.send("MODIFIED", a_pod({"running": {}}, "Running"))
    assert run.stage is RunStage.RUNNING
    watched.send("MODIFIED", a_pod(ended(0), "Running"))
    assert (run.stage, run.failed, watched.over) == (RunStage.ENDED, False, [run])
    assert [type(one) for one in watched.registry.outbox] == [SlotReleased]
    watched.send("MODIFIED", a_pod(ended(0), "Succeeded"))
    assert watched.over == [run]


@pytest.mark.parametrize(
    ("state", "reason", "pod"),
    [
        (ended(137, "OOMKilled"), "OOMKilled", PodDisposition.BY_POLICY),
        ({"waiting": {"reason": "InvalidImageName"}}, "", PodDisposition.DELETE),
    ],
)
async def test_a_failed_run_has_a_reason_and_a_pod_that_can_never_start_is_deleted(
    watched: Watched, state: dict[str, Any], reason: str, pod: PodDisposition
) -> None:
    watched.watcher._settings = EngineSettings("7", namespaces=(), fatal_reasons=frozenset({"InvalidImageName"}))
    run = watched.run()
    watched.send("MODIFIED", a_pod(state))
    assert (run.stage, run.failed, run.disposition) == (RunStage.ENDED, True, pod)
    assert reason in run.reason
    assert run.message


async def test_a_wait_reason_stays_until_the_pod_stops_waiting(watched: Watched) -> None:
    run = watched.run()
    watched.send("MODIFIED", a_pod({"waiting": {"reason": "ErrImagePull"}}))
    assert run.wait is not None
    assert run.wait.reason == "ErrImagePull"
    watched.send("MODIFIED", a_pod({"waiting": {"reason": "ContainerCreating"}}))
    assert run.wait is None


async def test_the_log_of_a_pod_that_is_deleted_while_it_runs_is_read_ahead(watched: Watched) -> None:
    run = watched.run(RunStage.RUNNING)
    watched.send("MODIFIED", a_pod({"running": {}}, "Running", deletionTimestamp=DELETED_AT))
    assert watched.leaving == [run]
    assert run.stage is RunStage.RUNNING


@pytest.mark.parametrize("metadata", [{}, {"deletionTimestamp": DELETED_AT}])
async def test_a_pod_that_left_the_watch_is_checked(watched: Watched, metadata: dict[str, Any]) -> None:
    """DELETED also means that a pod no longer matches the selector, even while it is being deleted."""
    run = watched.run(RunStage.RUNNING)
    watched.api.pod = a_pod({"running": {}}, "Running", **metadata)
    watched.send("DELETED", a_pod({"running": {}}, "Running", **metadata))
    await until(lambda: watched.api.asked)
    assert (run.stage, run.pod_gone) == (RunStage.RUNNING, False)
    watched.api.pod = NotFound("gone", status=404)
    watched.send("DELETED", a_pod({"running": {}}, "Running", **metadata))
    await until(lambda: run.pod_gone)
    assert (run.failed, watched.over) == (True, [run])


async def test_a_run_whose_pod_another_executor_has_adopted_is_forgotten(watched: Watched) -> None:
    run = watched.run(RunStage.RUNNING)
    watched.api.pod = a_pod({"running": {}}, "Running", labels={"airflow-worker": "8"})
    watched.send("DELETED", a_pod({"running": {}}, "Running"))
    await until(lambda: run.pod_gone)
    assert (run.settled, run.failed, watched.over) == (True, False, [])
    assert run.unique_id not in watched.registry.runs


async def test_a_pod_that_cannot_be_checked_counts_as_unseen(watched: Watched) -> None:
    run = watched.run(RunStage.RUNNING, unseen_since=None)
    watched.api.pod = Unreachable("no answer")
    watched.send("DELETED", a_pod({"running": {}}, "Running"))
    await until(lambda: watched.api.asked)
    assert (run.unseen_since is not None, run.pod_gone, run.stage) == (True, False, RunStage.RUNNING)


async def test_a_pod_of_the_same_name_with_another_uid_is_ignored(watched: Watched) -> None:
    run = watched.run()
    watched.send("MODIFIED", a_pod(ended(0), uid="another"))
    assert run.stage is RunStage.CREATED
    watched.send("MODIFIED", a_pod(ended(0)) | {"metadata": {"name": "unknown", "namespace": "n", "uid": "x"}})
    assert watched.over == []


async def test_a_revoked_run_is_forgotten_without_a_report_when_its_pod_is_gone(watched: Watched) -> None:
    run = watched.run(RunStage.RUNNING)
    run.revoke()
    watched.send("MODIFIED", a_pod(ended(1), "Failed"))
    watched.send("DELETED", a_pod(ended(1), "Failed", deletionTimestamp=DELETED_AT))
    assert (watched.over, list(watched.registry.outbox), watched.registry.runs) == ([], [], {})


async def test_an_adopted_pod_may_carry_the_former_executors_label(watched: Watched) -> None:
    run = watched.run(RunStage.RUNNING)
    run.adoption = AdoptionRequest("ti", ("dag", "task", "run", 1, -1), run.workload, owner="5")
    watched.api.pod = a_pod({"running": {}}, "Running", labels={"airflow-worker": "5"})
    watched.send("DELETED", a_pod({"running": {}}, "Running"))
    await until(lambda: watched.api.asked)
    assert not run.pod_gone


def evicted(pod: dict[str, Any], reason: str = "EvictionByEvictionAPI") -> dict[str, Any]:
    pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": reason}]
    return pod


async def test_a_pod_that_the_cluster_takes_is_lost_when_base_has_ended_and_not_before(watched: Watched) -> None:
    run = watched.run(RunStage.RUNNING)
    watched.send("MODIFIED", evicted(a_pod({"running": {}}, "Running", deletionTimestamp=DELETED_AT)))
    assert run.stage is RunStage.RUNNING
    watched.send("MODIFIED", evicted(a_pod(ended(143), "Failed", deletionTimestamp=DELETED_AT)))
    assert run.result is not None
    assert (run.result.loss, run.reason, run.failed) == ("EvictionByEvictionAPI", "EvictionByEvictionAPI", True)
    assert not run.result.may_relaunch, "its worker's request to run the task may still be under way"


async def test_a_marked_pod_that_is_gone_is_lost(watched: Watched) -> None:
    run = watched.run(RunStage.RUNNING)
    watched.send("DELETED", evicted(a_pod({"running": {}}, "Running", deletionTimestamp=DELETED_AT), "DeletionByPodGC"))
    await until(lambda: run.pod_gone)
    assert run.result is not None
    assert run.result.loss == "DeletionByPodGC"


async def test_a_pod_on_a_dead_node_is_lost_though_its_object_stays(watched: Watched) -> None:
    run = watched.run(RunStage.RUNNING)
    pod = evicted(a_pod({"running": {}}, "Running", deletionTimestamp=DELETED_AT), "DeletionByTaintManager")
    pod["status"]["conditions"] += [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
    watched.send("MODIFIED", pod)
    assert run.result is not None
    assert (run.result.loss, run.pod_gone) == ("DeletionByTaintManager", False)


@pytest.mark.parametrize(("option", "loss"), [(False, ""), (True, "Deleted")])
async def test_a_deletion_by_a_person_is_a_loss_where_the_option_says_so(
    watched: Watched, option: bool, loss: str
) -> None:
    watched.watcher._settings = EngineSettings("7", namespaces=(), deleted_is_loss=option)
    run = watched.run(RunStage.RUNNING)
    watched.send("DELETED", a_pod({"running": {}}, "Running", deletionTimestamp=DELETED_AT))
    await until(lambda: run.pod_gone)
    assert run.result is not None
    assert run.result.loss == loss


@pytest.mark.parametrize("gone", [False, True])
async def test_a_deletion_by_this_executor_is_never_a_loss(watched: Watched, gone: bool) -> None:
    watched.watcher._settings = EngineSettings("7", namespaces=(), deleted_is_loss=True)
    run = watched.run(RunStage.RUNNING)
    run.delete_in_any_case()
    state = {"running": {}} if gone else ended(143)
    watched.send("DELETED" if gone else "MODIFIED", evicted(a_pod(state, "Running", deletionTimestamp=DELETED_AT)))
    await until(lambda: run.result is not None)
    assert run.result is not None
    assert run.result.loss == ""


# --- pods that waited for their task ----------------------------------------------------------------------------------


def given_up() -> PodClaim:
    return PodClaim("pool", "nonce", at=0.0, given_up=True)


KILLED = {"terminated": {"exitCode": 143, "reason": "Error"}}


@pytest.mark.parametrize(
    ("pod", "stage", "relaunched"),
    [
        (a_pod(), RunStage.CREATED, True),
        (a_pod({"waiting": {"reason": "ContainerCreating"}}), RunStage.CREATED, True),
        (a_pod(phase="Failed"), RunStage.CREATED, True),
        (a_pod(phase="Failed"), RunStage.RUNNING, False),
        (a_pod(phase="Running"), RunStage.CREATED, False),
        (a_pod({"running": {}}, "Running"), RunStage.RUNNING, False),
        (a_pod(ended(3), "Failed"), RunStage.CREATED, False),
        (a_pod(ended(137, "ContainerStatusUnknown"), "Failed"), RunStage.CREATED, False),
        ({"metadata": a_pod()["metadata"]}, RunStage.CREATED, False),
    ],
)
async def test_a_callback_gets_another_pod_where_its_pod_is_known_not_to_have_started(
    watched: Watched, pod: dict[str, Any], stage: RunStage, relaunched: bool
) -> None:
    run = watched.run(stage)
    run.workload = replace(run.workload, runs_task=False, exit_decides=True)
    watched.send("DELETED", pod)
    await until(lambda: run.stage is RunStage.ENDED)
    assert run.result is not None
    assert (run.failed, run.result.may_relaunch, run.result.loss) == (True, relaunched, "")


async def test_base_of_a_claimed_pod_runs_before_its_task(watched: Watched) -> None:
    run = watched.run(claim=PodClaim("pool", "nonce", at=0.0))
    watched.send("ADDED", a_pod({"running": {}}, "Running"))
    assert run.stage is RunStage.CREATED
    watched.lifecycle.claim_alive(run)
    assert run.stage is RunStage.RUNNING


async def test_a_claim_that_was_given_up_ends_with_its_pod_and_not_with_its_container(watched: Watched) -> None:
    run = watched.run(claim=given_up())
    watched.send("MODIFIED", a_pod(KILLED, "Failed", deletionTimestamp=DELETED_AT))
    assert watched.over == []
    watched.send("DELETED", a_pod(KILLED, "Failed", deletionTimestamp=DELETED_AT))
    async with asyncio.timeout(scaled(20)):
        while not watched.over:  # noqa: ASYNC110 - of the watcher's own task
            await asyncio.sleep(0.01)
    assert watched.over == [run]
    assert run.result is not None
    assert (run.result.loss, run.reason) == ("ClaimNotStarted", "ClaimNotStarted"), "its row may be RUNNING"


async def test_a_claim_that_was_given_up_ends_though_a_finalizer_keeps_its_pod(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crosswind.engine.watcher._HELD_POD_S", 0.05)
    run = watched.run(claim=given_up())
    watched.send("MODIFIED", a_pod(KILLED, "Failed", deletionTimestamp=DELETED_AT))
    async with asyncio.timeout(scaled(20)):
        while not watched.over:  # noqa: ASYNC110 - of the watcher's own task
            await asyncio.sleep(0.01)
    assert watched.over == [run]


async def test_a_claim_that_was_given_up_on_a_dead_node_ends_with_the_node(watched: Watched) -> None:
    run = watched.run(claim=given_up())
    pod = a_pod({"running": {}}, "Running", deletionTimestamp=DELETED_AT)
    pod["status"]["reason"] = "NodeLost"
    watched.send("MODIFIED", pod)
    assert watched.over == [run]


async def test_a_worker_that_ended_while_it_waited_has_not_run_its_task(watched: Watched) -> None:
    run = watched.run(claim=PodClaim("pool", "nonce", at=0.0))
    ended = {"exitCode": 0, "reason": "Completed", "message": '{"crosswind":1,"reason":"waiting"}'}
    watched.send("MODIFIED", a_pod({"terminated": ended}, "Succeeded"))
    assert watched.over == [run]
    assert run.reason == "ClaimNotStarted", "exit code 0 is no success of a task that never began"


@pytest.mark.parametrize(
    ("change", "pod", "stray"),
    [
        ("ADDED", a_pod(uid="second"), True),
        ("MODIFIED", a_pod(ended(0), "Succeeded", uid="second"), True),
        ("DELETED", a_pod(ended(0), "Succeeded", uid="second"), False),
        ("MODIFIED", a_pod(uid="second", deletionTimestamp=DELETED_AT), False),
        ("MODIFIED", a_pod(uid="second", labels={"airflow-worker": "7", "airflow_executor_done": "True"}), False),
    ],
)
async def test_a_pod_that_no_run_is_for_is_noted_for_the_sweep(
    watched: Watched, change: str, pod: dict[str, Any], stray: bool
) -> None:
    """A server that is slow to carry out a creation without an answer makes a pod that nobody waits for."""
    watched.run()
    watched.send("ADDED", a_pod())
    watched.send(change, pod)
    assert watched.watcher.take_strays() is stray
    assert not watched.watcher.take_strays()


@pytest.mark.parametrize(
    ("team", "owner", "stray"),
    [("", "", True), ("", "blue", False), ("blue", "blue", True), ("blue", "red", False), ("blue", "", False)],
)
async def test_the_pod_of_another_team_of_the_same_scheduler_needs_no_sweep(team: str, owner: str, stray: bool) -> None:
    watched = Watched(team)
    watched.send("ADDED", a_pod(labels={"airflow-worker": "7"} | team_label(owner)))
    assert watched.watcher.take_strays() is stray


async def test_a_stray_pod_that_is_deleted_needs_no_sweep(watched: Watched) -> None:
    watched.send("ADDED", a_pod())
    watched.send("DELETED", a_pod())
    assert not watched.watcher.take_strays()
