"""Periodic duties, so that nothing leaks: unseen pods, lingering pods, old tokens, leftovers of dead executors.

``Housekeeper.run`` is one loop that does one duty after the other. It ends when it is cancelled; an error in one duty
is logged and does not keep the others from running.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from functools import partial

from crosswind.engine.database import MetadataDatabase
from crosswind.engine.lifecycle import RunLifecycle
from crosswind.engine.state import RunStage, WaitReason, WorkerRun
from crosswind.engine.sweep import Cleaner, LeftoverSweep
from crosswind.engine.watcher import WorkerWatcher
from crosswind.engine.worker_namespaces import WorkerNamespaces
from crosswind.engine.workload_secrets import SecretBatch
from crosswind.errors import CrosswindError, NotFound
from crosswind.kube.client import Client
from crosswind.kube.resources import EVENTS, PODS, SECRETS
from crosswind.kube.retry import pause_after
from crosswind.podrun.follow import events_of
from crosswind.pods.causes import why
from crosswind.pods.fields import as_pod
from crosswind.settings import EngineSettings
from crosswind.types import PodEvent

__all__ = ["Housekeeper", "PodEvents"]

log = logging.getLogger(__name__)

_UNSEEN_S = 60.0
"""Seconds after which a created pod that no watch has reported is read."""
_LINGERING_S = 120.0
"""Seconds after which the pod of an ended run is cleaned up again."""
_RENEWAL_RETRY_S = 5.0
"""Seconds until the first retry of a token renewal that failed."""
_SWEEP_EVERY_S = 300.0
_SWEEP_RETRY_S = 5.0
"""Seconds until the first retry of a sweep that failed."""
_PODS_PER_ROUND = 20
"""Pods whose Events are read in one round of housekeeping; the others have their turn in the next one."""


class PodEvents:
    """Reads the Events of pods that wait without a reason in their status, for instance for a volume."""

    def __init__(self, client: Client, lifecycle: RunLifecycle, settings: EngineSettings) -> None:
        self._client = client
        self._registry = lifecycle.registry
        self._settings = settings
        self._asked: dict[str, float] = {}
        self._allowed: dict[str, bool] = {}

    async def explain_waits(self) -> None:
        """Look for wait reasons, first of the pods that were asked about least recently. Raises ``ApiError``."""
        now = asyncio.get_running_loop().time()
        before = now - self._settings.wait_report_delay
        unexplained = [
            run for run in self._registry.at(RunStage.CREATED) if run.wait is None and run.times.created < before
        ]
        self._asked = {run.unique_id: self._asked.get(run.unique_id, 0.0) for run in unexplained}
        for run in sorted(unexplained, key=lambda run: self._asked[run.unique_id])[:_PODS_PER_ROUND]:
            self._asked[run.unique_id] = now
            if await self._may_list_events(run.namespace):
                await self._explain(run)

    async def _may_list_events(self, namespace: str) -> bool:
        # Asked once per session: without the permission, every request would be an error in the API server's audit log.
        if namespace not in self._allowed:
            self._allowed[namespace] = await self._client.allowed("list", EVENTS, namespace=namespace)
        return self._allowed[namespace]

    async def _explain(self, run: WorkerRun) -> None:
        try:
            pod = as_pod(await self._client.get(PODS, run.name, namespace=run.namespace))
        except NotFound:
            return
        fatal = self._settings.fatal_reasons
        events = await events_of(self._client, pod)
        reason = why(pod, events, fatal=fatal)
        if run.stage is RunStage.CREATED and reason != why(pod, fatal=fatal):  # the Events add to the status
            run.wait = WaitReason(partial(str, reason), _newest_warning(events))


def _newest_warning(events: list[PodEvent]) -> str:
    """Return the reason of the newest warning among events, of which the oldest is the first; "" for none."""
    return next((str(event.get("reason")) for event in reversed(events) if event.get("type") == "Warning"), "")


class Housekeeper:
    """Runs the periodic duties of an engine. ``cleaner`` gets what must be deleted."""

    def __init__(
        self,
        client: Client,
        lifecycle: RunLifecycle,
        settings: EngineSettings,
        database: MetadataDatabase,
        watcher: WorkerWatcher,
        cleaner: Cleaner,
        namespaces: WorkerNamespaces,
    ) -> None:
        self._client = client
        self._lifecycle = lifecycle
        self._registry = lifecycle.registry
        self._settings = settings
        self._watcher = watcher
        self._cleaner = cleaner
        self._events = PodEvents(client, lifecycle, settings)
        self._leftovers = LeftoverSweep(client, lifecycle, settings, database, cleaner, namespaces)
        self._sweep_at = -math.inf
        self._failed_sweeps = 0
        self._requested = asyncio.Event()
        self._sweep_error = ""
        """Why the last sweep failed, as it was logged."""

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._requested.wait(), self._settings.housekeeping_interval)
            self._requested.clear()
            for duty in (
                self._events.explain_waits,
                self._send_wait_events,
                self._check_unseen_pods,
                self._clean_up_lingering_pods,
                self._renew_tokens,
                self._sweep,
            ):
                await self._attempt(duty)

    def sweep_soon(self) -> None:
        """Start the next round now: after an adoption there may be leftovers, and pods with old tokens."""
        self._sweep_at = -math.inf
        self._requested.set()

    async def _attempt(self, duty: Callable[[], Awaitable[None]]) -> None:
        name = getattr(duty, "__name__", str(duty))
        try:
            await duty()
        except CrosswindError as error:
            # A sweep without a permission fails in the same words for weeks.
            repeated = duty == self._sweep and str(error) == self._sweep_error
            level = logging.DEBUG if repeated else logging.WARNING
            log.log(level, "Housekeeping (%s) is postponed: %s", name, error)
            self._sweep_error = str(error) if duty == self._sweep else self._sweep_error
        except Exception:
            log.exception("Housekeeping (%s) failed", name)

    async def _send_wait_events(self) -> None:
        """Report to the authors of tasks that have waited for some time what the tasks wait for."""
        before = _now() - self._settings.wait_report_delay
        for run in self._registry.at(RunStage.WAITING, RunStage.CREATED):
            if run.wait is not None and run.times.requested < before:
                self._registry.send_event(run, "pod waits", run.wait.describe(), run.wait.reason)

    async def _check_unseen_pods(self) -> None:
        """Read pods that no watch has reported, such as those whose labels an admission webhook has removed."""
        # One request at a time: after an outage of the watch, all pods of a namespace may be unseen.
        before = _now() - _UNSEEN_S
        for run in self._registry.at(RunStage.CREATED, RunStage.RUNNING):
            if run.unseen_since is not None and run.unseen_since < before:
                await self._watcher.check_pod(run, {"metadata": {"name": run.name, "namespace": run.namespace}})

    async def _clean_up_lingering_pods(self) -> None:
        # The deletion was accepted, but no watch has reported its end: a finalizer or a dead kubelet holds the pod.
        before = _now() - _LINGERING_S
        for run in self._registry.at(RunStage.ENDED):
            if not run.pod_gone and 0 < run.times.cleanup < before:
                run.times.cleanup = _now()
                self._cleaner.put(run)

    async def _renew_tokens(self) -> None:
        """Renew old tokens, each Secret by itself: one that cannot be written must not stop the others."""
        # A copy of the list: batches come and go during the requests.
        for batch in list(self._registry.secrets.stale(_now() - self._settings.token_lifetime / 2)):
            if _now() < batch.renew_at:
                continue
            try:
                await self._renew(batch)
            except Exception as error:
                batch.failures += 1
                batch.renew_at = _now() + pause_after(batch.failures, error, first=_RENEWAL_RETRY_S, ceiling=_UNSEEN_S)
                level = logging.WARNING if isinstance(error, CrosswindError) else logging.ERROR
                log.log(
                    level,
                    "The tokens in Secret %s/%s, of pods that wait, could not be renewed, retrying: %s",
                    batch.namespace,
                    batch.name,
                    error,
                    exc_info=None if isinstance(error, CrosswindError) else error,
                )

    async def _renew(self, batch: SecretBatch) -> None:
        if batch.unread_payloads:
            await self._read_payloads(batch)
        minted_at = _now()
        fresh = {unique_id: b64encode(batch.users[unique_id]()).decode() for unique_id in batch.unread}
        await self._client.patch(SECRETS, batch.name, {"data": fresh}, namespace=batch.namespace)
        batch.minted_at, batch.failures = minted_at, 0  # not before: the pods have the old tokens until the patch

    async def _read_payloads(self, batch: SecretBatch) -> None:
        """Read from the Secret of adopted pods what they run: only the Secret still holds it."""
        fields = f"metadata.name={batch.name}"
        secrets = (await self._client.list(SECRETS, namespace=batch.namespace, fields=fields)).items
        data = secrets[0].get("data") or {} if secrets else {}
        for unique_id, renew in batch.unread_payloads.items():
            if unique_id in data:
                batch.users[unique_id] = partial(renew, b64decode(data[unique_id]))
            else:
                batch.unread.discard(unique_id)
        batch.unread_payloads = {}

    async def _sweep(self) -> None:
        # The second sweep that finds a Secret or pod unused deletes it: while there is one, the next round sweeps too.
        stray_pods = self._watcher.take_strays()
        if not (stray_pods or self._leftovers.has_suspects or _now() >= self._sweep_at):
            return
        self._sweep_at = _now() + _SWEEP_EVERY_S  # before the sweep, during which another one may be requested
        try:
            await self._leftovers.sweep()
        except Exception as error:
            self._failed_sweeps += 1
            pause = pause_after(self._failed_sweeps, error, first=_SWEEP_RETRY_S, ceiling=_SWEEP_EVERY_S)
            self._sweep_at = min(self._sweep_at, _now() + pause)
            raise
        self._failed_sweeps = 0
        self._sweep_error = ""


def _now() -> float:
    return asyncio.get_running_loop().time()
