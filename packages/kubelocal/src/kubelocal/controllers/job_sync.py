"""The next actions for a Job, as a pure function of the Job, its pods and the time.

As kube-controller-manager does it: pods carry the finalizer ``batch.kubernetes.io/job-tracking`` until they are
counted, so that none is forgotten when someone deletes it. Not here: ``podFailurePolicy``, ``successPolicy``,
``backoffLimitPerIndex`` and the adoption of pods that the Job did not make.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from kubelocal.codec.integers import parse_int
from kubelocal.types import Manifest

__all__ = ["TRACKING", "EventRecord", "JobPlan", "decide", "earliest", "format_indexes", "parse_indexes"]

TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
MAX_BACKOFF_S = 600.0


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event to record about the Job."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What to do for a Job now.

    ``status``: its new status. ``create``: pods. ``delete``: names of pods that are no longer wanted. ``release``:
    names of pods that the status now counts. ``remove``: the Job has outlived its ``ttlSecondsAfterFinished``.
    ``wait``: look again after so many seconds, None: only when something changes.
    """

    status: Manifest
    create: tuple[Manifest, ...] = ()
    delete: tuple[str, ...] = ()
    release: tuple[str, ...] = ()
    events: tuple[EventRecord, ...] = ()
    remove: bool = False
    wait: float | None = None


@dataclass(frozen=True, slots=True)
class _Pods:
    """A Job's pods, sorted by what they mean to it. ``ending``: terminating ones that hold their slots until then."""

    succeeded: list[Manifest] = field(default_factory=list)
    failed: list[Manifest] = field(default_factory=list)
    active: list[Manifest] = field(default_factory=list)
    ending: list[Manifest] = field(default_factory=list)

    @property
    def uncounted(self) -> Iterator[Manifest]:
        return (p for p in (*self.succeeded, *self.failed) if TRACKING in p["metadata"].get("finalizers", ()))


def earliest(*waits: float | None) -> float | None:
    """Return the shortest of these waits in seconds; None, which gives no cause to look again, only for no other."""
    return min((wait for wait in waits if wait is not None), default=None)


def decide(job: Manifest, pods: list[Manifest], now: datetime, backoff: float = 10.0) -> JobPlan:
    """Decide what a Job with these pods needs; ``backoff`` is in seconds, for the first new try."""
    sorted_pods = _sort(pods, only_failed=_replaces_only_failed(job))
    status = copy.deepcopy(job.get("status", {}))
    if ended := _finished(job):
        released = tuple(p["metadata"]["name"] for p in sorted_pods.uncounted)
        return _after_end(job, ended, JobPlan(status, release=released), now)
    _count(job, status, sorted_pods)
    plan = JobPlan(status, release=tuple(p["metadata"]["name"] for p in sorted_pods.uncounted))
    _tell_pods(status, pods, sorted_pods)
    if job["metadata"].get("deletionTimestamp"):
        return plan
    for outcome in (_failure(job, status, sorted_pods, now), _success(job, status, sorted_pods)):
        if outcome is not None:
            return _end(plan, outcome, pods, sorted_pods, now)
    if job["spec"].get("suspend"):
        return _suspend(plan, sorted_pods, now)
    return _supply(job, _resume(plan, now), sorted_pods, now, backoff)


def _sort(pods: list[Manifest], *, only_failed: bool) -> _Pods:
    result = _Pods()
    for pod in pods:
        phase = pod.get("status", {}).get("phase")
        if phase == "Succeeded":
            result.succeeded.append(pod)
        elif phase == "Failed":
            result.failed.append(pod)
        elif pod["metadata"].get("deletionTimestamp"):
            # A pod without a node never gets a final phase here; in Kubernetes the pod garbage collector fails it.
            (result.ending if only_failed and pod["spec"].get("nodeName") else result.failed).append(pod)
        else:
            result.active.append(pod)
    return result


def _replaces_only_failed(job: Manifest) -> bool:
    """Whether a pod is replaced only once its phase is final (KEP-3939); else as soon as it terminates."""
    return bool(job["spec"].get("podReplacementPolicy") == "Failed")


