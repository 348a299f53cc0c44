"""Stores the logs of worker pods before the pods are deleted.

``LogArchiver`` stands in front of ``PodCleaner``: it reads the log of an ended run from the API server, stores it in a
batch with others, and hands the run on, also when the log could not be stored in time. Slots do not wait for it, no pod
waits for another pod's log, and none waits for a log store that refuses writes.

``LogArchiver.run`` owns one task per log that is read or followed, the loop that stores, and the hourly deletion, all
in one task group with the cleaner. When it is cancelled, unstored logs stay in their pods for the next session.
"""

from __future__ import annotations

import asyncio
import datetime
import functools
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from crosswind.engine.column_text import storable
from crosswind.engine.log_reader import LogReader
from crosswind.engine.pod_cleanup import PodCleaner
from crosswind.engine.state import RunStage, WorkerRun
from crosswind.engine.workload_secrets import SecretBatch
from crosswind.event_loop import BlockingCallThread
from crosswind.kube.client import Client
from crosswind.pods.kept_logs import KeptLog
from crosswind.settings import ArchiveSettings

__all__ = ["LogArchiver", "LogStore", "LogStoreForbidden", "LogStoreUnavailable", "PodLog", "log_line"]

log = logging.getLogger(__name__)

_STORE_DEADLINE_S = 300.0
"""Seconds for which a pod stays when its log cannot be read or stored."""
_GATHER_S = 0.05
"""Seconds to wait for more logs to store with the first one."""
_LOGS_PER_BATCH = 100
_STORE_TIMEOUT_S = 60.0
"""Seconds that the log store may take for a batch."""
_STORE_RETRY_S = 5.0
_FORBIDDEN_RETRY_S = 600.0
"""Seconds until a log store that refused writes for want of permission is retried."""
_DELETE_OLD_EVERY_S = 3600.0
_NAME_CHARS = 320
"""The column's limit for namespace and name of a pod: valid ones have 317 at most."""

_Item = tuple[Callable[[], "PodLog"], "asyncio.Future[None]"]
"""Compresses a log, and is done when that log is stored or given up."""


@dataclass(frozen=True, slots=True)
class PodLog:
    """What the worker in a pod printed. A second one for the same pod replaces the first one."""

    pod: str
    """The pod's uid; the run's unique id if there was no pod."""
    ti_id: str
    """The task instance's id, which differs for each try."""
    name: str
    """Namespace and name of the pod, "" if there was none."""
    size: int
    """Bytes as printed."""
    content: bytes
    """As ``crosswind.pods.kept_logs`` packs it."""


class LogStoreUnavailable(Exception):
    """The log store does not answer for now; logs are stored as soon as it does."""


class LogStoreForbidden(Exception):
    """The log store refuses writes until a person grants access; the message says to what."""


class LogStore(Protocol):
    """Where logs are stored. Every method is called in a thread that may block."""

    def store(self, logs: Sequence[PodLog]) -> None:
        """Store these logs, all or none.

        Raises ``LogStoreUnavailable`` or ``OSError`` when the caller should retry, ``LogStoreForbidden`` when it should
        wait for a person to grant access. Any other error refuses the logs; the caller then stores each by itself.
        """
        ...

    def delete_older_than(self, days: float) -> None:
        """Delete the logs that are older than so many days."""
        ...


def log_line(message: str, level: str) -> bytes:
    """Return a line in the format in which workers write theirs."""
    now = datetime.datetime.now(datetime.UTC).isoformat()
    line = {"timestamp": now, "level": level, "logger": "crosswind", "event": message}
    return json.dumps(line).encode() + b"\n"


