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
    "End",
    "Ended",
    "Ledger",
    "Notice",
    "Outcome",
    "Pod",
    "Position",
    "Released",
    "Report",
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


_NEXT = {
    Stage.CLAIMED: (Stage.CREATED, Stage.ENDED),
    Stage.WAITING: (Stage.CREATED, Stage.ENDED),
    Stage.CREATED: (Stage.BEGUN, Stage.ENDED),
    Stage.BEGUN: (Stage.ENDED,),
    Stage.ENDED: (),
}


class Pod(enum.Enum):
    """What becomes of a run's pod."""

    OURS = "ours"
    """There is one, or may be: when base is over it is deleted or kept, as the deployment has it."""
    UNWANTED = "unwanted"
    """Deleted in any case: kept, it could still start a task that was given up, or its task instance was deleted."""
    GONE = "gone"
    """There is none (any more), or none that is ours to look after."""


class Report(enum.Enum):
    """How far Airflow knows of a run's end."""

    OPEN = "open"
    TOLD = "told"
    """It was told, and the database does not say so yet."""
    SETTLED = "settled"
    """The database agrees, or nobody wants to know."""


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended."""

    failed: bool
    message: str = ""
    reason: str = ""
    """One word."""
    may_relaunch: bool = False
    """Its task never began, as far as the pod says: another pod may run it."""
    lost: bool = False
    """There is no trace of its pod: how far its task came is not known."""


_OPEN = End(failed=False)


@dataclass(slots=True, eq=False)
class Run:
    """One pod of one workload. Lives on the engine's loop only.

    Four states, each changed by the methods below alone: ``stage``, how far the pod has come; ``end``, how it ended;
    ``pod``, what becomes of the pod; ``report``, what Airflow knows. A run is forgotten when its pod is gone and its
    end is settled. ``revoked`` stands across them: Airflow has ended the task by itself, so that nothing is reported.
    """

    workload: Workload
    task: WorkerTask
    """The workload's, or for another launch of it one with a unique id of its own."""
    asked_at: float
    """Monotonic seconds."""
    attempt: int = 0
    stage: Stage = Stage.WAITING
    end: End | None = None
    pod: Pod = Pod.OURS
    report: Report = Report.OPEN
    revoked: bool = False
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
    waits_for: Callable[[], str] | None = None
    """Says, in a sentence, what it waits for."""
    seen: bool = False
    """The watch has told of its pod."""
    ended_at: float = 0.0
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
    claim: Claim | None = None
    """Of a run that another executor began, until its pod carries our label."""
    noticed: Mapping[tuple[str, str], float] | None = None
    """Events and reasons that its task's author has read, and when, as monotonic seconds."""

    # --- transitions --------------------------------------------------------------------------------------------------

    def _go(self, stage: Stage) -> None:
        if stage not in _NEXT[self.stage]:
            raise AssertionError(f"The run {self.unique} cannot go from {self.stage.name} to {stage.name}")
        self.stage = stage

    def has_pod(self, now: float) -> None:
        """WAITING or CLAIMED to CREATED: its pod is there, or may be."""
        self._go(Stage.CREATED)
        self.created_at, self.manifest, self.waits_for = now, None, None

    def begins(self, now: float) -> None:
        """CREATED to BEGUN: base runs."""
        self._go(Stage.BEGUN)
        self.begun_at, self.waits_for = now, None

    def ends(self, end: End, now: float) -> None:
        """To ENDED: base is over, or there will be none."""
        self._go(Stage.ENDED)
        self.end, self.over_at, self.manifest = end, now, None

    def pod_is_unwanted(self) -> None:
        """Have its pod deleted in any case, even one that was kept."""
        self.pod = Pod.UNWANTED

    def pod_is_gone(self) -> None:
        """Look after its pod no longer."""
        self.pod = Pod.GONE

    def was_told(self) -> None:
        """OPEN to TOLD."""
        if self.report is Report.OPEN:
            self.report = Report.TOLD

    def settle(self) -> None:
        """To SETTLED: there is nothing (more) to tell."""
        self.report = Report.SETTLED

    def revoke(self) -> None:
        """Report nothing, and have its pod deleted."""
        self.revoked, self.report = True, Report.SETTLED

    # --- what follows from them ---------------------------------------------------------------------------------------

    @property
    def failed(self) -> bool:
        """Whether it ended, and not well."""
        return self.end is not None and self.end.failed

    @property
    def message(self) -> str:
        """Why it failed, in a sentence."""
        return (self.end or _OPEN).message

    @property
    def reason(self) -> str:
        """Why it failed, in a word."""
        return (self.end or _OPEN).reason

    @property
    def gone(self) -> bool:
        """Whether there is no pod to look after."""
        return self.pod is Pod.GONE

    @property
    def settled(self) -> bool:
        """Whether there is nothing more to tell."""
        return self.report is Report.SETTLED

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