def _count(job: Manifest, status: Manifest, pods: _Pods) -> None:
    """Add the pods that were not counted yet to the numbers of the status."""
    new = [p for p in pods.uncounted if p.get("status", {}).get("phase") == "Succeeded"]
    failed = len(list(pods.uncounted)) - len(new)
    if _indexed(job):
        indexes = parse_indexes(status.get("completedIndexes", "")) | {_index(p) for p in new}
        succeeded = len(indexes)
        if indexes:
            status["completedIndexes"] = format_indexes(indexes)
    else:
        succeeded = status.get("succeeded", 0) + len(new)
    _set(status, "succeeded", succeeded)
    _set(status, "failed", status.get("failed", 0) + failed)


def _tell_pods(status: Manifest, pods: list[Manifest], sorted_pods: _Pods) -> None:
    _set(status, "active", len(sorted_pods.active))
    status["ready"] = sum(_is_ready(p) for p in sorted_pods.active)
    status["terminating"] = len(_terminating(pods))
    status["uncountedTerminatedPods"] = {}


def _terminating(pods: list[Manifest]) -> list[Manifest]:
    ended = ("Succeeded", "Failed")
    return [p for p in pods if p["metadata"].get("deletionTimestamp") and p.get("status", {}).get("phase") not in ended]


def _set(status: Manifest, name: str, number: int) -> None:
    if number:
        status[name] = number
    else:
        status.pop(name, None)


# ---------------------------------------------------------------------------------------------------- how a Job ends


@dataclass(frozen=True, slots=True)
class _Outcome:
    kind: str
    reason: str
    message: str


