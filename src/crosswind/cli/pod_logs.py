"""``crosswind pods logs``: the log of one pod's container, of several pods, or the one that Airflow keeps."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click

from crosswind.cli.airflow_tasks import AirflowServer, airflow_options, choose_airflow
from crosswind.cli.cluster_options import ClusterChoice, choose_cluster, cluster_options
from crosswind.cli.interrupts import run_until_interrupted
from crosswind.cli.pod_completion import complete_pod
from crosswind.cli.pod_options import filter_options, pod_filter
from crosswind.errors import BadRequest, ConfigError, CrosswindError
from crosswind.pods.pod_filter import PodFilter
from crosswind.pods.pod_summary import PodSummary

if TYPE_CHECKING:
    from crosswind.kube.client import Client
    from crosswind.types import Manifest

__all__ = ["logs"]

_MAX_FOLLOWED = 50
"""Pods whose logs are followed at once: each takes two connections to the API server."""
_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "red")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_KEPT = (
    "the log of a deleted pod is where Airflow keeps it: in its UI, in remote logging, on the workers' log volume, or"
    " in its database ([crosswind] archive_logs)"
)


class _Seconds(click.ParamType[int]):
    """A span such as 90s, 5m, 2h."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d{1,9})([smhd]?)", str(value))
        if match is None:
            self.fail(f"{value!r} is not a duration such as 90s, 5m or 2h", param, ctx)
        return max(1, int(match[1]) * _UNITS[match[2] or "s"])


@click.command()
@click.argument("pod", required=False, shell_complete=complete_pod)
@filter_options
@click.option(
    "--all", "everything", is_flag=True, help="The logs of all pods that match, with the task before each line."
)
@click.option("-c", "--container", metavar="NAME", help="Container; by default the one that runs the task.")
@click.option("-f", "--follow", is_flag=True, help="Follow the log until the container has ended.")
@click.option("-p", "--previous", is_flag=True, help="The run of the container before its last restart.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Only the last lines.")
@click.option("--since", type=_Seconds(), metavar="SPAN", help="Only newer lines: 90s, 5m, 2h.")
@click.option("--timestamps", is_flag=True, help="Begin each line with its time.")
@airflow_options
@cluster_options
@click.pass_context
def logs(ctx: click.Context, /, pod: str | None, airflow_url: str | None, **options: Any) -> None:
    """Print the log of a pod's container.

    POD is its name or a part of it; without POD, the options must select one pod, or several with --all. With -f a
    connection that breaks is opened again, and no line is lost or repeated. When the pod is gone and Airflow's address
    is known, the log that Airflow keeps is printed: name it by --dag, --run and --task.
    """
    choice, selection = choose_cluster(options), pod_filter(options)
    if pod is None and not selection.narrows:
        raise click.UsageError("name a pod, or select one by --dag, --task and other options")
    if options["follow"] and options["previous"]:
        raise click.UsageError("give --follow or --previous, not both: the previous run has ended")
    done = run_until_interrupted(_print_log(choice, pod, selection, choose_airflow(airflow_url), options))
    ctx.exit(130 if done is None else 0)


async def _print_log(
    choice: ClusterChoice,
    name: str | None,
    selection: PodFilter,
    airflow: AirflowServer | None,
    options: dict[str, Any],
) -> bool:
    from crosswind.cli.pod_reading import PodGone, find_pod, find_pods
    from crosswind.kube.client import Client

    async with await Client.connect(choice.settings) as client:
        try:
            if options["everything"]:
                await _print_all(client, await find_pods(client, choice, [name] if name else [], selection), options)
                return True
            pod = await find_pod(client, choice, name, selection)
        except PodGone as error:
            await _print_kept_log(error, selection, airflow)
            return True
        async with aclosing(_chunks(client, pod, options)) as chunks:
            async for chunk in chunks:
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
    return True


