"""Crosswind's pages in Airflow's UI: the tab *Pod* of a task instance, the page of the fleet and the dashboard's card.

Each exists twice: as JSON for the components in ``pages/crosswind.js``, which Airflow's UI renders, and as plain HTML
for frames and browsers that run no scripts. Who may not read a DAG's task instances sees nothing of its pods.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Annotated

from airflow._shared.secrets_masker import redact, should_hide_value_for_key
from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.configuration import conf
from airflow.executors.executor_loader import ExecutorLoader
from airflow.models.dag import DagModel
from airflow.models.taskinstance import TaskInstance
from fastapi import Depends, FastAPI, HTTPException, Query, Response
from fastapi.responses import FileResponse, HTMLResponse, ORJSONResponse
from sqlalchemy import select

from crosswind.errors import CrosswindError
from crosswind.pods.injected_lines import YamlLine, yaml_lines
from crosswind.pods.masking import is_sensitive, mask_pod, mask_text
from crosswind.provider.fleet_page import MAX_PER_PAGE, FleetQuery, read_fleet_page, read_summary
from crosswind.provider.page_content import TaskTab
from crosswind.provider.page_html import fleet_html, tab_html
from crosswind.provider.pod_page import read_tab
from crosswind.provider.rendered_spec import render_task_instance
from crosswind.types import Manifest

__all__ = ["app"]

_EXECUTOR = "crosswind.executor.KubernetesExecutor"
_PAGES = Path(__file__).with_name("pages")
_TYPES = {"crosswind.js": "text/javascript", "crosswind.css": "text/css"}
_NOTE = "As the executor creates it with the configuration of this API server; the name of the Secret is a placeholder."

app = FastAPI(title="Crosswind", openapi_url=None, default_response_class=ORJSONResponse)

_MAY_READ = Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE))
"""For a page that names a DAG: of this DAG. For the fleet: of any."""


class _PodOfTask:
    """The task instance that a request names, if its task runs in Crosswind's executor."""

    def __init__(self, session: SessionDep, dag_id: str, run_id: str, task_id: str, map_index: str = "-1") -> None:
        self.session = session
        self.ti = _task_instance(session, dag_id, run_id, task_id, map_index)
        self.team = DagModel.get_team_name(dag_id, session=session) if conf.getboolean("core", "multi_team") else None
        if other := _other_executor(self.ti, self.team):
            raise HTTPException(404, f"This task runs in {other}, not in {_EXECUTOR}")

    def tab(self) -> TaskTab:
        """Return what the tab shows."""
        return read_tab(self.session, self.ti, _mask_text)

    def manifest(self) -> tuple[Manifest | None, str]:
        """Return the pod's manifest without secrets, or None and why the task gets no pod."""
        try:
            return _mask_manifest(render_task_instance(self.ti, self.team)), ""
        except CrosswindError as error:
            return None, _mask_text(str(error))

    def lines(self, tab: TaskTab) -> tuple[list[YamlLine], str]:
        """Return the manifest's lines, those that the newest pod had in the cluster alone marked, and a remark."""
        manifest, problem = self.manifest()
        if manifest is None:
            return [], f"With the configuration of this API server the task gets no pod: {problem}"
        pod = next((pod for pod in tab["pods"] if pod["containers"] or pod["added"]), None)
        containers, added = (pod["containers"], pod["added"]) if pod else ((), ())
        return yaml_lines(manifest, containers, added, _redact), _NOTE


_TheTask = Annotated[_PodOfTask, Depends()]


@app.get("/api/pod", dependencies=[_MAY_READ])
def pod_json(task: _TheTask) -> ORJSONResponse:
    """Return what the tab of a task instance shows."""
    return ORJSONResponse(task.tab())


@app.get("/api/pod/manifest", dependencies=[_MAY_READ])
def manifest_json(task: _TheTask) -> ORJSONResponse:
    """Return the lines of the pod's manifest."""
    lines, note = task.lines(task.tab())
    return ORJSONResponse({"lines": [[line.text, line.injected] for line in lines], "note": note})


