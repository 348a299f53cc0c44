"""What is looked after now and then, so that nothing leaks.

Pods that nobody saw, pods that linger, old tokens, and what executors that are no more have left.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import math
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from crosswind.errors import CrosswindError
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS, SECRETS
from crosswind.kube.retry import pause_after
from crosswind.pods.log_volumes import keeps_its_log
from crosswind.pods.naming import label_value, team_label
from crosswind.pods.verdicts import Verdict, judge
from crosswind.pods.workers import WorkerTask
from crosswind.pods.workloads import SECRET_LABELS, secrets_of
from crosswind.runs.archiving import Archiver
from crosswind.runs.batches import Batch
from crosswind.runs.board import Board
from crosswind.runs.following import Follower
from crosswind.runs.inquiring import Inquirer
from crosswind.runs.stopping import Stopper
from crosswind.runs.threads import call_apart
from crosswind.runs.workloads import LOCAL, WORKER_LABEL, Claim, End, Ledger, Run, Stage, Workload
from crosswind.settings import EngineSettings
from crosswind.types import Manifest

__all__ = ["Keeper"]

log = logging.getLogger(__name__)

_UNSEEN = 60.0
_LINGERING = 120.0
_RENEW_AGAIN = 5.0
"""Seconds until the renewal of tokens that failed is tried again, at first."""
_SWEEP = 300.0
_LOCAL_LIFE = datetime.timedelta(days=1)


class Keeper:
    """Looks after an engine's runs. ``claim`` gets what the pods of former executors run that is to be adopted."""

    def __init__(
        self,
        client: Client,
        board: Board,
        settings: EngineSettings,
        ledger: Ledger,
        follower: Follower,
        stopper: Stopper | Archiver,
        claim: Callable[[Sequence[Claim]], None] = lambda claims: None,
    ) -> None:
        self._client = client
        self._board = board
        self._settings = settings
        self._ledger = ledger
        self._follower = follower
        self._stopper = stopper
        self._claim = claim
        self._inquirer = Inquirer(client, board, settings)
        self._suspects: set[tuple[str, str]] = set()
        self._strays: set[str] = set()
        self._swept_at = 0.0
        self._soon = asyncio.Event()

    async def run(self) -> None:
        """Look after everything until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._soon.wait(), self._settings.housekeeping_interval)
            self._soon.clear()
            for duty in (
                self._inquirer.inquire,
                self._tell_waiting,
                self._find_unseen,
                self._end_lingering,
                self._renew_tokens,
                self._sweep,
            ):
                await self._attempt(duty)

    def sweep_soon(self) -> None:
        """Say that an executor that is no more may have left something, and pods whose tokens may be old."""
        self._swept_at = -math.inf
        self._soon.set()

    async def _attempt(self, duty: Callable[[], Awaitable[None]]) -> None:
        try:
            await duty()
        except CrosswindError as error:
            log.warning("Housekeeping (%s) put off: %s", getattr(duty, "__name__", duty), error)
        except Exception:
            log.exception("Housekeeping (%s) failed", getattr(duty, "__name__", duty))

    async def _tell_waiting(self) -> None:
        """Tell the authors of tasks that have waited for some time what they wait for."""
        before = _now() - self._settings.tell_after
        for run in self._board.at(Stage.WAITING, Stage.CREATED):
            if run.waits_for is not None and run.asked_at < before:
                self._board.notice(run, "pod waits", run.waits_for(), run.held_up)

    async def _find_unseen(self) -> None:
        """Ask for pods that the watch never told of, such as those whose labels an admission webhook took away."""
        before = _now() - _UNSEEN
        for run in self._board.at(Stage.CREATED, Stage.BEGUN):
            if not run.seen and run.created_at < before:
                await self._follower.look(run, {"metadata": {"name": run.name, "namespace": run.namespace}})

    async def _end_lingering(self) -> None:
        before = _now() - _LINGERING
        for run in self._board.at(Stage.ENDED):
            if not run.gone and 0 < run.ended_at < before:
                run.ended_at = _now()
                self._stopper.put(run)

    async def _renew_tokens(self) -> None:
        """Renew what is old, each Secret for itself: one that cannot be written keeps no other from it."""
        for batch in list(self._board.batches.stale(_now() - self._settings.token_lifetime / 2)):
            if _now() < batch.renew_at:
                continue
            try:
                await self._renew(batch)
            except Exception as error:
                batch.failures += 1
                batch.renew_at = _now() + pause_after(batch.failures, error, first=_RENEW_AGAIN, ceiling=_UNSEEN)
                level = logging.WARNING if isinstance(error, CrosswindError) else logging.ERROR
                log.log(
                    level,
                    "The tokens in Secret %s/%s, of pods that wait, are not renewed yet, trying again: %s",
                    batch.namespace,
                    batch.name,
                    error,
                    exc_info=None if isinstance(error, CrosswindError) else error,
                )

    async def _renew(self, batch: Batch) -> None:
        if batch.unknown:
            await self._read(batch)
        minted_at = _now()
        fresh = {unique: b64encode(batch.users[unique]()).decode() for unique in batch.unread}
        await self._client.patch(SECRETS, batch.name, {"data": fresh}, namespace=batch.namespace)
        batch.minted_at, batch.failures = minted_at, 0  # only now: until then the pods have the old tokens

    async def _read(self, batch: Batch) -> None:
        """Learn from the Secret of adopted pods what they are to run."""
        fields = f"metadata.name={batch.name}"
        found = (await self._client.list(SECRETS, namespace=batch.namespace, fields=fields)).items
        data = found[0].get("data") or {} if found else {}
        for unique, renew in batch.unknown.items():
            if unique in data:
                batch.users[unique] = partial(renew, b64decode(data[unique]))
            else:
                batch.unread.discard(unique)
        batch.unknown = {}

    async def _sweep(self) -> None:
        if not self._suspects and _now() - self._swept_at < _SWEEP:
            return
        self._swept_at = _now()
        living = {label_value(name) for name in await call_apart(self._ledger.living)}
        for namespace in self._settings.namespaces:
            await self._sweep_pods(namespace, living)
            await self._sweep_secrets(namespace, living - {label_value(self._settings.executor_id)})
        await self._sweep_own_pods()

    async def _sweep_own_pods(self) -> None:
        """Delete or mark pods with our label that no run is for, found so in two sweeps in a row.

        One whose deletion was refused for good, or whose creation was carried out after it was given up, is nobody's
        else while this scheduler lives. One that runs ends by itself: its task is another pod's, or over.
        """
        ours = ",".join(f"{key}={value}" for key, value in WORKER_LABEL.items())
        team = "".join(f",{key}={value}" for key, value in team_label(self._settings.team).items())
        labels = f"{ours},airflow-worker={label_value(self._settings.executor_id)},airflow_executor_done!=True"
        labels += team or ",!crosswind/team"
        strays: dict[str, Run] = {}
        for namespace in self._settings.namespaces:
            for run in (await self._client.gather(PODS, self._stray, namespace=namespace, labels=labels)).items:
                if run is not None:
                    strays[run.uid] = run
        for uid in strays.keys() & self._strays:
            log.warning(
                "Pod %s has our label and no task that waits for it: it is dealt with as over", strays[uid].where
            )
            self._stopper.put(strays[uid])
        self._strays = strays.keys() - self._strays

    def _stray(self, pod: Manifest) -> Run | None:
        """Return a pod that no run is for as a run that is over; None for one that runs, or is being deleted."""
        metadata = pod["metadata"]
        run = self._board.pods.get((metadata["namespace"], metadata["name"]))
        if "deletionTimestamp" in metadata or (run is not None and run.uid in ("", metadata["uid"])):
            return None
        if (stray := self._left_over(pod)) is None and not judge(pod).started:
            stray = self._as_over(pod, judge(pod))
            stray.pod_is_unwanted()
        return stray

    async def _sweep_pods(self, namespace: str | None, living: set[str]) -> None:
        """Delete or mark pods that are over, or that nobody wants, and whose executor is no more."""
        others = ",".join(sorted({*living, label_value(self._settings.executor_id)}))
        ours = ",".join(f"{key}={value}" for key, value in WORKER_LABEL.items())
        labels = f"{ours},airflow-worker notin ({others}),airflow_executor_done!=True"
        left = (await self._client.gather(PODS, self._unclaimed, namespace=namespace, labels=labels)).items
        pods = {one.run.uid: one for one in left if one is not None}
        asked = {uid: one.annotations for uid, one in pods.items()}
        found = await call_apart(self._ledger.left_behind, asked) if asked else {}
        for uid, one in pods.items():
            if (workload := found.get(uid)) is not None:
                self._claim([_claim_of(workload, one.owner)])
            elif one.over:
                self._stopper.put(one.run)
            elif uid in found and not one.started:
                one.run.pod_is_unwanted()
                self._stopper.put(one.run)

    def _unclaimed(self, pod: Manifest) -> _Unclaimed | None:
        """Return what matters of a former executor's pod; None for one whose task runs, or that is claimed by now."""
        metadata, verdict = pod["metadata"], judge(pod)
        if _is_left_to_itself(metadata) or (metadata["namespace"], metadata["name"]) in self._board.pods:
            return None
        facts = metadata.get("annotations") or {}
        if verdict.started and not verdict.over and "task_instance_id" in facts:
            return None
        owner = (metadata.get("labels") or {}).get("airflow-worker", "")
        return _Unclaimed(self._as_over(pod, verdict), verdict.over, verdict.started, facts, owner)

    def _left_over(self, pod: Manifest) -> Run | None:
        """Return a pod as a run that is over, None when it is not."""
        verdict = judge(pod)
        return self._as_over(pod, verdict) if verdict.over else None

    def _as_over(self, pod: Manifest, verdict: Verdict) -> Run:
        metadata, archive = pod["metadata"], self._settings.archive
        ti_id = (metadata.get("annotations") or {}).get("task_instance_id", "")
        task = WorkerTask("", "", "", 0, metadata["uid"], ti_id=ti_id)
        end = End(failed=not verdict.succeeded)
        run = Run(Workload(metadata["uid"], task, 0.0, None), task, 0.0, stage=Stage.ENDED, end=end)
        run.settle()
        run.name, run.namespace, run.uid = metadata["name"], metadata["namespace"], metadata["uid"]
        run.keeps_log = archive is not None and keeps_its_log(pod, archive.folder)
        return run

    async def _sweep_secrets(self, namespace: str | None, siblings: set[str]) -> None:
        """Delete workload Secrets that no pod needs, two sweeps in a row: one may be newer than its pods.

        Those of executors that are alive, and of other teams, are theirs.
        """
        labels = ",".join(f"{key}={value}" for key, value in SECRET_LABELS.items())
        labels += f",airflow-worker notin ({','.join(sorted(siblings))})" if siblings else ""
        team = team_label(self._settings.team)
        labels += "".join(f",{key}={value}" for key, value in team.items()) or ",!crosswind/team"
        found = await self._client.gather(SECRETS, _sweepable, namespace=namespace, labels=labels)
        unused = {where for where in found.items if where is not None and where not in self._board.batches}
        if unused:
            labels = "kubernetes_executor=True"
            used = await self._client.gather(PODS, lambda pod: secrets_of([pod]), namespace=namespace, labels=labels)
            unused -= set().union(*used.items)
        for where in unused & self._suspects:
            self._stopper.put(Batch(name=where[1], namespace=where[0], minted_at=0.0))
        here = {where for where in self._suspects if namespace not in (None, where[0])}
        self._suspects = here | (unused - self._suspects)


