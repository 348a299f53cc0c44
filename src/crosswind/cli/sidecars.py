"""``crosswind sidecars``: how the sidecars of a pod end, and which are known."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crosswind.errors import ConfigError
from crosswind.pods.known_sidecars import KNOWN, KnownSidecar
from crosswind.pods.stop_checks import moment
from crosswind.pods.stop_plans import Abilities, Step, StopPlan, plan_stop
from crosswind.regular_files import read_text
from crosswind.types import Manifest

if TYPE_CHECKING:
    from crosswind.kube.client import Client

__all__ = ["sidecars"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_SETS = {"none": Abilities.NONE, "A": Abilities.A, "B": Abilities.B, "C": Abilities.C}
_OUTPUT = click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
_OWN = click.option("--sidecars-file", type=_FILE, help="YAML file of further sidecars, as [crosswind] sidecars_file.")


@click.group()
def sidecars() -> None:
    """How the sidecars of a pod end, and which are known."""


@sidecars.command(name="list")
@_OWN
@_OUTPUT
def list_known(sidecars_file: Path | None, output: str) -> None:
    """Print the sidecars that are known: how each is recognised and told to end."""
    known = _known(sidecars_file)
    if output == "json":
        click.echo(json.dumps([dataclasses.asdict(one) for one in known], indent=2))
        return
    rows = [(one.name, ", ".join(one.containers), "\n".join(one.images), _told(one), one.note) for one in known]
    _print_table(("sidecar", "container", "image", "told by", "notes"), rows)


@sidecars.command()
@click.argument("pod", required=False)
@click.option("-f", "--file", type=click.Path(allow_dash=True, dir_okay=False), help="Read the pod from a YAML file.")
@click.option("-n", "--namespace", help="Namespace of the pod; the context's by default.")
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--kubeconfig", help="Path of the kubeconfig.")
@click.option("--base", default="base", show_default=True, help="Container that does the work.")
@click.option(
    "--permissions",
    type=click.Choice(["ask", *_SETS]),
    default="ask",
    show_default=True,
    help="Set of permissions to plan with; by default those that the cluster says you have, C for a file.",
)
@click.option("--swap-image", default="", help="Image that may be swapped in.")
@click.option("--delete/--keep", default=False, show_default=True, help="Whether the pod may be deleted at last.")
@_OWN
@_OUTPUT
def explain(pod: str | None, file: str | None, output: str, sidecars_file: Path | None, **given: Any) -> None:
    """Print how the sidecars of POD end once its base container has: each step, its deadline, and why."""
    if (pod is None) == (file is None):
        raise click.UsageError("name a pod, or give -f FILE")
    if file is not None:
        manifest, abilities, version = _read(file), Abilities.C, None
    else:
        manifest, abilities, version = asyncio.run(_fetch(str(pod), given))
    chosen = _SETS.get(given["permissions"], abilities)
    plan = plan_stop(
        manifest,
        base=given["base"],
        abilities=chosen,
        version=version,
        known=_known(sidecars_file),
        swap_image=given["swap_image"],
        delete=given["delete"],
    )
    waits = [*moment(manifest, given["base"])] if manifest.get("status") else []
    if output == "json":
        click.echo(json.dumps(_as_json(plan, chosen, waits), indent=2))
    else:
        _print_plan(manifest, plan, chosen, waits)


def _known(file: Path | None) -> tuple[KnownSidecar, ...]:
    if file is None:
        return KNOWN
    from crosswind.pods.declared_sidecars import parse_sidecars

    return (*parse_sidecars(read_text(file, pipes=True), str(file)), *KNOWN)


def _read(file: str) -> Manifest:
    from crosswind.bounded_yaml import parse

    pod = parse(read_text(file, pipes=True), file, "the Pod")
    if not isinstance(pod, dict) or pod.get("kind", "Pod") != "Pod" or not isinstance(pod.get("spec"), dict):
        raise ConfigError(f"{file}: is not one Pod; write kind: Pod with its spec")
    return pod


async def _fetch(name: str, given: dict[str, Any]) -> tuple[Manifest, Abilities, tuple[int, int] | None]:
    """Read the pod, what may be done to it, and the server's version."""
    from crosswind.kube.client import Client
    from crosswind.kube.kubeconfigs import read
    from crosswind.kube.resources import PODS
    from crosswind.runs.checking import server_version
    from crosswind.settings import KubeSettings

    settings = KubeSettings(kubeconfig=given["kubeconfig"], context=given["context"])
    namespace = given["namespace"]
    if namespace is None:
        namespace = read(settings.kubeconfig, settings.context).namespace or "default"
    async with await Client.connect(settings) as client:
        pod = await client.get(PODS, name, namespace=namespace)
        abilities = await _abilities(client, namespace) if given["permissions"] == "ask" else Abilities.NONE
        return pod, abilities, await server_version(client)


async def _abilities(client: Client, namespace: str) -> Abilities:
    from crosswind.runs.ending import abilities

    return await abilities(client, namespace)


def _told(known: KnownSidecar) -> str:
    lines = [f"left to {known.owner}"] if known.owner else []
    lines += [f"{ask.method} :{ask.port.default}{ask.path.default}" for ask in known.asks]
    lines += [" ".join(known.client)] if known.client else []
    lines += [f"{known.signal} by a shell"] if known.signal and known.shells else []
    return "\n".join(lines or ["nothing: swapped or deleted"])


def _as_json(plan: StopPlan, abilities: Abilities, waits: list[str]) -> dict[str, Any]:
    targets = [
        {**dataclasses.asdict(one), "group": number} for number, group in enumerate(plan.groups) for one in group
    ]
    return {
        "permissions": [str(one.name).lower() for one in abilities],
        "waits_for": waits,
        "targets": targets,
        "last": dataclasses.asdict(plan.last),
        "untouched": dict(plan.untouched),
    }


def _print_plan(pod: Manifest, plan: StopPlan, abilities: Abilities, waits: list[str]) -> None:
    names = ", ".join(str(one.name).lower() for one in abilities) or "none"
    metadata = pod.get("metadata") or {}
    click.echo(f"Pod {metadata.get('namespace', 'default')}/{metadata.get('name', '?')}; permissions: {names}")
    for reason in waits:
        click.echo(f"Not yet: {reason}.")
    for name, why in plan.untouched:
        click.echo(f"Container {name}: {why}.")
    if plan.targets:
        _print_table(("", "container", "step", "at most", "why"), _rows(plan))
    else:
        click.echo("Nothing to end.")
    for target in plan.targets:
        for hint in target.hints:
            click.echo(f"Easier ({target.container}): {hint}.")


def _rows(plan: StopPlan) -> list[tuple[str, ...]]:
    rows, number = [], 0
    for target in plan.targets:
        name = f"{target.container}\n({target.product or 'unknown'}, {target.role})"
        for step in target.steps:
            number += not step.skip
            rows.append(_row(step, number, name))
            name = ""
    return [*rows, _row(plan.last, number + 1, "the pod")]


def _row(step: Step, number: int, name: str) -> tuple[str, ...]:
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
