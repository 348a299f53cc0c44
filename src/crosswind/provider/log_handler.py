"""Airflow's reader of task logs, extended by the logs that Crosswind archived of pods that are gone."""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import Collection, Generator
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow.configuration import conf
from airflow.executors.executor_loader import ExecutorLoader
from airflow.utils.log.file_task_handler import FileTaskHandler
from airflow.utils.state import TaskInstanceState
from sqlalchemy.exc import SQLAlchemyError

from crosswind.pods.kept_logs import lines_of

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance

    from crosswind.engine.log_archiver import PodLog

__all__ = ["ArchiveTaskHandler", "install"]

log = logging.getLogger(__name__)

SourcesAndLogs: TypeAlias = tuple[list[str], list[Generator[str]]]
"""Where the logs come from, for the reader, and the lines of each."""

_STORED_AFTER = datetime.timedelta(minutes=10)
"""The archiver gives up a log after five minutes; a pod that is kept has its log until it is deleted."""

_UNFINISHED = (
    None,
    TaskInstanceState.SCHEDULED,
    TaskInstanceState.QUEUED,
    TaskInstanceState.RUNNING,
    TaskInstanceState.RESTARTING,
)


class ArchiveTaskHandler(FileTaskHandler):
    """Reads the logs that Airflow's handler reads; without a remote log, those in the metadata database.

    Between the end of a task and the storage of its log, the log is read from the pod.
    """

    def _read_remote_logs(self, ti: Any, try_number: int, metadata: Any = None) -> Any:
        with contextlib.suppress(NotImplementedError):  # raised where no remote logging is configured
            sources, logs = super()._read_remote_logs(ti, try_number, metadata)
            if logs:
                return sources, logs
        sources, archived = _read_archive(ti)
        sources += [f"Pod {pod.name or pod.pod}, {pod.size} bytes, kept in the metadata database" for pod in archived]
        logs = [lines_of(pod.content) for pod in archived]
        # A try has several pods where it was deferred or rescheduled: that of the last one may not be stored yet.
        if ti.state not in _UNFINISHED and (not archived or _ended_lately(ti)):
            pod_sources, pod_logs = _read_pod(self._executor_of(ti), ti, try_number, {pod.pod for pod in archived})
            if pod_logs or not archived:
                sources, logs = sources + pod_sources, logs + pod_logs
        return sources, logs

    def _executor_of(self, ti: TaskInstance) -> object:
        return ExecutorLoader.load_executor(ti.executor) if ti.executor else ExecutorLoader.get_default_executor()


def _read_archive(ti: TaskInstance) -> tuple[list[str], list[PodLog]]:
    """Return messages about the archive, and what it has of a task instance."""
    from crosswind.provider.log_store import read_logs

    try:
        return [], read_logs(ti.id)
    except SQLAlchemyError as error:  # the other sources may still have the log
        log.warning("Logs kept in the metadata database cannot be read", exc_info=error)
        return [f"Logs kept in the metadata database cannot be read: {type(error).__name__}"], []


def _ended_lately(ti: TaskInstance) -> bool:
    """Whether the log of the task's last pod may not be stored yet; a page of an old task asks no cluster."""
    return ti.end_date is None or datetime.datetime.now(datetime.UTC) - ti.end_date < _STORED_AFTER


def _read_pod(executor: object, ti: TaskInstance, try_number: int, stored: Collection[str]) -> SourcesAndLogs:
    """Read the log of a pod that still exists, through the task's executor if that is Crosswind's.

    ``stored``: uids of pods whose log is in the archive.
    """
    # The method is looked up by name: an import of our executor would load the whole engine into an API server whose
    # tasks another executor runs.
    read_pod_log = getattr(executor, "read_pod_log", None)
    if read_pod_log is None:
        return [], []
    messages, texts = read_pod_log(ti, try_number, stored=stored)
    return messages, [(line for line in text.splitlines()) for text in texts if text]


def install() -> None:
    """Replace Airflow's reader of task logs, unless the deployment has a reader of its own."""
    logger, reader_name = logging.getLogger("airflow.task"), conf.get("logging", "task_log_reader")
    for index, handler in enumerate(logger.handlers):
        if handler.name == reader_name and type(handler) is FileTaskHandler:
            logger.handlers[index] = _archive_handler_like(handler)


def _archive_handler_like(handler: FileTaskHandler) -> ArchiveTaskHandler:
    replacement = ArchiveTaskHandler(handler.local_base, handler.max_bytes, handler.backup_count, handler.delay)
    replacement.name = handler.name
    replacement.setLevel(handler.level)
    replacement.setFormatter(handler.formatter)
    for log_filter in handler.filters:
        replacement.addFilter(log_filter)
    return replacement
