"""The API server's rules for the content of a Pod's fields: names, enumerations, ranges, fields that exclude others.

Source: ``pkg/apis/core/validation`` of Kubernetes 1.37. Rules see only values of the types in ``FIELD_TYPES``. An empty
text is not checked, because Kubernetes reads it as absent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from crosswind.documents import FieldPath, FieldProblem
from crosswind.pods.field_types import FIELD_TYPES, corrected_spelling
from crosswind.pods.units import quantity_number
from crosswind.types import Json

__all__ = ["FIELD_RULES", "OBJECT_RULES", "FieldRule", "may_be_overcommitted"]

FieldRule: TypeAlias = Callable[[Any, FieldPath], Iterable[FieldProblem]]
"""From a value and its place to its problems. The rules run for each task's override: most are no generators."""

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_VALUE = re.compile(rf"({_NAME})?")
_LABEL_KEY = re.compile(rf"((?=[^/]{{1,253}}/){_SUBDOMAIN}/)?{_NAME}")
_KEY_FIX = "use letters, digits, '-', '_' and '.', at most 63, after an optional domain such as example.com/"
_VALUE_FIX = "use at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"


def _rule(is_valid: Callable[[Any], object], fix: str) -> FieldRule:
    def check(value: Any, path: FieldPath) -> Iterable[FieldProblem]:
        return () if is_valid(value) else (FieldProblem(path, f"is {value!r}", fix),)

    return check


def _pattern(pattern: str, longest: int, fix: str) -> FieldRule:
    match = re.compile(pattern).fullmatch
    return _rule(lambda text: len(text) <= longest and match(text), fix)


def _between(lowest: int, highest: int = 2**63 - 1, fix: str = "") -> FieldRule:
    bounds = f"of at least {lowest}" if highest == 2**63 - 1 else f"from {lowest} to {highest}"
    return _rule(lambda number: lowest <= number <= highest, fix or f"write a number {bounds}")


def _one_of(*choices: str) -> FieldRule:
    def check(text: str, path: FieldPath) -> Iterable[FieldProblem]:
        if text in choices:
            return ()
        guess = corrected_spelling(text, choices, 0.6) or f"one of {', '.join(choices)}"
        return (FieldProblem(path, f"is {text!r}", f"write {guess}"),)

    return check


def _each(rule: FieldRule) -> FieldRule:
    def check(values: list[Json], path: FieldPath) -> Iterator[FieldProblem]:
        for index, value in enumerate(values):
            yield from rule(value, (*path, index))

    return check


