"""Keeping the logs of pods before they go: read from the API server, stored in batches, in a thread of its own.

An ``Archiver`` stands before the ``Stopper`` and takes what that takes: a run whose log is kept, or cannot be kept in
time, is handed on. Slots don't wait for it, and no pod waits for the log of another one, nor for an archive that
nobody may write to.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import json
import logging
import math
from collections.abc import AsyncGenerator, Callable, Sequence
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
from crosswind.runs.texts import storable
from crosswind.runs.threads import CallThread
from crosswind.runs.workloads import Pod, Run, Stage
from crosswind.settings import ArchiveSettings

__all__ = ["Archive", "ArchiveAway", "ArchiveClosed", "Archiver", "PodLog", "log_line"]

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
_STORE_S = 60.0
"""Seconds that the archive may take for them."""
_DATABASE_DOWN = 5.0
_CLOSED = 600.0
"""Seconds until an archive that nobody may write to is tried again."""
_PACK_AT = 8
"""Blocks of a log, of 256 KiB, that are collected before they are compressed."""
_CLEAN_EVERY = 3600.0
_NAME_CHARS = 320
"""What the archive takes of a pod's namespace and name: valid ones have 317 at most."""

_Item = tuple[Callable[[], "PodLog"], "asyncio.Future[None]"]


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


class ArchiveAway(Exception):
    """The archive does not answer for the moment; logs are stored when it does."""


class ArchiveClosed(Exception):
    """Nobody may write to the archive until somebody changes that; the message says what."""