@app.get("/pod", dependencies=[_MAY_READ])
def pod(task: _TheTask, format: Annotated[str, Query(pattern="html|yaml")] = "html") -> Response:
    """Show the tab of a task instance without scripts, or its manifest alone."""
    if format == "yaml":
        manifest, problem = task.manifest()
        if manifest is None:
            return Response(f"# {problem}\n", 422, media_type="application/yaml")
        text = "".join(f"{line.text}\n" for line in yaml_lines(manifest, redact=_redact))
        return Response(text, media_type="application/yaml")
    tab = task.tab()
    return HTMLResponse(tab_html(tab, *task.lines(tab), _style()))


class _Fleet:
    """What a request asks of the fleet, and the DAGs that its user may read."""

    def __init__(
        self,
        user: GetUserDep,
        phase: str = "",
        queue: str = "",
        namespace: str = "",
        dag_id: str = "",
        reason: str = "",
        search: str = "",
        sort: str = "",
        limit: Annotated[int, Query(ge=1, le=MAX_PER_PAGE)] = 50,
        offset: Annotated[int | str, Query()] = 0,
    ) -> None:
        self.readable = get_auth_manager().get_authorized_dag_ids(user=user, method="GET")
        skip = int(offset) if str(offset).isdecimal() else 0
        self.query = FleetQuery(phase, queue, namespace, dag_id, reason, search, sort, limit, skip)


_TheFleet = Annotated[_Fleet, Depends()]


@app.get("/api/fleet", dependencies=[_MAY_READ])
def fleet_json(fleet: _TheFleet) -> ORJSONResponse:
    """Return the page of the fleet."""
    return ORJSONResponse(read_fleet_page(fleet.readable, fleet.query))


@app.get("/api/fleet/summary", dependencies=[_MAY_READ])
def summary_json(fleet: _TheFleet) -> ORJSONResponse:
    """Return what the dashboard's card shows."""
    return ORJSONResponse(read_summary(fleet.readable))


@app.get("/fleet", dependencies=[_MAY_READ])
def fleet_page(fleet: _TheFleet) -> HTMLResponse:
    """Show the page of the fleet without scripts."""
    names = ("phase", "queue", "namespace", "dag_id", "reason", "search", "sort", "offset")
    query = {name: str(value) for name in names if (value := getattr(fleet.query, name))}
    return HTMLResponse(fleet_html(read_fleet_page(fleet.readable, fleet.query), query, _style()))


@app.get("/static/{name}")
def static(name: str) -> Response:
    """Return a file of the pages. It is the same for everybody, as Airflow's own scripts are."""
    if name not in _TYPES:
        raise HTTPException(404, "There is no such file")
    return FileResponse(
        _PAGES / name, media_type=_TYPES[name], headers={"Cache-Control": "max-age=31536000, immutable"}
    )


@functools.cache
def _style() -> str:
    return (_PAGES / "crosswind.css").read_text()


def _task_instance(session: SessionDep, dag_id: str, run_id: str, task_id: str, map_index: str) -> TaskInstance:
    # The UI replaces the placeholder of the index for mapped tasks only.
    index = int(map_index) if map_index.lstrip("-").isdigit() else -1
    query = select(TaskInstance).filter_by(dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=index)
    ti = session.scalar(query)
    if ti is None:
        raise HTTPException(404, f"There is no task instance {dag_id}.{task_id} in run {run_id}")
    assert isinstance(ti, TaskInstance)
    return ti


def _other_executor(ti: TaskInstance, team: str | None) -> str:
    """Return the executor that runs a task if it is not Crosswind's, else ""."""
    if ti.executor:
        name = ExecutorLoader.lookup_executor_name_by_str(ti.executor, team, validate_teams=False)
    else:
        name = ExecutorLoader.get_default_executor_name(team)
    return "" if name.module_path == _EXECUTOR else str(name.alias or name.module_path)


def _mask_manifest(manifest: Manifest) -> Manifest:
    """Return a copy without values that Airflow's masker or Crosswind's takes for secrets."""
    return mask_pod(json.loads(json.dumps(manifest, default=str)), _is_secret_name)


def _is_secret_name(name: str) -> bool:
    # The API server's masker. ``provider.redaction`` asks the Task SDK's, another object with its own configuration.
    return is_sensitive(name) or bool(should_hide_value_for_key(name))  # type: ignore[no-untyped-call]  # Airflow's gap


def _mask_text(text: str) -> str:
    """Return a text without secrets: values that Airflow has registered, and values under sensitive names."""
    return mask_text(_redact(text), _is_secret_name)


def _redact(text: str) -> str:
    return str(redact(text))
