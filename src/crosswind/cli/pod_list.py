"""``crosswind pods list``: the pods of Airflow tasks, their states and reasons."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Iterable
from typing import Any

import click

from crosswind.cli.cluster_options import ClusterChoice, choose_cluster, cluster_options
from crosswind.cli.pod_options import filter_options, pod_filter
from crosswind.errors import counted
from crosswind.pods.pod_filter import PodFilter

__all__ = ["list_pods", "print_lines", "print_styled", "table_width"]


@click.command(name="list")
@filter_options
@click.option(
    "--sort",
    type=click.Choice(["age", "task", "state", "reason", "node", "queue", "restarts", "name"]),
    default="age",
    show_default=True,
    help="Order of the rows. age: oldest first; state: what needs a person first.",
)
@click.option("--reverse", is_flag=True, help="Reverse the order.")
@click.option("--no-headers", is_flag=True, help="Print no line with the names of the columns.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "json", "yaml", "name"]),
    default="table",
    show_default=True,
    help="wide: all columns, in full; name: NAMESPACE/POD alone.",
)
@cluster_options
def list_pods(output: str, sort: str, reverse: bool, no_headers: bool, **options: Any) -> None:
    """List the pods of Airflow tasks: workers of the executor, and pods of the pod operator.

    The state is that of the task's container, also while a sidecar still runs. In a terminal the columns fit its width;
    otherwise, and with -o wide, nothing is cut. Commands take the end of a pod's name for the name.
    """
    choice, selection = choose_cluster(options), pod_filter(options)
    counts_warm = output in ("table", "wide") and not selection.narrows
    pods, warm, hint = asyncio.run(_read(choice, selection, counts_warm=counts_warm))
    from crosswind.cli.pod_table import document, pod_lines, sorted_pods

    pods = sorted_pods(pods, sort, reverse=reverse)
    if output in ("json", "yaml"):
        click.echo(document([pod.to_json() for pod in pods], output))
    elif output == "name":
        print_lines(f"{pod.namespace}/{pod.name}" for pod in pods)
    elif pods:
        width = None if output == "wide" else table_width()
        lines = pod_lines(pods, time.time(), width, namespaces=choice.namespace is None)
        print_styled(lines[1:] if no_headers else lines)
    if not pods:
        what = f"No pod of an Airflow task in {choice.place}" + (f" with {selection}" if selection.narrows else "")
        click.echo(f"{what}{'; ' if hint else ''}{hint}", err=True)
    if warm:
        click.echo(f"{counted(warm, 'warm pod')} without a task", err=True)


async def _read(choice: ClusterChoice, selection: PodFilter, *, counts_warm: bool) -> tuple[list[Any], int, str]:
    """Return the pods, the number of warm pods that wait, and a hint for an empty list."""
    from crosswind.cli.pod_reading import check_namespace, count_warm_pods, other_namespaces_hint, read_pods
    from crosswind.kube.client import Client

    async with await Client.connect(choice.settings) as client:
        pods = await read_pods(client, choice.namespace, selection)
        if not pods:
            await check_namespace(client, choice)
        hint = await other_namespaces_hint(client, choice, selection) if not pods else ""
        warm = await count_warm_pods(client, choice.namespace) if counts_warm else 0
        return pods, warm, hint


def table_width() -> int | None:
    """Return the width for tables: the terminal's, or COLUMNS; None, which cuts nothing, for a pipe or a file."""
    if os.environ.get("COLUMNS", "").isdecimal() or sys.stdout.isatty():
        return max(40, shutil.get_terminal_size().columns)
    return None


def print_styled(lines: Iterable[Any]) -> None:
    """Print styled lines, without styles where the output is not a terminal or NO_COLOR is set."""
    from crosswind.cli.text_table import ansi, plain

    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print_lines((ansi(line) if colours else plain(line)) for line in lines)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines by one call: thousands of small writes take a second."""
    if text := "\n".join(lines):
        click.echo(text)
