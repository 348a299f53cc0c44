"""What Airflow's UI shows at a task instance: the pod that runs it, or will, and what was told about it.

Plain HTML, because Airflow shows it in a frame where no script may run. ``?format=yaml`` gives the pod alone.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Annotated, Any

import yaml
from airflow._shared.secrets_masker import redact, should_hide_value_for_key
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.configuration import conf
from airflow.executors.executor_loader import ExecutorLoader
from airflow.models.dag import DagModel
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from fastapi import Depends, FastAPI, HTTPException, Query, Response
from fastapi.responses import HTMLResponse
from sqlalchemy import select

from crosswind.errors import CrosswindError
from crosswind.pods.masking import is_sensitive, mask_pod, mask_text
from crosswind.rendering import render_task_instance
from crosswind.types import Manifest

__all__ = ["app"]

_EXECUTOR = "crosswind.executor.KubernetesExecutor"
_EVENTS = ("pod waits", "pod relaunched", "pod lost", "pod failed", "task reset")
_STYLE = """
:root { color-scheme: light dark; font: 14px/1.5 system-ui, sans-serif; }
body { margin: 1rem; }
pre { padding: 1rem; overflow: auto; background: light-dark(#f4f4f5, #18181b); border-radius: 6px; }
td { padding: 0 1rem 0.3rem 0; vertical-align: top; }
td:not(:last-child) { white-space: nowrap; }
"""

app = FastAPI(title="Crosswind", openapi_url=None)

_MAY_READ = Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE))


@app.get("/pod", dependencies=[_MAY_READ])
def pod(
    session: SessionDep,
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: str = "-1",
    format: Annotated[str, Query(pattern="html|yaml")] = "html",
) -> Response:
    """Show the pod of a task instance to those who may read the DAG's task instances."""
    ti = _find(session, dag_id, run_id, task_id, map_index)
    team = DagModel.get_team_name(dag_id, session=session) if conf.getboolean("core", "multi_team") else None
    if other := _other_executor(ti, team):
        raise HTTPException(404, f"This task runs in {other}, not in {_EXECUTOR}")
    try:
        text, problem = _yaml(_without_secrets(render_task_instance(ti, team))), ""
    except CrosswindError as error:
        text, problem = "", _shown(str(error))
    if format == "yaml":
        return Response(text or f"# {problem}\n", 422 if problem else 200, media_type="application/yaml")
    return HTMLResponse(_page(ti, text, problem, _told(session, ti)))


def _find(session: Any, dag_id: str, run_id: str, task_id: str, map_index: str) -> TaskInstance:
    index = int(map_index) if map_index.lstrip("-").isdigit() else -1  # the UI fills it in for mapped tasks only
    query = select(TaskInstance).filter_by(dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=index)
    found = session.scalar(query)
    if found is None:
        raise HTTPException(404, f"There is no task instance {dag_id}.{task_id} in run {run_id}")
    assert isinstance(found, TaskInstance)
    return found


def _other_executor(ti: TaskInstance, team: str | None) -> str:
    """Return the executor that runs a task instead of ours, "" if it is ours."""
    if ti.executor:
        name = ExecutorLoader.lookup_executor_name_by_str(ti.executor, team, validate_teams=False)
    else:
        name = ExecutorLoader.get_default_executor_name(team)
    return "" if name.module_path == _EXECUTOR else str(name.alias or name.module_path)


def _without_secrets(manifest: Manifest) -> Manifest:
    """Return a copy without the values of what seems to be a secret, to Airflow's masker or to ours."""
    return mask_pod(json.loads(json.dumps(manifest, default=str)), _hides)


def _hides(name: str) -> bool:
    return is_sensitive(name) or bool(should_hide_value_for_key(name))  # type: ignore[no-untyped-call]  # Airflow's gap


def _shown(text: str) -> str:
    """Return a text without secrets: those that Airflow knows, and what looks like one."""
    return mask_text(str(redact(text)), _hides)


def _yaml(manifest: Manifest) -> str:
    text: str = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True)
    return str(redact(text))


def _told(session: Any, ti: TaskInstance) -> list[tuple[str, str, str]]:
    """Return time, event and text of what the executor told about this try."""
    query = (
        select(Log.dttm, Log.event, Log.extra)
        .filter_by(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=ti.map_index)
        .where(Log.try_number == ti.try_number, Log.event.in_(_EVENTS))
        .order_by(Log.dttm)
    )
    return [(f"{when:%Y-%m-%d %H:%M:%S}", event, _shown(extra or "")) for when, event, extra in session.execute(query)]


def _page(ti: TaskInstance, text: str, problem: str, told: Iterable[tuple[str, str, str]]) -> str:
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in told)
    parts = [f"<h3>What happened to its pod</h3><table>{rows}</table>"] if rows else []
    parts.append(f"<h3>Pod of try {ti.try_number}</h3>")
    if problem:
        parts.append(
            f"<p>No pod can be made of this task, as this API server's configuration has it:</p>{_pre(problem)}"
        )
    else:
        parts.append("<p>As the executor makes it under this API server's configuration; the name of the Secret is a")
        parts.append(f" placeholder.</p>{_pre(text)}")
    return f"<!doctype html><meta charset=utf-8><title>Pod</title><style>{_STYLE}</style>{''.join(parts)}"


def _pre(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"
