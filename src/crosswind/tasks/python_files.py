"""Writes planned DAGs as plain Python files, which need Airflow and the operators, but neither Crosswind nor YAML.

A broken task file becomes a Python file that raises, so that Airflow shows an import error with its path. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from crosswind.tasks.model import POD_OPERATOR
from crosswind.tasks.plain_names import plain_name
from crosswind.tasks.plans import DagPlan, TaskPlan
from crosswind.types import Json

__all__ = ["MARK", "dag_file", "error_file"]

MARK = "# Written by crosswind tasks compile. Changes are lost: change the task files.\n"
"""First line of each file; the command replaces and removes only files that begin with it."""

_FAIL = """

def fail(problem):
    raise AirflowFailException(problem)
"""


def error_file(path: str, text: str) -> tuple[str, str]:
    """Return name and text of the file that reports a broken task file."""
    # Shorter than the 255 bytes that file systems allow, because a file is written under a longer name first.
    return (
        f"error__{plain_name(path, 180)}.py",
        f"{MARK}# An Airflow DAG file that reports an error.\n\nraise ImportError({text!r})\n",
    )


def dag_file(plan: DagPlan) -> tuple[str, str]:
    """Return name and text of the file of one DAG."""
    variables = {task.task_id: f"task_{number}" for number, task in enumerate(plan.tasks)}
    body = [*_dag(plan)]
    for task in plan.tasks:
        body += _task(task, variables[task.task_id])
    body += [
        f"    [{', '.join(variables[other] for other in task.upstream)}] >> {variables[task.task_id]}"
        for task in plan.tasks
        if task.upstream
    ]
    text = "\n".join([*_imports(plan), "", *([_FAIL, ""] if _has_broken_task(plan) else []), *body])
    return f"{plan.dag_id}.py", f"{MARK}{text}\n"


def _has_timetable(plan: DagPlan) -> bool:
    """Return whether the DAG runs both after its assets and by its schedule."""
    return bool(plan.assets) and plan.follows == "both" and plan.schedule is not None


def _has_broken_task(plan: DagPlan) -> bool:
    return any(task.broken for task in plan.tasks)


def _imports(plan: DagPlan) -> list[str]:
    lines = ["from datetime import UTC, datetime, timedelta", "", "from airflow.sdk import DAG, Asset"]
    if _has_broken_task(plan):
        lines.append("from airflow.providers.standard.operators.python import PythonOperator")
        lines.append("from airflow.sdk.exceptions import AirflowFailException")
    if _has_timetable(plan):
        lines.append("from airflow.timetables.assets import AssetOrTimeSchedule")
        lines.append("from airflow.timetables.trigger import CronTriggerTimetable")
    if any(task.image or task.resources for task in plan.tasks):
        lines.append("from kubernetes.client import models as k8s")
    return lines + [
        _operator_import(path) for path in sorted({task.operator for task in plan.tasks if not task.broken})
    ]


def _operator_import(path: str) -> str:
    module, _, name = path.rpartition(".")
    return f"from {module} import {name} as {_alias(path)}"


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
    if not _has_timetable(plan):
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
    arguments = dict(task.arguments)
    if task.image or task.resources:
        yield _container(task.operator, task.image, task.resources, arguments.pop("executor_config", None))
    for key, value in arguments.items():
        yield key, _literal(value)


def _literal(value: Json) -> str:
    """Return a value of YAML as Python. ``repr`` writes infinity and not-a-number as names that Python lacks."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_literal(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    return f"float({str(value)!r})" if isinstance(value, float) and not math.isfinite(value) else repr(value)


def _container(
    operator: str, image: str | None, resources: Mapping[str, str], executor_config: Json
) -> tuple[str, str]:
    quantities = dict(resources)
    requirements = (
        f"k8s.V1ResourceRequirements(requests={quantities!r}, limits={quantities!r})" if resources else "None"
    )
    if operator == POD_OPERATOR:
        return "container_resources", requirements
    base = f"k8s.V1Container(name='base', image={image!r}, resources={requirements})"
    others = f"**{_literal(executor_config)}, " if executor_config else ""
    return "executor_config", f"{{{others}'pod_override': k8s.V1Pod(spec=k8s.V1PodSpec(containers=[{base}]))}}"
