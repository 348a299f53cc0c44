"""``crosswind pods watch``: follows pods until it is interrupted, as a live table or one line per change.

``_watch`` owns the task that follows; it ends with the command.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import click

from crosswind.cli.cluster_options import ClusterChoice, choose_cluster, cluster_options
from crosswind.cli.interrupts import run_until_interrupted
from crosswind.cli.pod_options import filter_options, pod_filter
from crosswind.pods.pod_filter import PodFilter
from crosswind.pods.pod_summary import PodSummary

if TYPE_CHECKING:
    from crosswind.cli.live_pods import LivePods, OnChange

__all__ = ["change_line", "watch"]

_AGES_S = 1.0
"""How often the ages are drawn anew while nothing changes."""


@click.command()
@filter_options
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "lines", "json"]),
    help="table: one that changes in place, the default in a terminal; lines: a line per change; json: an object per"
    " change and line.",
)
@click.option("--sort", type=click.Choice(["age", "task", "state"]), default="state", show_default=True)
@cluster_options
@click.pass_context
def watch(ctx: click.Context, /, output: str | None, sort: str, **options: Any) -> None:
    """Follow the pods of Airflow tasks until Ctrl-C: each start, end, reason and deletion as it happens.

    The server sends changes; nothing is polled, and a connection that breaks is opened again without loss.
    """
    choice, selection = choose_cluster(options), pod_filter(options)
    output = output or ("table" if sys.stdout.isatty() else "lines")
    run_until_interrupted(_watch(choice, selection, output, sort))
    ctx.exit(130)


async def _watch(choice: ClusterChoice, selection: PodFilter, output: str, sort: str) -> None:
    from crosswind.cli.live_pods import LivePods, check_access
    from crosswind.kube.client import Client

    async with await Client.connect(choice.settings) as client:
        await check_access(client, choice, selection)
        live = LivePods(client, choice.namespace, selection)
        if output == "table":
            await _draw(live, choice, sort)
        else:
            await live.run(_print_json if output == "json" else _print_line)


def _print_line(before: PodSummary | None, after: PodSummary, gone: bool) -> None:
    if gone or before is None or _visible(before) != _visible(after):
        click.echo(change_line(after, gone, datetime.datetime.now()))


def _print_json(before: PodSummary | None, after: PodSummary, gone: bool) -> None:
    kind = "DELETED" if gone else "ADDED" if before is None else "MODIFIED"
    if kind != "MODIFIED" or before != after:
        moment = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        click.echo(json.dumps({"time": moment, "type": kind, "pod": after.to_json()}, ensure_ascii=False))


def _visible(pod: PodSummary) -> tuple[object, ...]:
    return pod.state, _reason(pod), pod.restarts


def _reason(pod: PodSummary) -> str:
    """Return the reason of a change, "" for the steps that every pod takes: each would be a line without news."""
    from crosswind.cli.pod_table import reason_words

    is_step = pod.reason in ("ContainerCreating", "PodInitializing", "Completed")
    words = reason_words(pod._replace(reason="" if is_step else pod.reason, deleting=pod.deleting and not pod.over))
    return "" if words == "-" else words


def change_line(pod: PodSummary, gone: bool, moment: datetime.datetime) -> str:
    """Return the line of a change: time, state, task, reason, and the pod's name."""
    from crosswind.cli.text_table import clean

    attempt = "" if pod.try_number is None else f" try {pod.try_number}"
    words = [pod.state] if gone else []
    if reason := _reason(pod):
        words.append(reason)
    text = f": {', '.join(words)}" if words else ""
    state = "deleted" if gone else pod.state
    return clean(f"{moment:%H:%M:%S}  {state:<11}  {pod.task or '-'}{attempt}{text}  {pod.namespace}/{pod.name}")


async def _draw(live: LivePods, choice: ClusterChoice, sort: str) -> None:
    """Draw the table at each change, at most four times a second, and each second for the ages."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from crosswind.cli.live_pods import MIN_REDRAW_INTERVAL_S

    console = Console(highlight=False)
    async with _following(live):
        await live.listed.wait()
        with Live(console=console, auto_refresh=False) as display:
            while True:
                live.changed.clear()
                text = _table_text(live, choice, sort, console.width, console.height)
                display.update(Text.from_ansi(text, no_wrap=True), refresh=True)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(live.changed.wait(), _AGES_S)
                await asyncio.sleep(MIN_REDRAW_INTERVAL_S)


@contextlib.asynccontextmanager
async def _following(live: LivePods, on_change: OnChange | None = None) -> AsyncIterator[None]:
    """Run the informer in a task beside the block. Should it fail, the block is cancelled and the error raised."""
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(live.run(on_change))
            yield
            task.cancel()
    except* Exception as errors:
        raise errors.exceptions[0] from None


def _table_text(live: LivePods, choice: ClusterChoice, sort: str, width: int, height: int) -> str:
    from crosswind.cli.pod_table import pod_lines, sorted_pods, state_counts
    from crosswind.cli.text_table import ansi, cut

    pods = sorted_pods(live.pods.values(), sort)
    room = max(1, height - 4)
    lines = pod_lines(pods[:room], time.time(), width, namespaces=choice.namespace is None)
    footer = state_counts(pods) or f"no pod of an Airflow task in {choice.place}"
    if len(pods) > room:
        footer += f"; {room} of {len(pods)} shown"
    if live.trouble:
        footer = f"connection lost, retrying: {live.trouble}"
    return "\n".join([*map(ansi, lines if pods else []), cut(footer, width)])
