"""Airflow DAGs from task files.

A DAG file in the DAG folder needs three lines::

    '''Airflow DAGs of the analysts' task files.'''

    from crosswind.dags import load_tasks

    load_tasks("tasks")

In the DAG processor, each wrong task file becomes an import error under its own path, and the other tasks load. A
worker, which needs one task, does not read the queries of the others.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Asset, BaseOperator, Context, get_parsing_context
from airflow.sdk.exceptions import AirflowFailException

from crosswind.errors import TaskFileError
from crosswind.provider.dag_import_errors import report_problems
from crosswind.tasks import compile_folder, compile_task
from crosswind.tasks.cache import cache_folder
from crosswind.tasks.folder_reader import SETTINGS_FILE
from crosswind.tasks.model import POD_OPERATOR
from crosswind.tasks.plans import BROKEN_PREFIX, DagPlan, TaskPlan, unmade_asset
from crosswind.tasks.problems import TaskFileProblem
from crosswind.types import Json

if TYPE_CHECKING:
    from airflow.sdk.definitions.dag import ScheduleArg

__all__ = ["BrokenTask", "load_tasks"]


class BrokenTask(BaseOperator):
    """Takes the place of a wrong task file. It fails, so that no task downstream works on old data."""

    def __init__(self, *, problem: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.problem = problem

    def execute(self, context: Context) -> None:
        """Fail with the file's problem, and without a retry, which would fail the same way."""
        raise AirflowFailException(self.problem)


def load_tasks(folder: str | Path, *, cache: str | Path | None = None, **settings: Json) -> dict[str, DAG]:
    """Create the DAGs of all task files below ``folder``; Airflow finds them by itself. Returns them by id.

    ``folder`` is relative to the file that calls. ``settings`` are fields of ``crosswind.yaml``, used where no such
    file sets them. ``cache``: folder in which parsed files are kept by content; by default ``$CROSSWIND_CACHE``, else a
    folder of the current user in the temporary folder.

    A wrong task file does not raise: where Airflow imports DAG files it becomes an import error, elsewhere it is
    logged. Raises ``ConfigError`` when the folder or ``settings`` are wrong.
    """
    caller = sys._getframe(1)
    root = _resolve(Path(os.path.abspath(caller.f_globals.get("__file__", "."))).parent, folder)
    cached = Path(cache) if cache else cache_folder(os.environ)
    requested = get_parsing_context()
    if requested.dag_id and requested.task_id:
        plan = compile_task(root, settings, cached, requested.dag_id, requested.task_id)
        if plan:
            return {plan.dag_id: _build(plan, [])}
    with _existing_objects_frozen():
        compiled = compile_folder(root, settings, cached)
        problems = list(compiled.problems)
        dags = {plan.dag_id: dag for plan in compiled.dags if (dag := _try_to_build(plan, problems))}
    report_problems(problems, root, caller)
    return dags


def _resolve(dag_file_folder: Path, folder: str | Path) -> Path:
    """Return the folder of task files.

    If the DAG folder is a link, as git-sync makes it, ``..`` leads out of the link's target (the operating system's
    way) or, where there is no such folder, out of the folder that holds the link.
    """
    path = dag_file_folder / folder
    beside_link = Path(os.path.normpath(path))
    return beside_link if beside_link.is_dir() and not path.is_dir() else path


