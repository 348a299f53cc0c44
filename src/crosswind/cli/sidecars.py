"""``crosswind sidecars``: lists the known sidecars, and explains how those of a pod are stopped."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crosswind.documents import read_text
from crosswind.errors import ConfigError
from crosswind.sidecars.catalog import KNOWN, KnownSidecar
from crosswind.sidecars.safety_checks import timing_objections
from crosswind.sidecars.shutdown_plan import Permissions, ShutdownPlan, ShutdownStep, plan_shutdown
from crosswind.types import Manifest

if TYPE_CHECKING:
    from crosswind.kube.client import Client

__all__ = ["sidecars"]

_FILE_PATH = click.Path(exists=True, dir_okay=False, path_type=Path)
_PERMISSION_SETS = {"none": Permissions.NONE, "A": Permissions.A, "B": Permissions.B, "C": Permissions.C}
_OUTPUT = click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
_SIDECARS_FILE = click.option(
    "--sidecars-file", type=_FILE_PATH, help="YAML file of further sidecars, as in [crosswind] sidecars_file."
)


@click.group()
def sidecars() -> None:
    """List the known sidecars, and explain how those of a pod are stopped."""


@sidecars.command(name="list")
@_SIDECARS_FILE
@_OUTPUT
def list_known(sidecars_file: Path | None, output: str) -> None:
    """Print the known sidecars: how each is recognised and stopped."""
    catalog = _catalog(sidecars_file)
    if output == "json":
        click.echo(json.dumps([dataclasses.asdict(known) for known in catalog], indent=2))
        return
    rows = [
        (known.name, ", ".join(known.containers), "\n".join(known.images), _stop_methods(known), known.note)
        for known in catalog
    ]
    _print_table(("sidecar", "container", "image", "stopped by", "notes"), rows)


@sidecars.command()
@click.argument("pod", required=False)
@click.option("-f", "--file", type=click.Path(allow_dash=True, dir_okay=False), help="Read the pod from a YAML file.")
@click.option("-n", "--namespace", help="Namespace of the pod; by default that of the context.")
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--kubeconfig", help="Path of the kubeconfig.")
@click.option("--base", default="base", show_default=True, help="Container that does the work.")
@click.option(
    "--permissions",
    type=click.Choice(["ask", *_PERMISSION_SETS]),
    default="ask",
    show_default=True,
    help="Permissions to plan with. ask: those that the cluster grants you; for a file, C.",
)
@click.option("--swap-image", default="", help="Image that may replace a sidecar's image.")
@click.option(
    "--delete/--keep", default=False, show_default=True, help="Whether the plan may delete the pod as its last step."
)
@_SIDECARS_FILE
@_OUTPUT
def explain(pod: str | None, file: str | None, output: str, sidecars_file: Path | None, **options: Any) -> None:
    """Print the plan that stops the sidecars of POD after its base container: steps, deadlines and reasons."""
    if (pod is None) == (file is None):
        raise click.UsageError("name a pod, or give -f FILE, not both")
    if file is not None:
        manifest, permissions, version = _read(file), Permissions.C, None
    else:
        manifest, permissions, version = asyncio.run(_fetch(str(pod), options))
    chosen = _PERMISSION_SETS.get(options["permissions"], permissions)
    plan = plan_shutdown(
        manifest,
        base=options["base"],
        permissions=chosen,
        version=version,
        known=_catalog(sidecars_file),
        swap_image=options["swap_image"],
        delete=options["delete"],
    )
    waits = [*timing_objections(manifest, options["base"])] if manifest.get("status") else []
    if output == "json":
        click.echo(json.dumps(_as_json(plan, chosen, waits), indent=2))
    else:
        _print_plan(manifest, plan, chosen, waits)


def _catalog(file: Path | None) -> tuple[KnownSidecar, ...]:
    if file is None:
        return KNOWN
    from crosswind.sidecars.user_catalog import parse_sidecars

    return (*parse_sidecars(read_text(file, pipes=True), str(file)), *KNOWN)


def _read(file: str) -> Manifest:
    from crosswind.documents import parse

    pod = parse(read_text(file, pipes=True), file, "the Pod")
    if not isinstance(pod, dict) or pod.get("kind", "Pod") != "Pod" or not isinstance(pod.get("spec"), dict):
        raise ConfigError(f"{file}: is not one Pod; write kind: Pod with its spec")
    return pod


async def _fetch(name: str, options: dict[str, Any]) -> tuple[Manifest, Permissions, tuple[int, int] | None]:
    """Return the pod, the permissions of the user on it, and the server's version."""
    from crosswind.engine.preflight import server_version
    from crosswind.kube.client import Client
    from crosswind.kube.kubeconfigs import read
    from crosswind.kube.resources import PODS
    from crosswind.settings import KubeSettings

    settings = KubeSettings(kubeconfig=options["kubeconfig"], context=options["context"])
    namespace = options["namespace"]
    if namespace is None:
        namespace = read(settings.kubeconfig, settings.context).namespace or "default"
    async with await Client.connect(settings) as client:
        pod = await client.get(PODS, name, namespace=namespace)
        permissions = await _permissions(client, namespace) if options["permissions"] == "ask" else Permissions.NONE
        return pod, permissions, await server_version(client)


