"""When the pods of ended runs are deleted or marked as done: not before Airflow knows of their ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from tests.engine.recording import RecordedLifecycle

from crosswind.engine.pod_cleanup import PodCleaner
from crosswind.engine.state import RunResult, RunStage, RunTimes, WorkerRun, Workload
from crosswind.engine.worker_pod import WorkerTask
from crosswind.settings import EngineSettings
from deadlines import scaled

FAILURE, SUCCESS = RunResult(failed=True, reason="OOMKilled"), RunResult(failed=False)


class Api:
    """Notes the requests. A pod with sidecars is shut down as soon as ``released`` is set."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.released = asyncio.Event()
        self.released.set()

    async def get(self, *_: Any, **__: Any) -> dict[str, Any]:
        self.requests.append("get")
        return {"metadata": {"name": "p", "namespace": "a"}}

    async def end(self, _: Any) -> bool:
        self.requests.append("shut down")
        await self.released.wait()
        return True

    async def patch(self, *_: Any, **__: Any) -> None:
        self.requests.append("mark")

    async def delete(self, *_: Any, **__: Any) -> None:
        self.requests.append("delete")


class Ending:
    """A run whose pod exists, and the cleaner that gets it when it ends."""

    def __init__(self, api: Any, executor_id: str, *, delete: bool, callback: bool) -> None:
        settings = EngineSettings(executor_id, delete_pods=delete, delete_failed_pods=delete)
        self.api, self.lifecycle = api, RecordedLifecycle()
        self.cleaner = PodCleaner(api, self.lifecycle, settings, api)
        self.lifecycle.parts = SimpleNamespace(clean_up=self.cleaner.put, quota_freed=lambda namespace: None)
        task = WorkerTask("dag", "task", "run", 1, "u")
        workload = Workload("key", task, 0.0, None, exit_decides=callback)
        self.run = WorkerRun(workload, task, RunTimes(0.0), stage=RunStage.RUNNING)
        self.lifecycle.registry.add(self.run)
        self.lifecycle.registry.set_pod(self.run, "a", "p")

    async def cleaned_up(self) -> list[str]:
        """Wait until no request is under way; return those that were sent since the last call."""
        async with asyncio.timeout(scaled(5)):
            await self.cleaner.wait_until_empty()
        sent, self.api.requests = self.api.requests, []
        return sent


@contextlib.asynccontextmanager
async def ending(
    *, delete: bool = False, callback: bool = False, executor_id: str = "7", api: Api | None = None
) -> AsyncIterator[Ending]:
    made = Ending(api or Api(), executor_id, delete=delete, callback=callback)
    working = asyncio.create_task(made.cleaner.run())
    yield made
    working.cancel()
    await asyncio.wait([working])


@pytest.mark.parametrize("callback", [False, True])
@pytest.mark.parametrize("result", [FAILURE, SUCCESS])
async def test_a_kept_pod_is_marked_as_done_when_its_end_is_settled(result: RunResult, callback: bool) -> None:
    async with ending(callback=callback) as made:
        made.lifecycle.end(made.run, result)
        assert await made.cleaned_up() == ["get", "shut down"]
        made.cleaner.put(made.run)  # as a new connection and the housekeeper do
        assert await made.cleaned_up() == []
        made.lifecycle.settle(made.run)
        assert await made.cleaned_up() == ["mark"]
        assert made.lifecycle.registry.runs == {}


async def test_a_kept_pod_whose_end_is_settled_while_its_sidecars_end_is_marked_once() -> None:
    api = Api()
    api.released.clear()
    async with ending(api=api) as made:
        made.lifecycle.end(made.run, FAILURE)
        while "shut down" not in api.requests:  # noqa: ASYNC110 - of the cleaner's own task
            await asyncio.sleep(0)
        made.lifecycle.settle(made.run)
        api.released.set()
        assert await made.cleaned_up() == ["get", "shut down", "mark"]


@pytest.mark.parametrize(
    ("result", "callback", "held"),
    [(FAILURE, False, True), (FAILURE, True, True), (SUCCESS, True, True), (SUCCESS, False, False)],
)
async def test_a_pod_that_alone_proves_the_end_is_not_deleted_before_it_is_settled(
    result: RunResult, callback: bool, held: bool
) -> None:
    """Airflow has the success of a task from its worker."""
    async with ending(delete=True, callback=callback) as made:
        made.lifecycle.end(made.run, result)
        assert await made.cleaned_up() == ([] if held else ["delete"])
        made.lifecycle.settle(made.run)
        assert await made.cleaned_up() == (["delete"] if held else [])


async def test_a_pod_that_could_still_start_its_task_is_deleted_at_once() -> None:
    async with ending() as made:
        made.run.delete_in_any_case()
        made.lifecycle.end(made.run, FAILURE)
        assert await made.cleaned_up() == ["delete"]


@pytest.mark.parametrize(("delete", "requests"), [(False, ["get", "shut down", "mark"]), (True, ["delete"])])
async def test_a_dag_test_leaves_no_pod_for_another_scheduler(delete: bool, requests: list[str]) -> None:
    async with ending(delete=delete, executor_id="local-1") as made:
        made.lifecycle.end(made.run, FAILURE)
        assert await made.cleaned_up() == requests
