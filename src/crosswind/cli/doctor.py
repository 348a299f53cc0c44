"""``crosswind doctor``: checks whether a cluster has what a deployment needs."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import click

from crosswind.errors import ApiError, Unreachable

if TYPE_CHECKING:
    from crosswind.deploy.findings import Finding
    from crosswind.deploy.values import Values
    from crosswind.kube.client import Client

__all__ = ["doctor"]

_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@click.option("--values", "file", type=click.Path(exists=True, dir_okay=False), help="Values file of the deployment.")
@click.option(
    "-n", "--namespace", default="airflow", show_default=True, help="Namespace to check without a values file."
)
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--kubeconfig", help="Path of the kubeconfig.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def doctor(file: str | None, namespace: str, context: str | None, kubeconfig: str | None, output: str) -> None:
    """Check a cluster, before or after the manifests are applied, and print what to change.

    Each check is ok, warn or fail; a fail makes the exit code 1. Changes nothing in the cluster.
    """
    from crosswind.cli.render import read

    values = read(file) if file else _values_of(namespace)
    results = asyncio.run(_examine(values, context, kubeconfig, has_values=file is not None))
    if output == "json":
        click.echo(json.dumps([_as_json(finding) for finding in results], indent=2))
    else:
        for finding in results:
            level = click.style(finding.level.ljust(4), fg=_STYLES[finding.level])
            click.echo(f"{level}  {finding.check}: {finding.description}")
            if finding.fix:
                click.echo(f"      {finding.fix}")
    click.get_current_context().exit(1 if any(finding.level == "fail" for finding in results) else 0)


def _values_of(namespace: str) -> Values:
    """Return values that name only the namespace to check."""
    from pydantic import ValidationError

    from crosswind.deploy.values import Values

    try:
        return Values.model_validate({"image": "unknown", "namespace": namespace})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise click.UsageError(f"--namespace {namespace!r} cannot be Airflow's: {reason}") from None


def _as_json(finding: Finding) -> dict[str, str]:
    """Return a finding under the names that programs read since the first release."""
    return {"level": finding.level, "check": finding.check, "what": finding.description, "mend": finding.fix}


async def _examine(values: Values, context: str | None, kubeconfig: str | None, *, has_values: bool) -> list[Finding]:
    from crosswind.cli.cluster_inspection import ClusterInspection
    from crosswind.deploy.findings import ClusterFacts, findings
    from crosswind.engine.preflight import server_version
    from crosswind.kube.client import Client
    from crosswind.settings import KubeSettings

    async with await Client.connect(KubeSettings(kubeconfig=kubeconfig, context=context)) as client:
        version = await server_version(client)
        if has_values and await _shared_before(client, values):
            values = values.with_workers_apart(False)
        inspection = ClusterInspection(client, values)
        facts = await inspection.facts(has_values=has_values)
        return findings(values, ClusterFacts(version=version, unseen=inspection.unseen, **facts), known=has_values)


async def _shared_before(client: Client, values: Values) -> bool:
    """Whether the existing deployment has its workers in the namespace of all other objects."""
    from crosswind.kube.resources import Resource

    try:
        deployed = await client.get(
            Resource("", "v1", "configmaps", "ConfigMap"), f"{values.name}-config", namespace=values.namespace
        )
    except (ApiError, Unreachable):
        return False  # there is no deployment, or the user may not read it: the values decide
    lines = str((deployed.get("data") or {}).get("airflow.cfg", "")).splitlines()
    return f"namespace = {values.namespace}" in lines
