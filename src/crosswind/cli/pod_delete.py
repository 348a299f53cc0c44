"""``crosswind pods delete``: deletes workers, after it has shown which and what that means for their tasks."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from crosswind.cli.cluster_options import ClusterChoice, choose_cluster, cluster_options
from crosswind.cli.pod_completion import complete_pod
from crosswind.cli.pod_list import print_styled, table_width
from crosswind.cli.pod_options import filter_options, pod_filter
from crosswind.errors import Conflict, CrosswindError, NotFound, counted
from crosswind.pods.pod_filter import PodFilter
from crosswind.pods.pod_summary import PodSummary

if TYPE_CHECKING:
    from crosswind.kube.client import Client

__all__ = ["consequence", "delete", "delete_pod", "refusal"]

_MAX_REQUESTS = 16
_MAX_REFUSALS = 10


@click.command()
@click.argument("pods", metavar="[POD]...", nargs=-1, shell_complete=complete_pod)
@filter_options
@click.option("--all", "everything", is_flag=True, help="All workers of the namespace.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Print the pods that would be deleted, and delete none.")
@click.option(
    "--grace-period", type=click.IntRange(0), metavar="SECONDS", help="Grace period; by default the pod's own."
)
@cluster_options
@click.pass_context
def delete(ctx: click.Context, /, pods: tuple[str, ...], everything: bool, **options: Any) -> None:
    """Delete workers of Airflow's executor.

    Airflow fails the task of a running pod, or retries it if it has retries left. Pods of the pod operator and pods
    that are not Airflow's are never deleted. POD is a name or a part of it; without POD, the options select the pods.
    """
    choice, selection = choose_cluster(options), pod_filter(options)
    if not (pods or selection.narrows or everything):
        raise click.UsageError("name pods, select them by --dag, --state and other options, or give --all")
    if not (options["yes"] or options["dry_run"] or sys.stdin.isatty()):
        raise click.UsageError("cannot ask for confirmation here: give --yes to delete, or --dry-run to list the pods")
    pods_to_delete, refused = _partition(asyncio.run(_find(choice, pods, selection)))
    # Asked outside the event loop, where Ctrl-C would not interrupt the question.
    if not pods_to_delete or not _is_confirmed(pods_to_delete, choice, yes=options["yes"], dry_run=options["dry_run"]):
        ctx.exit(1)
    failed = 0 if options["dry_run"] else asyncio.run(_delete(choice, pods_to_delete, options["grace_period"]))
    ctx.exit(1 if failed or (refused and pods) else 0)


def _partition(pods: Sequence[PodSummary]) -> tuple[list[PodSummary], int]:
    """Return the pods that may be deleted; print why the others may not, and return their number."""
    refusals = [(pod, reason) for pod in pods if (reason := refusal(pod))]
    for pod, reason in refusals[:_MAX_REFUSALS]:
        click.echo(f"not deleted: {pod.namespace}/{pod.name}: {reason}", err=True)
    if len(refusals) > _MAX_REFUSALS:
        click.echo(f"not deleted: {len(refusals) - _MAX_REFUSALS} more", err=True)
    return [pod for pod in pods if not refusal(pod)], len(refusals)


def _is_confirmed(pods_to_delete: Sequence[PodSummary], choice: ClusterChoice, *, yes: bool, dry_run: bool) -> bool:
    """Show the pods and what their deletion means, and ask unless the options answer."""
    from crosswind.cli.pod_table import pod_lines

    print_styled(pod_lines(pods_to_delete, time.time(), table_width(), namespaces=choice.namespace is None))
    click.echo(consequence(pods_to_delete))
    if dry_run:
        click.echo(f"dry run: {counted(len(pods_to_delete), 'pod')} would be deleted")
    return yes or dry_run or click.confirm(f"Delete {counted(len(pods_to_delete), 'pod')}?")


async def _find(choice: ClusterChoice, names: Sequence[str], selection: PodFilter) -> list[PodSummary]:
    from crosswind.cli.pod_reading import find_pods
    from crosswind.kube.client import Client

    async with await Client.connect(choice.settings) as client:
        return await find_pods(client, choice, names, selection)


async def _delete(choice: ClusterChoice, pods: Sequence[PodSummary], grace_period: int | None) -> int:
    from crosswind.kube.client import Client

    async with await Client.connect(choice.settings) as client:
        return await _delete_all(client, pods, grace_period)


async def _delete_all(client: Client, pods: Sequence[PodSummary], grace_period: int | None) -> int:
    """Delete pods, some at a time; print a line for each, and return how many could not be deleted."""
    limit = asyncio.Semaphore(_MAX_REQUESTS)

    async def delete_one(pod: PodSummary) -> bool:
        async with limit:
            try:
                outcome = await delete_pod(client, pod, grace_period)
            except CrosswindError as error:
                click.echo(f"crosswind: {pod.namespace}/{pod.name}: {error}", err=True)
                return False
        click.echo(f"{pod.namespace}/{pod.name} {outcome}")
        return True

    return (await asyncio.gather(*map(delete_one, pods))).count(False)


async def delete_pod(client: Client, pod: PodSummary, grace_period: int | None = None) -> str:
    """Delete exactly this pod, and not another one that has its name by now; return what happened in a word."""
    from crosswind.kube.resources import PODS

    try:
        await client.delete(
            PODS, pod.name, namespace=pod.namespace, uid=pod.uid, grace_period=grace_period, metadata_only=True
        )
    except NotFound:
        return "is already deleted"
    except Conflict:
        return "is already deleted; another pod has its name"
    return "deleted"


def refusal(pod: PodSummary) -> str:
    """Return why a pod must not be deleted here, "" if it may be."""
    if pod.kind == "worker":
        return ""
    if pod.kind == "operator":
        return "it belongs to a KubernetesPodOperator, whose task deletes it; clear or fail that task in Airflow"
    if pod.kind == "warm":
        return f"it waits in the warm pool {pod.pool}, which replaces it"
    return "it is not an Airflow worker (no label kubernetes_executor=True); use kubectl delete pod"


def consequence(pods: Sequence[PodSummary]) -> str:
    """Return what the deletion of pods means for their tasks."""
    unfinished = sum(not pod.over for pod in pods)
    if not unfinished:
        return "Their tasks have ended; the logs of these pods go with them unless Airflow keeps logs."
    tasks = "The task" if unfinished == 1 else f"The {unfinished} tasks"
    return (
        f"{tasks} that {'has' if unfinished == 1 else 'have'} not ended will fail or be retried, as their retries"
        " say; with [crosswind] deleted_is_loss = True that costs no retry."
    )
