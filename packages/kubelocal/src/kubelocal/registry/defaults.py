"""Kubernetes' defaults: tables of plain values, and functions for values that depend on others.

Source: ``pkg/apis/*/v1/defaults.go`` of Kubernetes 1.36, and what its registries set on creation.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from copy import copy
from functools import cache
from typing import TypeAlias

from kubelocal.codec.kinds import Kind
from kubelocal.codec.quantities import amount
from kubelocal.codec.schema import Type, struct, type_of
from kubelocal.types import Json, Manifest

__all__ = ["apply_defaults", "apply_status_defaults", "pull_policy", "qos_class"]

Filler: TypeAlias = Callable[[Manifest], None]

MODE = {"defaultMode": 420}
CONTAINER = {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "resources": {}}
JOB_SPEC = {"completionMode": "NonIndexed", "suspend": False, "manualSelector": False}
CLAIM = {"volumeMode": "Filesystem"}

DEFAULTS: dict[str, dict[str, Json]] = {
    "V1PodSpec": {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "enableServiceLinks": True,
    },
    "V1Container": CONTAINER,
    "V1EphemeralContainer": CONTAINER,
    "V1ContainerPort": {"protocol": "TCP"},
    "V1Probe": {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
    "V1HTTPGetAction": {"path": "/", "scheme": "HTTP"},
    "V1GRPCAction": {"service": ""},
    "V1ObjectFieldSelector": {"apiVersion": "v1"},
    "V1ResourceFieldSelector": {"divisor": "0"},
    "V1SecretVolumeSource": MODE,
    "V1ConfigMapVolumeSource": MODE,
    "V1DownwardAPIVolumeSource": MODE,
    "V1ProjectedVolumeSource": MODE,
    "V1ServiceAccountTokenProjection": {"expirationSeconds": 3600},
    "V1HostPathVolumeSource": {"type": ""},
    "V1PersistentVolumeClaimSpec": CLAIM,
    "V1PersistentVolumeSpec": {**CLAIM, "persistentVolumeReclaimPolicy": "Retain"},
    "V1PersistentVolumeClaim": {"spec": {}, "status": {"phase": "Pending"}},
    "V1PersistentVolume": {"spec": {}, "status": {"phase": "Pending"}},
    "V1Pod": {"status": {"phase": "Pending"}},
    "V1Namespace": {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}},
    "V1Secret": {"type": "Opaque"},
    "V1ResourceQuota": {"spec": {}, "status": {}},
    "V1RoleBinding": {"roleRef": {}},
    "V1ClusterRoleBinding": {"roleRef": {}},
    "V1Service": {"spec": {}, "status": {"loadBalancer": {}}},
    "V1ServiceSpec": {"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"},
    "V1ServicePort": {"protocol": "TCP"},
    "V1Deployment": {"spec": {}, "status": {}},
    "V1DeploymentSpec": {"replicas": 1, "strategy": {}, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600},
    "V1DeploymentStrategy": {"type": "RollingUpdate"},
    "V1ReplicaSet": {"spec": {}, "status": {"replicas": 0}},
    "V1ReplicaSetSpec": {"replicas": 1},
    "V1StatefulSet": {"spec": {}, "status": {"replicas": 0}},
    "V1StatefulSetSpec": {
        "replicas": 1,
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": {},
        "revisionHistoryLimit": 10,
    },
    "V1StatefulSetUpdateStrategy": {"type": "RollingUpdate"},
    "V1RollingUpdateStatefulSetStrategy": {"partition": 0},
    "V1Job": {"status": {}},
    "V1CronJob": {"spec": {}, "status": {}},
    "V1CronJobSpec": {
        "concurrencyPolicy": "Allow",
        "suspend": False,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 1,
    },
    "V1DaemonSet": {
        "spec": {},
        "status": {
            "currentNumberScheduled": 0,
            "numberMisscheduled": 0,
            "desiredNumberScheduled": 0,
            "numberReady": 0,
        },
    },
    "V1DaemonSetSpec": {"updateStrategy": {}, "revisionHistoryLimit": 10},
    "V1DaemonSetUpdateStrategy": {"type": "RollingUpdate"},
    "V1RollingUpdateDaemonSet": {"maxUnavailable": 1, "maxSurge": 0},
    "V1RoleRef": {"apiGroup": "rbac.authorization.k8s.io"},
    "V1PriorityClass": {"value": 0, "preemptionPolicy": "PreemptLowerPriority"},
    # What Go writes of a condition without them, so that no reader of conditions has to expect their absence.
    **{
        f"V1{owner}Condition": {"type": "", "status": ""}
        for owner in (
            "",
            "DaemonSet",
            "Deployment",
            "Job",
            "Namespace",
            "Node",
            "PersistentVolumeClaim",
            "Pod",
            "ReplicaSet",
            "StatefulSet",
        )
    },
    "AuthenticationV1TokenRequest": {"spec": {}},
    "V1TokenRequestSpec": {"expirationSeconds": 3600},
}
# fields that Go holds by value, where the zero counts as not given
BY_VALUE = {"V1Probe"}


def apply_defaults(kind: Kind, manifest: Manifest) -> None:
    """Fill in, in place, what a fresh object of this kind leaves open. A Job must have its ``metadata.uid`` by then."""
    if filler := _filler(type_of(kind.kind, kind.group).name):
        filler(manifest)


def apply_status_defaults(kind: Kind, status: Manifest) -> None:
    """Do the same with a status alone that a client wrote."""
    field = struct(type_of(kind.kind, kind.group).name).fields["status"]
    if field.type.form == "struct" and (filler := _filler(field.type.name)):
        filler(status)


def pull_policy(image: str) -> str:
    """Return ``Always`` for an image without tag or with ``latest``, else ``IfNotPresent``, also for a digest."""
    name, _, digest = image.partition("@")
    tag = name.rpartition(":")[2] if ":" in name.rpartition("/")[2] else ""
    return "IfNotPresent" if tag not in ("", "latest") or (digest and not tag) else "Always"


def qos_class(spec: Manifest) -> str:
    """Return BestEffort, Burstable or Guaranteed from cpu and memory of all containers, init containers included."""
    any_set, guaranteed = False, True
    for container in [*spec.get("containers", ()), *spec.get("initContainers", ())]:
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("cpu", "memory"):
            limit, request = amount(limits.get(name, "0")), amount(requests.get(name, "0"))
            any_set = any_set or bool(limit or request)
            guaranteed = guaranteed and bool(limit) and request == limit
    return "BestEffort" if not any_set else "Guaranteed" if guaranteed else "Burstable"


@cache
def _filler(name: str) -> Filler | None:
    """Compile the defaults of a type and of the types below it; None without any."""
    by_value = name in BY_VALUE
    plain = [(key, value, by_value or isinstance(value, str)) for key, value in DEFAULTS.get(name, {}).items()]
    hook = HOOKS.get(name)
    below = {
        field.name: (filler, field.type.form == "list")
        for field in struct(name).fields.values()
        if (inner := _struct_below(field.type)) and (filler := _filler(inner))
    }
    if not plain and not hook and not below:
        return None

    def fill(target: Manifest) -> None:
        if hook:
            hook(target)
        for key, value, zero_counts in plain:
            if key not in target or (zero_counts and not target[key]):
                target[key] = copy(value)
        for key in below.keys() & target.keys():
            filler, many = below[key]
            for item in target[key] if many else (target[key],):
                filler(item)

    return fill


def _struct_below(field_type: Type) -> str:
    inner = field_type.inner if field_type.form == "list" else field_type
    return inner.name if inner and inner.form == "struct" else ""


# ---------------------------------------------------------------------------------------------- dependent values


def _pod(pod: Manifest) -> None:
    status = pod.setdefault("status", {"phase": "Pending"})
    status.setdefault("phase", "Pending")
    for container in [*pod.get("spec", {}).get("containers", ()), *pod.get("spec", {}).get("initContainers", ())]:
        _requests(container)
    status.setdefault("qosClass", qos_class(pod.get("spec", {})))


def _pod_spec(spec: Manifest) -> None:
    if account := spec.get("serviceAccountName") or spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    if spec.get("hostNetwork"):
        for container in spec.get("containers", ()):
            for port in container.get("ports", ()):
                port.setdefault("hostPort", port.get("containerPort", 0))


def _container(container: Manifest) -> None:
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = pull_policy(container.get("image", ""))
    _requests(container)


def _requests(container: Manifest) -> None:
    resources = container.get("resources")
    if resources and (limits := resources.get("limits")):
        resources["requests"] = limits | resources.get("requests", {})


def _volume(volume: Manifest) -> None:
    if not volume.keys() - {"name"}:
        volume["emptyDir"] = {}
    if image := volume.get("image"):
        image.setdefault("pullPolicy", pull_policy(image.get("reference", "")))


def _namespace(namespace: Manifest) -> None:
    metadata = namespace.setdefault("metadata", {})
    if name := metadata.get("name"):
        metadata["labels"] = {**metadata.get("labels", {}), "kubernetes.io/metadata.name": name}


def _secret(secret: Manifest) -> None:
    if plain := secret.pop("stringData", None):
        coded = {key: base64.b64encode(text.encode()).decode() for key, text in plain.items()}
        secret["data"] = {**secret.get("data", {}), **coded}


def _subject(subject: Manifest) -> None:
    if subject.get("kind") in ("User", "Group"):
        subject.setdefault("apiGroup", "rbac.authorization.k8s.io")


def _service_port(port: Manifest) -> None:
    if "port" in port:
        port.setdefault("targetPort", port["port"])


def _job(job: Manifest) -> None:
    """Set labels and, once the uid is known, the selector of the Job's pods."""
    metadata, spec = job.setdefault("metadata", {}), job.setdefault("spec", {})
    _job_spec(spec)
    template = spec.setdefault("template", {}).setdefault("metadata", {})
    _lend_labels(template, metadata)
    uid, name = metadata.get("uid"), metadata.get("name", "")
    if uid and not spec.get("manualSelector") and "selector" not in spec:
        prefixed = {"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name}
        plain = {"controller-uid": uid, "job-name": name}
        template["labels"] = {**template.get("labels", {}), **prefixed, **plain}
        spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
        _lend_labels(template, metadata)


def _lend_labels(template: Manifest, metadata: Manifest) -> None:
    if template.get("labels") and not metadata.get("labels"):
        metadata["labels"] = dict(template["labels"])


def _job_spec(spec: Manifest) -> None:
    """Complete the spec of a Job; a CronJob's template is completed when its Job is created."""
    for field, value in JOB_SPEC.items():
        spec.setdefault(field, value)
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 2**31 - 1 if "backoffLimitPerIndex" in spec else 6)
    spec.setdefault("podReplacementPolicy", "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed")


