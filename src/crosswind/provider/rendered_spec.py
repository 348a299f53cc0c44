"""Renders the pods that the executor would create, of a DAG or of a task instance, without cluster or scheduler."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from airflow.configuration import conf
from airflow.dag_processing.bundles.base import BaseDagBundle
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.executors.base_executor import ExecutorConf
from airflow.executors.executor_loader import ExecutorLoader
from airflow.version import version as airflow_version

from crosswind.engine.pod_composer import PodComposer
from crosswind.engine.state import WORKER_LABEL, Workload
from crosswind.engine.worker_pod import WorkerTask
from crosswind.engine.workload_secrets import InlineWorkload, SecretWorkload
from crosswind.errors import ConfigError, OverrideError, TemplateError
from crosswind.pods.naming import is_unique_id
from crosswind.provider import config
from crosswind.types import Manifest

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance
    from airflow.sdk import DAG
    from airflow.sdk.types import Operator

__all__ = ["SERVER_VERSION", "RenderedPod", "Rendering", "render_pods", "render_task_instance"]

SERVER_VERSION = (1, 29)
"""Version of the API server to assume: since 1.29 native sidecars are on by default."""

_EXECUTOR = "crosswind.executor.KubernetesExecutor"
_PLACEHOLDER_ID = str(UUID(int=0))
"""In place of ids that exist only in a run."""


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
    """The pods of the tasks, and why other tasks have none."""

    pods: list[RenderedPod] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """File, task, field and fix of each pod that cannot be composed, and of each DAG file that cannot be imported."""
    skipped: list[str] = field(default_factory=list)
    """Tasks that get no pod from this executor, each with the reason."""


def render_pods(
    target: str,
    *,
    task_id: str | None = None,
    map_index: int | None = None,
    server_version: tuple[int, int] = SERVER_VERSION,
    team: str | None = None,
) -> Rendering:
    """Return the pods of a DAG file's tasks, or of a DAG in the configured bundles.

    ``task_id``: only this task. ``map_index``: the index to render of mapped tasks, default 0. ``server_version``:
    version of the API server to assume, which decides on native sidecars. ``team``: the team whose options apply.
    Values that exist only in a run (its id, the pod's unique id, the Secret's name) are placeholders, and there is no
    token.

    Raises ``ConfigError`` when the configuration is wrong, or there is no such file, DAG or task.
    """
    composer, delivery = _composer(team, server_version)
    rendering = Rendering()
    with contextlib.redirect_stdout(sys.stderr):  # DAG files may print, and the output must stay YAML
        dags = _import_dags(target, rendering.problems)
    tasks = [(dag, task) for dag in dags for task in dag.tasks if task_id in (None, task.task_id)]
    if not tasks and not rendering.problems:
        raise ConfigError(f"{target} has no " + (f"task {task_id}; correct --task" if task_id else "tasks"))
    for dag, task in tasks:
        if reason := _why_no_pod(task, team):
            rendering.skipped.append(f"{dag.dag_id}.{task.task_id}: {reason}")
            continue
        _render(rendering, composer, delivery, task, _index_to_render(task, map_index))
    return rendering


def render_task_instance(ti: TaskInstance, team: str | None = None) -> Manifest:
    """Return the pod of a task instance under this machine's current options, those of ``team`` if it has one.

    The pod's unique id is the real one as soon as the task is queued. Raises ``ConfigError``.
    """
    composer, delivery = _composer(team, SERVER_VERSION)
    unique_id = ti.external_executor_id or ""
    worker = WorkerTask(
        dag_id=ti.dag_id,
        task_id=ti.task_id,
        run_id=ti.run_id,
        try_number=max(1, ti.try_number),
        map_index=ti.map_index,
        unique_id=unique_id if is_unique_id(unique_id) else _PLACEHOLDER_ID,
        executor_id=str(ti.queued_by_job_id or 0),
        queue=ti.queue or "default",
        ti_id=str(ti.id),
        airflow_version=airflow_version,
        labels=WORKER_LABEL,
    )
    return composer.compose(Workload(None, worker, 0.0, None, config=ti.executor_config), worker, delivery)


def _composer(team: str | None, server_version: tuple[int, int]) -> tuple[PodComposer, SecretWorkload | InlineWorkload]:
    team_conf = ExecutorConf(team) if team else conf
    environment = dict(config.worker_environment(team_conf, conf))
    settings = config.read_settings(team_conf, "0", environment=environment, shared=conf)
    worker = replace(settings.worker, server_version=server_version)
    is_inline = settings.engine.workload_delivery == "args"
    delivery = InlineWorkload("{}") if is_inline else SecretWorkload(f"crosswind-{'0' * 16}", _PLACEHOLDER_ID)
    return replace(settings, worker=worker).composer(config.pod_mutation()), delivery


def _render(
    rendering: Rendering, composer: PodComposer, delivery: SecretWorkload | InlineWorkload, task: Operator, index: int
) -> None:
    worker = WorkerTask(
        dag_id=task.dag_id,
        task_id=task.task_id,
        run_id="run",
        try_number=1,
        unique_id=_PLACEHOLDER_ID,
        map_index=index,
        executor_id="0",
        queue=task.queue,
        ti_id=_PLACEHOLDER_ID,
        airflow_version=airflow_version,
        labels=WORKER_LABEL,
    )
    workload = Workload(None, worker, 0.0, None, config=task.executor_config)
    try:
        pod = composer.compose(workload, worker, delivery)
    except (TemplateError, OverrideError) as error:
        assert task.dag is not None  # it comes from a DAG's list of tasks
        rendering.problems.append(f"{task.dag.fileloc}: task {task.dag_id}.{task.task_id}: {error}")
    else:
        rendering.pods.append(RenderedPod(task.dag_id, task.task_id, index, pod))


def _index_to_render(task: Operator, map_index: int | None) -> int:
    is_mapped = task.is_mapped or any(True for _ in task.iter_mapped_task_groups())
    return (map_index or 0) if is_mapped else -1


def _why_no_pod(task: Operator, team: str | None) -> str:
    """Return why the task gets no pod from this executor, "" if it gets one."""
    if task.executor:
        path = ExecutorLoader.lookup_executor_name_by_str(task.executor, team, validate_teams=False).module_path
        if path != _EXECUTOR:
            return f"runs in {task.executor}, not in {_EXECUTOR}"
    has_effect = task.outlets or task.has_on_execute_callback or task.has_on_success_callback
    if task.inherits_from_empty_operator and not has_effect:
        return "does nothing; the scheduler completes it without a pod"
    return ""


def _import_dags(target: str, problems: list[str]) -> list[DAG]:
    """Import a DAG file, or bundle after bundle until one has the DAG. Import errors become problems."""
    if os.path.isfile(target):
        bag = _import_file(Path(target).resolve())
        problems.extend(_import_errors(bag))
        return list(bag.dags.values())
    if target.endswith((".py", ".zip")) or os.sep in target:
        raise ConfigError(f"there is no DAG file {target}; correct the path, or give a DAG's id")
    import_errors: list[str] = []
    for bundle in _bundles():
        bundle.initialize()
        bag = BundleDagBag(bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
        if dag := bag.dags.get(target):
            return [dag]
        import_errors.extend(_import_errors(bag))
    if not import_errors:
        raise ConfigError(f"no DAG of the configured bundles has the id {target}; correct it, or give a file's path")
    problems.extend([f"no DAG that can be imported has the id {target}", *import_errors])
    return []


def _import_file(path: Path) -> BundleDagBag:
    """Import one file. It may import modules from its bundle's folder, or from its own if no bundle contains it."""
    for bundle in _bundles():
        if path.is_relative_to(bundle.path):
            return BundleDagBag(path, bundle_path=bundle.path, bundle_name=bundle.name, safe_mode=False)
    return BundleDagBag(path, bundle_path=path.parent, safe_mode=False)


def _bundles() -> Iterable[BaseDagBundle]:
    return DagBundlesManager().get_all_dag_bundles()  # type: ignore[no-untyped-call]


def _import_errors(bag: BundleDagBag) -> Iterator[str]:
    for path, error in bag.import_errors.items():
        yield f"{path}: {error.strip()}"