DEADLINE = _Outcome("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
BACKOFF = _Outcome("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
DONE = _Outcome("Complete", "CompletionsReached", "Reached expected number of succeeded pods")


def _failure(job: Manifest, status: Manifest, pods: _Pods, now: datetime) -> _Outcome | None:
    if target := _condition(status, "FailureTarget"):
        return _Outcome("Failed", target["reason"], target["message"])
    if _condition(status, "SuccessCriteriaMet"):
        return None
    limit = job["spec"].get("backoffLimit", 6)
    restarts = sum(_restarts(p) for p in pods.active)
    if status.get("failed", 0) > limit or (restarts and restarts >= limit):
        return BACKOFF
    left = _deadline(job, status, now)
    return DEADLINE if left is not None and left <= 0 else None


def _deadline(job: Manifest, status: Manifest, now: datetime) -> float | None:
    """Seconds until the Job is too old, None if it has no limit."""
    seconds = job["spec"].get("activeDeadlineSeconds")
    if seconds is None or "startTime" not in status or job["spec"].get("suspend"):
        return None
    return float(seconds) - (now - _moment(status["startTime"])).total_seconds()


def _success(job: Manifest, status: Manifest, pods: _Pods) -> _Outcome | None:
    completions = job["spec"].get("completions")
    succeeded = status.get("succeeded", 0)
    if completions is None:
        return DONE if succeeded and not pods.active else None
    return DONE if succeeded >= completions else None


def _end(plan: JobPlan, outcome: _Outcome, pods: list[Manifest], sorted_pods: _Pods, now: datetime) -> JobPlan:
    """Name the outcome; the final condition comes when the last pod has ended."""
    status = plan.status
    target = "FailureTarget" if outcome.kind == "Failed" else "SuccessCriteriaMet"
    _add_condition(status, target, outcome, now)
    if sorted_pods.active or _terminating(pods):
        return replace(plan, delete=tuple(p["metadata"]["name"] for p in sorted_pods.active))
    _add_condition(status, outcome.kind, outcome, now)
    if outcome.kind == "Complete":
        status["completionTime"] = _stamp(now)
        return replace(plan, events=(EventRecord("Completed", "Job completed"),))
    return replace(plan, events=(EventRecord(outcome.reason, outcome.message, warning=True),))


def _finished(job: Manifest) -> Manifest | None:
    status = job.get("status", {})
    return _condition(status, "Complete") or _condition(status, "Failed")


def _after_end(job: Manifest, ended: Manifest, plan: JobPlan, now: datetime) -> JobPlan:
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    if ttl is None or job["metadata"].get("deletionTimestamp"):
        return plan
    left = float(ttl) - (now - _moment(ended["lastTransitionTime"])).total_seconds()
    return replace(plan, remove=True) if left <= 0 else replace(plan, wait=left)


# ------------------------------------------------------------------------------------------------ how a Job goes on


def _suspend(plan: JobPlan, pods: _Pods, now: datetime) -> JobPlan:
    names = tuple(p["metadata"]["name"] for p in pods.active)
    # released before they are deleted, so that they do not count as failed
    plan = replace(plan, delete=names, release=plan.release + names)
    if _condition(plan.status, "Suspended"):
        return plan
    plan.status.pop("startTime", None)
    _add_condition(plan.status, "Suspended", _Outcome("", "JobSuspended", "Job suspended"), now)
    return replace(plan, events=(EventRecord("Suspended", "Job suspended"),))


def _resume(plan: JobPlan, now: datetime) -> JobPlan:
    plan.status.setdefault("startTime", _stamp(now))
    if not _condition(plan.status, "Suspended"):
        return plan
    _add_condition(plan.status, "Suspended", _Outcome("", "JobResumed", "Job resumed"), now, "False")
    return replace(plan, events=(EventRecord("Resumed", "Job resumed"),))


def _supply(job: Manifest, plan: JobPlan, pods: _Pods, now: datetime, backoff: float) -> JobPlan:
    """Create missing pods or delete surplus ones."""
    left = _deadline(job, plan.status, now)
    plan = replace(plan, wait=left)
    missing = _wanted(job, plan.status, len(pods.active)) - len(pods.active)
    if missing < 0:
        surplus = sorted(pods.active, key=_worth)[:-missing]
        names = tuple(p["metadata"]["name"] for p in surplus)
        return replace(plan, delete=names, release=plan.release + names)
    missing -= len(pods.ending)
    if missing <= 0:
        return plan
    pause = _pause(pods, now, backoff)
    if pause > 0:
        return replace(plan, wait=earliest(pause, left))
    return replace(plan, create=tuple(_new_pod(job, index) for index in _slots(job, plan.status, pods, missing)))


def _wanted(job: Manifest, status: Manifest, active: int) -> int:
    spec = job["spec"]
    parallelism, completions = int(spec.get("parallelism", 1)), spec.get("completions")
    if completions is None:
        return active if status.get("succeeded") else parallelism
    return min(parallelism, int(completions) - int(status.get("succeeded", 0)))


def _worth(pod: Manifest) -> tuple[bool, bool, bool, float]:
    """Sort key: pods whose loss costs least come first."""
    created = _moment(pod["metadata"]["creationTimestamp"]).timestamp()
    running = pod.get("status", {}).get("phase") == "Running"
    return (bool(pod["spec"].get("nodeName")), running, _is_ready(pod), -created)


def _pause(pods: _Pods, now: datetime, backoff: float) -> float:
    """Seconds to wait before a new try: doubled with each failure since the last success."""
    success = max((_ended_at(p) for p in pods.succeeded), default=None)
    failures = [t for p in pods.failed if (t := _ended_at(p)) and (success is None or t > success)]
    if not failures:
        return 0.0
    # the exponent is bounded because 2.0 ** 1024 does not fit a float
    pause = min(backoff * 2.0 ** min(len(failures) - 1, 30), MAX_BACKOFF_S)
    return (max(failures) + timedelta(seconds=pause) - now).total_seconds()


def _slots(job: Manifest, status: Manifest, pods: _Pods, missing: int) -> list[int | None]:
    if not _indexed(job):
        return [None] * missing
    used_indexes = parse_indexes(status.get("completedIndexes", "")) | {_index(p) for p in (*pods.active, *pods.ending)}
    free: list[int | None] = [index for index in range(job["spec"]["completions"]) if index not in used_indexes]
    return free[:missing]


def _new_pod(job: Manifest, index: int | None) -> Manifest:
    template = copy.deepcopy(job["spec"]["template"])
    name, meta = job["metadata"]["name"], template.get("metadata") or {}
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
    metadata = {
        **{key: meta[key] for key in ("labels", "annotations") if meta.get(key)},
        "generateName": f"{name}-" if index is None else f"{name}-{index}-",
        "finalizers": [*meta.get("finalizers", ()), TRACKING],
        "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    if index is not None:
        _number(pod, name, index)
    return pod


def _number(pod: Manifest, name: str, index: int) -> None:
    """Set the pod's index: annotation, label, host name and JOB_COMPLETION_INDEX."""
    for place in ("annotations", "labels"):
        pod["metadata"].setdefault(place, {})[INDEX] = str(index)
    pod["spec"].setdefault("hostname", f"{name}-{index}")
    source = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}}
    for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
        env = container.setdefault("env", [])
        if all(entry["name"] != "JOB_COMPLETION_INDEX" for entry in env):
            env.append({"name": "JOB_COMPLETION_INDEX", "valueFrom": source})


# ------------------------------------------------------------------------------------------------------ small parts


def parse_indexes(text: str) -> set[int]:
    """Read ``0-2,5`` as {0, 1, 2, 5}."""
    ranges = (part.partition("-") for part in text.split(",") if part)
    return {index for first, _, last in ranges for index in range(int(first), int(last or first) + 1)}


def format_indexes(indexes: set[int]) -> str:
    """Write {0, 1, 2, 5} as ``0-2,5``."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _indexed(job: Manifest) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def _index(pod: Manifest) -> int:
    try:
        return parse_int(pod["metadata"].get("annotations", {}).get(INDEX, "-1"))
    except ValueError:  # written by another client
        return -1


def _condition(status: Manifest, kind: str) -> Manifest | None:
    """Return the condition of this type, if it is there and True."""
    conditions = status.get("conditions", [])
    return next((c for c in conditions if c["type"] == kind and c["status"] == "True"), None)


def _add_condition(status: Manifest, kind: str, outcome: _Outcome, now: datetime, value: str = "True") -> None:
    others = [c for c in status.get("conditions", []) if c["type"] != kind]
    if len(others) < len(status.get("conditions", [])) and _condition(status, kind) and value == "True":
        return
    times = {"lastProbeTime": _stamp(now), "lastTransitionTime": _stamp(now)}
    words = {"reason": outcome.reason, "message": outcome.message}
    status["conditions"] = [*others, {"type": kind, "status": value, **times, **words}]


def _is_ready(pod: Manifest) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _restarts(pod: Manifest) -> int:
    """Restarts of the containers whose end would end the pod."""
    if pod["spec"].get("restartPolicy") != "OnFailure":
        return 0
    status = pod.get("status", {})
    statuses = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return sum(s.get("restartCount", 0) for s in statuses)


def _ended_at(pod: Manifest) -> datetime:
    """Return when a pod ended, by the best source there is (``getFinishedTime`` of the Job controller)."""
    statuses = pod.get("status", {}).get("containerStatuses", ())
    ends = [str((s.get("state", {}).get("terminated") or {}).get("finishedAt") or "") for s in statuses]
    if ends and all(ends):
        return max(_moment(end) for end in ends)
    conditions = pod.get("status", {}).get("conditions", [])
    unready = (c.get("lastTransitionTime") for c in conditions if c["type"] == "Ready" and c["status"] == "False")
    if since := next(unready, None):
        return _moment(since)
    meta = pod["metadata"]
    if deleted := meta.get("deletionTimestamp"):
        # deletionTimestamp is the end of the grace period; the deletion was requested that much earlier.
        return _moment(deleted) - timedelta(seconds=meta.get("deletionGracePeriodSeconds") or 0)
    return _moment(meta["creationTimestamp"])


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
