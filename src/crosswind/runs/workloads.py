"""What the engine is asked to run, what it remembers of each, and what it answers. Values only."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from crosswind.pods.workers import WorkerTask

__all__ = [
    "LOCAL",
    "WORKER_LABEL",
    "Claim",
    "Ended",
    "Ledger",
    "Notice",
    "Outcome",
    "Position",
    "Released",
    "Run",
    "Stage",
    "Standing",
    "State",
    "Workload",
    "unique_of",
]


WORKER_LABEL = {"crosswind/worker": "true"}
"""On each pod that an engine made, so that it is found when its engine is no more."""


LOCAL = "local-"
"""Begins the id of an executor outside a scheduler, as ``dag.test`` has it."""


class State(enum.StrEnum):
    """How the engine says that a workload ended."""

    SUCCESS = "success"
    FAILED = "failed"


class Standing(enum.Enum):
    """What the metadata database says about a workload whose pod is over."""

    SETTLED = "settled"
    """It ended there too, waits for something else, or belongs to another pod by now: nothing to say."""
    QUEUED = "queued"
    RUNNING = "running"
    RESTARTING = "restarting"
    """Cleared while it ran: Airflow wants to hear SUCCESS, so that it runs again."""
    UNSERIALIZED = "unserialized"
    """Cleared while it ran, but its DAG or task is not serialized: Airflow would store SUCCESS as its result."""
    DELETED = "deleted"
    """Its row is gone: somebody deleted the task instance, the DAG run or the DAG."""


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """One thing to run in a pod of its own."""

    key: Hashable
    """The caller's name for it, handed back in every outcome."""
    task: WorkerTask
    priority: float
    payload: Callable[[], bytes] | None
    """Returns the JSON for the worker, with a token that is minted by the call; None for an adopted pod."""
    config: Mapping[str, Any] | None = None
    """The task's ``executor_config`` as its author wrote it."""
    exit_decides: bool = False
    """Whether exit code 0 is a success to be told: a task's worker reports its state itself, a callback's does not."""
    log_path: str | None = None
    claim: Any = None
    """Whatever the ledger needs to find it in the database."""
    renew: Callable[[bytes], bytes] | None = None
    """For an adopted pod: returns the JSON that its Secret holds with a new token."""


class Stage(enum.IntEnum):
    """How far a run has come."""

    CLAIMED = -1
    """Another executor began it; its pod is looked for."""
    WAITING = 0
    """For its turn to be created."""
    CREATED = 1
    BEGUN = 2
    """The base container has started."""
    ENDED = 3
    """The base container is over, or there will be none."""


@dataclass(slots=True, eq=False)
class Run:
    """One pod of one workload. Lives on the engine's loop only."""

    workload: Workload
    task: WorkerTask
    """The workload's, or for another launch of it one with a unique id of its own."""
    asked_at: float
    """Monotonic seconds."""
    attempt: int = 0
    stage: Stage = Stage.WAITING
    name: str = ""
    namespace: str = ""
    uid: str = ""
    batch: str = ""
    manifest: dict[str, Any] | None = None
    """Until it is created."""
    payload: bytes | None = None
    """Until its Secret is created."""
    created_at: float = 0.0
    denied_at: float = 0.0
    """When an admission webhook first denied its pod."""
    revoked: bool = False
    """Its owner wants to hear no more of it."""
    failed: bool = False
    reason: str = ""
    message: str = ""
    may_relaunch: bool = False
    could_start: bool = False
    """It was given up while its pod waits: kept, that could still start its task."""
    waits_for: Callable[[], str] | None = None
    """Says, in a sentence, what it waits for."""
    seen: bool = False
    """The watch has told of its pod."""
    ended_at: float = 0.0
    gone: bool = False
    """There is no pod (any more), or none that is ours to look after."""
    begun_at: float = 0.0
    """When base was first seen to run, as monotonic seconds; 0 for never."""
    over_at: float = 0.0
    """When base was seen to be over, or the run was given up; 0 for not yet."""
    held_up: str = ""
    """One word for what it waits for, "" for nothing in particular."""
    keeps_log: bool = False
    """Its worker writes its log onto a volume that outlives the pod."""
    archived: bool = False
    """Its log is kept, or was given up."""
    settled: bool = False
    """The database agrees, or nobody wants to know."""
    told: bool = False
    claim: Claim | None = None
    """Of a run that another executor began, until its pod carries our label."""
    lost: bool = False
    """There is no trace of its pod: how far its task came is not known."""
    noticed: Mapping[tuple[str, str], float] | None = None
    """Events and reasons that its task's author has read, and when, as monotonic seconds."""

    @property
    def unique(self) -> str:
        """The id that the pod's name and the Secret's key carry."""
        return self.task.unique_id

    @property
    def where(self) -> str:
        """Namespace and name, for messages."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Released:
    """The workload's slot is free; there is nothing else to say."""

    workload: Workload


@dataclass(frozen=True, slots=True)
class Ended:
    """The workload is over, and the database does not know."""

    workload: Workload
    state: State
    message: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the task's author would want to read."""

    workload: Workload
    event: str
    message: str


Outcome = Released | Ended | Notice


@dataclass(frozen=True, slots=True)
class Claim:
    """A workload that an executor which is no more has left, to be adopted if its pod is there."""

    ti_id: str
    key: tuple[str, str, str, int, int]
    """dag, task, run, try number and map index, for pods that do not carry ``ti_id``."""
    workload: Workload
    owner: str = ""
    """The executor that left it, as ``airflow-worker`` of its pods has it."""
    unique: str = ""
    """The unique id that the database has for its pod; "" when that is none of ours, as with stock."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far an executor's watch has come: all up to ``version`` was dealt with."""

    executor: str
    server: str
    """The API server's address: versions of another one mean nothing."""
    namespace: str | None
    """None: all of them, by one watch."""
    version: str


_UNIQUE = uuid.UUID("6f4d9c1e-6a27-4c7b-9c51-53a51c0f5f5d")


def unique_of(first: str, attempt: int) -> str:
    """Return the unique id of a workload's pod: the first one's is ``first``, those of the others follow from it."""
    return str(uuid.uuid5(_UNIQUE, f"{first}/{attempt}")) if attempt else first


class Ledger(Protocol):
    """The metadata database, as the engine sees it. Called in a thread where waiting is allowed."""

    def standings(self, workloads: Collection[Workload]) -> Mapping[Workload, Standing]:
        """Return how each workload stands; one that is left out, for want of a ``claim``, is settled."""
        ...

    def living(self) -> Collection[str]:
        """Return the ids of all executors that are alive, in the form that pods carry in ``airflow-worker``."""
        ...

    def report(self, workload: Workload, message: str) -> None:
        """Write into the task's own log why it failed; best effort."""
        ...

    def again(self, workloads: Collection[Workload]) -> Collection[Workload]:
        """Have tasks scheduled once more at no cost of a retry; return those for which that is done by now."""
        ...

    def left_behind(self, pods: Mapping[str, Mapping[str, str]]) -> Mapping[str, Workload | None]:
        """Say what the database knows of pods of former executors, by uid, each given by its annotations.

        A workload is one whose end nobody else reports: its pod is to be adopted. None: the pod need not start any
        more. Pods that are left out are others' business.
        """
        ...

    def remember(self, positions: Collection[Position]) -> None:
        """Keep positions of watches for whoever comes after this executor."""
        ...

    def positions(self, server: str, within: float) -> Collection[Position]:
        """Return what executors, this one too, have kept about an API server in so many seconds until now."""
        ...
