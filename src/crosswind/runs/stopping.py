"""What happens to a pod whose base container is over: deleted, or kept with its sidecars told to end."""

from __future__ import annotations

import logging

from crosswind.errors import Conflict, CrosswindError, Forbidden, NotFound, ServerError, TooManyRequests, Unreachable
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS, SECRETS
from crosswind.pods.verdicts import judge
from crosswind.runs.batches import Batch
from crosswind.runs.board import Board
from crosswind.runs.dispatching import Dispatcher
from crosswind.runs.pacing import Pace
from crosswind.runs.workloads import Run
from crosswind.settings import EngineSettings

__all__ = ["Stopper", "is_deleted"]

log = logging.getLogger(__name__)

_DONE = {"metadata": {"labels": {"airflow_executor_done": "True"}}}
"""As stock marks a pod that nobody needs to look at again."""

_END = ["/bin/sh", "-c", "kill -TERM 1"]

_RETRY = 2.0
_TELLINGS = 4
"""How often a sidecar is told, in the course of half a minute."""


class _StillRunning(Exception):
    """A pod that is kept has sidecars that run."""


def is_deleted(run: Run, settings: EngineSettings) -> bool:
    """Whether the pod of a run that is over is deleted; else it is kept.

    One that was given up while it waits is deleted in any case: kept, it could still start its task.
    """
    if run.revoked or run.could_start:
        return True
    return settings.delete_pods and (not run.failed or settings.delete_failed_pods)


class Stopper:
    """Ends what is left of pods, and deletes Secrets that no pod needs."""

    def __init__(self, client: Client, board: Board, settings: EngineSettings) -> None:
        self._client = client
        self._board = board
        self._settings = settings
        self._ending = Dispatcher[Run | Batch](self._end, self._refused, Pace(ceiling=settings.max_requests))

    def __len__(self) -> int:
        return len(self._ending)

    def put(self, item: Run | Batch) -> None:
        """Queue the pod of a run that is over, or a Secret."""
        self._ending.put(item)

    async def idle(self) -> None:
        """Wait until everything queued is dealt with."""
        await self._ending.idle()

    async def run(self) -> None:
        """Stop until cancelled."""
        await self._ending.run()

    async def _end(self, item: Run | Batch) -> None:
        try:
            if isinstance(item, Batch):
                await self._client.delete(SECRETS, item.name, namespace=item.namespace)
            elif is_deleted(item, self._settings):
                await self._delete(item)
            else:
                await self._keep(item)
        except (NotFound, Conflict):  # gone, or another object of that name
            self._gone(item)

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
        """Mark a pod as done and tell its sidecars to end; they may start or listen late, so it is done a few times."""
        pod = await self._client.patch(PODS, run.name, _DONE, namespace=run.namespace)
        if pod["status"].get("phase") in ("Succeeded", "Failed"):
            self._gone(run)
            return
        sidecars = judge(pod).sidecars_running
        problems = [await self._tell(run, sidecar) for sidecar in sidecars]
        raise _StillRunning(", ".join(filter(None, problems)) or f"{', '.join(sidecars)} did not end on TERM")

    async def _tell(self, run: Run, sidecar: str) -> str:
        """Send TERM to a sidecar; return what went wrong."""
        try:
            result = await self._client.exec(run.name, _END, namespace=run.namespace, container=sidecar, timeout=10.0)
        except (CrosswindError, TimeoutError) as error:
            return f"{sidecar}: {error}"
        return f"{sidecar}: exit code {result.exit_code} of kill" if result.exit_code else ""

    def _gone(self, item: Run | Batch) -> None:
        if isinstance(item, Run):
            item.gone = True
            self._board.release_batch(item)
            item.settled = item.settled or item.revoked
            self._board.drop_if_over(item)

    def _refused(self, item: Run | Batch, error: Exception) -> float | None:
        if isinstance(error, TooManyRequests | ServerError | Unreachable):
            return max(_RETRY, getattr(error, "retry_after", None) or 0.0)
        if isinstance(error, _StillRunning) and isinstance(item, Run):
            return self._still_running(item, error)
        what = f"Secret {item.namespace}/{item.name}" if isinstance(item, Batch) else f"Pod {item.where}"
        mend = " Give the scheduler's service account the permission." if isinstance(error, Forbidden) else ""
        log.error("%s is left over: %s.%s", what, error, mend)
        self._gone(item)
        return None

    def _still_running(self, run: Run, error: _StillRunning) -> float | None:
        run.tellings += 1
        if run.tellings <= _TELLINGS:
            return float(2**run.tellings)
        log.warning("Pod %s is kept, and its sidecars run on: %s", run.where, error)
        self._gone(run)
        return None