def _is_inside(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/")


def _is_port(port: int | str) -> bool:
    """Return whether a port has a valid number, or a name by RFC 6335."""
    if not isinstance(port, str):
        return 1 <= port <= 65535
    return bool(re.fullmatch(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?", port))


def _annotations(annotations: Mapping[str, Json], path: FieldPath) -> Iterator[FieldProblem]:
    for key in annotations:
        if not _LABEL_KEY.fullmatch(key.lower()):
            yield FieldProblem(path, f"has the key {key!r}", _KEY_FIX)


def _labels(labels: Mapping[str, Json], path: FieldPath) -> Iterator[FieldProblem]:
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            yield FieldProblem(path, f"has the key {key!r}", _KEY_FIX)
        elif value is not None and not _LABEL_VALUE.fullmatch(value):
            yield FieldProblem((*path, key), f"is {value!r}", _VALUE_FIX)


_label = _pattern(
    _LABEL, 63, "use at most 63 lower-case letters, digits and '-', beginning and ending with one of the first"
)
_subdomain = _pattern(_SUBDOMAIN, 253, "use lower-case letters, digits, '-' and '.'")
_label_key = _rule(_LABEL_KEY.fullmatch, _KEY_FIX)
_label_value = _rule(_LABEL_VALUE.fullmatch, _VALUE_FIX)
_config_key = _pattern(r"(?!\.\.)(?!\.$)[-._a-zA-Z0-9]+", 253, "use letters, digits, '-', '_' and '.'")
_env_name = _rule(
    lambda name: name.isascii() and name.isprintable() and "=" not in name, "use printable ASCII characters without '='"
)
_image = _rule(lambda image: not image.strip() or not re.search(r"\s", image), "leave out the space")
_inside = _rule(_is_inside, "write a relative path without '..'")
_descending = _rule(lambda path: ".." not in path.split("/"), "write a path without '..'")
_port = _rule(_is_port, "write a number from 1 to 65535, or the name of a port")
_port_number = _between(1, 65535)
_mode = _between(0, 0o777, "write an octal number from 0000 to 0777")
_user = _between(0, 2**31 - 1)
_positive, _not_negative = _between(1), _between(0)
_pull_policy = _one_of("Always", "IfNotPresent", "Never")
_restart_policy = _one_of("Always", "OnFailure", "Never")
_profile = _one_of("Unconfined", "RuntimeDefault", "Localhost")
_node_policy = _one_of("Honor", "Ignore")
_weight = _between(1, 100)

FIELD_RULES: Mapping[str, Mapping[str, FieldRule]] = {
    "ObjectMeta": {"labels": _labels, "annotations": _annotations},
    "PodSpec": {
        **dict.fromkeys(
            ("nodeName", "priorityClassName", "runtimeClassName", "schedulerName"), _subdomain
        ),  # not serviceAccountName: Airflow's example templates have a placeholder in capitals
        "hostname": _label,
        "subdomain": _label,
        "nodeSelector": _labels,
        "restartPolicy": _restart_policy,
        "dnsPolicy": _one_of("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
        "preemptionPolicy": _one_of("PreemptLowerPriority", "Never"),
        "terminationGracePeriodSeconds": _not_negative,
        "activeDeadlineSeconds": _between(1, 2**31 - 1),
    },
    "PodOS": {"name": _one_of("linux", "windows")},
    "Container": {
        "name": _label,
        "image": _image,
        "imagePullPolicy": _pull_policy,
        "restartPolicy": _restart_policy,
        "terminationMessagePolicy": _one_of("File", "FallbackToLogsOnError"),
    },
    "ContainerPort": {
        "name": _rule(_is_port, "use at most 15 lower-case letters, digits and '-'"),
        "containerPort": _port_number,
        "hostPort": _between(0, 65535),
        "protocol": _one_of("TCP", "UDP", "SCTP"),
    },
    "ContainerResizePolicy": {"restartPolicy": _one_of("NotRequired", "RestartContainer")},
    "EnvVar": {"name": _env_name},
    "EnvFromSource": {"prefix": _env_name},
    "ConfigMapKeySelector": {"key": _config_key},
    "SecretKeySelector": {"key": _config_key},
    "Probe": {
        **dict.fromkeys(("initialDelaySeconds", "periodSeconds", "timeoutSeconds"), _not_negative),
        **dict.fromkeys(("failureThreshold", "successThreshold"), _not_negative),
        "terminationGracePeriodSeconds": _positive,
    },
    "HTTPGetAction": {"port": _port, "scheme": _one_of("HTTP", "HTTPS")},
    "TCPSocketAction": {"port": _port},
    "GRPCAction": {"port": _port_number},
    "SecurityContext": {
        "runAsUser": _user,
        "runAsGroup": _user,
        "procMount": _one_of("Default", "Unmasked"),
    },
    "PodSecurityContext": {
        "runAsUser": _user,
        "runAsGroup": _user,
        "fsGroup": _user,
        "supplementalGroups": _each(_user),
        "fsGroupChangePolicy": _one_of("OnRootMismatch", "Always"),
        "supplementalGroupsPolicy": _one_of("Merge", "Strict"),
    },
    "SeccompProfile": {"type": _profile},
    "AppArmorProfile": {"type": _profile},
    "Volume": {"name": _label},
    "VolumeMount": {
        "subPath": _inside,
        "subPathExpr": _inside,
        "mountPropagation": _one_of("None", "HostToContainer", "Bidirectional"),
        "recursiveReadOnly": _one_of("Disabled", "IfPossible", "Enabled"),
    },
    "HostPathVolumeSource": {
        "path": _descending,
        "type": _one_of(
            "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"
        ),
    },
    "ImageVolumeSource": {"pullPolicy": _pull_policy},
    "SecretVolumeSource": {"defaultMode": _mode},
    "ConfigMapVolumeSource": {"defaultMode": _mode},
    "ProjectedVolumeSource": {"defaultMode": _mode},
    "DownwardAPIVolumeSource": {"defaultMode": _mode},
    "KeyToPath": {"path": _inside, "mode": _mode},
    "DownwardAPIVolumeFile": {"path": _inside, "mode": _mode},
    "ServiceAccountTokenProjection": {"path": _inside, "expirationSeconds": _between(600, 2**32)},
    "PersistentVolumeClaimSpec": {
        "accessModes": _each(_one_of("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")),
        "volumeMode": _one_of("Filesystem", "Block"),
    },
    "Toleration": {
        "key": _label_key,
        "operator": _one_of("Equal", "Exists", "Lt", "Gt"),
        "effect": _one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
    },
    "PreferredSchedulingTerm": {"weight": _weight},
    "WeightedPodAffinityTerm": {"weight": _weight},
    "PodAffinityTerm": {"topologyKey": _label_key},
    "NodeSelectorRequirement": {
        "key": _label_key,
        "operator": _one_of("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"),
    },
    "LabelSelector": {"matchLabels": _labels},
    "LabelSelectorRequirement": {"key": _label_key, "operator": _one_of("In", "NotIn", "Exists", "DoesNotExist")},
    "TopologySpreadConstraint": {
        "maxSkew": _positive,
        "minDomains": _positive,
        "topologyKey": _label_key,
        "whenUnsatisfiable": _one_of("DoNotSchedule", "ScheduleAnyway"),
        "nodeAffinityPolicy": _node_policy,
        "nodeTaintsPolicy": _node_policy,
    },
}
"""By type, then by field: the rule of the field's value."""


# --- fields that depend on each other ---------------------------------------------------------------------------------


def _alternatives(kind: str, *others: str, required: bool = True) -> FieldRule:
    """Return the rule of a type with one field of several, beside ``others``; a field of a newer Kubernetes counts."""
    known = ", ".join(field for field in FIELD_TYPES[kind] if field not in others)

    def check(value: Mapping[str, Json], path: FieldPath) -> Iterable[FieldProblem]:
        present = [field for field, content in value.items() if content is not None and field not in others]
        if len(present) > 1:
            return (FieldProblem(path, f"has {' and '.join(present)}", "keep one of them"),)
        if required and not present:
            return (FieldProblem(path, "has no content", f"write one of {known}"),)
        return ()

    return check


def _env_var(variable: Mapping[str, Json], path: FieldPath) -> Iterator[FieldProblem]:
    if variable.get("value") and variable.get("valueFrom") is not None:
        yield FieldProblem(path, "has value and valueFrom", "keep one of them")


def _volume_mount(mount: Mapping[str, Json], path: FieldPath) -> Iterator[FieldProblem]:
    if mount.get("subPath") and mount.get("subPathExpr"):
        yield FieldProblem(path, "has subPath and subPathExpr", "keep one of them")


def _toleration(toleration: Mapping[str, Json], path: FieldPath) -> Iterator[FieldProblem]:
    key, operator = toleration.get("key"), toleration.get("operator") or "Equal"
    if not key and operator == "Equal":
        yield FieldProblem(path, "has no key", "write key, or operator: Exists for the taints of all keys")
    if operator == "Exists" and toleration.get("value"):
        yield FieldProblem((*path, "value"), "is not used with operator Exists", "leave out one of them")
    if operator == "Equal":
        yield from _label_value(toleration.get("value") or "", (*path, "value"))
    if toleration.get("tolerationSeconds") is not None and toleration.get("effect") != "NoExecute":
        yield FieldProblem((*path, "tolerationSeconds"), "applies to effect NoExecute alone", "write effect: NoExecute")


_STANDARD_RESOURCES = ("cpu", "memory", "ephemeral-storage")
_RESOURCE_FIX = f"write {', '.join(_STANDARD_RESOURCES)}, or a name with its domain such as nvidia.com/gpu"


def may_be_overcommitted(name: str) -> bool:
    """Return whether pods may use more of a resource than they request. Of others, a request needs an equal limit."""
    return ("/" not in name or "kubernetes.io/" in name) and not name.startswith("hugepages-")


def _resources(resources: Mapping[str, Any], path: FieldPath) -> Iterator[FieldProblem]:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name in amounts:
            if name in _STANDARD_RESOURCES:
                continue
            if "/" not in name and not name.startswith("hugepages-"):
                guess = corrected_spelling(name, _STANDARD_RESOURCES, 0.6)
                yield FieldProblem(
                    (*path, field, name), "is not a resource", f"write {guess}" if guess else _RESOURCE_FIX
                )
            elif not _LABEL_KEY.fullmatch(name):
                yield FieldProblem((*path, field, name), "is not a resource", _RESOURCE_FIX)
    for name, request in requests.items():
        requested, limit = quantity_number(request), quantity_number(limits.get(name))
        if requested is None or limit is None or requested == limit:
            continue
        if requested > limit or not may_be_overcommitted(name):
            relation, fix = "not equal to", "write equal values"
            if may_be_overcommitted(name):
                relation, fix = "above", "lower it, or raise the limit"
            place = (*path, "requests", name)
            yield FieldProblem(place, f"is {request!r}, {relation} the limit {limits[name]!r}", fix)


def _requirement(requirement: Mapping[str, Any], path: FieldPath) -> Iterator[FieldProblem]:
    operator, values = requirement.get("operator"), requirement.get("values") or ()
    if operator in ("In", "NotIn") and not values:
        yield FieldProblem((*path, "values"), f"is missing for operator {operator}", "write a list of values")
    elif operator in ("Exists", "DoesNotExist") and values:
        yield FieldProblem((*path, "values"), f"is not used with operator {operator}", "leave out one of them")
    elif operator in ("Gt", "Lt") and len(values) != 1:
        yield FieldProblem((*path, "values"), f"needs one value for operator {operator}", "write one number, in quotes")


def _local_profile(profile: Mapping[str, Json], path: FieldPath) -> Iterator[FieldProblem]:
    if (profile.get("type") == "Localhost") != bool(profile.get("localhostProfile")):
        yield FieldProblem(path, "has one of type Localhost and localhostProfile", "write both or neither")


OBJECT_RULES: Mapping[str, FieldRule] = {
    "EnvVar": _env_var,
    "EnvVarSource": _alternatives("EnvVarSource"),
    "EnvFromSource": _alternatives("EnvFromSource", "prefix"),
    "Volume": _alternatives("Volume", "name", required=False),
    "VolumeProjection": _alternatives("VolumeProjection", required=False),
    "DownwardAPIVolumeFile": _alternatives("DownwardAPIVolumeFile", "mode", "path", "user"),
    "LifecycleHandler": _alternatives("LifecycleHandler"),
    "Probe": _alternatives(
        "Probe", *(name for name in FIELD_TYPES["Probe"] if name.endswith(("Seconds", "Threshold")))
    ),
    "VolumeMount": _volume_mount,
    "Toleration": _toleration,
    "ResourceRequirements": _resources,
    "NodeSelectorRequirement": _requirement,
    "LabelSelectorRequirement": _requirement,
    "SeccompProfile": _local_profile,
    "AppArmorProfile": _local_profile,
}
"""By type: the rule of fields that exclude or require one another."""
