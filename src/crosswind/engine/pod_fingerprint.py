"""Separates a pod's manifest from the task that it is for: equal pods have equal fingerprints. Pure.

Everything that an admission plug-in may act on when the pod is created is in the fingerprint: the spec, and all labels
and annotations but Airflow's own, which a claim can set later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from crosswind.engine.state import WORKER_LABEL
from crosswind.engine.warm_secrets import CLAIM_VOLUME
from crosswind.engine.worker_pod import BASE, READY_COMMAND, SHIM_COMMAND
from crosswind.pods.fields import container_of, containers_of, init_containers_of, mapping, mappings, spec_of
from crosswind.pods.naming import task_annotations, task_labels
from crosswind.types import Container, Manifest, Pod

__all__ = ["COLD_REASONS", "SAFE_TO_EVICT", "PodIdentity", "WaitingTemplate", "separate"]

SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"

# The queue "/" is no label's value, so that the annotation with its true name is included.
_ANY_TASK: Any = {"dag_id": "a", "task_id": "a", "run_id": "a", "try_number": 1, "map_index": 0, "queue": "/"}
_IDENTITY_LABELS = (*task_labels(**_ANY_TASK, executor_id="a", airflow_version="a"), *WORKER_LABEL)
_IDENTITY_ANNOTATIONS = (*task_annotations(**_ANY_TASK), "task_instance_id")

COLD_REASONS: Mapping[str, str] = {
    "host_network": "spec.hostNetwork: the worker's host name would be the node's; leave it out",
    "hostname": "spec.hostname: two pods would have one host name, by which Airflow knows a worker; leave it out",
    "env": "an environment variable from a label or an annotation: Kubernetes reads it once, before the pod has a task;"
    " use a downwardAPI volume",
    "mount": f"a subPath mount of the volume {CLAIM_VOLUME}: Kubernetes never updates it; mount the whole volume",
    "startup_probe": "container base has a startupProbe, which would not say when it waits for a task; leave it out",
    "command": "container base does not run Crosswind's worker shim; leave its args, and its volumes and mounts whose"
    " names begin with crosswind-, as they are",
    "hook": "pod_mutation_hook writes what differs from run to run (the pod's name, run id or try number) into the pod;"
    " have it write into labels or annotations of Airflow's names, or not at all",
}
"""Why a pod of this manifest can never wait for a task, with the fix, by the word that metrics count it under."""


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """What a pod says about its task, in Airflow's own labels and annotations."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    safe_to_evict: str | None = None
    """The annotation that a waiting pod lacks, because the cluster may evict it."""


@dataclass(frozen=True, slots=True)
class WaitingTemplate:
    """A manifest without a task, for any number of waiting pods."""

    fingerprint: str
    """40 hexadecimal digits, equal for equal manifests of one deployment."""
    namespace: str
    manifest: Manifest = field(repr=False)
    reason: str = ""
    """Why such a pod can never wait for a task, one of ``COLD_REASONS``; "" when it can."""


def separate(pod: Manifest, scope: str) -> tuple[WaitingTemplate, PodIdentity]:
    """Return a composed pod as a template and an identity. ``scope``: differs for each deployment and team."""
    metadata = pod["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    identity = PodIdentity(
        _only(labels, _IDENTITY_LABELS), _only(annotations, _IDENTITY_ANNOTATIONS), annotations.get(SAFE_TO_EVICT)
    )
    rest = {
        **{name: value for name, value in metadata.items() if name not in ("name", "generateName")},
        "labels": _without(labels, _IDENTITY_LABELS),
        "annotations": _without(annotations, _IDENTITY_ANNOTATIONS),
    }
    manifest = {**pod, "metadata": rest}
    text = orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS)
    fingerprint = hashlib.sha256(scope.encode() + text).hexdigest()[:40]
    return WaitingTemplate(fingerprint, metadata["namespace"], manifest, _reason(manifest)), identity


def _reason(manifest: Manifest) -> str:
    return next((reason for reason, applies in _RULES.items() if applies(manifest)), "")


def _reads_identity(pod: Any) -> bool:
    return any(
        str(mapping(mapping(variable.get("valueFrom")).get("fieldRef")).get("fieldPath") or "").startswith(
            ("metadata.labels", "metadata.annotations")
        )
        for container in _containers(pod)
        for variable in mappings(container.get("env"))
    )


def _mounts_part_of_claim(pod: Any) -> bool:
    return any(
        mount.get("name") == CLAIM_VOLUME and (mount.get("subPath") or mount.get("subPathExpr"))
        for container in _containers(pod)
        for mount in mappings(container.get("volumeMounts"))
    )


def _has_own_probe(pod: Any) -> bool:
    command = mapping(mapping(_base(pod).get("startupProbe")).get("exec")).get("command") or []
    return command[: len(READY_COMMAND)] != READY_COMMAND


def _runs_something_else(pod: Any) -> bool:
    mounted = {mount.get("name") for mount in mappings(_base(pod).get("volumeMounts"))}
    return _base(pod).get("args") != SHIM_COMMAND or CLAIM_VOLUME not in mounted


_RULES: Mapping[str, Callable[[Any], bool]] = {
    "host_network": lambda pod: bool(spec_of(pod).get("hostNetwork")),
    "hostname": lambda pod: bool(mapping(spec_of(pod)).get("hostname")),
    "env": _reads_identity,
    "mount": _mounts_part_of_claim,
    "startup_probe": _has_own_probe,
    "command": _runs_something_else,
}


def _base(pod: Pod) -> Mapping[str, Any]:
    return mapping(container_of(pod, BASE))


def _containers(pod: Pod) -> Iterator[Container]:
    yield from init_containers_of(pod)
    yield from containers_of(pod)


def _only(values: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: values[name] for name in names if name in values}


def _without(values: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in values.items() if name not in names}
