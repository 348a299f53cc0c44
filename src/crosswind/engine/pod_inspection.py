"""Describes the pods in flight that are open in Airflow's UI: containers, conditions, events.

API servers have no right to read pods, and a description of every pod would cost more than the snapshot. So the page
stores that it is open, and the executor answers for these pods alone. ``PodInspector.run`` is a task of the session's
group. It asks the database every two seconds, in a thread of its own, and reads at most ``_MAX_PODS`` pods. An error
of the database or the API server delays the answer and ends nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from crosswind.engine.lifecycle import RunLifecycle
from crosswind.engine.outage_log import OutageLog
from crosswind.engine.pod_history import pod_detail
from crosswind.engine.state import WorkerRun
from crosswind.errors import CrosswindError
from crosswind.event_loop import BlockingCallThread
from crosswind.kube.client import Client
from crosswind.kube.resources import EVENTS, PODS
from crosswind.podrun.follow import events_of
from crosswind.pods.fields import as_pod

__all__ = ["PodInspector", "PodViews"]

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 2.0
_PAUSE_S = 10.0
"""Seconds until the next attempt when the database does not answer."""
_MAX_PODS = 10
"""Pods per round; each costs two requests."""
_DATABASE_TIMEOUT_S = 20.0


class PodViews(Protocol):
    """The pods that users look at. Methods are called in a thread: they may block, and raise any exception."""

    def viewed(self) -> Collection[str]:
        """Return the unique ids of pods that were looked at a moment ago."""
        ...

    def answer(self, details: Mapping[str, Mapping[str, Any]]) -> None:
        """Store the description of each pod, by unique id."""
        ...


class PodInspector:
    """Reads and stores the state of pods that a user looks at."""

    def __init__(self, client: Client, lifecycle: RunLifecycle, views: PodViews) -> None:
        self._client = client
        self._registry = lifecycle.registry
        self._views = views
        self._may_list_events: dict[str, bool] = {}

    async def run(self) -> None:
        """Work until cancelled."""
        thread = BlockingCallThread("crosswind-views", _DATABASE_TIMEOUT_S)
        outage = OutageLog(log)
        try:
            while True:
                await asyncio.sleep(_LOOK_EVERY_S)
                try:
                    await self._answer(thread)
                except Exception as error:  # a page that stays without its details is worth less than the session
                    outage.failed("Pods that are open in the UI could not be described: %s", error)
                    await asyncio.sleep(_PAUSE_S)
                else:
                    outage.worked()
        finally:
            thread.close()

    async def _answer(self, thread: BlockingCallThread) -> None:
        viewed = await thread.call(self._views.viewed)
        runs = [run for unique_id in viewed if (run := self._registry.runs.get(unique_id)) is not None and run.uid]
        details = {run.unique_id: detail for run in runs[:_MAX_PODS] if (detail := await self._describe(run))}
        if details:
            await thread.call(self._views.answer, details)

    async def _describe(self, run: WorkerRun) -> Mapping[str, Any]:
        """Return the description of a run's pod, {} where it cannot be read."""
        try:
            pod = as_pod(await self._client.get(PODS, run.name, namespace=run.namespace))
            if run.namespace not in self._may_list_events:
                allowed = await self._client.allowed("list", EVENTS, namespace=run.namespace)
                self._may_list_events[run.namespace] = allowed
            events = await events_of(self._client, pod) if self._may_list_events[run.namespace] else []
        except CrosswindError as error:
            log.debug("Pod %s, which a user looks at, cannot be read: %s", run.pod_path, error)
            return {}
        return pod_detail(pod, events, run.requested_fields)
