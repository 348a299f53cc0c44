"""Follows the pods of Airflow tasks for a live display, by an informer: it lists once, then the server sends changes.

``LivePods.run`` starts no task. Its caller owns the task that runs it and ends it by cancelling. Broken connections,
410 and a server that restarts only delay it; ``trouble`` says so meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from crosswind.cli.cluster_options import ClusterChoice
from crosswind.cli.pod_reading import check_namespace
from crosswind.errors import CrosswindError
from crosswind.kube.client import Client
from crosswind.kube.informer import Informer, InformerEvent
from crosswind.kube.resources import PODS
from crosswind.pods.pod_filter import PodFilter
from crosswind.pods.pod_summary import PodSummary, summarise
from crosswind.types import Manifest

__all__ = ["MIN_REDRAW_INTERVAL_S", "LivePods", "OnChange", "check_access"]

OnChange: TypeAlias = Callable[[PodSummary | None, PodSummary, bool], None]
"""Gets a pod before a change, None for a new one, after it, and whether the pod is gone."""

MIN_REDRAW_INTERVAL_S = 0.25
"""Seconds between two drawings of the pods, however often they change."""

_RELIST_S = 600.0


async def check_access(client: Client, choice: ClusterChoice, selection: PodFilter) -> None:
    """Raise the error that would keep an informer from following, which would retry it for ever."""
    listing = await client.list(PODS, namespace=choice.namespace, labels=selection.labels, limit=1)
    if not listing.items:
        await check_namespace(client, choice)


class LivePods:
    """The newest summaries of the pods that a filter matches. ``labels``: selects on the server in place of its labels.

    ``pods``: those pods by uid. ``changed``: set at each change; the reader clears it.
    """

    def __init__(
        self, client: Client, namespace: str | None, selection: PodFilter, *, labels: str | None = None
    ) -> None:
        self._selection = selection
        self._all: dict[str, PodSummary] = {}
        self._informer = Informer(
            client, PODS, relist_every=_RELIST_S, trim=_identity, namespace=namespace, labels=labels or selection.labels
        )
        self.pods: dict[str, PodSummary] = {}
        self.changed = asyncio.Event()

    @property
    def listed(self) -> asyncio.Event:
        """Set after the first list: from then on ``pods`` is complete."""
        return self._informer.listed

    @property
    def trouble(self) -> CrosswindError | None:
        """The error that keeps it from following at present."""
        return self._informer.trouble

    async def run(self, on_change: OnChange | None = None) -> None:
        """Follow until cancelled; call ``on_change`` for each change of a pod that matches before or after it."""
        await self._informer.run(lambda event: self._apply(event, on_change))

    def _apply(self, event: InformerEvent, on_change: OnChange | None) -> None:
        gone = event.type == "DELETED"
        uid = event.object["metadata"]["uid"]
        before = self._all.get(uid)
        # a deletion that a list revealed carries only the identity of the pod
        after = before if gone and event.reason == "list" and before else summarise(event.object, deleted=gone)
        if gone:
            self._all.pop(uid, None)
        else:
            self._all[uid] = after
        matches = self._selection.matches(after)
        matched = self.pods.pop(uid, None) is not None
        if matches and not gone:
            self.pods[uid] = after
        self.changed.set()
        if on_change is not None and (matches or matched):
            on_change(before, after, gone)


def _identity(pod: Manifest) -> Manifest:
    """Return the part of a pod that the informer needs: the summaries hold the rest."""
    metadata = pod["metadata"]
    return {"metadata": {name: metadata.get(name) for name in ("name", "namespace", "uid", "resourceVersion")}}
