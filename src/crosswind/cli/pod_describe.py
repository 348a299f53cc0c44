"""``crosswind pods describe``: one pod with its cause and fix, containers, events and, with Airflow, every try."""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import TYPE_CHECKING, Any

import click

from crosswind.cli.airflow_tasks import AirflowServer, airflow_options, choose_airflow
from crosswind.cli.cluster_options import ClusterChoice, choose_cluster, cluster_options
from crosswind.cli.pod_completion import complete_pod
from crosswind.cli.pod_list import print_styled, table_width
from crosswind.cli.pod_options import filter_options, pod_filter
from crosswind.errors import CrosswindError
from crosswind.pods.pod_filter import PodFilter
from crosswind.pods.pod_summary import PodSummary

if TYPE_CHECKING:
    from crosswind.cli.pod_reading import PodGone
    from crosswind.kube.client import Client
    from crosswind.types import Manifest

__all__ = ["describe", "describe_in_cluster"]


@click.command()
@click.argument("pod", required=False, shell_complete=complete_pod)
@filter_options
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text", show_default=True)
@airflow_options
@cluster_options
def describe(pod: str | None, output: str, airflow_url: str | None, **options: Any) -> None:
    """Explain one pod: its task, state, cause and fix, life, containers and events.

    POD is its name, or a part of it that no other pod has, such as the end that a list shows. Without POD, the options
    must select one pod. With Airflow's address, the task's state and the pods of every try are shown too; named by
    --dag, --run and --task also those of a task whose pod is gone.
    """
    choice, selection = choose_cluster(options), pod_filter(options)
    if pod is None and not selection.narrows:
        raise click.UsageError("name a pod, or select one by --dag, --task and other options")
    described = asyncio.run(_describe(choice, pod, selection, choose_airflow(airflow_url)))
    if output != "text":
        from crosswind.cli.pod_table import document

        click.echo(document(described, output))
        return
    from crosswind.cli.pod_description import description_lines, task_lines

    width = table_width() or shutil.get_terminal_size((120, 24)).columns
    if described["name"]:
        print_styled(description_lines(described, time.time(), width))
    else:
        print_styled(task_lines(PodSummary.from_json(described), described["airflow"], width))


async def _describe(
    choice: ClusterChoice, name: str | None, selection: PodFilter, airflow: AirflowServer | None
) -> dict[str, Any]:
    from crosswind.cli.pod_reading import PodGone, find_pod
    from crosswind.kube.client import Client

    async with await Client.connect(choice.settings) as client:
        try:
            pod = await find_pod(client, choice, name, selection)
        except PodGone as error:
            return await _describe_task(error, selection, airflow)
        return await describe_in_cluster(client, pod, airflow)


async def _describe_task(error: PodGone, selection: PodFilter, airflow: AirflowServer | None) -> dict[str, Any]:
    """Return what Airflow knows of a task whose pod is gone; raise the error where it is not asked or does not know."""
    from crosswind.cli.airflow_tasks import AirflowTasks

    task = selection.task
    if airflow is None or task is None:
        raise error
    async with AirflowTasks(airflow) as tasks:
        report = await tasks.report(task)
    if report is None or report["problem"]:
        raise CrosswindError(f"{error}; Airflow: {report['problem'] if report else 'no task'}") from error
    return {**task.to_json(), "airflow": report}


async def describe_in_cluster(client: Client, pod: Manifest, airflow: AirflowServer | None) -> dict[str, Any]:
    """Return the description of a pod with its events, and with what Airflow knows where a server is named."""
    from crosswind.cli.airflow_tasks import AirflowTasks
    from crosswind.cli.pod_description import describe_pod
    from crosswind.podrun.follow import events_of
    from crosswind.pods.fields import as_pod
    from crosswind.pods.pod_summary import summarise

    events = await events_of(client, as_pod(pod))
    report = None
    if airflow is not None:
        async with AirflowTasks(airflow) as tasks:
            report = await tasks.report(summarise(pod))
    return describe_pod(pod, time.time(), events, report)
