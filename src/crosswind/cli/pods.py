"""``crosswind pods``: the pods of tasks before they run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crosswind import ownership
from crosswind.counting import counted

if TYPE_CHECKING:
    from crosswind.rendering import RenderedPod

__all__ = ["pods"]

MARK_LINE = "# Written by crosswind pods render. Changes are lost: change the DAG, or Airflow's configuration.\n"
MARK = ownership.line_mark("crosswind pods render", MARK_LINE)


@click.group()
def pods() -> None:
    """The pods that the executor makes of tasks."""


@pods.command()
@click.argument("target", metavar="DAG_FILE|DAG_ID")
@click.option("--task", metavar="ID", help="Only this task.")
@click.option("--map-index", type=click.IntRange(0), metavar="N", help="Index of mapped tasks; 0 by default.")
@click.option(
    "--server-version", default="1.29", show_default=True, metavar="MAJOR.MINOR", help="API server to assume."
)
@click.option("--team", metavar="NAME", help="Take the options of this team of [core] multi_team.")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write DAG/TASK.yaml to; printed by default. json: print JSON (a folder of that name is ./json).",
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

    DAG_FILE is one file, DAG_ID is looked for in the configured DAG bundles. Airflow's configuration of this machine
    decides, as it does for the executor. What only a run has, such as its id, is a placeholder.

    Exit codes: 0 all pods can be made, 1 not all, 2 the configuration is wrong or there is no such DAG.
    """
    version = re.fullmatch(r"(\d+)\.(\d+)", server_version)
    if version is None:
        raise click.BadParameter(f"{server_version!r} is not like 1.29", param_hint="--server-version")
    from crosswind.rendering import render_pods  # imports Airflow

    numbers = int(version[1]), int(version[2])
    rendering = render_pods(target, task_id=task, map_index=map_index, server_version=numbers, team=team)
    if str(folder) == "json":
        click.echo(json.dumps([_described(one) for one in rendering.pods], indent=2, default=str))
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


def _described(rendered: RenderedPod) -> dict[str, Any]:
    index = None if rendered.map_index < 0 else rendered.map_index
    return {"dag_id": rendered.dag_id, "task_id": rendered.task_id, "map_index": index, "pod": rendered.pod}


def _yaml(rendered: RenderedPod) -> str:
    import yaml

    # By way of JSON: parts that pods share would become anchors, and an author's str may be of a class of its own.
    text: str = yaml.safe_dump(json.loads(json.dumps(rendered.pod, default=str)), sort_keys=False, allow_unicode=True)
    return text


def _write(folder: Path, rendered: list[RenderedPod]) -> None:
    files = {_place(one): f"{MARK_LINE}{_yaml(one)}" for one in rendered}
    ownership.check_tree(folder, files, MARK)
    for path, text in files.items():
        ownership.write(folder / path, text.encode(), MARK)


def _place(rendered: RenderedPod) -> str:
    index = "" if rendered.map_index < 0 else f".{rendered.map_index}"
    return f"{rendered.dag_id}/{rendered.task_id}{index}.yaml"
