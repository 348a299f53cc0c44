"""Reads the logs of worker pods from the API server, as soon as a pod is about to disappear.

``LogReader`` owns no task: the tasks that follow logs belong to the group that the caller passes. A compressor thread
keeps long logs small while they are read; ``close`` ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor

from crosswind.engine.state import PodDisposition, RunStage, WorkerRun
from crosswind.engine.worker_pod import BASE
from crosswind.errors import BadRequest, CrosswindError, Forbidden, NotFound
from crosswind.kube.client import Client
from crosswind.kube.retry import pause_after
from crosswind.pods.kept_logs import KeptLog

__all__ = ["LogReader"]

log = logging.getLogger(__name__)

_CONCURRENT_READS = 32
_FOLLOW_DEADLINE_S = 600.0
"""Seconds for which the log of a pod that another client deletes is followed: longer than most grace periods."""
_FOLLOW_END_S = 5.0
"""Seconds that a followed log gets to end after its container has ended."""
_COMPRESS_BLOCKS = 8
"""Blocks of a log, of 256 KiB, that are collected before they are compressed."""


class LogReader:
    """Reads and follows logs. ``limit``: bytes of a log that are kept."""

    def __init__(self, client: Client, limit: int) -> None:
        self._client = client
        self._limit = limit
        self._followed: dict[WorkerRun, tuple[KeptLog, asyncio.Task[bool]]] = {}
        self._reads = asyncio.Semaphore(_CONCURRENT_READS)
        self._compressor = ThreadPoolExecutor(1, thread_name_prefix="crosswind-log-compressor")
        self._forbidden_reported = False

    def close(self) -> None:
        """End the compressor thread."""
        self._compressor.shutdown(wait=False, cancel_futures=True)

    def read_ahead(self, run: WorkerRun, group: asyncio.TaskGroup) -> None:
        """Follow the log of a run, in a task of ``group``, until its container has ended."""
        if run not in self._followed:
            kept = KeptLog(self._limit)
            self._followed[run] = kept, group.create_task(self._follow(run, kept))

    def stop_following(self, run: WorkerRun) -> None:
        """End the task that follows a run's log, if there is one."""
        if run in self._followed:
            self._followed.pop(run)[1].cancel()

    async def read(self, run: WorkerRun, timeout: float) -> KeptLog:
        """Return a run's log, or the part of it that can be read.

        The pod of a revoked run is being deleted: its log is followed for ``timeout`` seconds, with what its worker
        prints while it ends. One that was not seen to start is asked first whether it has a log: thousands that wait
        for a node may be given up at once.
        """
        kept: KeptLog | None = None
        if run.revoked and run.stage is RunStage.CREATED:
            kept = await self._read_ended(run)
            if not kept.size:
                return kept
        if run.revoked:
            followed = KeptLog(self._limit)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._follow(run, followed)
            if followed.size:
                return followed
        return await self._read_ended(run) if kept is None else kept

    async def _read_ended(self, run: WorkerRun) -> KeptLog:
        if run in self._followed:
            kept, reader = self._followed[run]
            await asyncio.wait([reader], timeout=_FOLLOW_END_S)
            if reader.done() and not reader.cancelled() and reader.result():
                return kept
        failures = 0
        while run.disposition is PodDisposition.BY_POLICY:  # until the pod is gone, or must go
            try:
                async with self._reads:
                    return await self._read_once(run)
            except (NotFound, BadRequest) as error:  # there is no pod, or its container never ran
                log.debug("Pod %s has no log: %s", run.pod_path, error)
                break
            except Forbidden as error:
                self._report_forbidden(error)
                break
            except CrosswindError as error:
                failures += 1
                log.debug("The log of pod %s cannot be read, retrying: %s", run.pod_path, error)
                await asyncio.sleep(pause_after(failures, error))
        return self._followed[run][0] if run in self._followed else KeptLog(self._limit)

    async def _read_once(self, run: WorkerRun) -> KeptLog:
        """Return the log, or what was followed of it if that is more: the kubelet may have removed the container."""
        kept, followed = KeptLog(self._limit), self._followed.get(run)
        await self._feed(kept, self._client.log_chunks(run.name, namespace=run.namespace, container=BASE))
        return followed[0] if followed is not None and followed[0].size > kept.size else kept

    async def _follow(self, run: WorkerRun, kept: KeptLog) -> bool:
        """Follow the log until the container has ended; return whether it is complete."""
        with contextlib.suppress(CrosswindError, TimeoutError):
            async with asyncio.timeout(_FOLLOW_DEADLINE_S):
                await self._feed(kept, self._client.follow_log(run.name, namespace=run.namespace, container=BASE))
                return True
        return False

    async def _feed(self, kept: KeptLog, chunks: AsyncGenerator[bytes]) -> None:
        async with contextlib.aclosing(chunks):  # closes the connection also when the task is cancelled
            async for chunk in chunks:
                kept.feed(chunk)
                if kept.waiting >= _COMPRESS_BLOCKS:
                    await asyncio.get_running_loop().run_in_executor(self._compressor, kept.pack)

    def _report_forbidden(self, error: Forbidden) -> None:
        """Log once that logs cannot be read: it is true of every pod."""
        if not self._forbidden_reported:
            self._forbidden_reported = True
            fix = "Give the scheduler's service account get on pods/log, or set [crosswind] archive_logs = never"
            log.error("Logs of tasks are deleted with their pods: %s. %s", error, fix)
