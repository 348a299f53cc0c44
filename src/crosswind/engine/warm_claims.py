"""Claims waiting pods for runs, and waits for a sign of life from each task.

``WarmClaims.run`` owns the queue of claim requests and the loop that asks the database, with a thread for its queries.
They end when it is cancelled. A run whose claim has no answer by then keeps its ``claim`` in the registry, and the next
session finds out what became of it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from crosswind.engine.claim_outcome import CLAIM_NOT_STARTED, late_start_result, next_step
from crosswind.engine.database import DatabaseState, MetadataDatabase
from crosswind.engine.lifecycle import RunLifecycle
from crosswind.engine.pod_composer import PodComposer
from crosswind.engine.pod_fingerprint import PodIdentity, WaitingTemplate
from crosswind.engine.request_queue import AimdLimit, RequestQueue
from crosswind.engine.sealed_workload import MAX_BYTES, pod_key, seal
from crosswind.engine.state import PodClaim, RunResult, RunStage, WorkerRun
from crosswind.engine.waiting_pods import WaitingPod
from crosswind.engine.warm_claim_patch import CLAIM_LABEL, claim_patch, touch_patch
from crosswind.engine.warm_pool import WarmPool
from crosswind.engine.warm_templates import early_cold_reason
from crosswind.errors import Conflict, CrosswindError, Invalid, NotFound, ServerError, Unreachable
from crosswind.event_loop import BlockingCallThread
from crosswind.kube.client import Client
from crosswind.kube.log_lines import moment
from crosswind.kube.requests import Patch
from crosswind.kube.resources import PODS
from crosswind.kube.retry import is_transient, pause_after
from crosswind.pods.fields import as_pod, labels_of
from crosswind.settings import EngineSettings

__all__ = ["WarmClaims"]

log = logging.getLogger(__name__)

_ASK_EVERY_S = 0.05
_DATABASE_DOWN_S = 1.0
_RUNS_PER_QUERY = 500
_MAX_PODS_TRIED = 5
_CLAIM_PATIENCE_S = 10.0
"""Seconds for which a claim is retried that the API server cannot have carried out; then the task starts cold."""
_REFUSAL_PAUSE_S = 60.0
"""Seconds for which no claim is tried after one was refused for good, for instance for want of permission."""
_DELETE_GRACE_S = 1
_LOG_BYTES = 64
"""Bytes of a pod's log that are read: the first line's time."""
_LOG_LIMIT_S = 1.0
"""Seconds that a pod's log may take. A node that does not answer has no sign of life."""


@dataclass(slots=True, eq=False)
class _Claim:
    """A run that claims a pod, and what it needs for that."""

    run: WorkerRun
    pod: WaitingPod
    template: WaitingTemplate | None
    """None: the claim is of an earlier session, and only its outcome is looked for."""
    identity: PodIdentity
    payload: bytes
    began: float
    doubtful: bool = False
    """A request got no answer: the pod may be ours."""
    tried: int = 1


