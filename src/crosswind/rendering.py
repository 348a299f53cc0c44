"""The pods of tasks as the executor would create them, without cluster or scheduler: of a DAG, of a task instance."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from airflow.configuration import conf
from airflow.dag_processing.bundles.base import BaseDagBundle
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.executors.base_executor import ExecutorConf
from airflow.executors.executor_loader import ExecutorLoader
from airflow.version import version as airflow_version

from crosswind import config
from crosswind.errors import ConfigError, OverrideError, TemplateError
from crosswind.pods.naming import is_unique_id
from crosswind.pods.workers import WorkerTask
from crosswind.pods.workloads import InlineWorkload, SecretWorkload
from crosswind.runs.composing import Composer
from crosswind.runs.workloads import WORKER_LABEL, Workload
from crosswind.types import Manifest

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance

__all__ = ["SERVER_VERSION", "RenderedPod", "Rendering", "render_pods", "render_task_instance"]

SERVER_VERSION = (1, 29)
"""Of the API server to assume: from here on there are native sidecars."""

_EXECUTOR = "crosswind.executor.KubernetesExecutor"
_UNKNOWN = str(UUID(int=0))
"""For ids that only a run has."""


@dataclass(frozen=True, slots=True)
class RenderedPod:
    """The pod of one task."""

    dag_id: str
    task_id: str
    map_index: int
    """-1 for a task that is not mapped."""
    pod: Manifest


@dataclass(frozen=True, slots=True)
class Rendering:
    """What became of the tasks."""

    pods: list[RenderedPod] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """File, task, field and mend of each pod that cannot be made, and of each DAG file that cannot be imported."""
    skipped: list[str] = field(default_factory=list)
    """Tasks that get no pod from this executor, and why."""


def render_pods(
    target: str,
    *,
    task_id: str | None = None,
    map_index: int | None = None,
    server_version: tuple[int, int] = SERVER_VERSION,
    team: str | None = None,
) -> Rendering:
    """Return the pods of a DAG file's tasks, or of a DAG in the configured bundles.

    ``task_id`` and ``map_index``: only this task; one index of the mapped ones (default 0). ``server_version``: of the
    API server to assume, which decides on native sidecars. ``team``: whose options count. What only a run has (its id,
    the pod's unique id, the Secret's name) is a placeholder; no token is made.

    Raises ``ConfigError`` when the configuration is wrong, or there is no such file, DAG or task.
    """
    composer, delivery = _composing(team, server_version)
    rendering = Rendering()
    with contextlib.redirect_stdout(sys.stderr):  # what DAG files print is no YAML
        dags = _dags(target, rendering.problems)
    found = [(dag, task) for dag in dags for task in dag.tasks if task_id in (None, task.task_id)]
    if not found and not rendering.problems:
        raise ConfigError(f"{target} has no " + (f"task {task_id}; correct --task" if task_id else "tasks"))
    for dag, task in found:
        if reason := _needs_none(task, team):
            rendering.skipped.append(f"{dag.dag_id}.{task.task_id}: {reason}")
            continue
        _render(rendering, composer, delivery, task, _index(task, map_index))
    return rendering


def render_task_instance(ti: TaskInstance, team: str | None = None) -> Manifest:
    """Return the pod of a task instance as the options of this machine, of ``team`` if it has one, make it now.

    A pod's own unique id is in it once the task was queued. Raises ``ConfigError``.
    """
    composer, delivery = _composing(team, SERVER_VERSION)
    unique = ti.external_executor_id or ""
    worker = WorkerTask(
        dag_id=ti.dag_id,
        task_id=ti.task_id,
        run_id=ti.run_id,
        try_number=max(1, ti.try_number),
        map_index=ti.map_index,
        unique_id=unique if is_unique_id(unique) else _UNKNOWN,
        executor_id=str(ti.queued_by_job_id or 0),
        queue=ti.queue or "default",
        ti_id=str(ti.id),
        airflow_version=airflow_version,
        labels=WORKER_LABEL,
    )
    return composer.compose(Workload(None, worker, 0.0, None, config=ti.executor_config), worker, delivery)


def _composing(team: str | None, server_version: tuple[int, int]) -> tuple[Composer, SecretWorkload | InlineWorkload]:
    chosen = ExecutorConf(team) if team else conf
    environment = dict(config.worker_environment(chosen, conf))
    settings = config.read_settings(chosen, "0", environment=environment, shared=conf)
    worker = replace(settings.worker, server_version=server_version)
    inline = settings.engine.workload_delivery == "args"
    delivery = InlineWorkload("{}") if inline else SecretWorkload(f"crosswind-{'0' * 16}", _UNKNOWN)
    return replace(settings, worker=worker).composer(config.pod_mutation()), delivery


def _render(
    rendering: Rendering, composer: Composer, delivery: SecretWorkload | InlineWorkload, task: Any, index: int
) -> None:
    worker = WorkerTask(
        dag_id=task.dag_id,
        task_id=task.task_id,
        run_id="run",
        try_number=1,
        unique_id=_UNKNOWN,
        map_index=index,
        executor_id="0",
        queue=task.queue,
        ti_id=_UNKNOWN,
        airflow_version=airflow_version,
        labels=WORKER_LABEL,
    )
    workload = Workload(None, worker, 0.0, None, config=task.executor_config)
    try:
        pod = composer.compose(workload, worker, delivery)
    except (TemplateError, OverrideError) as error:
        rendering.problems.append(f"{task.dag.fileloc}: task {task.dag_id}.{task.task_id}: {error}")
    else:
        rendering.pods.append(RenderedPod(task.dag_id, task.task_id, index, pod))


def _index(task: Any, wanted: int | None) -> int:
    mapped = task.is_mapped or any(True for _ in task.iter_mapped_task_groups())
    return (wanted or 0) if mapped else -1


def _needs_none(task: Any, team: str | None) -> str:
    """Return why the task gets no pod of this executor, "" if it gets one."""
    if task.executor:
        path = ExecutorLoader.lookup_executor_name_by_str(task.executor, team, validate_teams=False).module_path
        if path != _EXECUTOR:
            return f"runs in {task.executor}, not in {_EXECUTOR}"
    acts = task.outlets or task.has_on_execute_callback or task.has_on_success_callback
    if task.inherits_from_empty_operator and not acts:
        return "does nothing, the scheduler ends it without a pod"
    return ""


def _dags(target: str, problems: list[str]) -> list[Any]:
    """Import a DAG file, or the bundles until one has the DAG; what cannot be imported is a problem."""
    if os.path.isfile(target):
        bag = _file(Path(target).resolve())
        problems.extend(_told(bag))
        return list(bag.dags.values())
    if target.endswith((".py", ".zip")) or os.sep in target:
        raise ConfigError(f"there is no DAG file {target}; correct the path, or give a DAG's id")
    failed: list[str] = []
    for bundle in _bundles():
        bundle.initialize()
        bag = BundleDagBag(bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
        if dag := bag.dags.get(target):
            return [dag]
        failed.extend(_told(bag))
    if not failed:
        raise ConfigError(f"no DAG of the configured bundles has the id {target}; correct it, or give a file's path")
    problems.extend([f"no DAG that can be imported has the id {target}", *failed])
    return []


def _file(path: Path) -> BundleDagBag:
    """Import one file; its bundle's folder, else its own, is where it may import modules from."""
    for bundle in _bundles():
        if path.is_relative_to(bundle.path):
            return BundleDagBag(path, bundle_path=bundle.path, bundle_name=bundle.name, safe_mode=False)
    return BundleDagBag(path, bundle_path=path.parent, safe_mode=False)


def _bundles() -> Iterable[BaseDagBundle]:
    return DagBundlesManager().get_all_dag_bundles()  # type: ignore[no-untyped-call]


def _told(bag: BundleDagBag) -> Iterator[str]:
    for path, error in bag.import_errors.items():
        yield f"{path}: {error.strip()}"
