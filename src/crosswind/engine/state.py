"""The engine's state: workloads, the runs that execute them, and the registry of all runs. Nothing here waits.

A *workload* is what Airflow asks for: a task instance, a callback or a connection test. A *run* is one attempt to
execute a workload in one pod; a relaunch is a new run of the same workload.
"""

from __future__ import annotations

import enum
import math
import time
import uuid
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crosswind.engine.last_pod_state import LastPodState
from crosswind.engine.worker_pod import WorkerTask
from crosswind.engine.workload_secrets import SecretBatch, SecretBatches
from crosswind.pods.added_fields import asked_fields
from crosswind.types import Manifest, PodEvent

__all__ = [
    "LOCAL_EXECUTOR_PREFIX",
    "WORKER_LABEL",
    "AdoptionRequest",
    "FinalState",
    "Outcome",
    "PodClaim",
    "PodDisposition",
    "ReportState",
    "RunRegistry",
    "RunResult",
    "RunStage",
    "RunTimes",
    "SlotReleased",
    "TaskEvent",
    "WaitReason",
    "WorkerRun",
    "Workload",
    "WorkloadEnded",
    "attempt_unique_id",
]

WORKER_LABEL = {"crosswind/worker": "true"}
"""Set on each pod that an engine creates, so that another scheduler finds it after this one has died."""

LOCAL_EXECUTOR_PREFIX = "local-"
"""First characters of the id of an executor outside a scheduler, as ``dag.test`` starts one."""

_MAX_COLD_TASKS = 5_000
_REPEAT_EVENT_S = 1800.0
"""Seconds until the same event with the same reason gets another row in the task's event log."""

_ATTEMPT_NAMESPACE = uuid.UUID("6f4d9c1e-6a27-4c7b-9c51-53a51c0f5f5d")


# --- what the caller hands in and gets back ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """One thing to run in a pod of its own."""

    key: Hashable
    """The caller's name for it, returned in every outcome."""
    task: WorkerTask
    priority: float
    payload: Callable[[], bytes] | None
    """Returns the worker's JSON with a token that is minted by the call; None for an adopted pod."""
    prepare: Callable[[], None] | None = None
    """Called once in the engine's thread, to do what ``payload`` needs and the caller's thread should not do."""
    config: Mapping[str, object] | None = None
    """The task's ``executor_config`` as its author wrote it."""
    runs_task: bool = True
    """Whether it is a task, in contrast to a callback and the test of a connection."""
    exit_decides: bool = False
    """Whether exit code 0 is reported as success: a task's worker reports its own state, a callback's does not."""
    log_path: str | None = None
    ref: Any = None
    """Identifies the workload's row for the metadata database; None for one without a row."""
    renew: Callable[[bytes], bytes] | None = None
    """For an adopted pod: returns the JSON that its Secret holds with a new token."""


@dataclass(frozen=True, slots=True)
class AdoptionRequest:
    """A workload of a dead scheduler: adopt its pod, or reschedule the task if there is no pod."""

    ti_id: str
    key: tuple[str, str, str, int, int]
    """dag, task, run, try number and map index, for pods that do not carry ``ti_id``."""
    workload: Workload
    owner: str = ""
    """The dead executor, as its pods' label ``airflow-worker`` names it."""
    unique_id: str = ""
    """The unique id that the database has for the pod; "" for a pod of the stock executor."""
    namespace: str = ""
    """Where its pod was seen; "" for one that must be searched."""


class FinalState(enum.StrEnum):
    """The state that the engine reports for a workload."""

    SUCCESS = "success"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SlotReleased:
    """The workload's slot is free; its state needs no report."""

    workload: Workload


@dataclass(frozen=True, slots=True)
class WorkloadEnded:
    """The workload has ended, and the database does not say so yet."""

    workload: Workload
    state: FinalState
    message: str


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """A row for the task's event log, for the task's author to read."""

    workload: Workload
    event: str
    message: str


Outcome = SlotReleased | WorkloadEnded | TaskEvent


# --- one run ----------------------------------------------------------------------------------------------------------


class RunStage(enum.IntEnum):
    """How far a run has come."""

    ADOPTING = -1
    """Another executor launched it; its pod is being looked for."""
    WAITING = 0
    """Its pod is not created yet."""
    CREATED = 1
    RUNNING = 2
    """The base container has started."""
    ENDED = 3
    """The base container has terminated, or will never start."""


