"""Cleans up after ended runs: deletes their pods and Secrets, or keeps the pods and shuts their sidecars down.

A pod whose end Airflow does not know is neither deleted nor marked as done. Until the end is settled, this scheduler
may die: the next one then reports what the pod shows, and without the pod it would run the task again.
``RunLifecycle.settle`` puts the run once more.

``PodCleaner.run`` owns two request queues. They end when it is cancelled; pods that are not cleaned up by then are
found by the next session, or by the next scheduler's sweep.
"""

from __future__ import annotations

import asyncio
import logging

from crosswind.engine.last_pod_state import last_pod_state
from crosswind.engine.lifecycle import RunLifecycle
from crosswind.engine.request_queue import AimdLimit, RequestQueue
from crosswind.engine.state import LOCAL_EXECUTOR_PREFIX, PodDisposition, WorkerRun
from crosswind.engine.workload_secrets import SecretBatch, secrets_of
from crosswind.errors import ApiError, Conflict, CrosswindError, Forbidden, NotFound
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS, SECRETS
from crosswind.kube.retry import is_transient, pause_after
from crosswind.pods.fields import as_pod
from crosswind.pods.naming import label_value
from crosswind.settings import EngineSettings
from crosswind.sidecars.shutdown import SidecarShutdown

__all__ = ["PodCleaner", "is_closed", "must_delete", "must_hold"]

log = logging.getLogger(__name__)

_DONE_PATCH = {"metadata": {"labels": {"airflow_executor_done": "True"}}}
"""The label with which the stock executor marks a pod that no scheduler needs to look at again: its end is recorded."""

_FIRST_RETRY_S, _MAX_RETRY_S = 2.0, 60.0


def must_delete(run: WorkerRun, settings: EngineSettings) -> bool:
    """Return whether the pod of an ended run is deleted; else it is kept.

    A pod that was given up while it waits is deleted in any case: if kept, it could still start its task.
    """
    if run.revoked or run.disposition is PodDisposition.DELETE:
        return True
    return settings.delete_pods and (not run.failed or settings.delete_failed_pods)


def must_hold(run: WorkerRun, settings: EngineSettings) -> bool:
    """Return whether the pod of an ended run is the only proof of its end, so that it must not be deleted yet.

    The worker of a task that ends with exit code 0 has reported the state by itself; a callback's has not.
    """
    if is_closed(run, settings) or run.disposition is not PodDisposition.BY_POLICY:
        return False
    return run.failed or run.workload.exit_decides


def is_closed(run: WorkerRun, settings: EngineSettings) -> bool:
    """Return whether no other executor will look at the pod of an ended run: none adopts what a ``dag.test`` leaves."""
    return run.settled or settings.executor_id.startswith(LOCAL_EXECUTOR_PREFIX)


