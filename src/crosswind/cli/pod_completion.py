"""Completes pods, DAGs, runs and tasks in shells, from the pods that the cluster has at that moment.

A shell waits for the answer, so that a cluster that does not answer at once completes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import click

from crosswind.cli.cluster_options import choose_cluster
from crosswind.errors import CrosswindError
from crosswind.pods.pod_filter import PodFilter
from crosswind.pods.pod_summary import PodSummary

__all__ = ["complete_pod", "completes"]

_TIMEOUT_S = 3.0
_MAX_NAMES = 1000


def complete_pod(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of pods with a text in them: the end of a name, as a list shows it, becomes the whole name."""
    part = incomplete.lower().removeprefix("…")
    return [pod.name for pod in _pods(ctx.params) if part in pod.name]


def completes(field: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return the completion of an option whose values are a field of ``PodSummary``."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        values = {str(getattr(pod, field)) for pod in _pods(ctx.params)} - {""}
        return sorted(value for value in values if value.startswith(incomplete))

    return complete


def _pods(options: dict[str, Any]) -> list[PodSummary]:
    """Return the pods that the options so far select, none where they cannot be read in time."""
    dag_id, run_id, task_id = (str(options.get(name) or "") for name in ("dag_id", "run_id", "task_id"))
    places = {name: options.get(name) for name in ("namespace", "all_namespaces", "context", "kubeconfig")}
    try:
        return asyncio.run(_read(places, PodFilter(dag_id, run_id, task_id)))
    except (CrosswindError, click.ClickException, TimeoutError):
        return []


async def _read(places: dict[str, Any], selection: PodFilter) -> list[PodSummary]:
    from crosswind.kube.client import Client
    from crosswind.kube.resources import PODS
    from crosswind.pods.pod_summary import summarise

    choice = choose_cluster(places)
    async with asyncio.timeout(_TIMEOUT_S), await Client.connect(choice.settings) as client:
        listing = await client.list_mapped(
            PODS, summarise, namespace=choice.namespace, labels=selection.labels, limit=_MAX_NAMES
        )
        return [pod for pod in listing.items if selection.matches(pod)]
