"""Taking over the runs of executors that are no more: their pods get our label, what has none is scheduled once more.

A claimed run waits on the board until it is known what became of its pod. The scheduler's thread waits for none of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from crosswind.errors import Conflict, CrosswindError, NotFound
from crosswind.kube.client import Client
from crosswind.kube.informing import InformerEvent
from crosswind.kube.packing import Packed
from crosswind.kube.resources import PODS
from crosswind.kube.retry import is_transient, pause_after
from crosswind.pods.naming import label_value
from crosswind.pods.workers import worker_name
from crosswind.pods.workloads import mounted_workload
from crosswind.runs.board import Board
from crosswind.runs.dispatching import Dispatcher
from crosswind.runs.following import Follower
from crosswind.runs.inheriting import Heir
from crosswind.runs.pacing import Pace
from crosswind.runs.remembering import followed_by
from crosswind.runs.threads import call_apart
from crosswind.runs.workloads import WORKER_LABEL, Claim, End, Ledger, Position, Run, Stage, Standing, unique_of
from crosswind.settings import EngineSettings
from crosswind.types import Manifest

__all__ = ["Adopter", "match"]

log = logging.getLogger(__name__)

_LAUNCHES = 16
"""Launches of one workload whose names are tried."""
_AT_ONCE = 100
"""Pods taken over before others get a turn on the loop: some ms."""
_POLL = 0.2
_BUSY, _REFUSED = 2.0, 60.0
"""Seconds until a label that could not be set is tried again, at first and at most (or when it may not be set); the pod
is followed all the same."""
_AGAIN = 5.0
_SILENT = 60.0
"""Seconds without a list until the database is asked which tasks have ended meanwhile."""
_ALIVE_AFTER = 40.0
"""Seconds after which a scheduler that was killed a moment before no longer counts as alive (30 by default)."""
_FORESIGHT = 900.0
"""Seconds for which an executor's pods are followed though nobody claims them: core looks for orphans every 300."""
_OLDEST = 86_400.0
_LOST = (
    "The scheduler that queued it ended, and there is no trace of its pod: scheduled once more, at no cost of a retry"
)


def match(pods: Iterable[Manifest], claims: Iterable[Claim]) -> list[tuple[Claim, str, int]]:
    """Return the claims that have a pod, each with the uid of the last one launched and which launch that was.

    The task instance's id and the pod's name decide: a task that was deferred has another name after it, so that the
    pod before is not taken for it. A task that was cleared while it ran has another id, and its pod the name still.
    Stock's pods have only the key's parts.
    """
    by_id = {claim.ti_id: claim for claim in claims}
    by_key = {claim.key: claim for claim in by_id.values()}
    found: dict[str, tuple[tuple[bool, int, str], Claim, str, int]] = {}
    for pod in pods:
        annotations = pod["metadata"].get("annotations") or {}
        ti_id = annotations.get("task_instance_id")
        claim = by_id.get(ti_id or "") or by_key.get(_key(annotations))
        if claim is None or (ti_id and ti_id != claim.ti_id and not claim.unique):
            continue
        if (launch := _launch_of(claim, pod)) is None:
            continue
        rank = "deletionTimestamp" not in pod["metadata"], launch, pod["metadata"].get("creationTimestamp") or ""
        if claim.ti_id not in found or rank > found[claim.ti_id][0]:
            found[claim.ti_id] = rank, claim, pod["metadata"]["uid"], launch
    return [(claim, uid, launch) for _, claim, uid, launch in found.values()]


def _launch_of(claim: Claim, pod: Manifest) -> int | None:
    """Return which launch of the claim's workload a pod is, None for none."""
    metadata = pod["metadata"]
    if (metadata.get("labels") or {}).get("airflow_executor_done") == "True":
        return None
    if not claim.unique:
        return 0
    task = claim.workload.task
    names = (worker_name(replace(task, unique_id=unique_of(claim.unique, launch))) for launch in range(_LAUNCHES))
    return next((launch for launch, name in enumerate(names) if name == metadata["name"]), None)


def _key(annotations: dict[str, str]) -> tuple[str, str, str, int, int]:
    def number(name: str, default: int) -> int:
        text = annotations.get(name, "")
        return int(text) if text.lstrip("-").isdigit() else default

    dag, task, run = (annotations.get(name, "") for name in ("dag_id", "task_id", "run_id"))
    return dag, task, run, number("try_number", 0), number("map_index", -1)


