"""The engine: many pods' lives on one event loop in a thread of its own. Synchronous outside, asynchronous inside.

Whatever fails inside is logged and started again; the workloads it knows stay on the board, and those that cannot be
launched fail with a message. Nothing of it reaches the thread that calls.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

from crosswind.errors import ConfigError, CrosswindError
from crosswind.kube.client import Client
from crosswind.runs.adopting import Adopter
from crosswind.runs.archiving import Archive, Archiver
from crosswind.runs.board import Board
from crosswind.runs.checking import problems, server_version
from crosswind.runs.comparing import Comparer
from crosswind.runs.composing import Composer
from crosswind.runs.ending import Ender, EndSettings
from crosswind.runs.following import Follower
from crosswind.runs.keeping import Keeper
from crosswind.runs.launching import Launcher
from crosswind.runs.metering import Meter, metering
from crosswind.runs.remembering import Rememberer, followed_by
from crosswind.runs.settling import Settler
from crosswind.runs.stopping import Stopper
from crosswind.runs.threads import LoopThread, call_apart
from crosswind.runs.workloads import Claim, End, Ledger, Outcome, Pod, Released, Run, Stage, Workload, unique_of
from crosswind.settings import EngineSettings, KubeSettings

__all__ = ["Engine"]

log = logging.getLogger(__name__)

_LONGEST_PAUSE = 15.0

_BROKEN_FOR = 1.5
"""Seconds for which a kubeconfig is to be unusable before tasks fail by it: two attempts."""


@dataclass(slots=True)
class _Parts:
    """What works with one client."""

    client: Client
    launcher: Launcher
    follower: Follower
    stopper: Stopper | Archiver
    keeper: Keeper
    adopter: Adopter
    rememberer: Rememberer

    async def run(self) -> None:
        """Work until one of them fails, or until cancelled."""
        parts = (self.follower, self.launcher, self.stopper, self.keeper, self.adopter, self.rememberer)
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part.run())


class Engine:
    """Runs workloads in pods.

    All but what begins with an underscore is for the caller's thread; ``stop`` waits, the others return at once.
    """

    def __init__(
        self,
        settings: EngineSettings,
        kube: KubeSettings,
        composer: Composer,
        ledger: Ledger,
        ending: EndSettings | None = None,
        archive: Archive | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.settings = settings
        self._ending = ending or EndSettings()
        self._kube = kube
        self._composer = composer
        self._ledger = ledger
        self._archive = archive
        self._meter = meter
        self.held_back = 0
        """Tasks that the caller holds back; it is the caller's to set."""
        self._board = Board()
        self._board.on_spent = self._flush_spent
        self._inbox: deque[Callable[[], None]] = deque()
        self._thread = LoopThread(f"crosswind-{settings.executor_id}", self._main)
        self._parts: _Parts | None = None
        self._broken_since = math.inf
        self._settler: Settler | None = None
        self._latest: dict[Hashable, Run] = {}
        self._asides: set[asyncio.Future[None]] = set()

    # --- the caller's side --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, or start it again if it is gone."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs, in this process."""
        return self._thread.alive

    def stop(self, timeout: float = 15.0) -> None:
        """Let deletions that are under way end, then end the thread. Pods whose task runs stay, for adoption."""
        try:
            self._thread.call(self._drain(timeout / 2), timeout / 2 + 1)
        except TimeoutError as error:
            log.info("Crosswind's engine stops without waiting: %s", error)
        self._thread.stop(timeout / 2)

    def launch(self, workloads: Sequence[Workload]) -> None:
        """Run workloads, highest priority first."""
        self._post(lambda: self._accept(workloads))

    def soon(self, work: Callable[[], None]) -> None:
        """Do something on the engine's thread, before what is asked for afterwards; what it raises is logged."""
        self._post(work)

    def revoke(self, key: Hashable) -> None:
        """End the newest run of a key without an outcome, and delete its pod."""
        self._post(lambda: self._revoke(key))

    def waits_for(self, key: Hashable) -> str:
        """Return what the newest pod of a key waits for, in a sentence; "" when it does not wait, or nobody knows."""
        run = self._latest.get(key)
        told = run.waits_for if run is not None and run.stage in (Stage.WAITING, Stage.CREATED) else None
        return told() if told is not None else ""

    def aside(self, work: Callable[[], None]) -> None:
        """Do something that waits, a query say, in a thread of its own; what it raises is logged."""
        self._post(lambda: self._put_aside(work))

    def adopt(self, claims: Sequence[Claim]) -> None:
        """Take over what other executors left: their pods, or if there is none, scheduling the task once more.

        Outcomes tell what became of each, as of those that were launched here.
        """
        self._post(lambda: self._claim(claims))

    def outcomes(self, most: int | None = None) -> list[Outcome]:
        """Take the outcomes that are there, the oldest first; ``most``: how many, default all."""
        box = self._board.outbox
        count = len(box)
        return [box.popleft() for _ in range(count if most is None else min(count, most))]

    def figures(self) -> dict[str, object]:
        """Return figures for a dump; they are read without a lock and may be a moment apart."""
        parts, board = self._parts, self._board
        figures: dict[str, object] = {stage.name.lower(): len(list(board.at(stage))) for stage in Stage}
        unmarked = sum(run.claim is not None for run in list(board.runs.values()))
        figures |= {
            "unmarked": unmarked,
            "secrets": len(board.batches),
            "outcomes": len(board.outbox),
            "refusal": board.refusal,
        }
        if parts is not None:
            figures |= {"pace": int(parts.launcher.pace.limit), "stopping": len(parts.stopper)}
        return figures

    def _gauges(self) -> dict[str, float]:
        """Return how the parts stand, by the names of ``crosswind.metrics``."""
        parts = self._parts
        if parts is None:
            return {}
        kept = parts.stopper.keeping if isinstance(parts.stopper, Archiver) else 0
        return {
            "crosswind.creation_pace": float(int(parts.launcher.pace.limit)),
            "crosswind.watch_silence": parts.follower.silence,
            "crosswind.tasks_held_back": float(self.held_back),
            "crosswind.logs_to_keep": float(kept),
        }

    def _post(self, call: Callable[[], None]) -> None:
        self._inbox.append(call)
        self._thread.post(self._read_inbox)

    # --- the loop's side ----------------------------------------------------------------------------------------------

    def _read_inbox(self) -> None:
        while self._inbox:
            call = self._inbox.popleft()
            try:
                call()
            except Exception:
                log.exception("A call to crosswind's engine failed")

    def _put_aside(self, work: Callable[[], None]) -> None:
        async def do() -> None:
            try:
                await call_apart(work)
            except Exception:
                log.exception("Work beside crosswind's engine failed")

        task = asyncio.ensure_future(do())
        self._asides.add(task)
        task.add_done_callback(self._asides.discard)

    async def _main(self) -> None:
        while True:
            self._settler = Settler(self._ledger, self._board, self.settings, self._relaunch, self._delete)
            comparer = self._comparer()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._settler.run())
                    group.create_task(comparer.run())
                    group.create_task(self._live_again_and_again())
                    if self._meter is not None:
                        group.create_task(metering(self._meter, self._board, self._gauges))
                    for run in self._board.at(Stage.ENDED):
                        if not run.settled:
                            self._settler.put(run)
                    self._read_inbox()
            except* Exception:
                log.exception("Crosswind's engine failed and starts again")
                await asyncio.sleep(1.0)

    def _comparer(self) -> Comparer:
        interval = self.settings.compare_interval
        return Comparer(self._ledger, self._board, interval, drop=self._drop, restart=self._restart)

    async def _live_again_and_again(self) -> None:
        pause = 1.0
        while True:
            began = _now()
            try:
                await self._live()
            except Exception as error:
                self._explain(error)
            finally:
                self._parts = None
            pause = 1.0 if _now() - began > 60 else min(_LONGEST_PAUSE, pause * 2)
            await asyncio.sleep(pause)

    async def _live(self) -> None:
        """Work with one client until something fails."""
        async with await self._connect() as client:
            version = await server_version(client)
            self._composer.settings = replace(self._composer.settings, server_version=version)
            parts = self._assemble(client)
            async with asyncio.TaskGroup() as group:
                group.create_task(parts.run())
                group.create_task(self._check(client))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                # Set with nothing in between: a run launched before would be put twice, and its first Secret stay.
                self._parts = parts
                self._resume(parts)

    async def _connect(self) -> Client:
        """Read the credentials; a kubeconfig that cannot be used is to be so for a while before tasks fail by it.

        A file that somebody is writing reads as broken, and one broken moment is no reason to fail what waits.
        """
        observe = self._board.tally.answered if self._meter is not None else None
        try:
            client = await Client.connect(self._kube, observe)
        except ConfigError as error:
            self._broken_since = min(self._broken_since, _now())
            if _now() - self._broken_since >= _BROKEN_FOR:
                self._board.refusal = str(error)
            raise
        self._broken_since, self._board.refusal = math.inf, ""
        return client

    def _assemble(self, client: Client) -> _Parts:
        board, settings = self._board, self.settings
        follower = Follower(client, board, settings, self._over, self._leaving)
        stopper = self._archived(client, Stopper(client, board, settings, Ender(client, settings=self._ending)))
        launcher = Launcher(
            client,
            self._composer,
            board,
            settings,
            over=self._over,
            created=self._created,
        )
        keeper = Keeper(client, board, settings, self._ledger, follower, stopper, self._claim)
        adopter = Adopter(
            client,
            board,
            settings,
            self._ledger,
            follower,
            over=self._over,
            created=self._created,
            adopted=keeper.sweep_soon,
        )
        rememberer = Rememberer(followed_by(client.host, settings), settings, self._ledger, follower)
        return _Parts(client, launcher, follower, stopper, keeper, adopter, rememberer)

    def _archived(self, client: Client, stopper: Stopper) -> Stopper | Archiver:
        if self._archive is None or self.settings.archive is None:
            return stopper
        return Archiver(client, stopper, self._archive, self.settings.archive)

    async def _check(self, client: Client) -> None:
        """Tell at start what will fail. What cannot be checked is no reason to stop."""
        await asyncio.to_thread(self._check_templates)
        try:
            for problem in await problems(client, self.settings):
                log.error("Tasks will fail: %s", problem)
        except CrosswindError as error:
            log.warning("Namespaces and permissions could not be checked: %s", error)

    def _check_templates(self) -> None:
        try:
            self._composer.check()
        except ConfigError as error:
            log.error("Tasks without a pod template of their own will fail: %s", error)
        for queue in self._composer.queues:
            try:
                self._composer.check_queue(queue)
            except ConfigError as error:
                log.error("Tasks of queue %s will fail: %s", queue, error)

    def _resume(self, parts: _Parts) -> None:
        """Hand the runs that are known to new parts. A Secret of which no answer came is not waited for any more."""
        unanswered = self._board.batches.pending()
        for run in self._board.at(*Stage):
            if run.stage is Stage.WAITING and self._board.batches.has_secret(run.namespace, run.batch):
                parts.launcher.create(run)  # the pod may be there already, and mount this very Secret
            elif run.stage is Stage.WAITING:
                self._board.release_batch(run)
                parts.launcher.put(run)
            elif not run.gone and run.stage is not Stage.CLAIMED:
                run.seen, run.created_at = False, _now()
                parts.follower.follow(run.namespace)
                if run.stage is Stage.ENDED or run.revoked:
                    parts.stopper.put(run)
        for batch in unanswered:
            self._board.decide_batch(batch)
        self._flush_spent()

    def _explain(self, error: Exception) -> None:
        """Say why there is no working client, and fail what has waited too long for one."""
        cause = _first(error)
        if not isinstance(cause, CrosswindError):
            log.error("Crosswind's engine failed and starts again", exc_info=error)
        else:
            log.error("Crosswind's engine cannot work: %s", cause)
        patience = 0.0 if self._board.refusal else self.settings.launch_timeout
        for run in self._board.at(Stage.WAITING):
            if _now() - run.asked_at >= patience:
                self._refuse(run, f"No pod could be created: {cause}")

    def _refuse(self, run: Run, message: str) -> None:
        run.pod_is_gone()
        self._board.end(run, End(failed=True, reason="NotLaunched", message=message))
        self._over(run)

    def _accept(self, workloads: Sequence[Workload]) -> None:
        for workload in workloads:
            self._start(Run(workload, workload.task, _now()))

    def _start(self, run: Run) -> None:
        if (unique := self._unused(run.unique)) != run.unique:
            run.task = replace(run.task, unique_id=unique)
        self._board.add(run)
        self._latest[run.workload.key] = run
        if self._board.refusal:
            self._refuse(run, f"No pod could be created: {self._board.refusal}")
        elif self._parts is not None:
            self._parts.launcher.put(run)

    def _unused(self, unique: str) -> str:
        """Return the id, or if core did not renew it and the pod before is still there, one that follows from it."""
        known = self._board.runs
        return next(found for n in itertools.count() if (found := unique_of(unique, n)) not in known)

    def _relaunch(self, run: Run) -> None:
        """Give the task of a run that never began another pod."""
        attempt = run.attempt + 1
        unique = unique_of(run.workload.task.unique_id, attempt)
        task = replace(run.task, unique_id=unique)
        self._start(Run(run.workload, task, _now(), attempt=attempt, noticed=run.noticed))

    def _created(self, run: Run) -> None:
        if self._parts is not None:
            self._parts.follower.follow(run.namespace)
            if run.revoked:
                self._parts.stopper.put(run)

    def _delete(self, run: Run) -> None:
        """Delete a pod that is over, even one that was kept: its task instance was deleted."""
        if not run.name or self._parts is None:
            return
        run.pod_is_unwanted()
        self._parts.stopper.put(run)

    def _over(self, run: Run) -> None:
        """Take a run whose base container is over, or that will have none."""
        run.ended_at = _now()
        if self._latest.get(run.workload.key) is run:
            del self._latest[run.workload.key]
        if self._settler is not None:
            self._settler.put(run)
        if self._parts is not None:
            self._parts.launcher.freed(run.namespace)
            self._parts.stopper.put(run)

    def _leaving(self, run: Run) -> None:
        """Take a run whose pod somebody deletes while its task runs."""
        if self._parts is not None and isinstance(self._parts.stopper, Archiver):
            self._parts.stopper.foresee(run)

    def _flush_spent(self) -> None:
        while self._parts is not None and self._board.spent:
            self._parts.stopper.put(self._board.spent.pop())

    def _revoke(self, key: Hashable) -> None:
        if run := self._latest.get(key):
            self._abandon(run)

    def _abandon(self, run: Run) -> None:
        """End a run without an outcome, and delete its pod; one that is being created goes when it is there."""
        if self._latest.get(run.workload.key) is run:
            del self._latest[run.workload.key]
        run.revoke()
        run.ended_at = _now()
        if run.stage in (Stage.CREATED, Stage.BEGUN) and self._parts is not None:
            self._parts.stopper.put(run)

    def _drop(self, run: Run) -> None:
        """Free the slot of a run that nobody wants any more."""
        self._board.outbox.append(Released(run.workload))
        self._abandon(run)

    def _restart(self, run: Run) -> None:
        """Have a task that was cleared, and whose pod has not started, told as ended once there is no pod."""
        if run.stage is Stage.CREATED and self._parts is not None:
            run.pod_is_unwanted()
            self._parts.stopper.put(run)
        elif run.stage is Stage.WAITING:
            self._abandon(run)  # its creation may be under way
            task = replace(run.task, unique_id=self._unused(run.unique))
            cleared = Run(run.workload, task, _now(), pod=Pod.GONE)
            cleared.ends(End(failed=True, message="It was cleared before it began"), time.monotonic())
            self._board.add(cleared)
            if self._settler is not None:
                self._settler.put(cleared)

    def _claim(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            task = replace(claim.workload.task, unique_id=self._unused(claim.workload.task.unique_id))
            run = Run(claim.workload, task, _now(), stage=Stage.CLAIMED, claim=claim)
            self._board.add(run)
            self._latest[run.workload.key] = run
        if self._parts is not None:
            self._parts.adopter.wake()

    async def _drain(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                if self._parts is not None:
                    await self._parts.rememberer.keep()
                    await self._parts.stopper.idle()
        except TimeoutError:
            log.info("Some pods are still being deleted; the next scheduler looks after them")


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _now() -> float:
    return asyncio.get_running_loop().time()
