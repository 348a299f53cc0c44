"""The metadata database as the engine sees it.

``crosswind.provider.metadata_db`` implements the protocol.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from crosswind.engine.losses import LostTry
from crosswind.engine.state import Workload

__all__ = ["POSITION_MAX_AGE_S", "DatabaseState", "MetadataDatabase", "WatchPosition"]

POSITION_MAX_AGE_S = 7 * 86_400.0
"""Seconds after which a position is deleted. An API server forgets the version within minutes; the namespace counts."""


class DatabaseState(enum.Enum):
    """What the metadata database says about a workload."""

    SETTLED = "settled"
    """It has ended there too, is deferred, or belongs to another pod by now: no report is needed."""
    SETTLED_AFTER_START = "settled after start"
    """As SETTLED, and a worker has started it: its pod has run, and holds a log."""
    QUEUED = "queued"
    """No worker has started it; a callback is QUEUED until its end is reported."""
    RUNNING = "running"
    RESTARTING = "restarting"
    """Cleared while it ran: on SUCCESS, Airflow runs it again."""
    UNSERIALIZED = "unserialized"
    """Cleared while it ran, but its DAG or task is not serialized: Airflow would store SUCCESS as its result."""
    DELETED = "deleted"
    """Its row is gone: a user deleted the task instance, the DAG run or the DAG."""


@dataclass(frozen=True, slots=True)
class WatchPosition:
    """How far an executor's watch has come: it has handled every event up to ``version``."""

    executor: str
    server: str
    """The API server's address: a version is valid for its own server alone."""
    namespace: str | None
    """None for one watch of all namespaces."""
    version: str
    """A resourceVersion."""


class MetadataDatabase(Protocol):
    """The engine's queries to the metadata database. Every method may block; it is called in a separate thread."""

    def workload_states(self, workloads: Collection[Workload]) -> Mapping[Workload, DatabaseState]:
        """Return the state of each workload; one without a ``ref`` is left out and counts as settled."""
        ...

    def hosts(self, workloads: Collection[Workload]) -> Mapping[Workload, str]:
        """Return the host names of the workers that started these tasks; a task that does not run is left out."""
        ...

    def live_executors(self) -> Collection[str]:
        """Return the ids of all executors that are alive, before they become values of ``airflow-worker``."""
        ...

    def write_task_log(self, workload: Workload, message: str) -> None:
        """Write into the task's own log why it failed; best effort."""
        ...

    def reschedule(self, workloads: Collection[Workload]) -> Collection[Workload]:
        """Have Airflow schedule tasks again without using up a retry; return those that are rescheduled by now."""
        ...

    def replace_lost(self, messages: Mapping[Workload, str]) -> Mapping[Workload, LostTry]:
        """Give tasks whose pods the cluster took another try, without using up a retry, or refuse it.

        ``messages`` says of each, in a sentence, how its pod was lost. Those are left out whose state must be asked
        again: the row is locked, or has changed.
        """
        ...

    def count_losses(self, workloads: Collection[Workload]) -> Mapping[Workload, int]:
        """Return how many times in a row the cluster has taken the pods of tasks; those with none are left out."""
        ...

    def orphaned_workloads(
        self, pods: Mapping[str, Mapping[str, str]], ours: Collection[str]
    ) -> Mapping[str, Workload | None]:
        """Return what the database knows of the pods of dead executors, given as annotations by uid.

        A workload: no other component reports its end, so its pod must be adopted. None: its end is recorded, and the
        pod need not start. Pods that are left out must not be touched: their tasks have not ended, or the database does
        not know their ids, because they belong to another deployment. ``ours``: uids of pods of this deployment, for
        which an unknown id means that the row was deleted.
        """
        ...

    def executor_configs(self, workloads: Collection[Workload]) -> Mapping[Workload, Mapping[str, object] | None]:
        """Return the ``executor_config`` of each workload; those are left out whose own cannot be read.

        Callbacks have none.
        """
        ...

    def save_positions(self, positions: Collection[WatchPosition]) -> None:
        """Save positions of watches for the executor that comes after this one."""
        ...

    def load_positions(self, server: str, max_age: float) -> Collection[WatchPosition]:
        """Return the positions that executors, this one included, have saved in the last ``max_age`` seconds."""
        ...
