"""Validation rules of pods: tables by type, and functions where fields depend on each other.

Source: ``pkg/apis/core/validation`` of Kubernetes 1.36; paths and messages are Kubernetes'.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kubelocal.codec import field_errors
from kubelocal.codec.quantities import amount
from kubelocal.codec.schema import struct
from kubelocal.codec.status_errors import Cause
from kubelocal.registry import name_validation, volume_validation
from kubelocal.registry.validation_rules import (
    ObjectCheck,
    Rule,
    at_least,
    between,
    descending_path,
    each,
    exactly_one,
    file_path,
    named,
    one_of,
    relative_path,
)
from kubelocal.types import Manifest

__all__ = ["OBJECT_CHECKS", "RULES"]

LABEL, SUBDOMAIN = named(name_validation.dns_label), named(name_validation.dns_subdomain)
KEY = named(name_validation.config_key)
PORT, USER = between(1, 65535), between(0, 2**31 - 1)
POLICIES = one_of("Always", "OnFailure", "Never")
PULL = one_of("Always", "IfNotPresent", "Never")
MODE = between(0, 0o777, "must be a number between 0 and 0777 (octal), both inclusive")
MODES = Rule("defaultMode", MODE)
SECONDS = at_least(0)
FIELD_PATHS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
RESOURCE_PATHS = tuple(
    f"{kind}.{name}" for kind in ("limits", "requests") for name in ("cpu", "memory", "ephemeral-storage")
)
STANDARD_RESOURCES = {"cpu", "memory", "ephemeral-storage"}


def _field_path(value: str, path: str) -> list[Cause]:
    if value in FIELD_PATHS or re.fullmatch(r"metadata\.(labels|annotations)(\['[^']+'\])?", value):
        return []
    return [field_errors.unsupported(path, value, sorted(FIELD_PATHS))]


def _image(value: str, path: str) -> list[Cause]:
    detail = "must not have leading or trailing whitespace"
    return [field_errors.invalid(path, value, detail)] if value != value.strip() else []


def _mount_path(value: str, path: str) -> list[Cause]:
    return [field_errors.invalid(path, value, "must not contain ':'")] if ":" in value else []


def _port_or_name(value: Any, path: str) -> list[Cause]:
    if isinstance(value, int):
        return list(PORT(value, path))
    return field_errors.broken_rules(path, value, name_validation.port_name(value))


def _labels(value: dict[str, str], path: str) -> Iterator[Cause]:
    for key, text in value.items():
        yield from field_errors.broken_rules(path, key, name_validation.label_key(key))
        yield from field_errors.broken_rules(path, text, name_validation.label_value(text))


CONTAINER = (
    Rule("name", LABEL, required=True),
    Rule("image", _image, required=True),
    Rule("imagePullPolicy", PULL, required=True),
    Rule("terminationMessagePolicy", one_of("File", "FallbackToLogsOnError"), required=True),
    Rule("restartPolicy", POLICIES),
)

RULES: dict[str, tuple[Rule, ...]] = {
    "V1PodSpec": (
        Rule("containers", required=True),
        Rule("restartPolicy", POLICIES, required=True),
        Rule("dnsPolicy", one_of("Default", "ClusterFirst", "ClusterFirstWithHostNet", "None"), required=True),
        Rule("terminationGracePeriodSeconds", SECONDS),
        Rule("activeDeadlineSeconds", between(1, 2**31 - 1)),
        Rule("nodeSelector", _labels),
        Rule("nodeName", SUBDOMAIN),
        Rule("serviceAccountName", SUBDOMAIN),
        Rule("hostname", LABEL),
        Rule("subdomain", LABEL),
        Rule("schedulerName", SUBDOMAIN),
        Rule("priorityClassName", SUBDOMAIN),
        Rule("runtimeClassName", SUBDOMAIN),
    ),
    "V1Container": CONTAINER,
    "V1EphemeralContainer": CONTAINER,
    "V1ContainerPort": (
        Rule("name", named(name_validation.port_name)),
        Rule("containerPort", PORT, required=True),
        Rule("hostPort", PORT),
        Rule("protocol", one_of("TCP", "UDP", "SCTP"), required=True),
    ),
    "V1EnvVar": (Rule("name", named(name_validation.env_name), required=True),),
    "V1EnvFromSource": (Rule("prefix", named(name_validation.env_name)),),
    "V1ConfigMapEnvSource": (Rule("name", SUBDOMAIN, required=True),),
    "V1SecretEnvSource": (Rule("name", SUBDOMAIN, required=True),),
    "V1ConfigMapKeySelector": (Rule("name", required=True), Rule("key", KEY, required=True)),
    "V1SecretKeySelector": (Rule("name", required=True), Rule("key", KEY, required=True)),
    "V1ObjectFieldSelector": (Rule("fieldPath", _field_path, required=True),),
    "V1ResourceFieldSelector": (Rule("resource", one_of(*RESOURCE_PATHS), required=True),),
    "V1VolumeMount": (
        Rule("name", required=True),
        Rule("mountPath", _mount_path, required=True),
        Rule("subPath", relative_path),
        Rule("subPathExpr", relative_path),
        Rule("mountPropagation", one_of("Bidirectional", "HostToContainer", "None")),
    ),
    "V1Probe": (
        *(Rule(f"{what}Seconds", SECONDS) for what in ("initialDelay", "timeout", "period")),
        *(Rule(f"{what}Threshold", SECONDS) for what in ("success", "failure")),
        Rule("terminationGracePeriodSeconds", at_least(1)),
    ),
    "V1HTTPGetAction": (
        Rule("port", _port_or_name, required=True),
        Rule("path", required=True),
        Rule("scheme", one_of("HTTP", "HTTPS"), required=True),
    ),
    "V1TCPSocketAction": (Rule("port", _port_or_name, required=True),),
    "V1GRPCAction": (Rule("port", PORT, required=True),),
    "V1ExecAction": (Rule("command", required=True),),
    "V1Volume": (Rule("name", LABEL, required=True),),
    "V1SecretVolumeSource": (Rule("secretName", required=True), MODES),
    "V1ConfigMapVolumeSource": (Rule("name", required=True), MODES),
    "V1ProjectedVolumeSource": (MODES,),
    "V1DownwardAPIVolumeSource": (MODES,),
    "V1SecretProjection": (Rule("name", required=True),),
    "V1ConfigMapProjection": (Rule("name", required=True),),
    "V1ServiceAccountTokenProjection": (
        Rule("expirationSeconds", between(600, 2**32, "may not specify a duration less than 10 minutes")),
        Rule("path", file_path, required=True),
    ),
    "V1KeyToPath": (Rule("key", required=True), Rule("path", file_path, required=True), Rule("mode", MODE)),
    "V1DownwardAPIVolumeFile": (Rule("path", file_path, required=True), Rule("mode", MODE)),
    "V1HostPathVolumeSource": (
        Rule("path", descending_path, required=True),
        Rule(
            "type",
            one_of("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"),
        ),
    ),
    "V1PersistentVolumeClaimVolumeSource": (Rule("claimName", required=True),),
    "V1PodSecurityContext": (
        *(Rule(field, USER) for field in ("runAsUser", "runAsGroup", "fsGroup")),
        Rule("supplementalGroups", each(USER)),
    ),
    "V1SecurityContext": (Rule("runAsUser", USER), Rule("runAsGroup", USER)),
    "V1NodeSelector": (Rule("nodeSelectorTerms", required=True, detail="must have at least one node selector term"),),
    "V1PodSchedulingGate": (Rule("name", named(name_validation.label_key), required=True),),
    "V1LabelSelector": (Rule("matchLabels", _labels),),
    "V1SleepAction": (Rule("seconds", SECONDS),),
}


# ---------------------------------------------------------------------------------------------- pods


def _pod(pod: Manifest, path: str, causes: list[Cause]) -> None:
    if not pod.get("spec"):
        causes.append(field_errors.required("spec.containers"))
    elif pod["spec"].get("ephemeralContainers") and not pod.get("metadata", {}).get("resourceVersion"):
        causes.append(field_errors.forbidden("spec.ephemeralContainers", "cannot be set on create"))


def _pod_spec(spec: Manifest, path: str, causes: list[Cause]) -> None:
    volumes, seen = _unique(spec.get("volumes", ()), "name", f"{path}.volumes", causes), set[str]()
    for field in ("containers", "initContainers", "ephemeralContainers"):
        for i, container in enumerate(spec.get(field, ())):
            where, name = f"{path}.{field}[{i}]", container.get("name", "")
            if name in seen:
                causes.append(field_errors.duplicate(f"{where}.name", name))
            if name:
                seen.add(name)
            _mounts(container, where, volumes, causes)
            if field == "initContainers":
                _init_container(container, where, causes)
    for i, secret in enumerate(spec.get("imagePullSecrets", ())):
        if not secret.get("name"):
            causes.append(field_errors.required(f"{path}.imagePullSecrets[{i}].name"))


def _unique(items: Any, key: str, path: str, causes: list[Cause]) -> set[str]:
    seen: set[str] = set()
    for i, item in enumerate(items):
        value = item.get(key, "")
        if value in seen:
            causes.append(field_errors.duplicate(f"{path}[{i}].{key}", value))
        if value:
            seen.add(value)
    return seen


def _mounts(container: Manifest, path: str, volumes: set[str], causes: list[Cause]) -> None:
    seen = set()
    for i, mount in enumerate(container.get("volumeMounts", ())):
        where, name, target = f"{path}.volumeMounts[{i}]", mount.get("name", ""), mount.get("mountPath", "")
        if name and name not in volumes:
            causes.append(field_errors.not_found(f"{where}.name", name))
        if target and target in seen:
            causes.append(field_errors.invalid(f"{where}.mountPath", target, "must be unique"))
        seen.add(target)
        if mount.get("subPath") and mount.get("subPathExpr"):
            causes.append(
                field_errors.invalid(
                    f"{where}.subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive"
                )
            )


def _init_container(container: Manifest, path: str, causes: list[Cause]) -> None:
    """Only native sidecars may have probes and lifecycle hooks (KEP-753)."""
    if container.get("restartPolicy") != "Always":
        for field in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
            if field in container:
                detail = "may not be set for init containers without restartPolicy=Always"
                causes.append(field_errors.forbidden(f"{path}.{field}", detail))


def _container(container: Manifest, path: str, causes: list[Cause]) -> None:
    if ports := container.get("ports"):
        _unique(ports, "name", f"{path}.ports", causes)
    for field in ("livenessProbe", "startupProbe"):
        times = (container.get(field) or {}).get("successThreshold", 1)
        if times != 1:
            causes.append(field_errors.invalid(f"{path}.{field}.successThreshold", times, "must be 1"))


def _ephemeral(container: Manifest, path: str, causes: list[Cause]) -> None:
    unusable = ("ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources", "resizePolicy")
    detail = "cannot be set for an Ephemeral Container"
    causes += [field_errors.forbidden(f"{path}.{field}", detail) for field in unusable if container.get(field)]


def _env_var(env: Manifest, path: str, causes: list[Cause]) -> None:
    source = env.get("valueFrom")
    if source is None:
        return
    where = f"{path}.valueFrom"
    if not source:
        detail = (
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        )
        causes.append(field_errors.invalid(where, "", detail))
    elif env.get("value"):
        causes.append(field_errors.invalid(where, "", "may not be specified when `value` is not empty"))
    elif len(source) > 1:
        causes.append(field_errors.invalid(where, "", "may not have more than one field specified at a time"))


def _env_from(source: Manifest, path: str, causes: list[Cause]) -> None:
    chosen = source.keys() & {"configMapRef", "secretRef"}
    if not chosen:
        causes.append(field_errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
    elif len(chosen) > 1:
        causes.append(field_errors.invalid(path, "", "may not have more than one field specified at a time"))


def _resources(resources: Manifest, path: str, causes: list[Cause]) -> None:
    limits = resources.get("limits", {})
    for field in ("limits", "requests"):
        for name, quantity in resources.get(field, {}).items():
            where = f"{path}.{field}[{name}]"
            if name not in STANDARD_RESOURCES and "/" not in name and not name.startswith("hugepages-"):
                detail = "must be a standard resource type or fully qualified"
                causes.extend(
                    (
                        field_errors.invalid(where, name, detail),
                        field_errors.invalid(where, name, "must be a standard resource for containers"),
                    )
                )
            if amount(quantity) < 0:
                causes.append(field_errors.invalid(where, quantity, "must be greater than or equal to 0"))
    for name, quantity in resources.get("requests", {}).items():
        if name in limits and amount(quantity) > amount(limits[name]):
            detail = f"must be less than or equal to {name} limit of {limits[name]}"
            causes.append(field_errors.invalid(f"{path}.requests", quantity, detail))


def _toleration(toleration: Manifest, path: str, causes: list[Cause]) -> None:
    key, operator, effect = toleration.get("key", ""), toleration.get("operator", ""), toleration.get("effect", "")
    if key:
        causes += field_errors.broken_rules(f"{path}.key", key, name_validation.label_key(key))
    elif operator != "Exists":
        causes.append(
            field_errors.invalid(
                f"{path}.operator",
                operator,
                'operator must be Exists when `key` is empty, which means "match all values and all keys"',
            )
        )
    if operator == "Exists" and toleration.get("value"):
        causes.append(
            field_errors.invalid(f"{path}.operator", toleration, "value must be empty when `operator` is 'Exists'")
        )
    if operator not in ("", "Equal", "Exists", "Lt", "Gt"):
        causes.append(field_errors.unsupported(f"{path}.operator", operator, ("Equal", "Exists")))
    if effect not in ("", "NoSchedule", "PreferNoSchedule", "NoExecute"):
        causes.append(
            field_errors.unsupported(f"{path}.effect", effect, ("NoExecute", "NoSchedule", "PreferNoSchedule"))
        )
    if "tolerationSeconds" in toleration and effect != "NoExecute":
        causes.append(
            field_errors.invalid(f"{path}.effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
        )


def _expression(operators: tuple[str, ...]) -> ObjectCheck:
    def check_object(term: Manifest, path: str, causes: list[Cause]) -> None:
        operator, values = term.get("operator", ""), term.get("values", [])
        if operator not in operators:
            causes.append(field_errors.invalid(f"{path}.operator", operator, "not a valid selector operator"))
        elif operator in ("In", "NotIn") and not values:
            causes.append(
                field_errors.required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'")
            )
        elif operator in ("Exists", "DoesNotExist") and values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            causes.append(field_errors.forbidden(f"{path}.values", detail))
        elif operator in ("Gt", "Lt") and len(values) != 1:
            detail = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            causes.append(field_errors.required(f"{path}.values", detail))
        causes += field_errors.broken_rules(
            f"{path}.key", term.get("key", ""), name_validation.label_key(term.get("key", ""))
        )

    return check_object


_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_HANDLER = exactly_one(_HANDLERS, "must specify a handler type", "may not specify more than 1 handler type")
_SOURCE = exactly_one(
    struct("V1Volume").fields.keys() - {"name"}, "must specify a volume type", "may not specify more than 1 volume type"
)
_PROJECTION = exactly_one(
    struct("V1VolumeProjection").fields, "must specify a projection type", "may not specify more than 1 projection type"
)

OBJECT_CHECKS: dict[str, ObjectCheck] = {
    "V1Pod": _pod,
    "V1PodSpec": _pod_spec,
    "V1Container": _container,
    "V1EphemeralContainer": _ephemeral,
    "V1EnvVar": _env_var,
    "V1EnvFromSource": _env_from,
    "V1ResourceRequirements": _resources,
    "V1Probe": _HANDLER,
    "V1LifecycleHandler": _HANDLER,
    "V1Volume": _SOURCE,
    "V1VolumeProjection": _PROJECTION,
    "V1DownwardAPIVolumeFile": volume_validation.downward_file,
    "V1ProjectedVolumeSource": volume_validation.projected,
    "V1SecurityContext": volume_validation.security_context,
    "V1Toleration": _toleration,
    "V1NodeSelectorRequirement": _expression(("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")),
    "V1LabelSelectorRequirement": _expression(("In", "NotIn", "Exists", "DoesNotExist")),
}
