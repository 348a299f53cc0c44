"""What happens to a pod whose base container is over: deleted, or kept with its sidecars told to end."""

from __future__ import annotations

import asyncio
import logging

from crosswind.errors import ApiError, Conflict, CrosswindError, Forbidden, NotFound
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS, SECRETS
from crosswind.kube.retry import is_transient, pause_after
from crosswind.pods.naming import label_value
from crosswind.pods.workloads import secrets_of
from crosswind.runs.batches import Batch
from crosswind.runs.board import Board
from crosswind.runs.dispatching import Dispatcher
from crosswind.runs.ending import Ender
from crosswind.runs.pacing import Pace
from crosswind.runs.workloads import Pod, Run
from crosswind.settings import EngineSettings

__all__ = ["Stopper", "is_deleted"]

log = logging.getLogger(__name__)

_DONE = {"metadata": {"labels": {"airflow_executor_done": "True"}}}
"""As stock marks a pod that nobody needs to look at again."""

_RETRY, _LONGEST_RETRY = 2.0, 60.0
"""Seconds between two attempts to delete something: at first, and at most."""


def is_deleted(run: Run, settings: EngineSettings) -> bool:
    """Whether the pod of a run that is over is deleted; else it is kept.

    One that was given up while it waits is deleted in any case: kept, it could still start its task.
    """
    if run.revoked or run.pod is Pod.UNWANTED:
        return True
    return settings.delete_pods and (not run.failed or settings.delete_failed_pods)


class Stopper:
    """Ends what is left of pods, and deletes Secrets that no pod needs."""

    def __init__(self, client: Client, board: Board, settings: EngineSettings, ender: Ender) -> None:
        self._client = client
        self._board = board
        self._settings = settings
        self._ender = ender
        self._deleting = Dispatcher[Run | Batch](self._end, self._refused, Pace(ceiling=settings.max_requests))
        # apart from deletions, because sidecars may take minutes to end
        self._keeping = Dispatcher[Run](self._keep, self._refused, Pace(ceiling=settings.max_requests))

    def __len__(self) -> int:
        return len(self._deleting) + len(self._keeping)

    def put(self, item: Run | Batch) -> None:
        """Queue the pod of a run that is over, or a Secret; a pod that is gone is nothing."""
        if isinstance(item, Run) and item.gone:
            return
        if isinstance(item, Batch) or is_deleted(item, self._settings):
            self._deleting.put(item)
        else:
            self._keeping.put(item)

    async def idle(self) -> None:
        """Wait until everything queued is dealt with."""
        await self._deleting.idle()
        await self._keeping.idle()

    async def run(self) -> None:
        """Stop until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._deleting.run())
            group.create_task(self._keeping.run())

    async def _end(self, item: Run | Batch) -> None:
        try:
            if isinstance(item, Batch):
                await self._delete_secret(item)
            else:
                await self._delete(item)
        except (NotFound, Conflict):  # gone, or another object of that name
            self._gone(item)

    async def _delete_secret(self, batch: Batch) -> None:
        """Delete a Secret, unless pods that are not ours (yet) need it: who ends the last of them deletes it."""
        if batch.adopted:
            others = f"kubernetes_executor=True,airflow-worker!={label_value(self._settings.executor_id)}"
            where = batch.namespace, batch.name
            using = await self._client.gather(
                PODS, lambda pod: where in secrets_of([pod]), namespace=batch.namespace, labels=others
            )
            if any(using.items):
                return
        await self._client.delete(SECRETS, batch.name, namespace=batch.namespace)

    async def _delete(self, run: Run) -> None:
        await self._client.delete(
            PODS,
            run.name,
            namespace=run.namespace,
            uid=run.uid or None,
            grace_period=self._settings.grace_period,
            propagation=self._settings.propagation,
        )

    async def _keep(self, run: Run) -> None:
        """End the sidecars of a pod and mark it as done; unmarked, the next scheduler would go on with it."""
        try:
            pod = await self._client.get(PODS, run.name, namespace=run.namespace)
            if not await self._ender.end(pod):
                log.warning("Pod %s is kept, and its sidecars run on; see its Events", run.where)
            await self._client.patch(PODS, run.name, _DONE, namespace=run.namespace)
        except (NotFound, Conflict):
            pass
        self._gone(run)

    def _gone(self, item: Run | Batch) -> None:
        if isinstance(item, Run):
            item.pod_is_gone()
            self._board.release_batch(item)
            self._board.drop_if_over(item)

    def _refused(self, item: Run | Batch, error: Exception) -> float | None:
        """Try again, without end, what may succeed: nobody else deletes what this scheduler leaves.

        A kubeconfig that is broken at this moment counts as well. What is given up, the sweep finds again.
        """
        what = f"Secret {item.namespace}/{item.name}" if isinstance(item, Batch) else f"Pod {item.where}"
        if is_transient(error) or (isinstance(error, CrosswindError) and not isinstance(error, ApiError)):
            kept = self._keeping.failures(item) if isinstance(item, Run) else 0
            failures = max(self._deleting.failures(item), kept)
            pause = pause_after(failures, error, first=_RETRY, ceiling=_LONGEST_RETRY)
            log.log(logging.WARNING if failures == 3 else logging.DEBUG, "%s is not dealt with yet: %s", what, error)
            return pause
        mend = " Give the scheduler's service account the permission." if isinstance(error, Forbidden) else ""
        log.error("%s is left over: %s.%s", what, error, mend)
        self._gone(item)
        return None
