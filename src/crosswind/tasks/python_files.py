"""Planned DAGs as the text of plain Python files: they need Airflow and the operators, and neither Crosswind nor YAML.

A task file that is wrong becomes a Python file that raises, and so an import error that names it. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from crosswind.tasks.model import POD_OPERATOR
from crosswind.tasks.plans import DagPlan, TaskPlan

__all__ = ["MARK", "dag_file", "error_file"]

MARK = "# Written by crosswind tasks compile. Changes are lost: change the task files.\n"
"""First line of each file; only files that begin with it are replaced or removed."""

_FAIL = """

def fail(problem):
    raise AirflowFailException(problem)
"""


def error_file(path: str, text: str) -> tuple[str, str]:
    """Return name and text of the file that stands for a bad task file."""
    name = f"error__{re.sub(r'[^A-Za-z0-9_.-]', '_', path)}.py"
    return name, f"{MARK}# An Airflow DAG file that tells of an error.\n\nraise ImportError({text!r})\n"


def dag_file(plan: DagPlan) -> tuple[str, str]:
    """Return name and text of the file of one DAG."""
    body = [*_dag(plan)]
    for task in plan.tasks:
        body += _task(task, f"task_{plan.tasks.index(task)}")
    index = {task.task_id: f"task_{number}" for number, task in enumerate(plan.tasks)}
    body += [
        f"    [{', '.join(index[other] for other in task.upstream)}] >> {index[task.task_id]}"
        for task in plan.tasks
        if task.upstream
    ]
    text = "\n".join([*_imports(plan), "", *([_FAIL, ""] if any(task.broken for task in plan.tasks) else []), *body])
    return f"{plan.dag_id}.py", f"{MARK}{text}\n"


def _imports(plan: DagPlan) -> Iterator[str]:
    yield "from datetime import UTC, datetime, timedelta"
    yield ""
    yield "from airflow.sdk import DAG, Asset"
    if any(task.broken for task in plan.tasks):
        yield "from airflow.providers.standard.operators.python import PythonOperator"
        yield "from airflow.sdk.exceptions import AirflowFailException"
    if plan.assets and plan.follows == "both" and plan.schedule:
        yield "from airflow.timetables.assets import AssetOrTimeSchedule"
        yield "from airflow.timetables.trigger import CronTriggerTimetable"
    if any(task.image or task.resources for task in plan.tasks):
        yield "from kubernetes.client import models as k8s"
    for operator in sorted({task.operator for task in plan.tasks if not task.broken}):
        module, _, name = operator.rpartition(".")
        yield f"from {module} import {name} as {_alias(operator)}"


def _alias(operator: str) -> str:
    return operator.replace(".", "_")


def _dag(plan: DagPlan) -> Iterator[str]:
    settings = plan.settings
    day = ", ".join(str(int(part)) for part in settings.start_date.split("-"))
    yield "with DAG("
    yield f"    {plan.dag_id!r},"
    yield f"    schedule={_schedule(plan)},"
    yield f"    start_date=datetime({day}, tzinfo=UTC),"
    yield f"    catchup={settings.catchup!r},"
    yield f"    max_active_runs={settings.max_active_runs!r},"
    yield f"    tags={list(settings.tags)!r},"
    yield "):"


def _schedule(plan: DagPlan) -> str:
    if not plan.assets:
        return repr(plan.schedule)
    assets = [f"Asset({table!r})" for table in plan.assets]
    if plan.follows != "both" or plan.schedule is None:
        return f"[{', '.join(assets)}]"
    timetable = f"CronTriggerTimetable({plan.schedule!r}, timezone='UTC')"
    return f"AssetOrTimeSchedule(timetable={timetable}, assets={' & '.join(assets)})"


def _task(task: TaskPlan, name: str) -> Iterator[str]:
    yield f"    {name} = {'PythonOperator' if task.broken else _alias(task.operator)}("
    yield f"        task_id={task.task_id!r},"
    for key, value in _arguments(task):
        yield f"        {key}={value},"
    yield "    )"


def _arguments(task: TaskPlan) -> Iterator[tuple[str, str]]:
    outlets = "outlets", f"[{', '.join(f'Asset({table!r})' for table in task.outlets)}]"
    if task.broken:
        yield from (("python_callable", "fail"), ("op_args", repr([task.broken])), outlets)
        return
    yield "owner", repr(task.owner)
    yield "retries", repr(task.retries)
    yield "retry_delay", f"timedelta(seconds={task.retry_delay})"
    yield outlets
    if task.pool:
        yield "pool", repr(task.pool)
    if task.queue:
        yield "queue", repr(task.queue)
    if task.image or task.resources:
        yield _container(task.operator, task.image, task.resources)
    for key, value in task.arguments.items():
        yield key, repr(value)


def _container(operator: str, image: str | None, resources: Mapping[str, str]) -> tuple[str, str]:
    held = dict(resources)
    asked = f"k8s.V1ResourceRequirements(requests={held!r}, limits={held!r})" if held else "None"
    if operator == POD_OPERATOR:
        return "container_resources", asked
    base = f"k8s.V1Container(name='base', image={image!r}, resources={asked})"
    return "executor_config", f"{{'pod_override': k8s.V1Pod(spec=k8s.V1PodSpec(containers=[{base}]))}}"
