"""The options by which the commands for live pods select pods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from crosswind.cli.pod_completion import completes
from crosswind.pods.pod_filter import PodFilter
from crosswind.pods.pod_summary import STATES

__all__ = ["filter_options", "pod_filter"]

F = TypeVar("F", bound=Callable[..., Any])


def filter_options(command: F) -> F:
    """Add ``--dag``, ``--run``, ``--task``, ``--map-index``, ``--try``, ``--queue``, ``--state``, ``--reason``, -l."""
    options = (
        click.option(
            "--dag", "dag_id", metavar="ID", shell_complete=completes("dag_id"), default="", help="Pods of this DAG."
        ),
        click.option(
            "--run",
            "run_id",
            metavar="ID",
            shell_complete=completes("run_id"),
            default="",
            help="Pods of this DAG run.",
        ),
        click.option(
            "--task",
            "task_id",
            metavar="ID",
            shell_complete=completes("task_id"),
            default="",
            help="Pods of this task.",
        ),
        click.option("--map-index", type=click.IntRange(0), metavar="N", help="Pods of this index of a mapped task."),
        click.option("--try", "try_number", type=click.IntRange(0), metavar="N", help="Pods of this try."),
        click.option(
            "--queue", metavar="NAME", shell_complete=completes("queue"), default="", help="Pods of this queue."
        ),
        click.option(
            "--state",
            "states",
            type=click.Choice(STATES),
            multiple=True,
            help="State of the task's container; repeatable.",
        ),
        click.option(
            "--reason", "reasons", metavar="WORD", multiple=True, help="Reason, such as OOMKilled; repeatable."
        ),
        click.option("-l", "--selector", metavar="LABELS", default="", help="Further label selector, as for kubectl."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def pod_filter(options: dict[str, Any]) -> PodFilter:
    """Return the filter that the options of ``filter_options`` make."""
    return PodFilter(
        **{name: options[name] for name in ("dag_id", "run_id", "task_id", "map_index", "try_number", "queue")},
        states=frozenset(options["states"]),
        reasons=frozenset(reason.lower() for reason in options["reasons"]),
        selector=options["selector"].strip().strip(","),
    )