@dataclass(frozen=True, slots=True)
class _Unclaimed:
    """A pod of a former executor, as a run that is over."""

    run: Run
    over: bool
    started: bool
    annotations: Mapping[str, str]
    owner: str


def _claim_of(workload: Workload, owner: str) -> Claim:
    """Return a claim of a workload whose pod is there, for the adopter to find it again by its annotations."""
    task = workload.task
    key = task.dag_id, task.task_id, task.run_id, task.try_number, task.map_index
    return Claim(task.run_id, key, workload, owner=owner)


def _is_left_to_itself(metadata: Manifest) -> bool:
    """Whether something belongs to a ``dag.test``, of which the database does not know whether it is alive.

    It deletes what it made when it ends; a day later it is taken for killed. By then the clocks' difference is nothing.
    """
    if not (metadata.get("labels") or {}).get("airflow-worker", "").startswith(LOCAL):
        return False
    made = datetime.datetime.fromisoformat(metadata["creationTimestamp"])
    return datetime.datetime.now(datetime.UTC) - made < _LOCAL_LIFE


def _sweepable(secret: Manifest) -> tuple[str, str] | None:
    metadata = secret["metadata"]
    return None if _is_left_to_itself(metadata) else (metadata["namespace"], metadata["name"])


def _now() -> float:
    return asyncio.get_running_loop().time()