async def _print_all(client: Client, pods: Sequence[PodSummary], options: dict[str, Any]) -> None:
    """Print the logs of several pods: together as they are written, or else one after the other, oldest first."""
    if options["follow"]:
        if len(pods) > _MAX_FOLLOWED:
            fix = "select fewer, or leave out --follow"
            raise ConfigError(f"{len(pods)} pods match, and at most {_MAX_FOLLOWED} are followed at once; {fix}")
        await asyncio.gather(*(_print_with_prefix(client, pod, index, options) for index, pod in enumerate(pods)))
        return
    for index, pod in enumerate(sorted(pods, key=lambda pod: pod.created or 0.0)):
        await _print_with_prefix(client, pod, index, options)


async def _print_with_prefix(client: Client, pod: PodSummary, index: int, options: dict[str, Any]) -> None:
    """Print a pod's log with its task before each line; report a log that cannot be read, and leave it out."""
    from crosswind.cli.text_table import ansi, clean
    from crosswind.kube.resources import PODS
    from crosswind.kube.watch import LineSplitter

    colour = _COLOURS[index % len(_COLOURS)] if sys.stdout.isatty() else ""
    prefix = ansi([(clean(f"[{pod.task or pod.name} …{pod.name[-8:]}]"), colour)]).encode() + b" "
    lines = LineSplitter()
    try:
        manifest = await client.get(PODS, pod.name, namespace=pod.namespace)
        async with aclosing(_chunks(client, manifest, options)) as chunks:
            async for chunk in chunks:
                sys.stdout.buffer.writelines(prefix + line + b"\n" for line in lines.feed(chunk))
                sys.stdout.buffer.flush()
    except (CrosswindError, click.BadParameter) as error:
        text = error.format_message() if isinstance(error, click.BadParameter) else str(error)
        click.echo(f"crosswind: {pod.namespace}/{pod.name}: {text}", err=True)
    if rest := lines.rest():
        sys.stdout.buffer.write(prefix + rest + b"\n")
        sys.stdout.buffer.flush()


async def _chunks(client: Client, pod: Manifest, options: dict[str, Any]) -> AsyncGenerator[bytes]:
    from crosswind.cli.container_logs import container_log, followed_log
    from crosswind.cli.pod_description import container_names
    from crosswind.pods.pod_summary import base_container

    container = options["container"] or base_container(pod)
    if container not in (names := container_names(pod)):
        raise click.BadParameter(f"the pod has no container {container}; it has {', '.join(names)}", param_hint="-c")
    chosen = {name: options[name] for name in ("tail", "since", "timestamps")}
    if options["follow"]:
        stream = followed_log(client, pod, container, **chosen)
    else:
        stream = container_log(client, pod, container, previous=options["previous"], **chosen)
    try:
        async with aclosing(stream):
            async for chunk in stream:
                yield chunk
    except BadRequest as error:
        raise CrosswindError(_why_no_log(pod, error)) from error


def _why_no_log(pod: Manifest, error: BadRequest) -> str:
    from crosswind.pods.causes import why
    from crosswind.pods.pod_summary import base_container

    reason = why(pod, base=base_container(pod))
    return f"there is no log: {error.message}" + (f"; {reason}" if reason else "")


async def _print_kept_log(error: CrosswindError, selection: PodFilter, airflow: AirflowServer | None) -> None:
    """Print the log that Airflow keeps of a task whose pod is gone; raise an error that says where it may be."""
    from crosswind.cli.airflow_tasks import AirflowTasks

    task = selection.task
    if airflow is None or task is None:
        hint = "" if airflow else "; --airflow-url with --dag, --run and --task prints it"
        raise CrosswindError(f"{error}; {_KEPT}{hint}") from None
    async with AirflowTasks(airflow) as tasks, aclosing(tasks.log(task)) as lines:
        click.echo(f"{error}; this is the log that Airflow keeps", err=True)
        async for line in lines:
            click.echo(line)