class WarmClaims:
    """Claims pods. ``launch_cold``: where runs go that get no waiting pod."""

    def __init__(
        self,
        client: Client,
        composer: PodComposer,
        lifecycle: RunLifecycle,
        settings: EngineSettings,
        pool: WarmPool | None,
        database: MetadataDatabase,
        launch_cold: Callable[[WorkerRun], None],
    ) -> None:
        self._client = client
        self._composer = composer
        self._lifecycle = lifecycle
        self._registry, self._metrics = lifecycle.registry, lifecycle.metrics
        self._settings, self._warm, self._pool = settings, settings.warm, pool
        self._database = database
        self._launch_cold = launch_cold
        self._requests = RequestQueue[_Claim](self._send, self._failed, AimdLimit(ceiling=settings.max_requests))
        if pool is not None:
            pool.claims_waiting = self._requests.__len__
        self._group: asyncio.TaskGroup | None = None
        self._open: dict[WorkerRun, None] = {}
        self._opened = asyncio.Event()
        self._refused_until = 0.0

    async def run(self) -> None:
        """Claim and follow until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            self._group.create_task(self._requests.run())
            self._group.create_task(self._follow())

    # --- before a launch ----------------------------------------------------------------------------------------------

    def take(self, run: WorkerRun) -> bool:
        """Claim a waiting pod for a run if there is one. False: it starts cold; the reason is counted."""
        try:
            reason = early_cold_reason(run, self._settings, self._composer) or self._claim(run)
        except Exception:  # a pod of any content must not end the session; the cold launch reports the error
            log.debug("The pod of %s could not be compared", run.unique_id, exc_info=True)
            reason = "config"
        if reason and self._warm is not None and reason != "off":
            self._metrics.count("crosswind.cold_starts", reason)
        return not reason

    def _claim(self, run: WorkerRun) -> str:
        """Claim a pod; return why there is none to claim, "" if there is one."""
        pool = self._pool
        if pool is None or _now() < self._refused_until:
            return "refused"
        template, identity = pool.templates.of_run(run)
        if template.reason or (pod := pool.find(template, run)) is None:
            return pool.missed(template, run)
        payload = _payload(run)
        if payload is None or len(payload) > MAX_BYTES:
            pool.release(pod, gone=False)
            return "config" if payload is None else "size"
        self._reserve(run, pod)
        self._requests.put(_Claim(run, pod, template, identity, payload, _now()), run.workload.priority)
        return ""

    def _reserve(self, run: WorkerRun, pod: WaitingPod) -> None:
        """Register the pod before the request: the watch may report it before the request is answered."""
        run.claim = PodClaim(pod.pool, pod.nonce, _now())
        run.uid = pod.uid
        self._registry.set_pod(run, pod.namespace, pod.name)

    def resolve(self, run: WorkerRun) -> None:
        """Find out whether a claim of an earlier session, whose answer was lost, has succeeded."""
        assert run.claim is not None
        pod = WaitingPod(run.uid, run.name, run.namespace, run.claim.pool, run.claim.nonce, "", 0.0)
        self._requests.put(
            _Claim(run, pod, None, PodIdentity({}, {}), b"", _now(), doubtful=True), run.workload.priority
        )

    # --- claiming -----------------------------------------------------------------------------------------------------

    async def _send(self, claim: _Claim) -> None:
        run = claim.run
        if run.stage is not RunStage.WAITING:  # the watch has reported the claimed pod
            self._succeeded(claim)
            return
        if claim.template is None or (run.revoked and claim.doubtful):
            await self._look(claim)
            return
        if run.revoked:
            self._release(claim, gone=False)
            self._lifecycle.pod_removed(run)
            return
        assert self._warm is not None
        assert run.claim is not None
        run.claim.at = _now()
        sealed = seal(claim.payload, pod_key(self._warm.secret, claim.pod.nonce), claim.pod.uid)
        patch = claim_patch(claim.pod.pool, claim.identity, run.unique_id, sealed)
        await self._client.patch(PODS, claim.pod.name, patch, namespace=claim.pod.namespace, how=Patch.JSON)
        self._succeeded(claim)

    async def _look(self, claim: _Claim) -> None:
        """Read the pod to find out whether a claim without an answer has succeeded."""
        run = claim.run
        try:
            pod = as_pod(await self._client.get(PODS, claim.pod.name, namespace=claim.pod.namespace))
        except NotFound:
            pod = None
        if pod is not None and labels_of(pod).get(CLAIM_LABEL) == run.unique_id:
            self._succeeded(claim)
        elif pod is None:
            # It may have been ours, and have run the task: the row says how far it came.
            self._succeeded(claim, follow=False)
            run.mark_pod_gone()
            message = f"Warm pod {run.pod_path} no longer exists"
            self._lifecycle.end(
                run, RunResult(failed=True, reason=CLAIM_NOT_STARTED, message=message, may_relaunch=True)
            )
        elif run.revoked:
            self._release(claim, gone=False)
            self._lifecycle.pod_removed(run)
        elif (delay := self._next_pod(claim, "rival")) is not None:
            # Not before this request counts as answered: until then the queue ignores the claim.
            asyncio.get_running_loop().call_later(delay, self._requests.put, claim, run.workload.priority)

    def _succeeded(self, claim: _Claim, *, follow: bool = True) -> None:
        run = claim.run
        if self._pool is not None:
            self._pool.release(claim.pod, gone=True)
        self._metrics.count("crosswind.warm_claims", "hit")
        self._metrics.observe("crosswind.warm_claim", _now() - claim.began)
        if run.stage is RunStage.WAITING:
            run.mark_created(_now())
        if follow:
            self._lifecycle.pod_created(run)

    def _failed(self, claim: _Claim, error: Exception) -> float | None:
        if not isinstance(error, CrosswindError):
            log.error("The claim of pod %s failed", claim.run.pod_path, exc_info=error)
        if isinstance(error, Unreachable | ServerError):
            claim.doubtful = claim.doubtful or not isinstance(error, Unreachable) or error.sent
        if claim.run.stage is not RunStage.WAITING:
            self._succeeded(claim)
            return None
        if isinstance(error, Invalid | NotFound) and claim.doubtful:
            claim.template = None  # our own, earlier request may be the one that was first
            return 0.0
        if isinstance(error, Invalid | NotFound):
            return self._next_pod(claim, "rival" if isinstance(error, Invalid) else "stale")
        failures = self._requests.failures(claim)
        if (
            claim.doubtful
            or isinstance(error, Conflict)
            or (is_transient(error) and _now() - claim.began < _CLAIM_PATIENCE_S)
        ):
            return pause_after(failures, error, first=0.1, ceiling=5.0)
        log.warning("Tasks start cold for %g s: a waiting pod could not be claimed: %s", _REFUSAL_PAUSE_S, error)
        self._refused_until = _now() + _REFUSAL_PAUSE_S
        self._metrics.count("crosswind.warm_claims", "failed")
        self._release(claim, gone=False)
        self._launch_cold(claim.run)
        return None

    def _next_pod(self, claim: _Claim, outcome: str) -> float | None:
        """Claim another pod of the pool, or start the run cold. Return the delay of the next request."""
        run = claim.run
        self._metrics.count("crosswind.warm_claims", outcome)
        self._release(claim, gone=True)
        if claim.template is not None and self._pool is not None and not run.revoked and claim.tried < _MAX_PODS_TRIED:
            pod = self._pool.find(claim.template, run)
            if pod is not None:
                claim.pod, claim.tried = pod, claim.tried + 1
                self._reserve(run, pod)
                return 0.0
        self._launch_cold(run)
        return None

    def _release(self, claim: _Claim, *, gone: bool) -> None:
        self._registry.unset_pod(claim.run)
        if self._pool is not None:
            self._pool.release(claim.pod, gone=gone)

    # --- signs of life ------------------------------------------------------------------------------------------------

    def follow(self, run: WorkerRun) -> None:
        """Wait for a sign of life from a claimed pod's task."""
        self._open[run] = None
        self._opened.set()

    async def _follow(self) -> None:
        """Ask the database about all open claims together, every 50 ms while there are any."""
        thread = BlockingCallThread("crosswind-claims")
        try:
            while True:
                if not self._open:
                    self._opened.clear()
                    await self._opened.wait()
                await asyncio.sleep(_ASK_EVERY_S)
                try:
                    await self._ask(thread)
                except Exception:  # it would end the session, and with it the launches of all tasks
                    log.exception("Claimed pods could not be followed, retrying")
                    await asyncio.sleep(_DATABASE_DOWN_S)
        finally:
            thread.close()

    async def _ask(self, thread: BlockingCallThread) -> None:
        for run in [run for run in self._open if not _is_open(run)]:
            del self._open[run]
        runs, asked_at = list(self._open)[:_RUNS_PER_QUERY], _now()
        if not runs:
            return
        try:
            states = await thread.call(self._database.workload_states, [run.workload for run in runs])
            late = [run for run in runs if run.claim is None and states.get(run.workload) is DatabaseState.RUNNING]
            hosts = await thread.call(self._database.hosts, [run.workload for run in late]) if late else {}
        except Exception as error:
            # Nothing is given up meanwhile: only the row says whether a task has begun.
            log.warning("The metadata database could not be asked whether tasks have begun, retrying: %s", error)
            await asyncio.sleep(_DATABASE_DOWN_S)
            return
        for run in late:
            self._end_if_started_elsewhere(run, hosts.get(run.workload, ""))
        steps = (self._act(run, states.get(run.workload, DatabaseState.SETTLED), asked_at) for run in runs)
        if requests := [step for step in steps if step is not None]:
            await asyncio.gather(*requests)
        for run in runs:  # to the end, so that more than one query holds have their turn
            if self._open.pop(run, "gone") is None:
                self._open[run] = None

    def _act(self, run: WorkerRun, state: DatabaseState, asked_at: float) -> Coroutine[Any, Any, None] | None:
        """Act on the state of a run's row; return the request that it needs."""
        if run.claim is None or not _is_open(run):
            return None
        step = next_step(run.claim, state, asked_at)
        if step == "alive":
            self._lifecycle.claim_alive(run)
        if step == "read log" and self._group is not None:
            run.claim.log_asked = True
            self._group.create_task(self._read_log(run, run.claim))  # a dead node must not hold up other claims
        if step == "touch":
            return self._touch(run)
        return self._give_up(run) if step == "give up" else None

    def _end_if_started_elsewhere(self, run: WorkerRun, host: str) -> None:
        """End the run of a cold pod whose task the pod before it has started, after that pod's end."""
        if _is_open(run) and (result := late_start_result(run, host)) is not None:
            run.delete_in_any_case()
            self._lifecycle.end(run, result)

    async def _touch(self, run: WorkerRun) -> None:
        assert run.claim is not None
        run.claim.touched = True
        try:
            await self._client.patch(PODS, run.name, touch_patch(run.uid), namespace=run.namespace)
        except CrosswindError as error:  # without the touch, the pod is abandoned after 3 s
            log.debug("Pod %s could not be touched: %s", run.pod_path, error)

    async def _read_log(self, run: WorkerRun, claim: PodClaim) -> None:
        """Note whether the pod's worker has the workload: it prints nothing before, and Airflow's first line then."""
        taken = False
        since = math.ceil(_now() - claim.at)  # an entry point of the image may have printed something at the start
        try:
            async with asyncio.timeout(_LOG_LIMIT_S):
                text = await self._client.log(
                    run.name,
                    namespace=run.namespace,
                    container="base",
                    since_seconds=since,
                    timestamps=True,
                    limit_bytes=_LOG_BYTES,
                )
            # For a log that does not exist, the kubelet may return a sentence, which has no time stamp.
            taken = moment(text.partition(b" ")[0].decode(errors="replace")) is not None
        except (CrosswindError, TimeoutError) as error:
            log.debug("The log of pod %s could not be read: %s", run.pod_path, error)
        if taken:
            log.info("Pod %s has its task, and waits for Airflow to start it", run.pod_path)
        claim.taken = taken

    async def _give_up(self, run: WorkerRun) -> None:
        """Delete a pod that shows no sign of life. Its run ends when the watch reports that it is gone."""
        assert run.claim is not None
        run.claim.given_up = True  # before the request, whose effect the watch may report first
        try:
            await self._client.delete(
                PODS, run.name, namespace=run.namespace, uid=run.uid, grace_period=_DELETE_GRACE_S, metadata_only=True
            )
        except (NotFound, Conflict):
            pass  # it is gone, and the watch reports it
        except CrosswindError as error:
            log.warning("Pod %s has not started its task and could not be deleted yet: %s", run.pod_path, error)
            if isinstance(error, ServerError) or (isinstance(error, Unreachable) and error.sent):
                self._lifecycle.delete_pod(run)  # the pod may be ending: a sign of life no longer saves it
            else:
                run.claim.given_up = False
                return
        self._metrics.count("crosswind.warm_claims", "failed")
        log.warning("Pod %s has not started its task: the task gets a pod of its own", run.pod_path)


def _payload(run: WorkerRun) -> bytes | None:
    """Return the workload's JSON; None if there is none, which the cold launch reports."""
    try:
        return None if run.workload.payload is None else run.workload.payload()
    except Exception:
        log.debug("The workload of %s has no JSON", run.unique_id, exc_info=True)
        return None


def _is_open(run: WorkerRun) -> bool:
    """Whether the row of a run says more than its pod: it was claimed, or follows a pod whose claim was given up."""
    if run.revoked or run.stage is not RunStage.CREATED:
        return False
    return bool(run.failed_claims) if run.claim is None else not (run.claim.alive or run.claim.given_up)


def _now() -> float:
    return asyncio.get_running_loop().time()
