"""The shapes that several layers read: aliases, and the parts of Kubernetes objects that decisions look at.

The ``TypedDict`` classes name only the fields that we read; other fields may be there and are kept.
Field names and meanings: Kubernetes API reference, v1.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypedDict

__all__ = [
    "Container",
    "ContainerState",
    "ContainerStatus",
    "Json",
    "Manifest",
    "ObjectMeta",
    "Pod",
    "PodCondition",
    "PodSpec",
    "PodStatus",
    "WatchEvent",
]

Json: TypeAlias = Any
"""Any JSON value."""

Manifest: TypeAlias = dict[str, Any]
"""A Kubernetes object as JSON has it."""


class ObjectMeta(TypedDict, total=False):
    """What we read of an object's ``metadata``."""

    name: str
    namespace: str
    uid: str
    resourceVersion: str
    labels: dict[str, str]
    annotations: dict[str, str]
    creationTimestamp: str
    deletionTimestamp: str


class ContainerStateWaiting(TypedDict, total=False):
    """Why a container does not run yet."""

    reason: str
    message: str


class ContainerStateRunning(TypedDict, total=False):
    """Since when a container runs."""

    startedAt: str


class ContainerStateTerminated(TypedDict, total=False):
    """How a container ended."""

    exitCode: int
    signal: int
    reason: str
    message: str
    startedAt: str
    finishedAt: str


class ContainerState(TypedDict, total=False):
    """One of waiting, running, terminated."""

    waiting: ContainerStateWaiting
    running: ContainerStateRunning
    terminated: ContainerStateTerminated


class ContainerStatus(TypedDict, total=False):
    """The kubelet's word on one container."""

    name: str
    state: ContainerState
    lastState: ContainerState
    ready: bool
    started: bool
    restartCount: int
    image: str


class PodCondition(TypedDict, total=False):
    """One condition of a pod, such as PodScheduled."""

    type: str
    status: str
    reason: str
    message: str


class PodStatus(TypedDict, total=False):
    """What we read of a pod's ``status``."""

    phase: str
    reason: str
    message: str
    conditions: list[PodCondition]
    containerStatuses: list[ContainerStatus]
    initContainerStatuses: list[ContainerStatus]
    podIP: str
    startTime: str


class Container(TypedDict, total=False):
    """What we read of a container's spec; ``restartPolicy`` is set on native sidecars (KEP-753)."""

    name: str
    image: str
    restartPolicy: str
    command: list[str]
    args: list[str]
    resources: dict[str, dict[str, str]]


class PodSpec(TypedDict, total=False):
    """What we read of a pod's ``spec``."""

    containers: list[Container]
    initContainers: list[Container]
    restartPolicy: str
    nodeName: str
    activeDeadlineSeconds: int
    terminationGracePeriodSeconds: int


class Pod(TypedDict, total=False):
    """A pod."""

    metadata: ObjectMeta
    spec: PodSpec
    status: PodStatus


class WatchEvent(TypedDict):
    """One line of a watch."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: Manifest