_NEXT_STAGES = {
    RunStage.ADOPTING: (RunStage.CREATED, RunStage.ENDED),
    RunStage.WAITING: (RunStage.CREATED, RunStage.ENDED),
    RunStage.CREATED: (RunStage.RUNNING, RunStage.ENDED),
    RunStage.RUNNING: (RunStage.ENDED,),
    RunStage.ENDED: (),
}


class PodDisposition(enum.Enum):
    """What happens to a run's pod."""

    BY_POLICY = "by policy"
    """The pod exists, or may exist: after base has ended, the settings decide whether to delete or keep it."""
    DELETE = "delete"
    """Delete the pod whatever the settings say: if kept, it could still start a task that was given up."""
    GONE = "gone"
    """There is no pod, or another executor owns it."""


class ReportState(enum.Enum):
    """What Airflow knows about a run's end."""

    PENDING = "pending"
    REPORTED = "reported"
    """The scheduler was informed; the metadata database does not agree yet."""
    SETTLED = "settled"
    """The database agrees, or nothing needs to be reported."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended."""

    failed: bool
    message: str = ""
    reason: str = ""
    """One word."""
    may_relaunch: bool = False
    """According to the pod its task never began, so another pod may run it."""
    lost: bool = False
    """No trace of its pod exists: how far its task came is unknown."""
    loss: str = ""
    """In a word, how the cluster took the pod (``pods.losses``); "" if it did not."""


_NO_RESULT = RunResult(failed=False)


@dataclass(slots=True)
class RunTimes:
    """When a run passed each stage, in monotonic seconds; 0 for a stage that it has not reached."""

    requested: float
    created: float = 0.0
    started: float = 0.0
    """When the base container was first seen to run."""
    ended: float = 0.0
    """When the base container was seen to have ended, or the run was given up."""
    denied: float = 0.0
    """When an admission webhook first denied the pod."""
    cleanup: float = 0.0
    """When the pod was last handed to the pod cleaner."""


@dataclass(frozen=True, slots=True)
class WaitReason:
    """Why a run waits."""

    describe: Callable[[], str]
    """Returns the reason as a sentence; thousands of runs wait, and few reasons are ever read."""
    reason: str
    """One word, for metrics."""


@dataclass(slots=True)
class PodClaim:
    """A waiting pod that a run has claimed, or tries to: the request may be under way, or without an answer."""

    pool: str
    """The pod's fingerprint."""
    nonce: str
    """From which the pod's key follows."""
    at: float
    """When the claim was sent, in monotonic seconds."""
    alive: bool = False
    """The task has shown a sign of life: its row is no longer QUEUED."""
    touched: bool = False
    """The pod was changed once more, to have the kubelet deliver the workload."""
    log_asked: bool = False
    """The pod's log is being read, or was."""
    taken: bool | None = None
    """The pod's log shows that its worker has the workload, and only waits for Airflow; None before it was read."""
    given_up: bool = False
    """No sign of life came in time. The run ends when its pod is gone, because until then the task may start."""


