"""Creates the pods of runs: composes manifests in batches, creates one Secret per batch, then the pods.

``Launcher.run`` owns three tasks in one task group: the loop that composes, the request queue, and the loop that lets
runs retry which a quota refused. All end when it is cancelled. Runs that are not created by then stay at WAITING in the
registry, and ``RunLifecycle.attach`` hands them to the next launcher.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from crosswind.engine.database import MetadataDatabase
from crosswind.engine.lifecycle import RunLifecycle
from crosswind.engine.pod_composer import PodComposer
from crosswind.engine.priority_queue import PriorityQueue
from crosswind.engine.quota_wait import QuotaWaitList
from crosswind.engine.request_queue import AimdLimit, RequestQueue
from crosswind.engine.sealed_workload import owner_labels
from crosswind.engine.state import RunStage, WaitReason, WorkerRun
from crosswind.engine.workload_secrets import (
    SECRET_LIMIT,
    SECRET_PREFIX,
    SHIM_KEY,
    InlineWorkload,
    SecretBatch,
    SecretWorkload,
    mounted_workload,
    split_payloads,
    workload_secret,
)
from crosswind.errors import (
    AlreadyExists,
    ApiError,
    ConfigError,
    Conflict,
    CredentialsError,
    NotFound,
    QuotaExceeded,
    ServerError,
    TemplateError,
    Unreachable,
)
from crosswind.event_loop import call_blocking
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS, SECRETS
from crosswind.podrun.refusals import GiveUp, Retry, decide_retry, is_denied, waits_for
from crosswind.pods.fields import as_pod
from crosswind.pods.naming import label_value
from crosswind.settings import EngineSettings
from crosswind.types import Manifest

__all__ = ["Launcher"]

log = logging.getLogger(__name__)

_COUNT_TIMEOUT_S = 5.0
"""Seconds for the database to answer; other launches wait for it."""


class Launcher:
    """Creates the pods of an executor and reports each to ``lifecycle``, as it does runs that get no pod.

    ``claim``: claims a waiting pod for a run; False if there is none, so that the run gets a pod of its own.
    """

    def __init__(
        self,
        client: Client,
        composer: PodComposer,
        lifecycle: RunLifecycle,
        settings: EngineSettings,
        database: MetadataDatabase,
        claim: Callable[[WorkerRun], bool] | None = None,
    ) -> None:
        self._client = client
        self._database = database
        self._composer = composer
        self._lifecycle = lifecycle
        self._registry = lifecycle.registry
        self._settings = settings
        self._secret_labels = {
            "airflow-worker": label_value(settings.executor_id),
            **owner_labels(settings.warm_secret, settings.team),
        }
        self._claim = claim
        self._pending = PriorityQueue[WorkerRun]()
        self._has_pending = asyncio.Event()
        self._requests = RequestQueue[WorkerRun | SecretBatch](
            self._create, self._creation_failed, AimdLimit(ceiling=settings.max_requests)
        )
        self._prepared: dict[tuple[str, str], tuple[Manifest, list[WorkerRun]]] = {}
        """The manifest of each Secret that is not created yet, and the runs that mount it, by namespace and name."""
        self._quotas = QuotaWaitList()
        self._quotas_changed = asyncio.Event()

    @property
    def limit(self) -> AimdLimit:
        """How many creations may be under way."""
        return self._requests.limit

    def put(self, run: WorkerRun) -> None:
        """Queue a run for composition and creation."""
        self._pending.put(run, run.workload.priority)
        self._has_pending.set()

    def create_pod(self, run: WorkerRun) -> None:
        """Queue a run that already has its manifest, and its Secret."""
        self._requests.put(run, run.workload.priority)

    def quota_freed(self, namespace: str) -> None:
        """Retry a creation that a quota refused: a pod of the namespace has ended."""
        self._quotas.quota_freed(namespace, _now())
        self._quotas_changed.set()

    async def run(self) -> None:
        """Launch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._requests.run())
            group.create_task(self._retry_quotas())
            while True:
                await self._has_pending.wait()
                if not self._pending:
                    self._has_pending.clear()
                    continue
                # Composing only as fast as requests leave keeps the order by priority: a run that arrives later, with
                # a higher priority, overtakes all that are still in the pending queue.
                await self._requests.wait_for_room()
                runs = [
                    run for run in self._pending.take(self._settings.secret_batch) if not self._discard_if_obsolete(run)
                ]
                paths = {self._composer.path(run.workload.config, run.task.queue) for run in runs}
                templates = await self._composer.templates.load(path for path in paths if path)
                await self._count_losses(runs)
                # Runs may have been revoked while the template files were read.
                self._prepare([run for run in runs if not self._discard_if_obsolete(run)], templates)
                await asyncio.sleep(0)  # composing takes milliseconds: let the watch and the requests run in between

    async def _retry_quotas(self) -> None:
        """Create the pods whose turn it is, among those that wait for a quota."""
        while True:
            self._quotas_changed.clear()
            for run in self._quotas.due(_now()):
                self.create_pod(run)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._quotas.pause(_now())):
                    await self._quotas_changed.wait()

    def _discard_if_obsolete(self, run: WorkerRun) -> bool:
        """Return whether a run needs no pod any more; forget one that was revoked before it had a pod."""
        if run.revoked and run.stage is RunStage.WAITING:
            self._lifecycle.pod_removed(run)
        return run.revoked or run.stage is not RunStage.WAITING

    async def _count_losses(self, runs: list[WorkerRun]) -> None:
        """Count the losses of tasks whose pods depend on them. Without an answer, they get the pods of a first try."""
        later = {run.workload: run for run in runs if run.task.try_number > 1 and self._composer.counts_losses(run)}
        if not later:
            return
        try:
            async with asyncio.timeout(_COUNT_TIMEOUT_S):
                counts = await call_blocking(self._database.count_losses, list(later))
        except Exception as error:  # whatever it is, tasks must be launched
            log.warning(
                "The losses of %d tasks could not be counted, so after_losses is left out: %s", len(later), error
            )
            return
        for workload, losses in counts.items():
            later[workload].losses = losses

    # --- composing ----------------------------------------------------------------------------------------------------

    def _prepare(self, runs: list[WorkerRun], templates: Mapping[str, Manifest | TemplateError]) -> None:
        secret = f"{SECRET_PREFIX}{uuid.uuid4().hex[:16]}" if self._settings.workload_delivery == "secret" else None
        with self._composer.templates.snapshot(templates):
            cold = [run for run in runs if not self._claim(run)] if self._claim else runs
            composed = [run for run in cold if self._compose(run, secret)]
        if secret is None:
            for run in composed:
                self.create_pod(run)
            return
        by_namespace = defaultdict(list)
        for run in composed:
            by_namespace[run.namespace].append(run)
        for namespace, of_namespace in by_namespace.items():
            self._prepare_secret(secret, namespace, of_namespace)

    def _compose(self, run: WorkerRun, secret: str | None) -> bool:
        """Give the run its manifest. Return False if that failed, which ends the run."""
        try:
            mint = run.workload.payload
            assert mint is not None
            payload = mint()
            delivery = SecretWorkload(secret, run.unique_id) if secret else InlineWorkload(payload.decode())
            if secret and len(payload) > SECRET_LIMIT:  # fails this run alone, not the others of its Secret
                raise ConfigError(
                    f"The workload of {run.unique_id} has {len(payload)} bytes, and a Secret takes {SECRET_LIMIT}:"
                    " pass less to the task or callback, for instance a path in place of the data"
                )
            manifest = run.manifest = self._composer.compose(run.workload, run.task, delivery, run.losses)
            run.payload = payload if secret else None
            self._registry.set_pod(run, manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        except Exception as error:
            if not isinstance(error, ConfigError):
                log.exception("The pod of %s could not be composed", run.unique_id)
            self._lifecycle.fail_without_pod(run, str(error))
            return False
        return True

    def _prepare_secret(self, name: str, namespace: str, runs: list[WorkerRun]) -> None:
        """Queue a Secret for these runs. The runs that exceed the size of one Secret are composed again."""
        by_unique_id = {run.unique_id: run for run in runs}
        mints = {run.unique_id: run.workload.payload for run in runs if run.workload.payload}
        first, *rest = split_payloads({run.unique_id: run.payload for run in runs if run.payload})
        for part in rest:
            for unique_id in part:
                asyncio.get_running_loop().call_soon(self.put, by_unique_id[unique_id])
        users = {unique_id: mints[unique_id] for unique_id in first}
        batch = SecretBatch(name, namespace, _now(), users, pending=True)
        self._registry.secrets.add(batch)
        mounting = [by_unique_id[unique_id] for unique_id in first]
        workloads = (mounted_workload(as_pod(run.manifest)) for run in mounting)
        shim = any(workload is not None and workload.shim for workload in workloads)
        for run in mounting:
            run.secret, run.payload = name, None
        self._prepared[namespace, name] = (
            workload_secret(name, namespace, first, self._secret_labels, shim=shim),
            mounting,
        )
        self._requests.put(batch, max(run.workload.priority for run in mounting))

    # --- creating -----------------------------------------------------------------------------------------------------

    async def _create(self, item: WorkerRun | SecretBatch) -> None:
        if isinstance(item, SecretBatch):
            await self._create_secret(item)
        else:
            await self._create_pod(item)

    async def _create_secret(self, batch: SecretBatch) -> None:
        """Create a Secret, then queue its pods. Its runs may be revoked or failed before the server answers."""
        manifest, runs = self._prepared[batch.namespace, batch.name]
        users = self._users(batch, runs)
        if users and _now() - batch.minted_at > self._settings.token_lifetime / 2:
            fresh = {run.unique_id: batch.users[run.unique_id]() for run in users}
            labels, shim = manifest["metadata"]["labels"], SHIM_KEY in manifest["data"]
            manifest = workload_secret(batch.name, batch.namespace, fresh, labels, shim=shim)
            batch.minted_at = _now()
        if users:
            try:
                await self._client.create(SECRETS, manifest, namespace=batch.namespace, metadata_only=True)
            except AlreadyExists:  # an earlier request created it, and its answer was lost
                pass
            except Conflict:
                # A proxy may replace the Status that says AlreadyExists. The name is random, so after a request
                # without an answer a conflict can only mean that this request's Secret exists.
                if not batch.doubtful:
                    raise
        self._close(batch, may_exist=bool(users) or batch.doubtful)
        for run in self._users(batch, runs):
            self.create_pod(run)

    def _users(self, batch: SecretBatch, runs: Iterable[WorkerRun]) -> list[WorkerRun]:
        """Return the runs that still wait for a Secret."""
        return [run for run in runs if not self._discard_if_obsolete(run) and run.secret == batch.name]

    def _close(self, batch: SecretBatch, *, may_exist: bool) -> None:
        """End the attempts to create a Secret. One that does not exist need not be deleted."""
        del self._prepared[batch.namespace, batch.name]
        if may_exist:
            self._lifecycle.secret_creation_ended(batch)
        else:
            self._registry.secrets.creation_ended(batch)

    async def _create_pod(self, run: WorkerRun) -> None:
        if run.revoked or run.manifest is None:
            self._leave_quota_wait(run)
            self._discard_if_obsolete(run)
            return
        if (quota_error := self._quotas.hold(run)) is not None:
            describe = partial(waits_for, quota_error, f"Pod {run.pod_path}")
            run.wait = WaitReason(describe, type(quota_error).__name__)
            return
        try:
            pod = await self._client.create(PODS, run.manifest, namespace=run.namespace, metadata_only=True)
        except AlreadyExists:
            pod = await self._existing_pod(run)
        except Conflict as conflict:  # a proxy may have replaced the Status that says AlreadyExists
            try:
                pod = await self._existing_pod(run)
            except NotFound:
                raise conflict from None
        run.uid = pod["metadata"]["uid"]
        if run.stage is RunStage.WAITING:  # the watch may have reported the pod before the answer came
            run.mark_created(_now())
        self._leave_quota_wait(run)
        self._lifecycle.pod_created(run)

    def _leave_quota_wait(self, run: WorkerRun) -> None:
        if self._quotas:
            self._quotas.remove(run, _now())
            self._quotas_changed.set()

    async def _existing_pod(self, run: WorkerRun) -> Manifest:
        """Return the pod that exists under the run's name, if an earlier request of this run created it."""
        pod = await self._client.get(PODS, run.name, namespace=run.namespace)
        labels = pod["metadata"].get("labels") or {}
        own_labels = ((run.manifest or {}).get("metadata") or {}).get("labels") or {}
        if any(labels.get(key) != value for key, value in own_labels.items()):
            raise ConfigError(f"A pod {run.pod_path} exists and is not of this task: delete it, then clear the task")
        return pod

    # --- failing ------------------------------------------------------------------------------------------------------

    def _creation_failed(self, item: WorkerRun | SecretBatch, error: Exception) -> float | None:
        if isinstance(item, WorkerRun):
            return self._pod_failed(item, error)
        return self._secret_failed(item, error)

    def _pod_failed(self, run: WorkerRun, error: Exception) -> float | None:
        if not isinstance(error, QuotaExceeded):
            self._leave_quota_wait(run)
        may_exist = _may_have_succeeded(error)
        if run.revoked and run.stage is RunStage.WAITING and may_exist:
            run.mark_created(_now())
            self._lifecycle.pod_created(run)  # deletes it, as the run is revoked
            return None
        if run.revoked or run.stage is not RunStage.WAITING:
            self._discard_if_obsolete(run)
            return None
        decision = self._decide(run, error, f"Pod {run.pod_path}")
        if isinstance(decision, GiveUp):
            self._lifecycle.fail_without_pod(run, decision.message, pod_may_exist=may_exist)
            return None
        if isinstance(error, QuotaExceeded):
            self._quotas.add_refused(run, error, _now())
            self._quotas_changed.set()
            return None
        return decision.delay

    def _secret_failed(self, batch: SecretBatch, error: Exception) -> float | None:
        """Retry under the same name, so that a Secret whose creation got no answer is not left over."""
        batch.doubtful = batch.doubtful or _may_have_succeeded(error)
        _, runs = self._prepared[batch.namespace, batch.name]
        delays = []
        for run in self._users(batch, runs):
            decision = self._decide(run, error, f"Secret {batch.namespace}/{batch.name}")
            if isinstance(decision, GiveUp):
                self._lifecycle.fail_without_pod(run, decision.message)
            else:
                delays.append(decision.delay)
        if delays:
            return max(delays)
        self._close(batch, may_exist=batch.doubtful)
        return None

    def _decide(self, run: WorkerRun, error: Exception, what: str) -> Retry | GiveUp:
        now, patience = _now(), self._settings.launch_timeout
        if is_denied(error):
            run.times.denied = run.times.denied or now
        waited, denied = now - run.times.requested, now - run.times.denied
        decision = decide_retry(error, what=what, waited=waited, patience=patience, denied=denied)
        if not isinstance(decision, GiveUp):
            run.wait = WaitReason(partial(waits_for, error, what), type(error).__name__)
        return decision


def _may_have_succeeded(error: Exception) -> bool:
    """Return whether the server may have carried out a request that failed.

    It has not if it refused the request, or if the request was never sent. An answer that cannot be parsed is no
    refusal.
    """
    if isinstance(error, Unreachable):
        return error.sent
    return not isinstance(error, ApiError | ConfigError | CredentialsError) or isinstance(error, ServerError)


def _now() -> float:
    return asyncio.get_running_loop().time()
