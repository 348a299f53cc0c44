"""Showing the logs of tasks whose pods are gone: Airflow's own reader of logs, which also looks into our archive."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf
from airflow.executors.executor_loader import ExecutorLoader
from airflow.utils.log.file_task_handler import FileTaskHandler
from airflow.utils.state import TaskInstanceState
from sqlalchemy.exc import SQLAlchemyError

from crosswind.pods.kept_logs import lines_of

if TYPE_CHECKING:
    from crosswind.executor import KubernetesExecutor

__all__ = ["ArchiveTaskHandler", "install"]

log = logging.getLogger(__name__)

Found = tuple[list[str], list[Generator[str]]]
"""Where logs are from, and their lines."""

_NOT_OVER = (
    None,
    TaskInstanceState.SCHEDULED,
    TaskInstanceState.QUEUED,
    TaskInstanceState.RUNNING,
    TaskInstanceState.RESTARTING,
)


class ArchiveTaskHandler(FileTaskHandler):
    """Reads what Airflow's handler reads; what is not in remote logging is looked for in the metadata database.

    Between the end of a task and the moment in which its log is stored there, it is read from the pod.
    """

    def _read_remote_logs(self, ti: Any, try_number: int, metadata: Any = None) -> Any:
        with contextlib.suppress(NotImplementedError):
            sources, logs = super()._read_remote_logs(ti, try_number, metadata)
            if logs:
                return sources, logs
        sources, logs = _archived(ti)
        if not logs and ti.state not in _NOT_OVER:
            more, logs = _of_pod(ti, try_number)
            sources += more
        return sources, logs


def _archived(ti: Any) -> Found:
    from crosswind.archive import read_logs

    try:
        kept = read_logs(ti.id)
    except SQLAlchemyError as error:
        log.warning("Logs kept in the metadata database cannot be read", exc_info=error)
        return [f"Logs kept in the metadata database cannot be read: {type(error).__name__}"], []
    where = [f"Pod {one.name or one.pod}, {one.size} bytes, kept in the metadata database" for one in kept]
    return where, [lines_of(one.content) for one in kept]


def _of_pod(ti: Any, try_number: int) -> Found:
    executor = _executor(ti)
    if executor is None:
        return [], []
    messages, texts = executor.read_pod_log(ti, try_number)
    return messages, [(line for line in text.splitlines()) for text in texts if text]


def _executor(ti: Any) -> KubernetesExecutor | None:
    from crosswind.executor import KubernetesExecutor

    executor = ExecutorLoader.load_executor(ti.executor) if ti.executor else ExecutorLoader.get_default_executor()
    return executor if isinstance(executor, KubernetesExecutor) else None


def install() -> None:
    """Take the place of Airflow's reader of task logs, unless the deployment has one of its own."""
    logger, name = logging.getLogger("airflow.task"), conf.get("logging", "task_log_reader")
    for place, handler in enumerate(logger.handlers):
        if handler.name == name and type(handler) is FileTaskHandler:
            logger.handlers[place] = _like(handler)


def _like(handler: FileTaskHandler) -> ArchiveTaskHandler:
    ours = ArchiveTaskHandler(handler.local_base, handler.max_bytes, handler.backup_count, handler.delay)
    ours.name = handler.name
    ours.setLevel(handler.level)
    ours.setFormatter(handler.formatter)
    for one in handler.filters:
        ours.addFilter(one)
    return ours
