"""Airflow DAGs from task files.

One Python file in the DAG folder says it all::

    '''Airflow DAGs of the analysts' task files.'''

    from crosswind.dags import load_tasks

    load_tasks("tasks")

In the DAG processor, each task file that is wrong becomes an import error of its own, under the file's own path; the
other tasks load. In a worker, which wants one task, the queries of the others are not looked at.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from airflow.sdk import DAG, Asset, BaseOperator, Context, get_parsing_context
from airflow.sdk.exceptions import AirflowFailException

from crosswind.errors import TaskFileError
from crosswind.tasks import compile_folder, compile_task
from crosswind.tasks.cache import cache_folder
from crosswind.tasks.model import POD_OPERATOR
from crosswind.tasks.plans import BROKEN_PREFIX, DagPlan, TaskPlan
from crosswind.tasks.problems import Problem, by_file
from crosswind.tasks.reading import SETTINGS_FILE
from crosswind.types import Json

__all__ = ["BrokenTask", "load_tasks"]

log = logging.getLogger(__name__)


class BrokenTask(BaseOperator):
    """Stands for a task file that is wrong: it fails, so that no task after it works on old data."""

    def __init__(self, *, problem: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.problem = problem

    def execute(self, context: Context) -> None:
        """Fail with the file's problem; a retry would not mend it."""
        raise AirflowFailException(self.problem)


def load_tasks(folder: str | Path, *, cache: str | Path | None = None, **settings: Json) -> dict[str, DAG]:
    """Make the DAGs of all task files below ``folder`` and return them by id; Airflow finds them without more.

    ``folder`` is relative to the file that calls. ``settings`` are fields of ``crosswind.yaml``, which count where no
    such file says otherwise. ``cache``: folder in which to remember what was read, by content; by default
    ``$CROSSWIND_CACHE``, else one of this user's own in the temporary folder.

    A task file that is wrong does not raise: it becomes an import error where Airflow imports DAG files, else it is
    logged. Raises ``ConfigError`` when the folder or ``settings`` are wrong.
    """
    caller = sys._getframe(1)
    here = Path(os.path.abspath(caller.f_globals.get("__file__", "."))).parent
    root, remembered = _place_of(here, folder), Path(cache) if cache else cache_folder(os.environ)
    wanted = get_parsing_context()
    if wanted.dag_id and wanted.task_id:
        plan = compile_task(root, settings, remembered, wanted.dag_id, wanted.task_id)
        if plan:
            return {plan.dag_id: _build(plan, [])}
    with _sparing_the_collector():
        compiled = compile_folder(root, settings, remembered)
        problems = list(compiled.problems)
        dags = {plan.dag_id: dag for plan in compiled.dags if (dag := _attempt(plan, problems))}
    _report(root, problems, caller)
    return dags


def _place_of(here: Path, folder: str | Path) -> Path:
    """Return the folder beside the DAG file; ``..`` leads out of where the DAG folder is, or out of a link to it."""
    place = here / folder
    beside_link = Path(os.path.normpath(place))
    return beside_link if beside_link.is_dir() and not place.is_dir() else place