def _limit_range_item(item: Manifest) -> None:
    """The limit defaults to max, the request to the limit, else to min."""
    if item.get("type") != "Container":
        return
    limits = {**item.get("max", {}), **item.get("default", {})}
    requests = {**item.get("min", {}), **limits, **item.get("defaultRequest", {})}
    item |= {field: value for field, value in (("default", limits), ("defaultRequest", requests)) if value}


def _strategy(strategy: Manifest) -> None:
    if (strategy.get("type") or "RollingUpdate") == "RollingUpdate":  # "" counts as missing
        strategy.setdefault("rollingUpdate", {})


def _rolling_update(limits: Manifest) -> None:
    for name in ("maxUnavailable", "maxSurge"):
        limits.setdefault(name, "25%")  # not in DEFAULTS, where a 0 counts as missing


HOOKS: dict[str, Filler] = {
    "V1Pod": _pod,
    "V1PodSpec": _pod_spec,
    "V1Container": _container,
    "V1EphemeralContainer": _container,
    "V1Volume": _volume,
    "V1Namespace": _namespace,
    "V1Secret": _secret,
    "RbacV1Subject": _subject,
    "V1ServicePort": _service_port,
    "V1Job": _job,
    "V1DeploymentStrategy": _strategy,
    "V1LimitRangeItem": _limit_range_item,
    "V1DaemonSetUpdateStrategy": _strategy,
    "V1StatefulSetUpdateStrategy": _strategy,
    "V1RollingUpdateDeployment": _rolling_update,
}
