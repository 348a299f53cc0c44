"""The waiting pods that a watch reports, and the pools that they belong to. Nothing here waits."""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from crosswind.engine.pod_fingerprint import WaitingTemplate
from crosswind.engine.warm_claim_patch import NONCE_ANNOTATION, OWNER_LABEL, POOL_LABEL
from crosswind.engine.warm_size import MISS_WINDOW_S, PoolDemand, Use
from crosswind.engine.worker_pod import BASE
from crosswind.pods.causes import why
from crosswind.pods.fields import annotations_of, container_statuses_of, labels_of, mapping, metadata_of, text
from crosswind.pods.verdict import judge
from crosswind.types import Manifest, Pod

__all__ = ["Pool", "WaitingPod", "WaitingPods", "read_waiting_pod", "trimmed"]

_MAX_USES = 1000


@dataclass(slots=True, eq=False)
class WaitingPod:
    """A pod that has no task yet. Times are the loop's."""

    uid: str
    name: str
    namespace: str
    pool: str
    """Its fingerprint."""
    nonce: str
    owner: str
    """The scheduler that keeps it, as a label's value."""
    created: float
    ready: bool = False
    """It has imported everything."""
    ready_at: float = 0.0
    ended: bool = False
    failure: str = ""
    """Why it ended, as a sentence; "" for one that ended by itself, or has not."""
    reserved: bool = False
    """A claim of it is under way."""
    retiring: bool = False
    """Its deletion is under way."""
    deleting: bool = False
    """A client has deleted it."""

    @property
    def claimable(self) -> bool:
        """Whether it can get a task now."""
        return self.ready and not (self.ended or self.reserved or self.retiring or self.deleting)


def read_waiting_pod(pod: Pod, now: float, wall: float) -> WaitingPod:
    """Return what matters of a pod. ``now``: on the loop's clock; ``wall``: the same moment in seconds since 1970."""
    metadata, labels, verdict = metadata_of(pod), labels_of(pod), judge(pod)
    return WaitingPod(
        uid=metadata["uid"],
        name=metadata["name"],
        namespace=metadata["namespace"],
        pool=labels.get(POOL_LABEL, ""),
        nonce=annotations_of(pod).get(NONCE_ANNOTATION, ""),
        owner=labels.get(OWNER_LABEL, ""),
        created=now - max(0.0, wall - _seconds(metadata.get("creationTimestamp"))),
        ready=_is_ready(pod),
        ready_at=now,
        ended=verdict.over,
        failure=why(pod) if verdict.over and not verdict.succeeded else "",
        deleting=verdict.deleting,
    )


def _is_ready(pod: Pod) -> bool:
    """Return whether base has passed its startup probe. Simulated pods of kubelocal only report ``ready``."""
    for status in container_statuses_of(pod):
        if status.get("name") == BASE and "running" in mapping(status.get("state")):
            return bool(mapping(status).get("started", mapping(status).get("ready")))
    return False


def _seconds(stamp: object) -> float:
    try:
        return datetime.datetime.fromisoformat(text(stamp)).timestamp()
    except ValueError:
        return 0.0


def trimmed(pod: Manifest) -> Manifest:
    """Return the few fields that an index of waiting pods needs; changes carry the whole pod."""
    kept = ("name", "namespace", "uid", "resourceVersion")
    return {"metadata": {name: pod["metadata"][name] for name in kept if name in pod["metadata"]}}


class WaitingPods:
    """All waiting pods of a deployment, by fingerprint and uid."""

    def __init__(self) -> None:
        self._pods: dict[str, dict[str, WaitingPod]] = {}
        self._by_uid: dict[str, WaitingPod] = {}

    def __iter__(self) -> Iterator[WaitingPod]:
        return iter(list(self._by_uid.values()))

    def get(self, uid: str) -> WaitingPod | None:
        """Return a pod, None for an unknown one."""
        return self._by_uid.get(uid)

    def put(self, pod: WaitingPod) -> bool:
        """Add a pod, or update a known one; return whether it has just become ready."""
        known = self._by_uid.get(pod.uid)
        if known is None or known.pool != pod.pool:
            self.remove(pod.uid)
            self._by_uid[pod.uid] = self._pods.setdefault(pod.pool, {})[pod.uid] = pod
            return pod.ready
        became_ready = pod.ready and not known.ready
        if became_ready:
            known.ready_at = pod.ready_at
        # In place: requests about the pod hold the object.
        known.owner, known.ready, known.deleting = pod.owner, pod.ready, pod.deleting
        known.ended, known.failure = pod.ended, pod.failure
        return became_ready

    def remove(self, uid: str) -> WaitingPod | None:
        """Remove a pod that was claimed or is gone, and return it."""
        pod = self._by_uid.pop(uid, None)
        if pod is not None:
            of_pool = self._pods[pod.pool]
            of_pool.pop(uid, None)
            if not of_pool:
                del self._pods[pod.pool]
        return pod

    def of(self, fingerprint: str) -> list[WaitingPod]:
        """Return the pods of a fingerprint."""
        return list(self._pods.get(fingerprint, {}).values())

    def best(self, fingerprint: str, owner: str, born_after: float) -> WaitingPod | None:
        """Return the pod to claim: one of ``owner`` before another scheduler's, the one that became ready last.

        So those that are not needed stay the same ones, grow old, and are deleted.
        """
        claimable = (pod for pod in self._pods.get(fingerprint, {}).values() if pod.claimable)
        young = (pod for pod in claimable if pod.created > born_after)
        return max(young, key=lambda pod: (pod.owner == owner, pod.ready_at), default=None)


@dataclass(slots=True, eq=False)
class Pool:
    """The pods of one fingerprint that this scheduler keeps."""

    template: WaitingTemplate
    queue: str
    """A queue whose tasks have such pods."""
    config: Mapping[str, object] | None = None
    """Their ``executor_config``; None for the queue's ordinary tasks."""
    minimum: int = 0
    uses: deque[Use] = field(default_factory=lambda: deque(maxlen=_MAX_USES))
    misses: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_USES))
    size: int = 0
    """How many shall wait, as decided last."""
    creating: int = 0
    """Creations that are queued or under way."""
    failures: int = 0
    """In a row."""
    retry_at: float = 0.0
    reported: str = ""
    """The failure that was logged last."""
    outdated: bool = False
    """Template, image or configuration have changed: no task wants such a pod any longer."""

    @property
    def name(self) -> str:
        """For people and metrics: the queue and the first digits of the fingerprint."""
        return f"{self.queue}-{self.template.fingerprint[:8]}"

    def missed(self, now: float) -> None:
        """Record that a task found no waiting pod."""
        self.misses.append(now)
        while self.misses and now - self.misses[0] > MISS_WINDOW_S:
            self.misses.popleft()
        self.uses.append(Use(now, len(self.misses)))

    def claimed(self, now: float, left: int) -> None:
        """Record that a task found one, and ``left`` others are ready."""
        self.uses.append(Use(now, max(1, self.size - left)))

    def demand(self, blocked: bool) -> PoolDemand:
        """Return what the decision on its size needs."""
        return PoolDemand(self.template.fingerprint, self.minimum, self.uses, blocked or self.outdated)
