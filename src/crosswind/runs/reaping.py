"""Ends the sidecars of finished pods that are nobody's: of Jobs, of CronJobs, of others' operators.

One watch per namespace tells of the pods. What is to be done with one follows from the pod itself and from the Events
on it, so that a reaper that starts goes on where another one stopped, and does nothing twice.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from crosswind.errors import CrosswindError, Forbidden
from crosswind.kube.client import Client
from crosswind.kube.informing import Informer, InformerEvent
from crosswind.kube.resources import EVENTS, PODS
from crosswind.kube.retry import Retries, retry_after
from crosswind.pods.known_sidecars import KNOWN, KnownSidecar
from crosswind.pods.reap_decisions import Decision, careful, decide, rest, resumed, taken
from crosswind.pods.states import held_by
from crosswind.pods.stop_plans import Abilities, StopPlan, plan_stop
from crosswind.runs.ending import Ender, abilities
from crosswind.runs.sighting import Sight
from crosswind.settings import ReapSettings
from crosswind.types import Manifest

__all__ = ["Reaper"]

log = logging.getLogger(__name__)

_AGAIN_S = 10.0
_PATIENCE_S = 900.0
"""How long the API server may be away at the start; an upgrade of a control plane takes minutes."""
_LAST_WORDS_S = 2.0


class Reaper:
    """Ends sidecars of pods in scope.

    ``allowed``: what may be done at most, permissions aside. ``leads``: whether it is ours to act, asked before each
    step. ``informers``: by namespace, while it runs. ``states``: pods by uid, namespace and what is done with them.
    ``outcomes``: how endings went, counted by namespace and word.
    """

    def __init__(
        self,
        client: Client,
        settings: ReapSettings,
        *,
        known: Sequence[KnownSidecar] = KNOWN,
        allowed: Abilities = Abilities.C,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._client, self._settings, self._known, self._leads = client, settings, known, leads
        self._ender = Ender(client, allowed=allowed, may_touch=self._objection)
        self._allowed, self._abilities = allowed, dict[str, Abilities]()
        self._group: asyncio.TaskGroup
        self._sights: dict[str, Sight] = {}
        self._resting: dict[str, asyncio.TimerHandle | None] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._closing = False
        self._next = 0.0
        self._blind: set[str] = set()
        self.informers: Mapping[str, Informer] = {}
        self.states: dict[str, tuple[str, str]] = {}
        self.outcomes: Counter[tuple[str, str]] = Counter()

    async def run(self) -> None:
        """Work until cancelled."""
        await self._begin(_PATIENCE_S)
        try:
            async with asyncio.TaskGroup() as self._group:
                watches = [self._group.create_task(one.run(self._changed)) for one in self.informers.values()]
                try:
                    await asyncio.wait(watches)
                finally:
                    await self._last_words()
        finally:
            self._stop()

    async def once(self) -> bool:
        """Deal with the pods that are there now; return whether all that were to be ended are finished.

        Raises the error that keeps it from seeing the pods.
        """
        await self._begin(0.0)
        for name in self.informers:  # what is forbidden is told at once, where an informer would go on trying
            await self._client.list(PODS, namespace=name, labels=self._settings.selector, limit=1)
        async with asyncio.TaskGroup() as self._group:
            watches = [self._group.create_task(one.run(self._follow)) for one in self.informers.values()]
            await asyncio.gather(*(one.listed.wait() for one in self.informers.values()))
            pods = [pod for one in self.informers.values() for pod in one.objects.values()]
            await asyncio.gather(*(task for pod in pods if (task := self._look(pod))))
            self._closing = True
            for watch in watches:
                watch.cancel()
        self._stop()
        return not any(self.outcomes[key] for key in self.outcomes if key[1] in ("stays", "error"))

    async def _begin(self, patience: float) -> None:
        """Ask what may be done in each namespace; an API server that is away is waited for some time."""
        labels, self._closing = self._settings.selector, False
        self.informers = {
            name: Informer(self._client, PODS, namespace=name, labels=labels) for name in self._settings.namespaces
        }
        for name in self.informers:
            self._abilities[name] = self._allowed & await self._ask(name, Retries(patience))
            can = ", ".join(str(one.name).lower() for one in self._abilities[name]) or "nothing"
            log.info("Namespace %s: pods labelled %s; may use %s", name, labels, can)

    async def _ask(self, namespace: str, retries: Retries) -> Abilities:
        while True:
            try:
                return await abilities(self._client, namespace)
            except CrosswindError as error:
                await asyncio.sleep(retries.after(error))

    async def _last_words(self) -> None:
        """Begin no step any more, and let what was just done be told."""
        self._closing = True
        if self._endings:
            await asyncio.wait(self._endings, timeout=_LAST_WORDS_S)

    def _stop(self) -> None:
        for timer in self._resting.values():
            if timer is not None:
                timer.cancel()
        for left in (self._resting, self._sights, self.states):
            left.clear()
        self.informers = {}

    def _changed(self, change: InformerEvent) -> None:
        self._follow(change)
        if change.type != "DELETED":
            self._look(change.object)

    def _follow(self, change: InformerEvent) -> None:
        """Tell whoever ends the pod; one that left the selector counts as gone."""
        uid, gone = change.object["metadata"]["uid"], change.type == "DELETED"
        if sight := self._sights.get(uid):
            sight.saw(None if gone else change.object)
        if gone:
            self.states.pop(uid, None)
            if timer := self._resting.pop(uid, None):
                timer.cancel()

    def _look(self, pod: Manifest) -> asyncio.Task[None] | None:
        """Decide on a pod, and begin to end it if that is due."""
        uid = pod["metadata"]["uid"]
        decision = decide(pod, self._settings, self._known)
        self._note(pod, decision)
        if not decision.act or uid in self._sights or uid in self._resting or self._closing:
            return None
        self._sights[uid] = Sight(self._client, pod)
        task = self._group.create_task(self._end(self._sights[uid], decision.main))
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        return task

    def _note(self, pod: Manifest, decision: Decision) -> None:
        metadata = pod["metadata"]
        word = "ending" if decision.act else str(decision)
        news = self.states.get(metadata["uid"], ("", ""))[1] != word
        self.states[metadata["uid"]] = (metadata["namespace"], word)
        if news and not decision.act:
            level = logging.INFO if decision.never or self._settings.dry_run else logging.DEBUG
            log.log(level, "Pod %s/%s is left alone: %s", metadata["namespace"], metadata["name"], decision)

    async def _end(self, sight: Sight, main: str) -> None:
        """End a pod's sidecars when its turn comes, and arrange for another look if that did not finish it."""
        try:
            await self._turn()
            outcome, pause = await self._deal(sight, main)
        except CrosswindError as error:
            outcome, pause = "error", _AGAIN_S + retry_after(error)
            log.warning("Pod %s could not be dealt with, trying again: %s", sight.where, error)
        finally:
            self._sights.pop(sight.uid, None)
        self.outcomes[sight.namespace, outcome] += 1
        self._rest(sight, pause)

    async def _deal(self, sight: Sight, main: str) -> tuple[str, float | None]:
        """Return how it went, and after how many seconds to look again, None for never."""
        plan, wait = await self._plan(sight, main)
        if self._settings.dry_run:
            _say(sight, plan)
            return "planned", None
        if wait > 0.0:
            log.warning(
                "Pod %s is not finished: %s; the next step is due in %.0f s", sight.where, _left(sight, main), wait
            )
            return "stays", wait
        if await self._ender.carry_out(sight, plan):
            return ("gone" if sight.pod is None else "finished"), None
        if self._objection(sight.pod or {}, main):
            return "left", _AGAIN_S
        log.warning("Pod %s is not finished: %s; see its Events", sight.where, _left(sight, main))
        return "stays", self._settings.retry

    def _rest(self, sight: Sight, pause: float | None) -> None:
        """Look at a pod again after a while."""
        uid, pods = sight.uid, self.informers[sight.namespace].objects

        def wake() -> None:
            self._resting.pop(uid, None)
            if pod := pods.get(uid):
                self._look(pod)

        if uid in pods:
            self._resting[uid] = asyncio.get_running_loop().call_later(pause, wake) if pause is not None else None

    async def _turn(self) -> None:
        """Wait for our turn at the rate that is set."""
        now = asyncio.get_running_loop().time()
        turn, self._next = max(now, self._next), max(now, self._next) + 1.0 / self._settings.rate
        await asyncio.sleep(turn - now)

    async def _plan(self, sight: Sight, main: str) -> tuple[StopPlan, float]:
        """Return what is left to do, and how long to wait before."""
        settings, pod = self._settings, sight.pod
        notes = taken(await self._events(sight), datetime.datetime.now(datetime.UTC))
        plan = plan_stop(
            pod,
            base=main,
            abilities=self._abilities[sight.namespace],
            known=self._known,
            swap_image=settings.swap_image,
            delete=settings.delete,
        )
        plan = careful(plan, pod or {}, main, settings, self._known)
        return resumed(plan, notes), rest(notes, settings.retry)

    async def _events(self, sight: Sight) -> list[Manifest]:
        if sight.namespace in self._blind:
            return []
        fields = f"involvedObject.uid={sight.uid}"
        try:
            return (await self._client.list(EVENTS, namespace=sight.namespace, fields=fields)).items
        except Forbidden as error:
            self._blind.add(sight.namespace)
            log.warning("What was done before in namespace %s is not known: %s", sight.namespace, error)
            return []

    def _objection(self, pod: Manifest, _base: str) -> str:
        """Tell what speaks against the next step for a pod that was just read."""
        if self._closing or not self._leads():
            return "this reaper ends" if self._closing else "another reaper leads"
        metadata = pod.get("metadata") or {}
        informer = self.informers.get(metadata.get("namespace", ""))
        seen = informer.objects.get(metadata.get("uid", "")) if informer else None
        if seen is None or seen["metadata"].get("labels") != metadata.get("labels"):
            return "its labels have changed"
        return str(decide(pod, self._settings, self._known))


def _left(sight: Sight, main: str) -> str:
    names = ", ".join(held_by(sight.pod, main))
    return f"{names} still runs" if names else "the kubelet has not reported its end"


def _say(sight: Sight, plan: StopPlan) -> None:
    for target in plan.targets:
        steps = ", then ".join(str(step) for step in target.taken) or "nothing that may be done"
        log.info("Pod %s: would end %s by: %s", sight.where, target.container, steps)