@contextmanager
def _existing_objects_frozen() -> Iterator[None]:
    """Exclude all objects that exist now from garbage collection, for the duration of the block.

    Collections that walk through all of Airflow's objects cost a third of the time to load a thousand tasks. What the
    block creates is collected as usual. ``gc.unfreeze`` would also undo a freeze by other code, such as the executor's,
    so the function does nothing in such a process.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _try_to_build(plan: DagPlan, problems: list[TaskFileProblem]) -> DAG | None:
    """Return the DAG, or None and a problem that says why Airflow refuses it."""
    try:
        return _build(plan, problems)
    except Exception as error:  # Airflow and cluster policies raise errors of any class
        file = f"{plan.folder}/{SETTINGS_FILE}" if plan.folder else SETTINGS_FILE
        problems.append(TaskFileProblem(file, 0, f"Airflow refuses DAG {plan.dag_id}: {error}"))
        return None


def _build(plan: DagPlan, problems: list[TaskFileProblem]) -> DAG:
    """Return the DAG. A task that its operator refuses becomes a problem and a ``BrokenTask``."""
    settings = plan.settings
    dag = DAG(
        plan.dag_id,
        schedule=_schedule(plan, problems),
        start_date=datetime.fromisoformat(settings.start_date).replace(tzinfo=UTC),
        catchup=settings.catchup,
        max_active_runs=settings.max_active_runs,
        tags=list(settings.tags),
    )
    with dag:
        operators: dict[str, BaseOperator] = {}
        for task in plan.tasks:
            try:
                operators[task.task_id] = _operator(task)
            except Exception as error:  # operators raise errors of any class
                # BaseOperator adds itself to the DAG before the subclass may refuse its arguments.
                dag.task_dict.pop(task.task_id, None)
                dag.task_group.children.pop(task.task_id, None)
                reason = f"{task.operator} refuses its arguments: {error}"
                problems.append(TaskFileProblem(task.path, 0, reason))
                broken = replace(task, task_id=f"{BROKEN_PREFIX}{task.task_id}", broken=f"{task.path}: {reason}")
                operators[task.task_id] = _operator(broken)
        for task in plan.tasks:
            for upstream in task.upstream:
                _add_edge(operators[upstream], operators[task.task_id])
    return dag


def _add_edge(upstream: BaseOperator, downstream: BaseOperator) -> None:
    """Connect two tasks of one DAG, as ``set_upstream`` does; that method hashes the whole DAG for each edge."""
    upstream.downstream_task_ids.add(downstream.task_id)
    downstream.upstream_task_ids.add(upstream.task_id)


def _schedule(plan: DagPlan, problems: list[TaskFileProblem]) -> ScheduleArg:
    assets = _accepted_assets(plan.assets)
    if not plan.assets:
        return plan.schedule
    # What Airflow accepts also depends on its providers, and on its database: MySQL holds ASCII only.
    if refused := sorted({*plan.assets} - {asset.name for asset in assets}):
        message = f"DAG {plan.dag_id} cannot run after {', '.join(refused)}: Airflow refuses these names of assets"
        problems.append(
            TaskFileProblem(plan.tasks[0].path, 0, f"{message}; rename the tables, or write follows: schedule")
        )
        assets += [Asset(unmade_asset(table)) for table in refused]
    if plan.follows != "both" or plan.schedule is None:
        return assets
    from airflow.timetables.assets import AssetOrTimeSchedule
    from airflow.timetables.trigger import CronTriggerTimetable

    all_assets: Any = assets[0]
    for asset in assets[1:]:
        all_assets = all_assets & asset
    return AssetOrTimeSchedule(timetable=CronTriggerTimetable(plan.schedule, timezone="UTC"), assets=all_assets)


def _operator(task: TaskPlan) -> BaseOperator:
    if task.broken:
        return BrokenTask(task_id=task.task_id, problem=task.broken, outlets=_accepted_assets(task.outlets))
    outlets = [Asset(table) for table in task.outlets]
    own = {key: value for key in ("pool", "queue") if (value := getattr(task, key))}
    options: dict[str, Any] = {**task.arguments, **own}
    if task.image or task.resources:
        options |= _container_options(task)
    operator: BaseOperator = _operator_class(task.operator)(
        task_id=task.task_id,
        owner=task.owner,
        retries=task.retries,
        retry_delay=timedelta(seconds=task.retry_delay),
        outlets=outlets,
        **options,
    )
    return operator


def _accepted_assets(tables: Iterable[str]) -> list[Asset]:
    """Return the assets of the tables whose names Airflow accepts: another name may be the fault of the task."""
    assets = []
    for table in tables:
        with suppress(ValueError):
            assets.append(Asset(table))
    return assets


def _operator_class(path: str) -> type[BaseOperator]:
    module, _, name = path.rpartition(".")
    try:
        operator_class: type[BaseOperator] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise TaskFileError(f"there is no operator {path}: {error}") from error
    return operator_class


def _container_options(task: TaskPlan) -> dict[str, Any]:
    """Return image and resources: of the pod operator's pod, or of the worker's base container."""
    from kubernetes.client import models as k8s  # slow to import, and few tasks need it

    quantities = dict(task.resources)
    resources = k8s.V1ResourceRequirements(requests=quantities, limits=quantities) if quantities else None
    if task.operator == POD_OPERATOR:
        return {"container_resources": resources}
    base = k8s.V1Container(name="base", image=task.image, resources=resources)
    override = {"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[base]))}
    return {"executor_config": (task.arguments.get("executor_config") or {}) | override}