@contextmanager
def _sparing_the_collector() -> Iterator[None]:
    """Keep the garbage collector off what is there already; walking over all of Airflow costs a third of the time.

    What the block itself makes is collected as ever. Nothing is done where another has frozen objects.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _attempt(plan: DagPlan, problems: list[Problem]) -> DAG | None:
    """Return the DAG, or tell why Airflow refuses it."""
    try:
        return _build(plan, problems)
    except Exception as error:  # whatever Airflow or a policy raises
        file = f"{plan.folder}/{SETTINGS_FILE}" if plan.folder else SETTINGS_FILE
        problems.append(Problem(file, 0, f"Airflow refuses DAG {plan.dag_id}: {error}"))
        return None


def _build(plan: DagPlan, problems: list[Problem]) -> DAG:
    """Return the DAG; a task that its operator refuses is told, and a broken one takes its place."""
    settings = plan.settings
    dag = DAG(
        plan.dag_id,
        schedule=_schedule(plan),
        start_date=datetime.fromisoformat(settings.start_date).replace(tzinfo=UTC),
        catchup=settings.catchup,
        max_active_runs=settings.max_active_runs,
        tags=list(settings.tags),
    )
    with dag:
        built: dict[str, Any] = {}
        for task in plan.tasks:
            try:
                built[task.task_id] = _operator(task)
            except Exception as error:  # operators raise whatever they like
                dag.task_dict.pop(task.task_id, None)
                dag.task_group.children.pop(task.task_id, None)
                reason = f"{task.operator} refuses its arguments: {error}"
                problems.append(Problem(task.path, 0, reason))
                broken = replace(task, task_id=f"{BROKEN_PREFIX}{task.task_id}", broken=f"{task.path}: {reason}")
                built[task.task_id] = _operator(broken)
        for task in plan.tasks:
            for before in task.upstream:
                _connect(built[before], built[task.task_id])
    return dag


def _connect(before: BaseOperator, after: BaseOperator) -> None:
    """Do what ``set_upstream`` does for two tasks of one DAG; that hashes the whole DAG for each edge."""
    before.downstream_task_ids.add(after.task_id)
    after.upstream_task_ids.add(before.task_id)


def _schedule(plan: DagPlan) -> Any:
    if not plan.assets:
        return plan.schedule
    assets = [Asset(table) for table in plan.assets]
    if plan.follows != "both" or plan.schedule is None:
        return assets
    from airflow.timetables.assets import AssetOrTimeSchedule
    from airflow.timetables.trigger import CronTriggerTimetable

    after: Any = assets[0]
    for asset in assets[1:]:
        after = after & asset
    return AssetOrTimeSchedule(timetable=CronTriggerTimetable(plan.schedule, timezone="UTC"), assets=after)


def _operator(task: TaskPlan) -> BaseOperator:
    outlets = [Asset(table) for table in task.outlets]
    if task.broken:
        return BrokenTask(task_id=task.task_id, problem=task.broken, outlets=outlets)
    more: dict[str, Any] = {key: value for key in ("pool", "queue") if (value := getattr(task, key))}
    if task.image or task.resources:
        more |= _container(task)
    made: BaseOperator = _class(task.operator)(
        task_id=task.task_id,
        owner=task.owner,
        retries=task.retries,
        retry_delay=timedelta(seconds=task.retry_delay),
        outlets=outlets,
        **more,
        **task.arguments,
    )
    return made


def _class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise TaskFileError(f"there is no operator {path}: {error}") from error


def _container(task: TaskPlan) -> dict[str, Any]:
    """Return image and resources: of the pod that the task is, or of the worker's base container."""
    from kubernetes.client import models as k8s  # slow to import, and only a few tasks say such things

    resources = dict(task.resources)
    asked = k8s.V1ResourceRequirements(requests=resources, limits=resources) if resources else None
    if task.operator == POD_OPERATOR:
        return {"container_resources": asked}
    base = k8s.V1Container(name="base", image=task.image, resources=asked)
    return {"executor_config": {"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[base]))}}


def _report(root: Path, problems: list[Problem], caller: FrameType) -> None:
    """Log the warnings; hand each bad file to Airflow as an import error of its own."""
    for problem in problems:
        if not problem.fatal:
            log.warning("%s", problem.told(f"{root}/"))
    errors = by_file(problems)
    if not errors:
        return
    result = next(_import_results(caller), None)
    if result is None:
        for text in errors.values():
            log.error("%s", text)
        return
    from airflow.dag_processing.importers import DagImportError

    prefix = _place(root, caller.f_globals["__file__"], result.file_path)
    for file, text in errors.items():
        result.errors.append(DagImportError(file_path=f"{prefix}/{file}", message=text, error_type="task file"))


def _import_results(frame: FrameType | None) -> Iterator[Any]:
    """Yield the results that are being gathered by the importer that runs this file.

    An importer may report errors of any file, but Airflow 3.3 gives the code that it imports no way to it, and raising
    would drop the DAGs that are good; so it is looked for among the callers' variables.
    """
    from airflow.dag_processing.importers import DagImportResult

    while frame is not None:
        yield from (value for value in list(frame.f_locals.values()) if isinstance(value, DagImportResult))
        frame = frame.f_back


def _place(root: Path, loader: str, told: str) -> str:
    """Return where ``root`` is, relative to the bundle if it lies in it; ``told``: the loader's path there."""
    bundle = loader.removesuffix(told)
    path = os.path.abspath(root)
    return os.path.relpath(path, bundle) if bundle and bundle != loader and path.startswith(bundle) else path