class Archive(Protocol):
    """Where logs are kept. Called in a thread where waiting is allowed."""

    def store(self, logs: Sequence[PodLog]) -> None:
        """Keep these logs, all or none.

        Raises ``ArchiveAway`` or ``OSError`` to be asked again, ``ArchiveClosed`` to be left alone for a while. With
        any other error it refuses what it was given; of several logs each is then tried by itself.
        """
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
        self._stored: list[_Item] = []
        self._wanted = asyncio.Event()
        self._mute = False
        self._closed_until = -math.inf
        self._packer = ThreadPoolExecutor(1, thread_name_prefix="crosswind-packing")

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
        try:
            async with asyncio.TaskGroup() as self._group:
                self._group.create_task(self._stopper.run())
                self._group.create_task(self._store_batches())
                self._group.create_task(self._clean())
        finally:
            self._packer.shutdown(wait=False, cancel_futures=True)

    def put(self, item: Run | Batch) -> None:
        """Take the pod of a run that is over, or a Secret."""
        if isinstance(item, Batch) or item.archived or not self._is_wanted(item) or self._group is None:
            self._stopper.put(item)
        elif item not in self._busy:
            self._busy[item] = self._group.create_task(self._keep(item))
            if item.revoked:  # its task was killed, and may still work: that ends before its log is read
                self._stopper.put(item)

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
                kept = await (self._read_to_its_end(run) if run.revoked else self._read(run))
                if kept.size or (run.failed and run.message):
                    await self._store(functools.partial(self._packed, run, kept))
        except TimeoutError:
            log.error("The log of pod %s is not kept: it could not be read and stored in %g s", run.where, _PATIENCE)
        except Exception:
            log.exception("The log of pod %s is not kept", run.where)
        finally:
            self._busy.pop(run, None)
            self._forget(run)
        run.archived = True
        if not run.revoked:
            self._stopper.put(run)

    def _packed(self, run: Run, kept: KeptLog) -> PodLog:
        """Compress a log. In the archive's thread: a block takes 10 ms, in which thousands of pods would wait."""
        gap = (
            f"{kept.left_out} of {kept.size} bytes are left out here: the log is longer than"
            f" [crosswind] archive_limit = {self._settings.limit}"
        )
        end = log_line(storable(run.message), "error") if run.failed and run.message else b""
        content = kept.content(log_line(gap, "warning"), end)
        where = storable(run.where, most_chars=_NAME_CHARS) if run.name else ""
        return PodLog(run.uid or run.unique, run.task.ti_id, where, kept.size, content)

    # --- reading ------------------------------------------------------------------------------------------------------

    async def _read(self, run: Run) -> KeptLog:
        """Return the log as far as it can be had, trying again while the API server has no answer."""
        if run in self._followed:
            kept, reader = self._followed[run]
            await asyncio.wait([reader], timeout=_LAST_WORDS)
            if reader.done() and not reader.cancelled() and reader.result():
                return kept
        failures = 0
        while run.pod is Pod.OURS:
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
        await self._feed(kept, self._client.log_chunks(run.name, namespace=run.namespace, container=BASE))
        return followed[0] if followed is not None and followed[0].size > kept.size else kept

    async def _follow(self, run: Run, kept: KeptLog) -> bool:
        """Read along until the container has ended; return whether nothing is missing."""
        with contextlib.suppress(CrosswindError, TimeoutError):
            async with asyncio.timeout(_FOLLOWED):
                await self._feed(kept, self._client.follow_log(run.name, namespace=run.namespace, container=BASE))
                return True
        return False

    async def _read_to_its_end(self, run: Run) -> KeptLog:
        """Return the log of a pod that is being deleted: what it printed so far, and its last words if they come."""
        kept = KeptLog(self._settings.limit)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE / 2):
                await self._follow(run, kept)
        return kept if kept.size else await self._read(run)

    async def _feed(self, kept: KeptLog, chunks: AsyncGenerator[bytes]) -> None:
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                kept.feed(chunk)
                if kept.waiting >= _PACK_AT:
                    await asyncio.get_running_loop().run_in_executor(self._packer, kept.pack)

    def _forget(self, run: Run) -> None:
        if run in self._followed:
            self._followed.pop(run)[1].cancel()

    def _complain(self, error: Forbidden) -> None:
        if not self._mute:
            self._mute = True
            mend = "Give the scheduler's service account get on pods/log, or set [crosswind] archive_logs = never"
            log.error("Logs of tasks go with their pods: %s. %s", error, mend)

    # --- storing ------------------------------------------------------------------------------------------------------

    async def _store(self, packed: Callable[[], PodLog]) -> None:
        if self._closed_until > asyncio.get_running_loop().time():
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stored.append((packed, done))
        self._wanted.set()
        await done

    async def _store_batches(self) -> None:
        thread = CallThread("crosswind-archive", _STORE_S)
        try:
            while True:
                await self._wanted.wait()
                await asyncio.sleep(_GATHER)
                await self._store_batch(thread)
        finally:
            thread.close()

    async def _store_batch(self, thread: CallThread) -> None:
        self._stored = [item for item in self._stored if not item[1].done()]
        batch = self._stored[:_LARGEST]
        if not batch:
            self._wanted.clear()
            return
        try:
            await self._store_or_part(batch, thread)
        except ArchiveClosed as error:
            self._closed_until = asyncio.get_running_loop().time() + _CLOSED
            log.error("Logs of tasks go with their pods: %s", error)
            batch = self._stored
        except (ArchiveAway, OSError) as error:  # TimeoutError is one
            log.warning("The logs of %d pods wait for the metadata database: %s", len(self._stored), error)
            await asyncio.sleep(_DATABASE_DOWN)
            return
        for _, done in batch:
            if not done.done():
                done.set_result(None)

    async def _store_or_part(self, batch: Sequence[_Item], thread: CallThread) -> None:
        """Store logs; where that is refused each by itself, so that one that is refused keeps out no other."""
        try:
            return await thread.call(self._write, batch)
        except (ArchiveAway, ArchiveClosed, OSError):
            raise
        except Exception as error:
            if len(batch) == 1:
                log.error("A log is left out, the archive refuses it: %s", error)
                return None
        for item in batch:
            await self._store_or_part([item], thread)
            if not item[1].done():
                item[1].set_result(None)
        return None

    def _write(self, batch: Sequence[_Item]) -> None:
        """Compress and store logs. Runs in the archive's thread."""
        logs = [packed() for packed, _ in batch]
        try:
            self._archive.store(logs)
        except (ArchiveAway, ArchiveClosed, OSError):
            raise
        except Exception as error:
            if len(logs) == 1:
                raise ValueError(f"pod {logs[0].name or logs[0].pod}: {type(error).__name__}: {error}") from error
            raise

    async def _clean(self) -> None:
        """Forget old logs, at start and each hour."""
        while self._settings.days > 0:
            try:
                await asyncio.to_thread(self._archive.clean, self._settings.days)
            except ArchiveClosed:
                pass  # which is reported when there is a log to store
            except Exception as error:
                log.warning("Old logs were not removed from the metadata database, trying again in an hour: %s", error)
            await asyncio.sleep(_CLEAN_EVERY)
