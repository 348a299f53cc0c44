"""Ends the sidecars of finished pods that no executor of ours looks after: pods of Jobs, CronJobs, other operators.

One informer per namespace reports the pods. The decision on a pod follows from the pod and the Events on it alone, so a
reaper that starts continues where another one stopped, and repeats no step.

``Reaper.run`` and ``Reaper.once`` own all tasks, in one task group: an informer per namespace and one task for each pod
whose sidecars end. Both end with the call. When ``run`` is cancelled, no new step begins; the running ones get
``_LAST_STEP_S`` to write their Event, then they are cancelled too.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from crosswind.errors import CrosswindError, Forbidden
from crosswind.kube.client import Client
from crosswind.kube.informer import Informer, InformerEvent
from crosswind.kube.resources import EVENTS, PODS
from crosswind.kube.retry import Retries, retry_after
from crosswind.pods.fields import as_events, labels_of, metadata_of, text
from crosswind.pods.states import holding_containers
from crosswind.settings import ReapSettings
from crosswind.sidecars.catalog import KNOWN, KnownSidecar
from crosswind.sidecars.pod_watch import PodWatch
from crosswind.sidecars.reaper_policy import (
    ReapDecision,
    decide,
    pause_before_retry,
    recorded_steps,
    restrict_plan,
    resume_plan,
)
from crosswind.sidecars.shutdown import SidecarShutdown, granted_permissions
from crosswind.sidecars.shutdown_plan import Permissions, ShutdownPlan, plan_shutdown
from crosswind.types import Manifest, Pod, PodEvent

__all__ = ["Reaper"]

log = logging.getLogger(__name__)

_RETRY_S = 10.0
"""Pause before the next attempt on a pod, after an error or an objection that may pass."""
_START_PATIENCE_S = 900.0
"""Limit for an API server that is down at the start; an upgrade of a control plane takes minutes."""
_LAST_STEP_S = 2.0


class Reaper:
    """Ends the sidecars of the pods in scope.

    ``allowed``: the most that may be done, whatever the permissions. ``leads``: returns whether this process is the
    leader, called before each step. ``informers``: by namespace, while the reaper runs. ``states``: for each pod's uid
    its namespace and what the reaper does with it. ``outcomes``: finished attempts, counted by namespace and outcome.
    """

    def __init__(
        self,
        client: Client,
        settings: ReapSettings,
        *,
        known: Sequence[KnownSidecar] = KNOWN,
        allowed: Permissions = Permissions.C,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._client, self._settings, self._known, self._leads = client, settings, known, leads
        self._shutdown = SidecarShutdown(client, allowed=allowed, may_touch=self._objection)
        self._allowed, self._permissions = allowed, dict[str, Permissions]()
        # Set by run() and once(), which own it; every attempt on a pod is a task of this group.
        self._group: asyncio.TaskGroup
        self._watches: dict[str, PodWatch] = {}
        # None: the pod needs no further attempt, however often it changes, until it is gone.
        self._resting: dict[str, asyncio.TimerHandle | None] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._closing = False
        self._next_at = 0.0
        self._without_events: set[str] = set()
        self.informers: Mapping[str, Informer] = {}
        self.states: dict[str, tuple[str, str]] = {}
        self.outcomes: Counter[tuple[str, str]] = Counter()

    async def run(self) -> None:
        """Reap until cancelled."""
        await self._begin(_START_PATIENCE_S)
        try:
            async with asyncio.TaskGroup() as self._group:
                watches = [self._group.create_task(informer.run(self._changed)) for informer in self.informers.values()]
                try:
                    # Informers never end by themselves, so this waits for the cancellation; the finally then lets
                    # running steps finish.
                    await asyncio.wait(watches)
                finally:
                    await self._finish_steps()
        finally:
            self._stop()

    async def once(self) -> bool:
        """Handle the pods that exist now; return whether every pod that was due is finished.

        Raises the error that keeps it from listing the pods.
        """
        await self._begin(0.0)
        for name in self.informers:  # raises Forbidden at once, where an informer would retry for ever
            await self._client.list(PODS, namespace=name, labels=self._settings.selector, limit=1)
        async with asyncio.TaskGroup() as self._group:
            watches = [self._group.create_task(informer.run(self._follow)) for informer in self.informers.values()]
            # In a task group an informer that fails, by a bug, cancels this wait.
            await asyncio.gather(*(informer.listed.wait() for informer in self.informers.values()))
            pods = [pod for informer in self.informers.values() for pod in informer.objects.values()]
            await asyncio.gather(*(task for pod in pods if (task := self._consider(pod))))
            self._closing = True  # before the cancellation, so that no change starts another attempt
            for watch in watches:
                watch.cancel()
        self._stop()
        return not any(self.outcomes[key] for key in self.outcomes if key[1] in ("stays", "error"))

    async def _begin(self, patience: float) -> None:
        """Ask for our permissions in each namespace; retry for ``patience`` seconds while the API server is down."""
        labels, self._closing = self._settings.selector, False
        self.informers = {
            name: Informer(self._client, PODS, namespace=name, labels=labels) for name in self._settings.namespaces
        }
        for name in self.informers:
            self._permissions[name] = self._allowed & await self._ask_permissions(name, Retries(patience))
            usable = ", ".join(str(permission.name).lower() for permission in self._permissions[name]) or "nothing"
            log.info("Namespace %s: pods labelled %s; may use %s", name, labels, usable)

    async def _ask_permissions(self, namespace: str, retries: Retries) -> Permissions:
        while True:
            try:
                return await granted_permissions(self._client, namespace)
            except CrosswindError as error:
                await asyncio.sleep(retries.after(error))

    async def _finish_steps(self) -> None:
        """Begin no further step, and give the running ones a moment to report themselves."""
        self._closing = True
        if self._endings:
            await asyncio.wait(self._endings, timeout=_LAST_STEP_S)

    def _stop(self) -> None:
        for timer in self._resting.values():
            if timer is not None:
                timer.cancel()
        for per_pod in (self._resting, self._watches, self.states):
            per_pod.clear()
        self.informers = {}

    def _changed(self, change: InformerEvent) -> None:
        self._follow(change)
        if change.type != "DELETED":
            self._consider(change.object)

    def _follow(self, change: InformerEvent) -> None:
        """Pass a change to the task that ends the pod's sidecars; a pod that left the selector counts as gone."""
        uid, gone = change.object["metadata"]["uid"], change.type == "DELETED"
        # Feeds the attempt that is under way, which waits for its steps' effect on this pod.
        if watch := self._watches.get(uid):
            watch.update(None if gone else change.object)
        if gone:
            self.states.pop(uid, None)
            if timer := self._resting.pop(uid, None):
                timer.cancel()

    def _consider(self, pod: Manifest) -> asyncio.Task[None] | None:
        """Decide on a pod, and start to end its sidecars if that is due."""
        uid = pod["metadata"]["uid"]
        decision = decide(pod, self._settings, self._known)
        self._note(pod, decision)
        # in _watches: a task ends its sidecars; in _resting: its next attempt is scheduled, or it needs none
        if not decision.act or uid in self._watches or uid in self._resting or self._closing:
            return None
        # Before the task starts, so that a second change of the pod starts no second task.
        self._watches[uid] = PodWatch(self._client, pod)
        task = self._group.create_task(self._end(self._watches[uid], decision.main))
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        return task

    def _note(self, pod: Manifest, decision: ReapDecision) -> None:
        metadata = pod["metadata"]
        state = "ending" if decision.act else str(decision)
        is_new = self.states.get(metadata["uid"], ("", ""))[1] != state
        self.states[metadata["uid"]] = (metadata["namespace"], state)
        if is_new and not decision.act:
            level = logging.INFO if decision.never or self._settings.dry_run else logging.DEBUG
            log.log(level, "Pod %s/%s is not changed: %s", metadata["namespace"], metadata["name"], decision)

    async def _end(self, watch: PodWatch, main: str) -> None:
        """End a pod's sidecars at the set rate, and schedule another attempt if that did not finish the pod."""
        try:
            await self._wait_for_rate()
            outcome, pause = await self._attempt(watch, main)
        except CrosswindError as error:
            outcome, pause = "error", _RETRY_S + retry_after(error)
            log.warning("The sidecars of pod %s could not be ended, retrying: %s", watch.where, error)
        finally:
            # Also when cancelled or failed: the pod is then free for the next attempt.
            self._watches.pop(watch.uid, None)
        self.outcomes[watch.namespace, outcome] += 1
        self._rest(watch, pause)

    async def _attempt(self, watch: PodWatch, main: str) -> tuple[str, float | None]:
        """Return the outcome, and the seconds until the next attempt, None for no further one."""
        plan, wait = await self._plan(watch, main)
        if self._settings.dry_run:
            _log_plan(watch, plan)
            return "planned", None
        if wait > 0.0:
            log.warning(
                "Pod %s is not finished: %s; the next step is due in %.0f s",
                watch.where,
                _still_running(watch, main),
                wait,
            )
            return "stays", wait
        if await self._shutdown.carry_out(watch, plan):
            return ("gone" if watch.pod is None else "finished"), None
        # An objection, such as a new leader, ends the steps silently, as if they had not worked, so it is checked after
        # them. It may be temporary.
        if self._objection(watch.pod or {}, main):
            return "left", _RETRY_S
        log.warning("Pod %s is not finished: %s; see its Events", watch.where, _still_running(watch, main))
        return "stays", self._settings.retry

    def _rest(self, watch: PodWatch, pause: float | None) -> None:
        """Consider a pod again after ``pause`` seconds; None: not before the pod is gone."""
        uid, pods = watch.uid, self.informers[watch.namespace].objects

        def wake() -> None:
            self._resting.pop(uid, None)
            if pod := pods.get(uid):
                self._consider(pod)

        if uid in pods:
            self._resting[uid] = asyncio.get_running_loop().call_later(pause, wake) if pause is not None else None

    async def _wait_for_rate(self) -> None:
        """Wait until the next attempt is due at the set rate; each caller reserves a later time than the one before."""
        now = asyncio.get_running_loop().time()
        # No await between the two: each caller gets a time of its own. A cancelled caller's time passes unused.
        due, self._next_at = max(now, self._next_at), max(now, self._next_at) + 1.0 / self._settings.rate
        await asyncio.sleep(due - now)

    async def _plan(self, watch: PodWatch, main: str) -> tuple[ShutdownPlan, float]:
        """Return the steps that are left, and the seconds to wait before the first one."""
        settings, pod = self._settings, watch.pod
        notes = recorded_steps(await self._events(watch), datetime.datetime.now(datetime.UTC))
        plan = plan_shutdown(
            pod,
            base=main,
            permissions=self._permissions[watch.namespace],
            known=self._known,
            swap_image=settings.swap_image,
            delete=settings.delete,
        )
        plan = restrict_plan(plan, pod or {}, main, settings, self._known)
        return resume_plan(plan, notes), pause_before_retry(notes, settings.retry)

    async def _events(self, watch: PodWatch) -> list[PodEvent]:
        if watch.namespace in self._without_events:
            return []
        fields = f"involvedObject.uid={watch.uid}"
        try:
            return as_events((await self._client.list(EVENTS, namespace=watch.namespace, fields=fields)).items)
        except Forbidden as error:  # logged once per namespace
            self._without_events.add(watch.namespace)
            log.warning("Events in namespace %s cannot be read, so steps may be repeated: %s", watch.namespace, error)
            return []

    def _objection(self, pod: Pod, _base: str) -> str:
        """Return the objection to the next step on a pod that was just read."""
        if self._closing or not self._leads():
            return "this reaper is shutting down" if self._closing else "another reaper is the leader"
        metadata = metadata_of(pod)
        informer = self.informers.get(text(metadata.get("namespace")))
        known = informer.objects.get(text(metadata.get("uid"))) if informer else None
        # A person who takes the label off wants the pod left alone. The informer would report it only later.
        if known is None or (known["metadata"].get("labels") or {}) != labels_of(pod):
            return "its labels have changed"
        return str(decide(pod, self._settings, self._known))


def _still_running(watch: PodWatch, main: str) -> str:
    names = ", ".join(holding_containers(watch.pod, main))
    return f"{names} still runs" if names else "the kubelet has not reported its end"


def _log_plan(watch: PodWatch, plan: ShutdownPlan) -> None:
    for target in plan.targets:
        steps = ", then ".join(str(step) for step in target.taken) or "no permitted step"
        log.info("Pod %s: would end %s by: %s", watch.where, target.container, steps)
