"""``crosswind render``: from a values file to manifests."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crosswind import ownership
from crosswind.counting import counted
from crosswind.errors import ConfigError
from crosswind.regular_files import read_text

if TYPE_CHECKING:
    from crosswind.deploy.objects import Rendered
    from crosswind.deploy.values import Values
    from crosswind.kube.client import Client
    from crosswind.types import Manifest

__all__ = ["look", "read", "render"]

MARK_LINE = "# Written by crosswind render. Changes are lost: change the values file.\n"
MARK = ownership.line_mark("crosswind render", MARK_LINE)

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("values", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "-o",
    "--output",
    "folder",
    type=_FOLDER,
    help="Folder to write the tree to; printed by default. json: print JSON (a folder of that name is ./json).",
)
@click.option("--explain", is_flag=True, help="Walk through the objects instead, in the order of their dependence.")
@click.option(
    "--diff", is_flag=True, help="Show what would change in FOLDER, or with a context in the cluster; 1 if so."
)
@click.option("--helm-values", is_flag=True, help="Print the same as values for Airflow's official Helm chart, 1.22.")
@click.option("--context", help="Context of the kubeconfig, for --diff.")
@click.option("--kubeconfig", help="Path of the kubeconfig, for --diff.")
def render(values: str, folder: Path | None, explain: bool, diff: bool, helm_values: bool, **reach: str | None) -> None:
    """Write the Kubernetes manifests of the deployment that the file VALUES describes.

    One object per file, each with its reason as a comment: kubectl apply -f FOLDER --recursive. Files of an earlier
    run that are no longer needed are removed; files that this command has not written are never touched.
    """
    from crosswind.deploy import tree

    as_json = str(folder) == "json"
    folder = None if as_json else folder
    given = read(values, folder)
    objects = tree.render(given)
    _warn(given)
    if explain:
        from crosswind.deploy import explanations

        click.echo_via_pager("\n".join(explanations.explain(given, objects)) + "\n")
        return
    if helm_values:
        click.echo(_helm_json(given) if as_json else _helm_text(given), nl=False)
        return
    if diff:
        lines = _file_diff(objects, folder) if folder else _cluster_diff(objects, reach)
        click.echo(json.dumps(lines, indent=2) + "\n" if as_json else "".join(f"{line}\n" for line in lines), nl=False)
        click.get_current_context().exit(1 if lines else 0)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in objects], indent=2))
        return
    if folder is None:
        click.echo(
            "---\n".join(text for path, text in tree.files(objects).items() if path != tree.KUSTOMIZATION), nl=False
        )
        return
    removed = _write(folder, _marked(tree.files(objects)))
    click.echo(f"{counted(len(objects), 'object')} written to {folder}" + (f", {removed} removed" if removed else ""))


def read(values: str, folder: Path | None = None) -> Values:
    """Return what a values file says; "-" is standard input. ``folder``: where it has been rendered to before."""
    from crosswind.deploy.values_file import read_values

    given = read_values(read_text(values, what="values file", pipes=True), values)
    return given.with_workers_apart(False) if folder and _shared_before(folder, given.namespace) else given


def _shared_before(folder: Path, namespace: str) -> bool:
    """Return whether an earlier run rendered workers into the namespace of everything else."""
    path = folder / "configmap.yaml"
    if not path.is_file():
        return False
    text = read_text(path)
    return text.startswith(MARK_LINE) and f"\n    namespace = {namespace}\n" in text


def _warn(values: Values) -> None:
    from crosswind.deploy.values_file import shared_namespace

    if warning := shared_namespace(values):
        click.echo(f"Warning: {warning}", err=True)


def _helm_text(values: Values) -> str:
    from crosswind.deploy import helm
    from crosswind.deploy.objects import as_yaml

    missing = "".join(f"# - {line}\n" for line in helm.inexpressible(values))
    head = (
        f"# helm install {values.name} apache-airflow/airflow --version 1.22.0 --namespace {values.namespace} -f FILE\n"
    )
    return f"{head}# What the chart cannot express:\n{missing}{as_yaml(helm.helm_values(values))}"


def _helm_json(values: Values) -> str:
    from crosswind.deploy import helm

    content = {"values": helm.helm_values(values), "inexpressible": [*helm.inexpressible(values)]}
    return json.dumps(content, indent=2) + "\n"


def _file_diff(objects: list[Rendered], folder: Path) -> list[str]:
    from crosswind.deploy import differences, tree

    files = _marked(tree.files(objects))
    paths = {*files, *_earlier(folder)}
    present = {path: read_text(folder / path) for path in paths if (folder / path).is_file()}
    return [*differences.file_differences(files, present)]


def _cluster_diff(objects: list[Rendered], reach: dict[str, str | None]) -> list[str]:
    from crosswind.deploy import differences

    lives = asyncio.run(_live([one.manifest for one in objects], reach))
    pairs = zip(objects, lives, strict=True)
    return [line for one, live in pairs for line in differences.object_differences(one.manifest, live)]


async def _live(manifests: list[Manifest], reach: dict[str, str | None]) -> list[Manifest | None]:
    """Read the objects as they are in the cluster; None for those that are not there."""
    from crosswind.kube.client import Client
    from crosswind.settings import KubeSettings

    async with await Client.connect(KubeSettings(kubeconfig=reach["kubeconfig"], context=reach["context"])) as client:
        return list(await asyncio.gather(*(look(client, manifest) for manifest in manifests)))


async def look(client: Client, manifest: Manifest) -> Manifest | None:
    """Return a rendered object as the cluster has it; None if it is not there."""
    from crosswind.errors import NotFound
    from crosswind.kube.resources import resource_of

    namespace = manifest["metadata"].get("namespace")
    try:
        return await client.get(resource_of(manifest), manifest["metadata"]["name"], namespace=namespace)
    except NotFound:
        return None


def _marked(files: dict[str, str]) -> dict[str, str]:
    return {path: MARK_LINE + text for path, text in files.items()}


def _write(folder: Path, files: dict[str, str]) -> int:
    """Write the tree; return how many files of an earlier one were removed. Nothing is written if one is not ours."""
    ownership.check_tree(folder, files, MARK)
    stale = [path for path in _earlier(folder) if path not in files]
    for path, text in files.items():
        ownership.write(folder / path, text.encode(), MARK)
    return sum(ownership.remove(folder / path, MARK) for path in stale)


def _earlier(folder: Path) -> list[str]:
    """Return the files of the tree that is there: those that its list names."""
    from crosswind.bounded_yaml import parse
    from crosswind.deploy.tree import KUSTOMIZATION

    try:
        tree = parse(read_text(folder / KUSTOMIZATION), KUSTOMIZATION)
    except ConfigError:
        return []
    listed = tree.get("resources") if isinstance(tree, dict) else None
    inside = folder.resolve()
    paths = [str(path) for path in listed] if isinstance(listed, list) else []
    return [path for path in paths if (folder / path).resolve().is_relative_to(inside)]
