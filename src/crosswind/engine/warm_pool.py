"""Keeps pods that wait for tasks: watches them, creates new ones at a capped rate, deletes those that nobody needs.

``WarmPool.run`` owns one informer per namespace, the loop that plans, and the queue of requests, all in one task group.
They end when it is cancelled; the pods stay for the next session or scheduler.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from crosswind.engine.database import MetadataDatabase
from crosswind.engine.lifecycle import RunLifecycle
from crosswind.engine.pod_composer import PodComposer
from crosswind.engine.pod_fingerprint import COLD_REASONS, WaitingTemplate
from crosswind.engine.request_queue import AimdLimit, RequestQueue
from crosswind.engine.state import RunStage, WorkerRun
from crosswind.engine.waiting_pods import Pool, WaitingPod, WaitingPods, read_waiting_pod, trimmed
from crosswind.engine.warm_claim_patch import POOL_LABEL, SCOPE_LABEL
from crosswind.engine.warm_gap import START_TIMEOUT_S, gap, is_late
from crosswind.engine.warm_requests import AdoptPod, CreatePod, PoolRequest, RetirePod, WarmRequests
from crosswind.engine.warm_size import pool_sizes
from crosswind.engine.warm_templates import WarmTemplates
from crosswind.errors import ConfigError, CrosswindError
from crosswind.event_loop import call_blocking
from crosswind.kube.client import Client
from crosswind.kube.informer import Informer, InformerEvent
from crosswind.kube.resources import PODS
from crosswind.kube.retry import pause_after
from crosswind.pods.fields import as_pod
from crosswind.pods.naming import label_value
from crosswind.settings import EngineSettings, WarmSettings

__all__ = ["WarmPool"]

log = logging.getLogger(__name__)

_PLAN_EVERY_S = 1.0
_GATHER_S = 0.02
"""Seconds to wait for further changes, so that one plan follows a burst of them."""
_TEMPLATES_EVERY_S = 5.0
"""How often the templates are composed anew, to find that a file or an image has changed."""
_OWNERS_EVERY_S = 30.0
_STOCK_TIMEOUT_S = 10.0
"""Seconds for the first list of waiting pods; without it the pool is filled anew."""
_FILL_PER_S = 20.0
"""Pods that are created a second, at most, and at once after a quiet second."""
_MAX_REQUESTS = 16
_MAX_CLAIMS = 8
"""Claims that wait beside creations; a longer burst of claims goes first, and empties the pool if it lasts."""
_FIRST_RETRY_S, _MAX_RETRY_S = 2.0, 300.0
_BLOCKED_PAUSE_S = 60.0
"""Seconds for which no pod waits in a namespace after a task's pod was seen to wait for a quota or a node there."""
_WANTS_ROOM = frozenset({"QuotaExceeded", "Unschedulable"})


