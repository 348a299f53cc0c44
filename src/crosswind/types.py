"""Types of JSON that several layers share: aliases, and the Kubernetes objects that decisions read.

Each ``TypedDict`` declares only the fields that crosswind reads. Names and meanings are those of the Kubernetes API,
v1. The classes describe what an API server sends, not what a value was checked for: ``pods.fields`` checks.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypedDict

__all__ = [
    "AnyPod",
    "Container",
    "ContainerState",
    "ContainerStateRunning",
    "ContainerStateTerminated",
    "ContainerStateWaiting",
    "ContainerStatus",
    "EnvVar",
    "Json",
    "KeyToPath",
    "Manifest",
    "ObjectMeta",
    "OwnerReference",
    "Pod",
    "PodCondition",
    "PodEvent",
    "PodSpec",
    "PodStatus",
    "SecretVolumeSource",
    "Volume",
    "VolumeMount",
    "WatchEvent",
]

Json: TypeAlias = Any
"""Any JSON value."""

Manifest: TypeAlias = dict[str, Any]
"""A Kubernetes object of any kind, as JSON: one to be sent, or one that nobody has checked."""


class OwnerReference(TypedDict, total=False):
    """An object that owns another one, such as the Job of a pod."""

    kind: str
    name: str
    uid: str
    controller: bool


class ObjectMeta(TypedDict, total=False):
    """``metadata``. ``deletionTimestamp`` is the end of the grace period, not its start."""

    name: str
    namespace: str
    uid: str
    resourceVersion: str
    labels: dict[str, str]
    annotations: dict[str, str]
    ownerReferences: list[OwnerReference]
    creationTimestamp: str
    deletionTimestamp: str
    deletionGracePeriodSeconds: int


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
    """One of its three fields is set."""

    waiting: ContainerStateWaiting
    running: ContainerStateRunning
    terminated: ContainerStateTerminated


class ContainerStatus(TypedDict, total=False):
    """What the kubelet reports about one container."""

    name: str
    state: ContainerState
    lastState: ContainerState
    restartCount: int


class PodCondition(TypedDict, total=False):
    """One condition of a pod, such as PodScheduled."""

    type: str
    status: str
    reason: str
    message: str
    lastTransitionTime: str


class PodStatus(TypedDict, total=False):
    """``status`` of a pod."""

    phase: str
    reason: str
    message: str
    conditions: list[PodCondition]
    containerStatuses: list[ContainerStatus]
    initContainerStatuses: list[ContainerStatus]
    ephemeralContainerStatuses: list[ContainerStatus]


class EnvVar(TypedDict, total=False):
    """An environment variable; one with ``valueFrom`` has no ``value``."""

    name: str
    value: str


class VolumeMount(TypedDict, total=False):
    """Where a container mounts a volume."""

    name: str
    mountPath: str


class KeyToPath(TypedDict, total=False):
    """A key of a Secret or ConfigMap, and the file that it becomes."""

    key: str
    path: str


class SecretVolumeSource(TypedDict, total=False):
    """The Secret of a volume."""

    secretName: str
    items: list[KeyToPath]


class Volume(TypedDict, total=False):
    """A volume; the other field names its kind (``emptyDir``, ``persistentVolumeClaim``)."""

    name: str
    secret: SecretVolumeSource


class Container(TypedDict, total=False):
    """A container of a spec. ``restartPolicy: Always`` makes an init container a native sidecar (KEP-753)."""

    name: str
    image: str
    restartPolicy: str
    restartPolicyRules: list[Any]
    command: list[str]
    args: list[str]
    env: list[EnvVar]
    volumeMounts: list[VolumeMount]
    resources: dict[str, dict[str, str]]


class PodSpec(TypedDict, total=False):
    """``spec`` of a pod."""

    containers: list[Container]
    initContainers: list[Container]
    volumes: list[Volume]
    restartPolicy: str
    nodeName: str
    hostNetwork: bool
    activeDeadlineSeconds: int
    terminationGracePeriodSeconds: int


class Pod(TypedDict, total=False):
    """A pod."""

    metadata: ObjectMeta
    spec: PodSpec
    status: PodStatus


AnyPod: TypeAlias = Pod | Manifest | None
"""A pod that nobody has checked, as functions take it that promise an answer for any JSON; None is an empty pod."""


class PodEvent(TypedDict, total=False):
    """An Event about a pod, core/v1. ``lastTimestamp`` is null where only ``eventTime`` or ``series`` is set."""

    metadata: ObjectMeta
    involvedObject: dict[str, str]
    source: dict[str, str]
    series: dict[str, str]
    type: str
    reason: str
    message: str
    lastTimestamp: str
    eventTime: str


class WatchEvent(TypedDict):
    """One line of a watch."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: Manifest
