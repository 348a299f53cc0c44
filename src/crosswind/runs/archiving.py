"""Keeping the logs of pods before they go: read from the API server, stored in batches, in a thread of its own.

An ``Archiver`` stands before the ``Stopper`` and takes what that takes: a run whose log is kept, or cannot be kept in
time, is handed on. Slots don't wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from crosswind.errors import BadRequest, CrosswindError, Forbidden, NotFound
from crosswind.kube.client import Client
from crosswind.kube.retry import pause_after
from crosswind.pods.kept_logs import KeptLog
from crosswind.pods.workers import BASE
from crosswind.runs.batches import Batch
from crosswind.runs.stopping import Stopper
from crosswind.runs.workloads import Run, Stage
from crosswind.settings import ArchiveSettings

__all__ = ["Archive", "Archiver", "PodLog", "log_line"]

log = logging.getLogger(__name__)

_AT_ONCE = 32
"""Logs that are read at a time."""
_PATIENCE = 300.0
"""Seconds for which a pod stays when its log cannot be read or stored."""
_FOLLOWED = 600.0
"""Seconds for which the log of a pod that somebody else deletes is followed: longer than most grace periods."""
_LAST_WORDS = 5.0
"""Seconds that a followed log gets to end when its pod is over."""
_GATHER = 0.05
"""Seconds to wait for more to store."""
_LARGEST = 100
"""Logs that are stored together."""
_DATABASE_DOWN = 5.0
_CLEAN_EVERY = 3600.0


@dataclass(frozen=True, slots=True)
class PodLog:
    """What a pod of a task printed. Stored again for the same pod it takes the place of what was stored before."""

    pod: str
    """The pod's uid; of a run without a pod its own unique id."""
    ti_id: str
    """The task instance's id, which each try has anew."""
    name: str
    """Namespace and name of the pod, "" of a run without one."""
    size: int
    """Bytes as printed."""
    content: bytes
    """As ``crosswind.pods.kept_logs`` packs it."""


class Archive(Protocol):
    """Where logs are kept. Called in a thread where waiting is allowed; what it raises is tried again for a while."""

    def store(self, logs: Sequence[PodLog]) -> None:
        """Keep these logs."""
        ...

    def clean(self, days: float) -> None:
        """Forget what is older than so many days."""
        ...


def log_line(message: str, level: str) -> bytes:
    """Return a line such as workers write."""
    now = datetime.datetime.now(datetime.UTC).isoformat()
    line = {"timestamp": now, "level": level, "logger": "crosswind", "event": message}
    return json.dumps(line).encode() + b"\n"