class Adopter:
    """Finds out what became of the claimed runs on the board.

    ``created`` hears of those that have a pod, ``over`` of those that have none; ``adopted`` is called when all is done
    that an executor left.
    """

    def __init__(
        self,
        client: Client,
        board: Board,
        settings: EngineSettings,
        ledger: Ledger,
        follower: Follower,
        *,
        over: Callable[[Run], None],
        created: Callable[[Run], None],
        adopted: Callable[[], None],
    ) -> None:
        self._client = client
        self._board = board
        self._settings = settings
        self._ledger = ledger
        self._follower = follower
        self._over = over
        self._created = created
        self._adopted = adopted
        self._wanted = asyncio.Event()
        self._heirs: dict[str, Heir] = {}
        self._labelling = Dispatcher[Run](self._label, self._refused, Pace(ceiling=settings.max_requests))

    def wake(self) -> None:
        """Say that there are claimed runs."""
        self._wanted.set()

    async def run(self) -> None:
        """Adopt until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._labelling.run())
            for run in self._board.at(Stage.CREATED, Stage.BEGUN):
                if run.claim is not None:
                    self._labelling.put(run)
            for position in await self._positions(_FORESIGHT):
                self._serve(position.executor, group)
            self.wake()
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                for owner in {run.claim.owner for run in self._board.at(Stage.CLAIMED) if run.claim is not None}:
                    self._serve(owner, group)

    async def _positions(self, within: float) -> Collection[Position]:
        """Return what other executors than this one have kept in the last seconds."""
        try:
            found = await call_apart(self._ledger.positions, followed_by(self._client.host, self._settings), within)
        except Exception as error:
            log.warning("It is not known how far former schedulers have followed their pods: %s", error)
            return ()
        return [position for position in found if position.executor != label_value(self._settings.executor_id)]

    def _serve(self, owner: str, group: asyncio.TaskGroup) -> None:
        if owner not in self._heirs:
            self._heirs[owner] = heir = Heir(self._client, self._board, self._follower, owner)
            group.create_task(self._attempt(heir))

    async def _attempt(self, heir: Heir) -> None:
        try:
            await self._inherit(heir)
        except Exception:
            log.exception("The pods of the former scheduler %s could not be taken over; trying again", heir.owner)
            await asyncio.sleep(_AGAIN)
        del self._heirs[heir.owner]
        self.wake()  # for what is claimed still, or was in this moment

    async def _inherit(self, heir: Heir) -> None:
        """Follow an executor's pods until all its runs are ours, or it turns out to be alive."""
        kept = {one.namespace: one.version for one in await self._positions(_OLDEST) if one.executor == heir.owner}
        began = asked = _now()
        served = False
        async with asyncio.TaskGroup() as group:
            following = group.create_task(heir.run(dict.fromkeys(self._settings.namespaces, "") | kept))
            while not await self._is_idle(heir, served, _now() - began):
                if heir.complete:
                    served = await self._decide(heir) or served
                elif _now() - asked > _SILENT:
                    asked = _now()
                    await self._release_settled(heir.owner)
                await asyncio.sleep(_POLL)
            following.cancel()
        if served:
            self._adopted()

    async def _is_idle(self, heir: Heir, served: bool, age: float) -> bool:
        if any(run.claim is not None and run.claim.owner == heir.owner for run in self._board.runs.values()):
            return False
        if served or age > _FORESIGHT:
            return True
        if age < _ALIVE_AFTER:
            return False
        return heir.owner in map(label_value, await call_apart(self._ledger.living))

    def _claimed(self, owner: str) -> dict[str, Run]:
        """Return the runs that an executor left and whose pod is not known yet, by the task instance's id."""
        runs = self._board.at(Stage.CLAIMED)
        return {run.claim.ti_id: run for run in runs if run.claim is not None and run.claim.owner == owner}

    async def _decide(self, heir: Heir) -> bool:
        """Take over what has a pod, or had one. Returns whether there was anything to decide."""
        runs = self._claimed(heir.owner)
        if not runs:
            return False
        await self._take_all(runs, heir.pods(), heir.pod, heir)
        if left := {ti_id: run for ti_id, run in runs.items() if run.stage is Stage.CLAIMED}:
            await self._look_wider(left, heir)
        return True

    async def _take_all(
        self, runs: Mapping[str, Run], pods: Iterable[Manifest], pod: Callable[[str], Manifest], heir: Heir
    ) -> None:
        """Take over those of the pods that are claimed; ``pod`` returns one of them by its uid, as it is by then."""
        found = match(pods, [run.claim for run in runs.values() if run.claim is not None])
        for number, (claim, uid, launch) in enumerate(found):
            self._take(runs[claim.ti_id], pod(uid), launch, gone=heir.gone(uid) is not None)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _look_wider(self, runs: Mapping[str, Run], heir: Heir) -> None:
        """Look among all worker pods: a pod's label may be of an executor that ended while it adopted."""
        pods = Packed()
        labels = ",".join(f"{key}={value}" for key, value in WORKER_LABEL.items())
        try:
            for namespace in heir.places:
                await self._client.gather(PODS, pods.add, namespace=namespace, labels=labels)
        except CrosswindError as error:
            log.warning("Pods of adopted tasks cannot be looked for, trying again: %s", error)
            return
        await self._take_all(runs, pods.values(), pods.__getitem__, heir)
        for run in runs.values():
            self._lose(run)

    def _take(self, run: Run, pod: Manifest, launch: int, *, gone: bool) -> None:
        if run.stage is not Stage.CLAIMED:
            return
        metadata, mounted = pod["metadata"], mounted_workload(pod)
        unique = mounted.key if mounted else unique_of(run.unique, launch)
        self._board.rename(run, replace(run.task, unique_id=unique, executor_id=self._settings.executor_id))
        run.has_pod(_now())
        run.uid, run.attempt = metadata["uid"], launch
        self._board.placed(run, metadata["namespace"], metadata["name"])
        if mounted:
            self._board.join_batch(run, mounted.secret)
        self._created(run)
        if not gone:
            self._follower.on_change(InformerEvent("ADDED", pod, "list"))
        elif "deletionTimestamp" in metadata:
            run.claim = None
            self._follower.gone(run, pod)
        if run.claim is not None:
            self._labelling.put(run)

    def _lose(self, run: Run) -> None:
        """Take leave of a run without a trace of a pod."""
        if run.stage is not Stage.CLAIMED:
            return
        run.claim = None
        run.pod_is_gone()
        if run.revoked:
            self._board.drop_if_over(run)
            return
        self._board.end(run, End(failed=True, reason="PodLost", message=_LOST, lost=True))
        self._over(run)

    async def _release_settled(self, owner: str) -> None:
        """Free the slots of tasks that have ended while their pods cannot be listed."""
        log.warning("The pods of the former scheduler %s cannot be listed; its tasks are left alone meanwhile", owner)
        runs = self._claimed(owner).values()
        try:
            found = await call_apart(self._ledger.standings, [run.workload for run in runs])
        except Exception as error:
            log.warning("The metadata database could not be asked about adopted tasks: %s", error)
            return
        for run in runs:
            if run.stage is Stage.CLAIMED and found.get(run.workload, Standing.SETTLED) is Standing.SETTLED:
                run.claim = None
                run.pod_is_gone()
                self._board.end(run, End(failed=False, message="ended while its pod could not be looked for"))
                self._over(run)

    async def _label(self, run: Run) -> None:
        if run.gone:
            run.claim = None
            return
        marked = {"uid": run.uid, "labels": {"airflow-worker": label_value(self._settings.executor_id)}}
        try:
            await self._client.patch(PODS, run.name, {"metadata": marked}, namespace=run.namespace)
        except (NotFound, Conflict):  # gone, or another pod of that name
            await self._follower.look(run, self._last(run))
        run.claim = None

    def _last(self, run: Run) -> Manifest:
        seen = (heir.gone(run.uid) for heir in self._heirs.values())
        return next(filter(None, seen), {"metadata": {"name": run.name, "namespace": run.namespace}})

    def _refused(self, run: Run, error: Exception) -> float:
        log.warning("Pod %s is adopted, but cannot be marked as ours yet: %s", run.where, error)
        if not is_transient(error):
            return _REFUSED
        return pause_after(self._labelling.failures(run), error, first=_BUSY, ceiling=_REFUSED)


def _now() -> float:
    return asyncio.get_running_loop().time()
