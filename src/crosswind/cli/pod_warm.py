"""``crosswind pods warm``: the pods that wait for tasks, by pool."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import click

from crosswind.cli.cluster_options import ClusterChoice, choose_cluster, cluster_options
from crosswind.types import Manifest

__all__ = ["WarmPoolRow", "pool_rows", "warm"]


@dataclass(frozen=True, slots=True)
class WarmPoolRow:
    """The waiting pods of one pool and scheduler."""

    namespace: str
    pool: str
    """The fingerprint that they have in common."""
    scheduler: str
    """Id of the scheduler's job."""
    image: str
    """Of the base container."""
    ready: int
    """Pods that a task can take over now."""
    starting: int
    ended: int
    """Pods that have ended without a task, and are being replaced."""
    oldest: float | None
    """When the oldest one was created, in seconds since 1970."""


def pool_rows(pods: Iterable[Manifest]) -> list[WarmPoolRow]:
    """Return a row for each pool and scheduler. ``pods``: those that wait."""
    from crosswind.engine.waiting_pods import read_waiting_pod
    from crosswind.engine.worker_pod import BASE
    from crosswind.pods.fields import as_pod, container_of, text

    groups: dict[tuple[str, str, str, str], list[Any]] = {}
    for manifest in pods:
        pod = as_pod(manifest)
        waiting = read_waiting_pod(pod, time.time(), time.time())
        image = text(container_of(pod, BASE).get("image"))
        groups.setdefault((waiting.namespace, waiting.pool, waiting.owner, image), []).append(waiting)
    return [
        WarmPoolRow(
            *key,
            ready=sum(pod.claimable for pod in waiting),
            starting=sum(not (pod.ready or pod.ended or pod.deleting) for pod in waiting),
            ended=sum(pod.ended for pod in waiting),
            oldest=min(pod.created for pod in waiting),
        )
        for key, waiting in sorted(groups.items())
    ]


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "json", "yaml"]),
    default="table",
    show_default=True,
    help="wide: all columns, in full.",
)
@cluster_options
def warm(output: str, **options: Any) -> None:
    """List the pods that wait for a task ([crosswind] warm), by pool and scheduler.

    A pool consists of pods whose manifests are equal. READY pods have imported everything; a task takes over one of
    them in place of a pod of its own.
    """
    choice = choose_cluster(options)
    rows = asyncio.run(_read(choice))
    from crosswind.cli.pod_list import print_styled, table_width
    from crosswind.cli.pod_table import age, document
    from crosswind.cli.text_table import Column, table_lines

    if output in ("json", "yaml"):
        click.echo(document([_as_json(row) for row in rows], output))
        return
    if not rows:
        click.echo(f"No pod waits for a task in {choice.place}", err=True)
        return
    now = time.time()
    columns: list[Column[WarmPoolRow]] = [
        Column("NAMESPACE", lambda row: row.namespace, rank=0, least=9),
        Column("POOL", lambda row: row.pool[:8]),
        Column("READY", lambda row: str(row.ready), lambda row: "green" if row.ready else "yellow", right=True),
        Column("STARTING", lambda row: str(row.starting), right=True),
        Column("ENDED", lambda row: str(row.ended), lambda row: "red" if row.ended else "", right=True),
        Column("OLDEST", lambda row: age(row.oldest, now), right=True),
        Column("SCHEDULER", lambda row: row.scheduler),
        Column("IMAGE", lambda row: row.image, rank=1, least=12, cut="start"),
    ]
    print_styled(table_lines(columns, rows, None if output == "wide" else table_width()))


def _as_json(row: WarmPoolRow) -> dict[str, Any]:
    created = None if row.oldest is None else datetime.datetime.fromtimestamp(row.oldest, datetime.UTC).isoformat()
    return {**asdict(row), "oldest": created}


async def _read(choice: ClusterChoice) -> list[WarmPoolRow]:
    from crosswind.cli.pod_reading import WARM_PODS, check_namespace
    from crosswind.kube.client import Client
    from crosswind.kube.resources import PODS

    async with await Client.connect(choice.settings) as client:
        pods = (await client.list(PODS, namespace=choice.namespace, labels=WARM_PODS)).items
        if not pods:
            await check_namespace(client, choice)
        return pool_rows(pods)