@dataclass(slots=True, eq=False)
class WorkerRun:
    """One attempt to execute a workload in one pod. Belongs to the engine's event loop.

    Four states, which only the methods below change: ``stage``, how far the pod has come; ``result``, how it ended;
    ``disposition``, what happens to the pod; ``report``, what Airflow knows. The registry forgets a run when its pod is
    gone and its end is settled. ``revoked`` is independent of them: Airflow has ended the task by itself, and the
    engine reports nothing.
    """

    workload: Workload
    task: WorkerTask
    """The workload's task; a relaunch has its own unique id in it."""
    times: RunTimes
    attempt: int = 0
    losses: int = 0
    """How often in a row the cluster took the pods of its task instance; counted for ``after_losses`` alone."""
    stage: RunStage = RunStage.WAITING
    result: RunResult | None = None
    disposition: PodDisposition = PodDisposition.BY_POLICY
    report: ReportState = ReportState.PENDING
    revoked: bool = False
    name: str = ""
    """The pod's, as are ``namespace`` and ``uid``."""
    namespace: str = ""
    uid: str = ""
    node: str = ""
    """The node that the pod is bound to, as the watch has reported it."""
    secret: str = ""
    """Name of the Secret that carries its workload; "" when it needs none (any longer)."""
    manifest: Manifest | None = None
    """Set until the API server has accepted the pod."""
    requested_fields: frozenset[str] = frozenset()
    """Names of the fields of the manifest, see ``added_fields``; empty for a pod of another scheduler."""
    payload: bytes | None = None
    """Set until the Secret's manifest is built."""
    wait: WaitReason | None = None
    unseen_since: float | None = 0.0
    """Since when no watch has reported the pod, in monotonic seconds; None after one has."""
    log_on_volume: bool = False
    """Its worker writes the log onto a volume that outlives the pod."""
    held: bool = False
    """Its end is not settled, and the pod is left as it is until then. To the next scheduler it is the only proof."""
    sidecars_ended: bool = False
    """Its pod is kept, and needs nothing but the label that marks it as done."""
    log_stored: bool = False
    """Its log is stored, or storing it was given up."""
    adoption: AdoptionRequest | None = None
    """Set for a run that another executor launched, until its pod carries our label."""
    claim: PodClaim | None = None
    """Set for a run whose pod waited for a task; None for one whose pod is created for it."""
    failed_claims: tuple[str, ...] = ()
    """Names of earlier pods of the workload that were claimed and did not start it; they count as no attempt."""
    starts_cold: bool = False
    """No pod is claimed for it: one that was claimed for an earlier try of its task did not start it."""
    last_state: LastPodState | None = None
    """The pod as it was last seen, for the history: from its end until the run is forgotten."""
    last_events: Sequence[PodEvent] = ()
    """The events of a pod that failed, the oldest first, where they could be read."""
    recorded_elsewhere: bool = False
    """The pod history gets no record of this run: another executor or another run has the pod."""
    events_sent: Mapping[tuple[str, str], float] | None = None
    """When each event, with its reason, was last sent to the task's event log, in monotonic seconds."""

    # --- transitions --------------------------------------------------------------------------------------------------

    def _enter(self, stage: RunStage) -> None:
        if stage not in _NEXT_STAGES[self.stage]:
            raise AssertionError(f"The run {self.unique_id} cannot go from {self.stage.name} to {stage.name}")
        self.stage = stage

    def mark_created(self, now: float) -> None:
        """Enter CREATED: its pod exists, or may exist."""
        self._enter(RunStage.CREATED)
        if self.manifest is not None:
            self.requested_fields = asked_fields(self.manifest)
        self.times.created, self.manifest, self.wait = now, None, None
        if self.unseen_since is not None:  # the watch may report a pod before the create request is answered
            self.unseen_since = now

    def mark_running(self, now: float) -> None:
        """Enter RUNNING: the base container has started."""
        self._enter(RunStage.RUNNING)
        self.times.started, self.wait = now, None

    def mark_ended(self, result: RunResult, now: float) -> None:
        """Enter ENDED: the base container has terminated, or will never start."""
        self._enter(RunStage.ENDED)
        self.result, self.times.ended, self.manifest = result, now, None

    def delete_in_any_case(self) -> None:
        """Have the pod deleted even if the settings would keep it."""
        self.disposition = PodDisposition.DELETE

    def mark_pod_gone(self) -> None:
        """Stop tracking the pod."""
        self.disposition = PodDisposition.GONE

    def mark_reported(self) -> None:
        """Enter REPORTED, unless the end is settled."""
        if self.report is ReportState.PENDING:
            self.report = ReportState.REPORTED

    def settle(self) -> None:
        """Enter SETTLED: no (further) report is needed."""
        self.report = ReportState.SETTLED

    def revoke(self) -> None:
        """Report nothing, and have the pod deleted."""
        self.revoked, self.report = True, ReportState.SETTLED

    # --- derived ------------------------------------------------------------------------------------------------------

    @property
    def failed(self) -> bool:
        """Whether the run has ended with a failure."""
        return self.result is not None and self.result.failed

    @property
    def message(self) -> str:
        """Why the run failed, as a sentence."""
        return (self.result or _NO_RESULT).message

    @property
    def reason(self) -> str:
        """Why the run failed, in a word."""
        return (self.result or _NO_RESULT).reason

    @property
    def began(self) -> bool:
        """Whether the task may have begun when the base container runs: in a claimed pod it ran before the claim."""
        return self.claim is None or self.claim.alive

    @property
    def pod_gone(self) -> bool:
        """Whether there is no pod to look after."""
        return self.disposition is PodDisposition.GONE

    @property
    def settled(self) -> bool:
        """Whether the run's end needs no (further) report."""
        return self.report is ReportState.SETTLED

    @property
    def unique_id(self) -> str:
        """The id in the pod's name and in the Secret's key."""
        return self.task.unique_id

    @property
    def pod_path(self) -> str:
        """The pod's namespace and name, for messages."""
        return f"{self.namespace}/{self.name}"


