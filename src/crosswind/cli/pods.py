"""``crosswind pods``: the pods of tasks, before they run and while they run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crosswind.cli import output_files
from crosswind.cli.parameter_types import NamedPath
from crosswind.cli.pod_delete import delete
from crosswind.cli.pod_describe import describe
from crosswind.cli.pod_list import list_pods
from crosswind.cli.pod_logs import logs
from crosswind.cli.pod_warm import warm
from crosswind.cli.pod_watch import watch
from crosswind.errors import counted

if TYPE_CHECKING:
    from crosswind.provider.rendered_spec import RenderedPod

__all__ = ["pods"]

MARK_LINE = "# Written by crosswind pods render. Changes are lost: change the DAG, or Airflow's configuration.\n"
MARK = output_files.line_mark("crosswind pods render", MARK_LINE)


@click.group()
def pods() -> None:
    """Operate the pods of tasks in a cluster, or show them before they run."""


for _command in (list_pods, watch, describe, logs, warm, delete):
    pods.add_command(_command)


@pods.command()
@click.argument("target", metavar="DAG_FILE|DAG_ID")
@click.option("--task", metavar="ID", help="Render only this task.")
@click.option("--map-index", type=click.IntRange(0), metavar="N", help="Index to render of mapped tasks; default 0.")
@click.option(
    "--server-version",
    default="1.29",
    show_default=True,
    metavar="MAJOR.MINOR",
    help="Version of the API server to assume.",
)
@click.option("--team", metavar="NAME", help="Use the options of this team ([core] multi_team).")
@click.option(
    "-o",
    "--output",
    "folder",
    type=NamedPath(file_okay=False, path_type=Path),
    help="Folder for files DAG/TASK.yaml; without it, print YAML. json: print JSON (name such a folder ./json).",
)
@click.pass_context
def render(
    ctx: click.Context,
    target: str,
    task: str | None,
    map_index: int | None,
    server_version: str,
    team: str | None,
    folder: Path | None,
) -> None:
    """Write the pod of every task as YAML, without a cluster.

    DAG_FILE is one file; DAG_ID is searched in the configured DAG bundles. The pods follow the Airflow configuration of
    this machine, as those of the executor do. Values that exist only in a run, such as its id, are placeholders.

    Exit codes: 0 all pods were rendered, 1 some were not, 2 the configuration is wrong or there is no such DAG.
    """
    version = re.fullmatch(r"(\d+)\.(\d+)", server_version)
    if version is None:
        raise click.BadParameter(f"{server_version!r} is not of the form 1.29", param_hint="--server-version")
    from crosswind.provider.rendered_spec import render_pods  # imports Airflow

    numbers = int(version[1]), int(version[2])
    rendering = render_pods(target, task_id=task, map_index=map_index, server_version=numbers, team=team)
    if str(folder) == "json":
        click.echo(json.dumps([_as_json(rendered) for rendered in rendering.pods], indent=2, default=str))
    elif folder is None:
        click.echo("---\n".join(_yaml(rendered) for rendered in rendering.pods), nl=False)
    else:
        _write(folder, rendering.pods)
        click.echo(f"{counted(len(rendering.pods), 'pod')} written to {folder}")
    for skipped in rendering.skipped:
        click.echo(f"no pod: {skipped}", err=True)
    for problem in rendering.problems:
        click.echo(f"crosswind: {problem}", err=True)
    ctx.exit(1 if rendering.problems else 0)


def _as_json(rendered: RenderedPod) -> dict[str, Any]:
    index = None if rendered.map_index < 0 else rendered.map_index
    return {"dag_id": rendered.dag_id, "task_id": rendered.task_id, "map_index": index, "pod": rendered.pod}


def _yaml(rendered: RenderedPod) -> str:
    import yaml

    # Through JSON: YAML would write parts that pods share as anchors, and refuse an author's own subclass of str.
    text: str = yaml.safe_dump(json.loads(json.dumps(rendered.pod, default=str)), sort_keys=False, allow_unicode=True)
    return text


def _write(folder: Path, rendered: list[RenderedPod]) -> None:
    files = {_path(pod): f"{MARK_LINE}{_yaml(pod)}" for pod in rendered}
    output_files.check_tree(folder, files, MARK)
    for path, text in files.items():
        output_files.write(folder / path, text.encode(), MARK)


def _path(rendered: RenderedPod) -> str:
    index = "" if rendered.map_index < 0 else f".{rendered.map_index}"
    return f"{rendered.dag_id}/{rendered.task_id}{index}.yaml"