class PodCleaner:
    """Deletes or keeps the pods of ended runs, and deletes Secrets that no pod needs."""

    def __init__(
        self, client: Client, lifecycle: RunLifecycle, settings: EngineSettings, shutdown: SidecarShutdown
    ) -> None:
        self._client = client
        self._lifecycle = lifecycle
        self._settings = settings
        self._shutdown = shutdown
        self._deletions = RequestQueue[WorkerRun | SecretBatch](
            self._delete, self._failed, AimdLimit(ceiling=settings.max_requests)
        )
        # A queue of its own, because sidecars may take minutes to end and deletions must not wait for them.
        self._kept_pods = RequestQueue[WorkerRun](self._keep, self._failed, AimdLimit(ceiling=settings.max_requests))

    def __len__(self) -> int:
        return len(self._deletions) + len(self._kept_pods)

    def put(self, item: WorkerRun | SecretBatch) -> None:
        """Queue the pod of an ended run, or a Secret; a run whose pod is gone is ignored, one to hold waits."""
        if isinstance(item, SecretBatch):
            self._deletions.put(item)
        elif item.pod_gone:
            return
        elif not must_delete(item, self._settings):
            self._kept_pods.put(item)
        elif must_hold(item, self._settings):
            item.held = True
        else:
            self._deletions.put(item)

    async def wait_until_empty(self) -> None:
        """Wait until everything that was put is cleaned up."""
        await self._deletions.wait_until_empty()
        await self._kept_pods.wait_until_empty()

    async def run(self) -> None:
        """Clean up until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._deletions.run())
            group.create_task(self._kept_pods.run())

    async def _delete(self, item: WorkerRun | SecretBatch) -> None:
        try:
            if isinstance(item, SecretBatch):
                await self._delete_secret(item)
            else:
                await self._delete_pod(item)
        except (NotFound, Conflict):  # it is gone; on a conflict another object has its name
            self._removed(item)

    async def _delete_secret(self, batch: SecretBatch) -> None:
        """Delete a Secret, unless pods of other executors mount it: the executor of the last such pod deletes it."""
        if batch.adopted:
            selector = f"kubernetes_executor=True,airflow-worker!={label_value(self._settings.executor_id)}"
            secret = batch.namespace, batch.name
            mounting = await self._client.list_mapped(
                PODS, lambda pod: secret in secrets_of([as_pod(pod)]), namespace=batch.namespace, labels=selector
            )
            if any(mounting.items):
                return
        await self._client.delete(SECRETS, batch.name, namespace=batch.namespace, metadata_only=True)

    async def _delete_pod(self, run: WorkerRun) -> None:
        """Request the deletion. The watch reports when the pod is gone, and only then the run is forgotten."""
        await self._client.delete(
            PODS,
            run.name,
            namespace=run.namespace,
            uid=run.uid or None,  # so that a new pod of the same name is never deleted
            grace_period=self._settings.grace_period,
            propagation=self._settings.propagation,
            metadata_only=True,
        )

    async def _keep(self, run: WorkerRun) -> None:
        """Shut a pod's sidecars down, and label it as done when its end is settled: nobody looks at it from then on."""
        try:
            if not run.sidecars_ended:
                await self._end_sidecars(run)
            if not is_closed(run, self._settings):
                run.held = True
                return
            await self._client.patch(PODS, run.name, _DONE_PATCH, namespace=run.namespace)
        except (NotFound, Conflict):
            pass
        self._removed(run)

    async def _end_sidecars(self, run: WorkerRun) -> None:
        pod = await self._client.get(PODS, run.name, namespace=run.namespace)
        if self._lifecycle.history is not None:
            run.last_state = last_pod_state(as_pod(pod), run.requested_fields)
        if not await self._shutdown.end(pod):
            log.warning("Pod %s is kept, and its sidecars still run; its Events say why", run.pod_path)
        run.sidecars_ended = True

    def _removed(self, item: WorkerRun | SecretBatch) -> None:
        if isinstance(item, WorkerRun):
            self._lifecycle.pod_removed(item)

    def _failed(self, item: WorkerRun | SecretBatch, error: Exception) -> float | None:
        """Retry without end what may succeed, because nobody else deletes what this scheduler leaves.

        That includes a kubeconfig that cannot be read at this moment. The sweep finds the pods that are given up here.
        """
        name = f"Secret {item.namespace}/{item.name}" if isinstance(item, SecretBatch) else f"Pod {item.pod_path}"
        if is_transient(error) or (isinstance(error, CrosswindError) and not isinstance(error, ApiError)):
            failures_kept = self._kept_pods.failures(item) if isinstance(item, WorkerRun) else 0
            failures = max(self._deletions.failures(item), failures_kept)
            pause = pause_after(failures, error, first=_FIRST_RETRY_S, ceiling=_MAX_RETRY_S)
            level = logging.WARNING if failures == 3 else logging.DEBUG  # one line per outage, not one per attempt
            log.log(level, "%s could not be cleaned up, retrying: %s", name, error)
            return pause
        fix = " Give the scheduler's service account the permission." if isinstance(error, Forbidden) else ""
        log.error("%s is left over: %s.%s", name, error, fix)
        self._removed(item)
        return None