def attempt_unique_id(first: str, attempt: int) -> str:
    """Return the unique id of a workload's n-th pod: ``first`` for attempt 0, later ones are derived from it."""
    return str(uuid.uuid5(_ATTEMPT_NAMESPACE, f"{first}/{attempt}")) if attempt else first


# --- all runs ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class RunRegistry:
    """The runs that an engine knows, and the outcomes that the scheduler has not fetched yet.

    Outlives reconnections and restarts of the engine's thread. All but ``outbox``, a thread-safe deque, belongs to the
    engine's event loop.
    """

    outbox: deque[Outcome] = field(default_factory=deque)
    runs: dict[str, WorkerRun] = field(default_factory=dict)
    """By unique id."""
    pods: dict[tuple[str, str], WorkerRun] = field(default_factory=dict)
    """By the pod's namespace and name."""
    newest: dict[Hashable, WorkerRun] = field(default_factory=dict)
    """The newest run of each workload key that has not ended."""
    secrets: SecretBatches = field(default_factory=SecretBatches)
    unused_secrets: list[SecretBatch] = field(default_factory=list)
    """Secrets to delete as soon as there is an API client."""
    cold_tasks: dict[tuple[str, str, str, int], bool] = field(default_factory=dict)
    """Tasks, by ``row_key``, whose next try starts cold, the oldest first. In memory alone."""
    refusal: str = ""
    """Why no pod can be created, for instance an unusable kubeconfig; "" when pods can be created."""

    def add(self, run: WorkerRun) -> None:
        """Register a run."""
        self.runs[run.unique_id] = run

    def replace_task(self, run: WorkerRun, task: WorkerTask) -> None:
        """Give a run another task, and register it under that task's unique id."""
        self.runs.pop(run.unique_id, None)
        run.task = task
        self.add(run)

    def set_pod(self, run: WorkerRun, namespace: str, name: str) -> None:
        """Register which pod a run has."""
        run.namespace, run.name = namespace, name
        self.pods[namespace, name] = run

    def unset_pod(self, run: WorkerRun) -> None:
        """Forget the pod of a run that could not claim it."""
        if self.pods.get((run.namespace, run.name)) is run:
            del self.pods[run.namespace, run.name]
        run.namespace = run.name = run.uid = ""
        run.claim = None

    def remove(self, run: WorkerRun) -> bool:
        """Forget a run; return whether it was registered."""
        if self.pods.get((run.namespace, run.name)) is run:
            del self.pods[run.namespace, run.name]
        return self.runs.pop(run.unique_id, None) is not None

    def at(self, *stages: RunStage) -> list[WorkerRun]:
        """Return the runs at one of these stages."""
        return [run for run in list(self.runs.values()) if run.stage in stages]  # also called from other threads

    def start_next_try_cold(self, task: WorkerTask) -> None:
        """Make the next try of a task start cold: Airflow was too busy to start this one in time."""
        self.cold_tasks[task.row_key] = True
        if len(self.cold_tasks) > _MAX_COLD_TASKS:  # of tasks that were cleared or deleted meanwhile
            del self.cold_tasks[next(iter(self.cold_tasks))]

    def begins_cold(self, task: WorkerTask) -> bool:
        """Return whether a try that begins now claims no pod; the one after it may again."""
        return self.cold_tasks.pop(task.row_key, False)

    def send_event(self, run: WorkerRun, event: str, message: str, reason: str = "") -> None:
        """Send a row to the task's event log: at once for a new ``reason``, every half hour for the same one.

        Messages change more often than reasons: a quota's message names the pods in use, the scheduler's the nodes.
        """
        now, topic, sent = time.monotonic(), (event, reason), run.events_sent or {}
        if not message or run.revoked or run.settled or sent.get(topic, -math.inf) > now - _REPEAT_EVENT_S:
            return
        run.events_sent = {**sent, topic: now}
        self.outbox.append(TaskEvent(run.workload, event, message))