class WarmPool:
    """Keeps the waiting pods of one scheduler. ``find`` and ``missed`` are called for each task that is launched."""

    def __init__(
        self,
        client: Client,
        composer: PodComposer,
        lifecycle: RunLifecycle,
        settings: EngineSettings,
        warm: WarmSettings,
        database: MetadataDatabase,
    ) -> None:
        self._client = client
        self._composer = composer
        self._registry, self._metrics = lifecycle.registry, lifecycle.metrics
        self._settings, self._warm = settings, warm
        self._database = database
        self._owner = label_value(settings.executor_id)
        self.templates = WarmTemplates(composer, settings, warm)
        self.pods = WaitingPods()
        self._pools: dict[str, Pool] = {}
        self._gone: set[str] = set()
        """Uids of pods that the watch has reported as gone since pods are being created."""
        self._informers: dict[str | None, Informer] = {}
        self._group: asyncio.TaskGroup | None = None
        self._changed = asyncio.Event()
        self._requests = RequestQueue[PoolRequest](self._send, self._failed, AimdLimit(ceiling=_MAX_REQUESTS))
        self._sender = WarmRequests(client, warm.secret, self.templates.scope, self._owner)
        self._blocked: dict[str, float] = {}
        self._looked_at = 0.0
        self.claims_waiting: Callable[[], int] = lambda: 0
        """Returns how many claims wait for their request; set by ``WarmClaims``."""
        self._tokens, self._planned_at, self._idle_seconds = _FILL_PER_S, _now(), 0.0
        self._reported: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Keep the pools until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            for namespace in self._settings.namespaces:
                self._watch(namespace)
            self._group.create_task(self._requests.run())
            await self._take_stock()
            self._group.create_task(self._adopt_regularly())
            self._group.create_task(self._follow_templates())
            while True:
                self._changed.clear()
                try:
                    self._plan()
                except Exception:  # it would end the session, and with it the launches of all tasks
                    log.exception("The waiting pods could not be planned, retrying")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PLAN_EVERY_S):
                        await self._changed.wait()
                await asyncio.sleep(_GATHER_S)

    async def _take_stock(self) -> None:
        """Look for the waiting pods of a scheduler before this one, so that they are not created a second time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOCK_TIMEOUT_S):
                for informer in list(self._informers.values()):
                    await informer.listed.wait()
        await self._compose_all()
        await self._adopt()

    # --- for the launcher ---------------------------------------------------------------------------------------------

    def find(self, template: WaitingTemplate, run: WorkerRun) -> WaitingPod | None:
        """Reserve a pod for a run, None if none is ready."""
        options = self._warm.options(run.task.queue)
        pod = self.pods.best(template.fingerprint, self._owner, _now() - options.max_age)
        if pod is not None:
            pod.reserved = True
            left = sum(pod.claimable for pod in self.pods.of(template.fingerprint))
            if (pool := self._pools.get(template.fingerprint)) is not None:
                pool.claimed(_now(), left)
            self._changed.set()
        return pod

    def missed(self, template: WaitingTemplate, run: WorkerRun) -> str:
        """Record that a run found no pod; return why, in a word. From now on such pods may wait."""
        if run.losses and not template.reason:
            return "losses"  # its pod may be another one after the next loss
        pool = self._pools.get(template.fingerprint)
        if pool is None:
            if not template.reason:
                template = self.templates.checked(template, run.workload, run.task)
            if template.reason:
                self._report_cold(run.task.queue, template.reason)
                return template.reason
            pool = self._pools[template.fingerprint] = Pool(template, run.task.queue, run.workload.config)
        pool.missed(_now())
        self._watch(template.namespace)
        self._changed.set()
        return "empty"

    def release(self, pod: WaitingPod, *, gone: bool) -> None:
        """Return a reserved pod that was not claimed; ``gone``: another scheduler has it, or it has ended."""
        if gone:
            self.pods.remove(pod.uid)
        elif (known := self.pods.get(pod.uid)) is not None:
            known.reserved = False
        self._changed.set()

    def gauges(self) -> dict[str, float]:
        """Return the number of waiting pods, and of ready ones by pool: a gauge's label follows a colon."""
        own = [pod for pod in self.pods if pod.owner == self._owner and not pod.ended]
        by_pool = {pool.name: 0 for pool in self._pools.values()}
        for pod in own:
            if pod.claimable and pod.pool in self._pools:
                by_pool[self._pools[pod.pool].name] += 1
        starting = float(sum(not pod.ready for pod in own))
        return {"crosswind.warm_pods_starting": starting} | {
            f"crosswind.warm_pods:{name}": float(number) for name, number in by_pool.items()
        }

    # --- watch --------------------------------------------------------------------------------------------------------

    def _watch(self, namespace: str | None) -> None:
        if self._group is None or not self._informers.keys().isdisjoint((None, namespace)):
            return
        informer = self._informers[namespace] = Informer(
            self._client,
            PODS,
            namespace=namespace,
            labels=f"{SCOPE_LABEL}={self.templates.scope},{POOL_LABEL}",
            relist_every=self._settings.relist_interval,
            trim=trimmed,
        )
        self._group.create_task(informer.run(self._on_event))

    def _on_event(self, event: InformerEvent) -> None:
        """Handle a change. DELETED is no loss: a pod that is claimed or retired leaves the selector as well."""
        pod = as_pod(event.object)
        uid = pod["metadata"]["uid"]
        try:
            if event.type == "DELETED":
                if any(pool.creating for pool in self._pools.values()):
                    self._gone.add(uid)
                self._on_gone(self.pods.remove(uid), deleted="deletionTimestamp" in pod["metadata"])
            else:
                waiting = read_waiting_pod(pod, _now(), time.time())
                if self.pods.put(waiting) and waiting.pool in self._pools:
                    self._pools[waiting.pool].failures = 0
        except Exception:  # it would end the watch of all other waiting pods
            log.exception("A change of the waiting pod %s could not be handled", pod["metadata"].get("name"))
        self._changed.set()

    def _on_gone(self, pod: WaitingPod | None, *, deleted: bool) -> None:
        if pod is not None and deleted and not (pod.retiring or pod.ready or pod.ended) and pod.owner == self._owner:
            self._back_off(pod.pool, f"pod {pod.namespace}/{pod.name} was deleted before it was ready")

    # --- plan ---------------------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        """Compare what waits with what shall wait, and queue the requests that close the gap."""
        now = _now()
        passed, self._planned_at = now - self._planned_at, now
        self._tokens = min(_FILL_PER_S, self._tokens + passed * _FILL_PER_S)
        self._count_idle(passed)
        if now - self._looked_at >= _PLAN_EVERY_S:  # thousands of runs may wait
            self._looked_at = now
            self._find_blocked(now)
        for group, pools in self._by_group().items():
            options = self._warm.queues.get(group, self._warm.everywhere)
            blocked = (pool.demand(pool.template.namespace in self._blocked) for pool in pools)
            sizes = pool_sizes(blocked, options, now)
            for pool in pools:
                pool.size = sizes[pool.template.fingerprint]
                self._resize(pool, options.max_age, now)
                if pool.size == 0 and not (pool.minimum or pool.creating or self.pods.of(pool.template.fingerprint)):
                    self._forget_if_unused(pool, options.idle_seconds, now)
        self._retire_strangers()

    def _by_group(self) -> Mapping[str, list[Pool]]:
        """Return the pools that share a ``max``: those of a queue with options of its own, and all others."""
        groups: dict[str, list[Pool]] = {}
        for pool in self._pools.values():
            groups.setdefault(pool.queue if pool.queue in self._warm.queues else "", []).append(pool)
        return groups

    def _resize(self, pool: Pool, max_age: float, now: float) -> None:
        own = [pod for pod in self.pods.of(pool.template.fingerprint) if pod.owner == self._owner]
        missing, to_retire = gap(own, pool.size, pool.creating, max_age, now)
        for pod in to_retire:
            if is_late(pod, now):
                self._back_off(pod.pool, f"pod {pod.namespace}/{pod.name} was not ready within {START_TIMEOUT_S:g} s")
            self._retire(pod)
        if missing and now >= pool.retry_at and self.claims_waiting() <= _MAX_CLAIMS:
            self._create(pool, missing)

    def _create(self, pool: Pool, missing: int) -> None:
        number = min(missing, int(self._tokens))
        self._tokens -= number
        pool.creating += number
        for _ in range(number):
            self._requests.put(CreatePod(pool))

    def _retire(self, pod: WaitingPod) -> None:
        if pod.failure and pod.pool in self._pools:
            self._back_off(pod.pool, pod.failure)
        pod.retiring = True
        self._requests.put(RetirePod(pod))

    def _retire_strangers(self) -> None:
        """Retire our pods of a fingerprint that no task of this scheduler has; ``_adopt`` gets those of dead ones."""
        for pod in self.pods:
            if pod.pool not in self._pools and pod.owner == self._owner and not (pod.retiring or pod.reserved):
                self._retire(pod)

    def _forget_if_unused(self, pool: Pool, idle_seconds: float, now: float) -> None:
        if pool.outdated or not pool.uses or now - pool.uses[-1].moment > idle_seconds:
            del self._pools[pool.template.fingerprint]

    def _find_blocked(self, now: float) -> None:
        """Find the namespaces in which a task's pod waits for room, and delete the waiting pods there."""
        for run in self._registry.at(RunStage.WAITING, RunStage.CREATED):
            if run.wait is not None and run.wait.reason in _WANTS_ROOM and run.claim is None:
                self._blocked[run.namespace] = now + _BLOCKED_PAUSE_S
        for namespace in [name for name, until in self._blocked.items() if until <= now]:
            del self._blocked[namespace]
        for pod in self.pods:
            if pod.namespace in self._blocked and not (pod.retiring or pod.reserved):
                self._retire(pod)  # also a sibling's: it does not know of our task

    def _count_idle(self, passed: float) -> None:
        self._idle_seconds += passed * sum(pod.claimable and pod.owner == self._owner for pod in self.pods)
        whole = int(self._idle_seconds)
        if whole:
            self._metrics.count("crosswind.warm_idle_seconds", number=whole)
            self._idle_seconds -= whole

    # --- requests -----------------------------------------------------------------------------------------------------

    async def _send(self, request: PoolRequest) -> None:
        await self._sender.send(request)
        if isinstance(request, CreatePod):
            request.pool.creating -= 1
            # Until the watch reports it, the new pod would be missing: it may do so only now. It may also have reported
            # its end, while its Secret was created.
            if (
                request.made is not None
                and request.made.uid not in self._gone
                and self.pods.get(request.made.uid) is None
            ):
                self.pods.put(request.made)
            self._forget_gone()
        elif isinstance(request, RetirePod):
            self.pods.remove(request.pod.uid)
        self._changed.set()

    def _forget_gone(self) -> None:
        if not any(pool.creating for pool in self._pools.values()):
            self._gone.clear()

    def _failed(self, request: PoolRequest, error: Exception) -> float | None:
        if isinstance(request, CreatePod):
            request.pool.creating -= 1
            self._forget_gone()
            self._back_off(request.pool.template.fingerprint, str(error), error)
        else:
            if not isinstance(error, CrosswindError):
                log.error("A waiting pod could not be deleted or adopted", exc_info=error)
            if isinstance(request, AdoptPod):
                request.pod.owner = request.former_owner
            # Not at once: a plan follows each change of another pod.
            asyncio.get_running_loop().call_later(_FIRST_RETRY_S, setattr, request.pod, "retiring", False)
        return None

    def _back_off(self, fingerprint: str, reason: str, error: Exception | None = None) -> None:
        """Pause the filling of a pool; the pause doubles with each failure in a row. Each reason is logged once."""
        pool = self._pools.get(fingerprint)
        if pool is None or (error is None and pool.retry_at > _now()):
            return
        pool.failures += 1
        pause = pause_after(pool.failures, error, first=_FIRST_RETRY_S, ceiling=_MAX_RETRY_S)
        pool.retry_at = _now() + pause
        if reason != pool.reported:
            pool.reported = reason
            log.warning("No pod waits for tasks of queue %s, which start cold: %s", pool.queue, reason)

    # --- templates ----------------------------------------------------------------------------------------------------

    async def _follow_templates(self) -> None:
        while True:
            await asyncio.sleep(_TEMPLATES_EVERY_S)
            await self._compose_all()
            self._changed.set()

    async def _compose_all(self) -> None:
        """Compose the pods of all queues with options, and anew those of all pools: what has changed is drained."""
        paths = {self._composer.path(None, queue) for queue in self._queues()}
        paths |= {self._composer.path(pool.config, pool.queue) for pool in self._pools.values()}
        templates = await self._composer.templates.load(filter(None, paths))
        with self._composer.templates.snapshot(templates):
            for queue in self._queues():
                self._add_base_pool(queue)
            for pool in list(self._pools.values()):
                self._drain_if_changed(pool)

    def _queues(self) -> Iterator[str]:
        """Yield the queues for which pods may wait before a task is there."""
        queues = dict.fromkeys((self._warm.default_queue, *self._warm.queues))
        return (queue for queue in queues if self._warm.options(queue).max > 0)

    def _add_base_pool(self, queue: str) -> None:
        template = self._compose(queue)
        if template is None:
            return
        if template.reason:
            self._report_cold(queue, template.reason)
            return
        minimum = self._warm.options(queue).min
        if minimum:
            pool = self._pools.setdefault(template.fingerprint, Pool(template, queue))
            pool.minimum = max(pool.minimum, minimum)
            self._watch(template.namespace)

    def _drain_if_changed(self, pool: Pool) -> None:
        template = self._compose(pool.queue, pool.config)
        outdated = template is not None and template.fingerprint != pool.template.fingerprint
        if outdated and not pool.outdated:
            log.info("The pods that wait for tasks of queue %s are replaced: their template has changed", pool.queue)
            pool.minimum = 0
        pool.outdated = outdated

    def _compose(self, queue: str, config: Mapping[str, object] | None = None) -> WaitingTemplate | None:
        try:
            return self.templates.of_queue(queue, config)
        except Exception as error:  # a template of any content must not end the session
            if (queue, str(error)) not in self._reported:
                self._reported.add((queue, str(error)))
                unexpected = None if isinstance(error, ConfigError) else error
                log.error("No pod waits for tasks of queue %s: %s", queue, error, exc_info=unexpected)
            return None

    def _report_cold(self, queue: str, reason: str) -> None:
        if (queue, reason) not in self._reported:
            self._reported.add((queue, reason))
            log.error("Tasks of queue %s start cold, [crosswind] warm has no effect: %s", queue, COLD_REASONS[reason])

    # --- dead schedulers ----------------------------------------------------------------------------------------------

    async def _adopt_regularly(self) -> None:
        while True:
            await asyncio.sleep(_OWNERS_EVERY_S)
            await self._adopt()

    async def _adopt(self) -> None:
        """Take over the waiting pods of dead schedulers; delete those that no task of this one needs."""
        try:
            foreign = [pod for pod in self.pods if pod.owner != self._owner]
            if foreign:
                live = {label_value(name) for name in await call_blocking(self._database.live_executors)}
                self._adopt_all(pod for pod in foreign if pod.owner not in live)
            await self._sender.sweep(self._informers)
        except Exception as error:
            level = logging.WARNING if isinstance(error, CrosswindError | TimeoutError) else logging.ERROR
            log.log(level, "Waiting pods of ended schedulers could not be adopted, retrying: %s", error)

    def _adopt_all(self, pods: Iterable[WaitingPod]) -> None:
        for pod in pods:
            if pod.retiring or pod.reserved:
                continue
            if pod.pool in self._pools and not pod.ended:
                self._requests.put(AdoptPod(pod, pod.owner))
                pod.owner = self._owner  # counts from now on, so that no other one is created for it
            else:
                self._retire(pod)


def _now() -> float:
    return asyncio.get_running_loop().time()
