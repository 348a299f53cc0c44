"""``crosswind render``: writes the manifests of a values file."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crosswind.cli import output_files
from crosswind.cli.parameter_types import NamedPath
from crosswind.documents import read_text
from crosswind.errors import ConfigError, counted

if TYPE_CHECKING:
    from crosswind.deploy.objects import RenderedObject
    from crosswind.deploy.values import Values
    from crosswind.kube.client import Client
    from crosswind.types import Manifest

__all__ = ["live_object", "read", "render"]

MARK_LINE = "# Written by crosswind render. Changes are lost: change the values file.\n"
MARK = output_files.line_mark("crosswind render", MARK_LINE)

_FOLDER = NamedPath(file_okay=False, path_type=Path)


@click.command()
@click.argument("values", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "-o",
    "--output",
    "folder",
    type=_FOLDER,
    help="Folder to write to; without it, print YAML. json: print JSON (name such a folder ./json).",
)
@click.option("--explain", is_flag=True, help="Explain the objects instead, each after those that it depends on.")
@click.option(
    "--diff", is_flag=True, help="Show the changes to FOLDER, or to the cluster; exit code 1 if there are any."
)
@click.option("--helm-values", is_flag=True, help="Print equivalent values for Airflow's official Helm chart 1.22.")
@click.option("--context", help="Context of the kubeconfig, for --diff.")
@click.option("--kubeconfig", help="Path of the kubeconfig, for --diff.")
def render(values: str, folder: Path | None, explain: bool, diff: bool, helm_values: bool, **reach: str | None) -> None:
    """Write the Kubernetes manifests of the deployment that the file VALUES describes.

    Writes one object per file, with its purpose as a comment; apply them by kubectl apply -f FOLDER --recursive.
    Removes files of an earlier run that are not needed any longer. Never touches files that this command did not write.
    """
    from crosswind.deploy import tree

    as_json = str(folder) == "json"
    _refuse_unused_output(folder, explain=explain, helm_values=helm_values and not as_json)
    folder = None if as_json else folder
    parsed = read(values, folder)
    objects = tree.render(parsed)
    _warn_of_shared_namespace(parsed)
    if explain:
        _explain(parsed, objects)
    elif helm_values:
        click.echo(_helm_json(parsed) if as_json else _helm_text(parsed), nl=False)
    elif diff:
        lines = _file_diff(objects, folder) if folder else _cluster_diff(objects, reach)
        _print_diff(lines, as_json)
    elif as_json:
        click.echo(json.dumps([dataclasses.asdict(rendered) for rendered in objects], indent=2))
    elif folder is None:
        click.echo(_as_stream(objects), nl=False)
    else:
        removed = _write(folder, _marked(tree.files(objects)))
        suffix = f", {removed} removed" if removed else ""
        click.echo(f"{counted(len(objects), 'object')} written to {folder}{suffix}")


def _refuse_unused_output(folder: Path | None, *, explain: bool, helm_values: bool) -> None:
    """Refuse ``--output`` beside an option that only prints: nothing would be written, and nothing would say so."""
    if folder and (explain or helm_values):
        option = "--explain" if explain else "--helm-values"
        raise click.UsageError(f"{option} prints only: leave out --output {folder}, or write: {option} > FILE")


def _explain(values: Values, objects: list[RenderedObject]) -> None:
    from crosswind.deploy import explanations

    click.echo_via_pager("\n".join(explanations.explain(values, objects)) + "\n")


def _as_stream(objects: list[RenderedObject]) -> str:
    """Return the objects as one stream of YAML documents."""
    from crosswind.deploy import tree

    return "---\n".join(text for path, text in tree.files(objects).items() if path != tree.KUSTOMIZATION)


def _print_diff(lines: list[str], as_json: bool) -> None:
    """Print a diff and exit: 1 if there are changes."""
    click.echo(json.dumps(lines, indent=2) + "\n" if as_json else "".join(f"{line}\n" for line in lines), nl=False)
    click.get_current_context().exit(1 if lines else 0)


def read(values: str, folder: Path | None = None) -> Values:
    """Return the values of a file; "-" is standard input. ``folder``: the folder of an earlier rendering, if any."""
    from crosswind.deploy.values_file import read_values

    parsed = read_values(read_text(values, what="values file", pipes=True), values)
    # Later versions put workers into a namespace of their own; a deployment that exists keeps its layout.
    return parsed.with_workers_apart(False) if folder and _shared_before(folder, parsed.namespace) else parsed


def _shared_before(folder: Path, namespace: str) -> bool:
    """Whether an earlier run rendered workers into the namespace of all other objects."""
    path = folder / "configmap.yaml"
    if not path.is_file():
        return False
    text = read_text(path)
    return text.startswith(MARK_LINE) and f"\n    namespace = {namespace}\n" in text


def _warn_of_shared_namespace(values: Values) -> None:
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


def _file_diff(objects: list[RenderedObject], folder: Path) -> list[str]:
    from crosswind.deploy import differences, tree

    files = _marked(tree.files(objects))
    paths = {*files, *_files_of_earlier_run(folder)}
    present = {path: read_text(folder / path) for path in paths if (folder / path).is_file()}
    return [*differences.file_differences(files, present)]


def _cluster_diff(objects: list[RenderedObject], reach: dict[str, str | None]) -> list[str]:
    from crosswind.deploy import differences

    live_objects = asyncio.run(_live([rendered.manifest for rendered in objects], reach))
    pairs = zip(objects, live_objects, strict=True)
    return [line for rendered, live in pairs for line in differences.object_differences(rendered.manifest, live)]


async def _live(manifests: list[Manifest], reach: dict[str, str | None]) -> list[Manifest | None]:
    """Return the objects as the cluster has them, None for each that does not exist."""
    from crosswind.kube.client import Client
    from crosswind.settings import KubeSettings

    async with await Client.connect(KubeSettings(kubeconfig=reach["kubeconfig"], context=reach["context"])) as client:
        return list(await asyncio.gather(*(live_object(client, manifest) for manifest in manifests)))


async def live_object(client: Client, manifest: Manifest) -> Manifest | None:
    """Return a rendered object as the cluster has it; None if it does not exist."""
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
    """Write the files; return how many files of an earlier run were removed.

    Checks all paths first, so that nothing is written if one holds a file that this command did not write.
    """
    output_files.check_tree(folder, files, MARK)
    stale = [path for path in _files_of_earlier_run(folder) if path not in files]
    for path, text in files.items():
        output_files.write(folder / path, text.encode(), MARK)
    return sum(output_files.remove(folder / path, MARK) for path in stale)


def _files_of_earlier_run(folder: Path) -> list[str]:
    """Return the files that the folder's kustomization lists."""
    from crosswind.deploy.tree import KUSTOMIZATION
    from crosswind.documents import parse

    try:
        kustomization = parse(read_text(folder / KUSTOMIZATION), KUSTOMIZATION)
    except ConfigError:
        return []
    listed = kustomization.get("resources") if isinstance(kustomization, dict) else None
    root = folder.resolve()
    paths = [str(path) for path in listed] if isinstance(listed, list) else []
    return [path for path in paths if (folder / path).resolve().is_relative_to(root)]
