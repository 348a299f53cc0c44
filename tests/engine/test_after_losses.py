"""The launcher counts the losses of a task whose pods depend on them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.engine.recording import RecordedLifecycle

from crosswind.engine.launcher import Launcher
from crosswind.engine.losses import LossPolicy
from crosswind.engine.pod_composer import PodComposer
from crosswind.engine.state import RunTimes, WorkerRun, Workload
from crosswind.engine.worker_pod import WorkerSettings, WorkerTask
from crosswind.settings import EngineSettings
from deadlines import scaled

TEMPLATE = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: base, image: i}]}\n"
ON_DEMAND = {"spec": {"nodeSelector": {"capacity": "on-demand"}}}


class Api:
    def __init__(self) -> None:
        self.created: dict[str, dict[str, Any]] = {}

    async def create(self, kind: object, manifest: dict[str, Any], **_: object) -> dict[str, Any]:
        created = {**manifest, "metadata": {**manifest["metadata"], "uid": "uid"}}
        if manifest["kind"] == "Pod":
            self.created[manifest["metadata"]["annotations"]["task_id"]] = created
        return created


class Database:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[str] = []

    def count_losses(self, workloads: Collection[Workload]) -> Mapping[Workload, int]:
        self.asked += sorted(workload.task.task_id for workload in workloads)
        if self.error is not None:
            raise self.error
        return {workload: 2 for workload in workloads if workload.task.task_id == "lost"}


async def launched(
    template: Path, database: Database, policy: LossPolicy, *tasks: tuple[str, int, dict[str, Any] | None]
) -> dict[str, Any]:
    """Launch tasks (name, try number, config); return the node selector of each pod."""
    template.write_text(TEMPLATE)
    api, lifecycle = Api(), RecordedLifecycle()
    composer = PodComposer(WorkerSettings(), template=str(template), losses=policy)
    arguments: Any = (api, composer, lifecycle, EngineSettings("7", secret_batch=8), database)
    launcher = Launcher(*arguments)
    for name, number, config in tasks:
        task = WorkerTask("dag", name, "run", number, f"{name}-{'0' * 8}")
        run = WorkerRun(Workload(name, task, 1.0, lambda: b"{}", config=config), task, RunTimes(0.0))
        lifecycle.registry.add(run)
        launcher.put(run)
    running = asyncio.create_task(launcher.run())
    async with asyncio.timeout(scaled(10)):
        while len(api.created) < len(tasks):  # noqa: ASYNC110 - of the launcher's own task
            await asyncio.sleep(0.005)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    return {name: pod["spec"].get("nodeSelector") for name, pod in api.created.items()}


@pytest.fixture
def template(tmp_path: Path) -> Path:
    return tmp_path / "template.yaml"


async def test_a_task_gets_the_pod_for_its_losses_and_a_first_try_asks_nobody(template: Path) -> None:
    database = Database()
    tasks = [("first", 1, None), ("lost", 3, None), ("retried", 2, None)]
    assert await launched(template, database, LossPolicy(after={2: ON_DEMAND}), *tasks) == {
        "first": None,
        "lost": {"capacity": "on-demand"},
        "retried": None,
    }
    assert database.asked == ["lost", "retried"]


async def test_without_a_patch_the_database_is_not_asked(template: Path) -> None:
    database, own = Database(), {"crosswind": {"after_losses": {1: ON_DEMAND}}}
    tasks = [("lost", 3, None), ("retried", 2, own)]
    assert await launched(template, database, LossPolicy(), *tasks) == {"lost": None, "retried": None}
    assert database.asked == ["retried"]


async def test_a_database_that_does_not_answer_stops_no_launch(
    template: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(RuntimeError("it is down"))
    assert await launched(template, database, LossPolicy(after={1: ON_DEMAND}), ("lost", 3, None)) == {"lost": None}
    assert "after_losses is left out: it is down" in caplog.text