class Archiver:
    """Keeps the logs of tasks' pods, then hands the runs on to ``stopper``."""

    def __init__(self, client: Client, stopper: Stopper, archive: Archive, settings: ArchiveSettings) -> None:
        self._client = client
        self._stopper = stopper
        self._archive = archive
        self._settings = settings
        self._group: asyncio.TaskGroup | None = None
        self._busy: dict[Run, asyncio.Task[None]] = {}
        self._followed: dict[Run, tuple[KeptLog, asyncio.Task[bool]]] = {}
        self._limit = asyncio.Semaphore(_AT_ONCE)
        self._stored: list[tuple[PodLog, asyncio.Future[None]]] = []
        self._wanted = asyncio.Event()
        self._mute = False

    def __len__(self) -> int:
        return len(self._busy) + len(self._stopper)

    @property
    def keeping(self) -> int:
        """How many logs are being kept now."""
        return len(self._busy)

    async def idle(self) -> None:
        """Wait until everything that was put is dealt with."""
        while self._busy:
            await asyncio.wait(self._busy.values())
        await self._stopper.idle()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            self._group.create_task(self._stopper.run())
            self._group.create_task(self._store_batches())
            self._group.create_task(self._clean())

    def put(self, item: Run | Batch) -> None:
        """Take the pod of a run that is over, or a Secret."""
        if isinstance(item, Batch) or item.archived or not self._is_wanted(item) or self._group is None:
            self._stopper.put(item)
        elif item not in self._busy:
            self._busy[item] = self._group.create_task(self._keep(item))

    def foresee(self, run: Run) -> None:
        """Follow the log of a run whose pod somebody else deletes: at its end it may be gone at once."""
        if self._is_wanted(run) and self._group is not None and run not in self._followed:
            kept = KeptLog(self._settings.limit)
            self._followed[run] = kept, self._group.create_task(self._follow(run, kept))

    def _is_wanted(self, run: Run) -> bool:
        began = run.stage in (Stage.BEGUN, Stage.ENDED)
        return bool(run.task.ti_id) and began and not (run.keeps_log and self._settings.spare)

    async def _keep(self, run: Run) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                kept = await self._read(run)
                if packed := self._packed(run, kept):
                    await self._store(packed)
        except TimeoutError:
            log.error("The log of pod %s is not kept: it could not be read and stored in %g s", run.where, _PATIENCE)
        except Exception:
            log.exception("The log of pod %s is not kept", run.where)
        finally:
            self._busy.pop(run, None)
            self._forget(run)
        run.archived = True
        self._stopper.put(run)

    def _packed(self, run: Run, kept: KeptLog) -> PodLog | None:
        gap = (
            f"{kept.left_out} of {kept.size} bytes are left out here: the log is longer than"
            f" [crosswind] archive_limit = {self._settings.limit}"
        )
        end = log_line(run.message, "error") if run.failed and run.message else b""
        if not (kept.size or end):
            return None
        content = kept.content(log_line(gap, "warning"), end)
        return PodLog(run.uid or run.unique, run.task.ti_id, run.where if run.name else "", kept.size, content)

    # --- reading ------------------------------------------------------------------------------------------------------

    async def _read(self, run: Run) -> KeptLog:
        """Return the log as far as it can be had, trying again while the API server has no answer."""
        if run in self._followed:
            kept, reader = self._followed[run]
            await asyncio.wait([reader], timeout=_LAST_WORDS)
            if reader.done() and not reader.cancelled() and reader.result():
                return kept
        failures = 0
        while not (run.gone or run.could_start):
            try:
                async with self._limit:
                    return await self._read_once(run)
            except (NotFound, BadRequest) as error:  # there is no pod, or its container never ran
                log.debug("Pod %s has no log: %s", run.where, error)
                break
            except Forbidden as error:
                self._complain(error)
                break
            except CrosswindError as error:
                failures += 1
                log.debug("The log of pod %s cannot be read, trying again: %s", run.where, error)
                await asyncio.sleep(pause_after(failures, error))
        return self._followed[run][0] if run in self._followed else KeptLog(self._settings.limit)

    async def _read_once(self, run: Run) -> KeptLog:
        """Return the log, or what was followed of it if that is more: a node may have removed the container by now."""
        kept, followed = KeptLog(self._settings.limit), self._followed.get(run)
        await _feed(kept, self._client.log_chunks(run.name, namespace=run.namespace, container=BASE))
        return followed[0] if followed is not None and followed[0].size > kept.size else kept

    async def _follow(self, run: Run, kept: KeptLog) -> bool:
        """Read along until the container has ended; return whether nothing is missing."""
        with contextlib.suppress(CrosswindError, TimeoutError):
            async with asyncio.timeout(_FOLLOWED):
                await _feed(kept, self._client.follow_log(run.name, namespace=run.namespace, container=BASE))
                return True
        return False

    def _forget(self, run: Run) -> None:
        if run in self._followed:
            self._followed.pop(run)[1].cancel()

    def _complain(self, error: Forbidden) -> None:
        if not self._mute:
            self._mute = True
            mend = "Give the scheduler's service account get on pods/log, or set [crosswind] archive_logs = never"
            log.error("Logs of tasks go with their pods: %s. %s", error, mend)

    # --- storing ------------------------------------------------------------------------------------------------------

    async def _store(self, packed: PodLog) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stored.append((packed, done))
        self._wanted.set()
        await done

    async def _store_batches(self) -> None:
        pool = ThreadPoolExecutor(1, thread_name_prefix="crosswind-archive")
        try:
            while True:
                await self._wanted.wait()
                await asyncio.sleep(_GATHER)
                await self._store_batch(pool)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    async def _store_batch(self, pool: ThreadPoolExecutor) -> None:
        self._stored = [item for item in self._stored if not item[1].done()]
        batch = self._stored[:_LARGEST]
        if not batch:
            self._wanted.clear()
            return
        packed = [item[0] for item in batch]
        try:
            await asyncio.get_running_loop().run_in_executor(pool, self._archive.store, packed)
        except Exception:
            log.exception("The metadata database did not take the logs of %d pods; trying again", len(batch))
            await asyncio.sleep(_DATABASE_DOWN)
            return
        for _, done in batch:
            if not done.done():
                done.set_result(None)

    async def _clean(self) -> None:
        """Forget old logs, at start and each hour."""
        while self._settings.days > 0:
            try:
                await asyncio.to_thread(self._archive.clean, self._settings.days)
            except Exception:
                log.exception("Old logs could not be removed from the metadata database; trying again in an hour")
            await asyncio.sleep(_CLEAN_EVERY)


async def _feed(kept: KeptLog, chunks: AsyncGenerator[bytes]) -> None:
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            kept.feed(chunk)