class LogArchiver:
    """Stores the logs of tasks' pods, then hands the runs on to ``cleaner``.

    ``started`` is set as soon as ``put`` and ``read_ahead`` may be called.
    """

    def __init__(self, client: Client, cleaner: PodCleaner, store: LogStore, settings: ArchiveSettings) -> None:
        self._reader = LogReader(client, settings.limit)
        self._cleaner = cleaner
        self._store = store
        self._settings = settings
        self._group: asyncio.TaskGroup | None = None
        self._archiving: dict[WorkerRun, asyncio.Task[None]] = {}
        self._to_store: list[_Item] = []
        self._has_logs = asyncio.Event()
        self._forbidden_until = -math.inf
        self.started = asyncio.Event()

    def __len__(self) -> int:
        return len(self._archiving) + len(self._cleaner)

    @property
    def archiving(self) -> int:
        """How many logs are being read or stored now."""
        return len(self._archiving)

    async def wait_until_empty(self) -> None:
        """Wait until everything that was put is stored and cleaned up."""
        while self._archiving:
            await asyncio.wait(self._archiving.values())
        await self._cleaner.wait_until_empty()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._group:
                self._group.create_task(self._cleaner.run())
                self._group.create_task(self._store_batches())
                self._group.create_task(self._delete_old_logs())
                self.started.set()
        finally:
            self._reader.close()

    def put(self, item: WorkerRun | SecretBatch) -> None:
        """Archive the log of an ended or revoked run and clean up its pod, or delete a Secret."""
        if isinstance(item, SecretBatch) or item.log_stored or not self._has_log(item) or self._group is None:
            self._cleaner.put(item)
        elif item not in self._archiving:
            self._archiving[item] = self._group.create_task(self._archive(item))
            if item.revoked:  # its worker may still run: the deletion ends it, and with it the log that is read
                self._cleaner.put(item)

    def read_ahead(self, run: WorkerRun) -> None:
        """Follow the log of a run whose pod another client deletes: once the container ends, the log may be gone."""
        if self._has_log(run) and self._group is not None:
            self._reader.read_ahead(run, self._group)

    def _has_log(self, run: WorkerRun) -> bool:
        """Return whether a run may have a log that only its pod holds."""
        # A pod that is given up before it was seen to start may have started unseen, while the watch was silent.
        unseen = run.revoked and run.stage is RunStage.CREATED
        started = run.stage in (RunStage.RUNNING, RunStage.ENDED) or unseen
        return bool(run.task.ti_id) and started and not (run.log_on_volume and self._settings.spare)

    async def _archive(self, run: WorkerRun) -> None:
        try:
            async with asyncio.timeout(_STORE_DEADLINE_S):
                kept = await self._reader.read(run, timeout=_STORE_DEADLINE_S / 2)  # the other half is for storing
                if kept.size or (run.failed and run.message):
                    await self._wait_until_stored(functools.partial(self._compress, run, kept))
        except TimeoutError:
            log.error(
                "The log of pod %s is not stored: it could not be read and stored in %g s",
                run.pod_path,
                _STORE_DEADLINE_S,
            )
        except Exception:
            log.exception("The log of pod %s is not stored", run.pod_path)
        finally:
            self._archiving.pop(run, None)
            self._reader.stop_following(run)
        run.log_stored = True
        if not run.revoked:  # put has handed on a revoked run
            self._cleaner.put(run)

    def _compress(self, run: WorkerRun, kept: KeptLog) -> PodLog:
        """Compress a log. Runs in the store's thread: a block takes 10 ms, for which all pods would wait."""
        gap = (
            f"{kept.left_out} of {kept.size} bytes are left out here: the log is longer than"
            f" [crosswind] archive_limit = {self._settings.limit}"
        )
        end = log_line(storable(run.message), "error") if run.failed and run.message else b""
        content = kept.content(log_line(gap, "warning"), end)
        name = storable(run.pod_path, most_chars=_NAME_CHARS) if run.name else ""
        return PodLog(run.uid or run.unique_id, run.task.ti_id, name, kept.size, content)

    # --- storing ------------------------------------------------------------------------------------------------------

    async def _wait_until_stored(self, compress: Callable[[], PodLog]) -> None:
        if self._forbidden_until > asyncio.get_running_loop().time():
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._to_store.append((compress, done))
        self._has_logs.set()
        await done

    async def _store_batches(self) -> None:
        thread = BlockingCallThread("crosswind-archive", _STORE_TIMEOUT_S)
        try:
            while True:
                await self._has_logs.wait()
                await asyncio.sleep(_GATHER_S)
                await self._store_batch(thread)
        finally:
            thread.close()

    async def _store_batch(self, thread: BlockingCallThread) -> None:
        # A future is done before its log is stored if the run's deadline cancelled the wait.
        self._to_store = [item for item in self._to_store if not item[1].done()]
        batch = self._to_store[:_LOGS_PER_BATCH]
        if not batch:
            self._has_logs.clear()
            return
        try:
            await self._store_or_split(batch, thread)
        except LogStoreForbidden as error:
            self._forbidden_until = asyncio.get_running_loop().time() + _FORBIDDEN_RETRY_S
            log.error("Logs of tasks are deleted with their pods: %s", error)
            batch = self._to_store  # give up all of them: no pod waits for a person
        except (LogStoreUnavailable, OSError) as error:  # TimeoutError is an OSError
            log.warning("The logs of %d pods wait for the metadata database: %s", len(self._to_store), error)
            await asyncio.sleep(_STORE_RETRY_S)
            return
        for _, done in batch:
            if not done.done():
                done.set_result(None)

    async def _store_or_split(self, batch: Sequence[_Item], thread: BlockingCallThread) -> None:
        """Store logs. If they are refused, store each by itself, so that one refused log does not stop the others."""
        try:
            return await thread.call(self._compress_and_store, batch)
        except (LogStoreUnavailable, LogStoreForbidden, OSError):
            raise
        except Exception as error:
            if len(batch) == 1:
                log.error("A log was not stored, because the log store refused it: %s", error)
                return None
        for item in batch:
            await self._store_or_split([item], thread)
            if not item[1].done():
                item[1].set_result(None)
        return None

    def _compress_and_store(self, batch: Sequence[_Item]) -> None:
        """Runs in the store's thread."""
        logs = [compress() for compress, _ in batch]
        try:
            self._store.store(logs)
        except (LogStoreUnavailable, LogStoreForbidden, OSError):
            raise
        except Exception as error:
            if len(logs) == 1:
                raise ValueError(f"pod {logs[0].name or logs[0].pod}: {type(error).__name__}: {error}") from error
            raise

    async def _delete_old_logs(self) -> None:
        """Delete old logs at start and every hour."""
        while self._settings.days > 0:
            try:
                await asyncio.to_thread(self._store.delete_older_than, self._settings.days)
            except LogStoreForbidden:
                pass  # reported as soon as there is a log to store
            except Exception as error:
                log.warning("Old logs could not be deleted from the metadata database, retrying in an hour: %s", error)
            await asyncio.sleep(_DELETE_OLD_EVERY_S)