async def _permissions(client: Client, namespace: str) -> Permissions:
    from crosswind.sidecars.shutdown import granted_permissions

    return await granted_permissions(client, namespace)


def _stop_methods(known: KnownSidecar) -> str:
    lines = [f"left to {known.owner}"] if known.owner else []
    lines += [f"{ask.method} :{ask.port.default}{ask.path.default}" for ask in known.asks]
    lines += [" ".join(known.client)] if known.client else []
    lines += [f"{known.signal} by a shell"] if known.signal and known.shells else []
    return "\n".join(lines or ["nothing: its image is swapped, or the pod deleted"])


def _as_json(plan: ShutdownPlan, permissions: Permissions, waits: list[str]) -> dict[str, Any]:
    targets = [
        {**dataclasses.asdict(target), "group": number} for number, group in enumerate(plan.groups) for target in group
    ]
    return {
        "permissions": [str(permission.name).lower() for permission in permissions],
        "waits_for": waits,
        "targets": targets,
        "last": dataclasses.asdict(plan.last),
        "untouched": dict(plan.untouched),
    }


def _print_plan(pod: Manifest, plan: ShutdownPlan, permissions: Permissions, waits: list[str]) -> None:
    names = ", ".join(str(permission.name).lower() for permission in permissions) or "none"
    metadata = pod.get("metadata") or {}
    click.echo(f"Pod {metadata.get('namespace', 'default')}/{metadata.get('name', '?')}; permissions: {names}")
    for reason in waits:
        click.echo(f"Not yet: {reason}.")
    for name, reason in plan.untouched:
        click.echo(f"Container {name}: {reason}.")
    if plan.targets:
        _print_table(("", "container", "step", "at most", "why"), _rows(plan))
    else:
        click.echo("No sidecar to stop.")
    for target in plan.targets:
        for hint in target.hints:
            click.echo(f"Easier ({target.container}): {hint}.")


def _rows(plan: ShutdownPlan) -> list[tuple[str, ...]]:
    rows, number = [], 0
    for target in plan.targets:
        name = f"{target.container}\n({target.product or 'unknown'}, {target.role})"
        for step in target.steps:
            number += not step.skip
            rows.append(_row(step, number, name))
            name = ""
    return [*rows, _row(plan.last, number + 1, "the pod")]


def _row(step: ShutdownStep, number: int, name: str) -> tuple[str, ...]:
    if step.skip:
        return ("-", name, str(step), "", f"left out: {step.skip}")
    return (str(number), name, str(step), f"{step.deadline:g} s", step.reason)


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in head:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style="dim" if row[0] == "-" else "") for cell in row))
    Console(highlight=False).print(table)
