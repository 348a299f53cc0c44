"""Validation rules of the kinds beside pods that a controller or the kubelet acts on.

Source: ``pkg/apis/{core,batch,coordination,rbac}/validation`` of Kubernetes 1.36; paths and messages are Kubernetes'.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection

from kubelocal.codec import field_errors
from kubelocal.codec.quantities import amount
from kubelocal.codec.status_errors import Cause, StatusError
from kubelocal.registry import name_validation
from kubelocal.registry.cron_schedule import schedule_problem, zone_problem
from kubelocal.registry.validation_rules import (
    ObjectCheck,
    Rule,
    at_least,
    between,
    descending_path,
    each,
    keys,
    named,
    one_of,
    share,
)
from kubelocal.storage.selectors import matches_labels
from kubelocal.types import Json, Manifest

__all__ = ["DATA_LIMIT", "OBJECT_CHECKS", "RULES"]

CRON_JOB_NAME_LIMIT = 52
DATA_LIMIT = 1 << 20
DATA_KEYS = keys(name_validation.config_key)
COUNT = at_least(0)
POD_SCOPES = frozenset({"BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"})
QUOTA_SCOPES = POD_SCOPES | {"PriorityClass", "VolumeAttributesClass"}
OPPOSITE_SCOPES = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})
COMPUTE_QUOTAS = frozenset(
    f"{prefix}{name}" for prefix in ("", "requests.", "limits.") for name in ("cpu", "memory", "ephemeral-storage")
)
STANDARD_QUOTAS = COMPUTE_QUOTAS | {
    "requests.storage",
    "pods",
    "resourcequotas",
    "services",
    "services.nodeports",
    "services.loadbalancers",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
}
"""The resources whose fit is checked; other names, such as ``count/jobs.batch``, go with any scope."""
POD_QUOTAS = {name for name in COMPUTE_QUOTAS if not name.endswith("ephemeral-storage")} | {"pods"}
SCOPED_QUOTAS: dict[str, Collection[str]] = {
    **dict.fromkeys((POD_SCOPES | {"PriorityClass"}) - {"BestEffort"}, POD_QUOTAS),
    "BestEffort": {"pods"},
}
"""The standard resources that each scope goes with."""
RBAC = "rbac.authorization.k8s.io"
PULL_SECRETS = {"kubernetes.io/dockerconfigjson": ".dockerconfigjson", "kubernetes.io/dockercfg": ".dockercfg"}


def _schedule(value: str, path: str) -> list[Cause]:
    problem = schedule_problem(value)
    return [field_errors.invalid(path, value, problem)] if problem else []


def _time_zone(value: str, path: str) -> list[Cause]:
    problem = zone_problem(value)
    return [field_errors.invalid(path, value, problem)] if problem else []


def _quota_scope(value: str, path: str) -> list[Cause]:
    return [] if value in QUOTA_SCOPES else [field_errors.invalid(path, value, "unsupported scope")]


RULES: dict[str, tuple[Rule, ...]] = {
    "V1ConfigMap": (Rule("data", DATA_KEYS), Rule("binaryData", DATA_KEYS)),
    "V1Taint": (
        Rule("value", named(name_validation.label_value)),
        Rule("effect", one_of("NoSchedule", "PreferNoSchedule", "NoExecute"), required=True),
    ),
    "V1ResourceQuotaSpec": (Rule("scopes", each(_quota_scope)),),
    "V1Secret": (Rule("data", DATA_KEYS),),
    "V1JobSpec": (
        *(
            Rule(field, COUNT)
            for field in (
                "parallelism",
                "completions",
                "activeDeadlineSeconds",
                "backoffLimit",
                "backoffLimitPerIndex",
                "maxFailedIndexes",
                "ttlSecondsAfterFinished",
            )
        ),
        Rule("completionMode", one_of("Indexed", "NonIndexed")),
        Rule("podReplacementPolicy", one_of("Failed", "TerminatingOrFailed")),
    ),
    **{
        f"V1{kind}Spec": (Rule("replicas", COUNT), Rule("selector", required=True), Rule("template", required=True))
        for kind in ("Deployment", "ReplicaSet", "StatefulSet")
    },
    "V1CronJobSpec": (
        Rule("schedule", _schedule, required=True),
        Rule("timeZone", _time_zone),
        Rule("concurrencyPolicy", one_of("Allow", "Forbid", "Replace"), required=True),
        *(
            Rule(field, COUNT)
            for field in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit")
        ),
    ),
    "V1DaemonSetSpec": (Rule("selector", required=True), Rule("template", required=True)),
    **{
        name: (Rule("maxUnavailable", share), Rule("maxSurge", share))
        for name in ("V1RollingUpdateDeployment", "V1RollingUpdateDaemonSet", "V1RollingUpdateStatefulSetStrategy")
    },
    "V1DaemonSetUpdateStrategy": (Rule("type", one_of("OnDelete", "RollingUpdate"), required=True),),
    "V1DeploymentStrategy": (Rule("type", one_of("Recreate", "RollingUpdate"), required=True),),
    "V1StatefulSetUpdateStrategy": (Rule("type", one_of("OnDelete", "RollingUpdate"), required=True),),
    "V1PodDisruptionBudgetSpec": (Rule("minAvailable", share), Rule("maxUnavailable", share)),
    "V1LimitRangeItem": (Rule("type", named(name_validation.label_key), required=True),),
    "V1LocalVolumeSource": (Rule("path", descending_path, required=True),),
    "V1LeaseSpec": (Rule("leaseDurationSeconds", at_least(1)), Rule("leaseTransitions", COUNT)),
    "V1PolicyRule": (Rule("verbs", required=True, detail="verbs must contain at least one value"),),
    "V1RoleRef": (
        Rule("apiGroup", one_of(RBAC), required=True),
        Rule("name", required=True),
        Rule("kind", required=True),
    ),
    "RbacV1Subject": (
        Rule("kind", one_of("Group", "ServiceAccount", "User"), required=True),
        Rule("name", required=True),
    ),
    "V1PersistentVolumeClaimSpec": (
        Rule("accessModes", required=True, detail="at least 1 access mode is required"),
        Rule("volumeMode", one_of("Block", "Filesystem")),
    ),
    "V1TokenRequestSpec": (Rule("expirationSeconds", between(600, 2**32)),),
    "V1ServicePort": (
        Rule("port", between(1, 65535), required=True),
        Rule("protocol", one_of("SCTP", "TCP", "UDP"), required=True),
    ),
    "V1ServiceSpec": (Rule("type", one_of("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"), required=True),),
}


def _config_map(config: Manifest, path: str, causes: list[Cause]) -> None:
    data, binary = config.get("data", {}), config.get("binaryData", {})
    detail = "duplicate of key present in binaryData"
    causes += [field_errors.invalid(f"data[{key}]", key, detail) for key in data.keys() & binary.keys()]
    size = sum(len(text.encode()) for text in data.values()) + sum(map(_decoded_size, binary.values()))
    if size > DATA_LIMIT:
        causes.append(field_errors.too_long("", DATA_LIMIT))


def _secret(secret: Manifest, path: str, causes: list[Cause]) -> None:
    data = secret.get("data", {})
    if sum(map(_decoded_size, data.values())) > DATA_LIMIT:
        causes.append(field_errors.too_long("data", DATA_LIMIT))
    key = PULL_SECRETS.get(secret.get("type", ""), "")
    if key and key not in data:
        causes.append(field_errors.required(f"data[{key}]"))


def _decoded_size(text: str) -> int:
    return len(text) * 3 // 4 - text[-2:].count("=")


def _job_spec(spec: Manifest, path: str, causes: list[Cause]) -> None:
    policy = spec.get("template", {}).get("spec", {}).get("restartPolicy", "")
    where, valid = f"{path}.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"'
    if policy in ("", "Always"):
        causes.append(field_errors.required(where, valid))
    if path == "spec" and not spec.get("selector"):  # a CronJob's Job template has no selector
        causes.append(field_errors.required("spec.selector"))
    if spec.get("completionMode") == "Indexed" and "completions" not in spec:
        causes.append(field_errors.required(f"{path}.completions", "when completion mode is Indexed"))
    if not spec.get("template", {}).get("spec"):
        causes.append(field_errors.required(f"{path}.template.spec.containers"))


def _event(event: Manifest, path: str, causes: list[Cause]) -> None:
    home = event.get("metadata", {}).get("namespace", "")
    elsewhere = (event.get("involvedObject") or {}).get("namespace", "")
    if elsewhere != home and (elsewhere or home not in ("default", "kube-system", "")):
        causes.append(field_errors.invalid("involvedObject.namespace", elsewhere, "does not match event.namespace"))


def _role_binding(binding: Manifest, path: str, causes: list[Cause]) -> None:
    reference, cluster = binding.get("roleRef", {}), binding.get("kind") == "ClusterRoleBinding"
    kinds = ("ClusterRole",) if cluster else ("Role", "ClusterRole")
    if reference.get("kind") and reference["kind"] not in kinds:
        causes.append(field_errors.unsupported("roleRef.kind", reference["kind"], kinds))
    for i, subject in enumerate(binding.get("subjects", ())):
        if subject.get("kind") == "ServiceAccount" and not subject.get("namespace"):
            causes.append(field_errors.required(f"subjects[{i}].namespace"))


def _requires(field: str) -> ObjectCheck:
    def check_object(value: Manifest, path: str, causes: list[Cause]) -> None:
        if not value.get(field):
            causes.append(field_errors.required(field))

    return check_object


def _policy_rule(rule: Manifest, path: str, causes: list[Cause]) -> None:
    def lacks(*fields: str) -> list[Json]:
        return [field for field in fields if not rule.get(field)]

    if rule.get("nonResourceURLs"):
        if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
            detail = "rules cannot apply to both regular resources and non-resource URLs"
            causes.append(field_errors.invalid(f"{path}.nonResourceURLs", rule["nonResourceURLs"], detail))
        return
    names = {
        "apiGroups": "resource rules must supply at least one api group",
        "resources": "resource rules must supply at least one resource",
    }
    causes += [field_errors.required(f"{path}.{field}", names[field]) for field in lacks("apiGroups", "resources")]


def _selects_own(spec: Manifest, path: str, causes: list[Cause]) -> None:
    """The selector must match the template's labels: a controller that does not find its pods creates them for ever."""
    template, selector = spec.get("template", {}), spec.get("selector", {})
    if template and not template.get("spec"):
        causes.append(field_errors.required(f"{path}.template.spec.containers"))
    if "selector" in spec and not selector.get("matchLabels") and not selector.get("matchExpressions"):
        causes.append(field_errors.invalid(f"{path}.selector", selector, "empty selector is invalid"))
    labels = (template.get("metadata") or {}).get("labels") or {}
    if not _is_matched(selector, labels):
        detail = "`selector` does not match template `labels`"
        causes.append(field_errors.invalid(f"{path}.template.metadata.labels", labels, detail))


def _is_matched(selector: Manifest, labels: Manifest) -> bool:
    """Whether a selector matches labels; an invalid selector has causes of its own."""
    try:
        return matches_labels(selector, labels)
    except (KeyError, IndexError, StatusError):  # an unknown operator, or one without its values
        return True


def _taint(taint: Manifest, path: str, causes: list[Cause]) -> None:
    key = taint.get("key", "")
    causes += field_errors.broken_rules(f"{path}.key", key, name_validation.label_key(key))


def _quota_selector(term: Manifest, path: str, causes: list[Cause]) -> None:
    scope, operator, values = term.get("scopeName", ""), term.get("operator", ""), term.get("values", [])
    causes += _quota_scope(scope, f"{path}.scopeName")
    if scope in POD_SCOPES and operator != "Exists":
        names = (
            "Terminating",
            "NotTerminating",
            "BestEffort",
            "NotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
        )
        scopes = ", ".join(f"ResourceQuotaScope{name}" for name in names)
        causes.append(
            field_errors.invalid(f"{path}.operator", operator, f"must be 'Exist' when scope is any of {scopes}")
        )
    if operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
        causes.append(field_errors.invalid(f"{path}.operator", operator, "not a valid selector operator"))
    elif operator in ("In", "NotIn") and not values:
        detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
        causes.append(field_errors.required(f"{path}.values", detail))
    elif operator in ("Exists", "DoesNotExist") and values:
        detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
        causes.append(field_errors.invalid(f"{path}.values", values, detail))


def _quota_scopes(spec: Manifest, path: str, causes: list[Cause]) -> None:
    """Check that scopes fit each other and each resource that the quota limits: they select pods, or volume claims.

    After ``validateResourceQuotaScopes`` and ``IsResourceQuotaScopeValidForResource`` (``pkg/apis/core``).
    """
    limited = [name for name in spec.get("hard") or () if name in STANDARD_QUOTAS]
    scopes = spec.get("scopes") or []
    terms = (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    selected = [term.get("scopeName", "") for term in terms]
    fields = [(f"{path}.scopes", scope) for scope in scopes]
    fields += [(f"{path}.scopeSelector.matchExpressions[{i}].scopeName", scope) for i, scope in enumerate(selected)]
    for field, scope in fields:
        if any(name not in SCOPED_QUOTAS.get(scope, STANDARD_QUOTAS) for name in limited):
            causes.append(field_errors.invalid(field, scope, "unsupported scope applied to resource"))
    for field, together in ((f"{path}.scopes", scopes), (f"{path}.scopeSelector.matchExpressions", selected)):
        if any(pair <= set(together) for pair in OPPOSITE_SCOPES):
            causes.append(field_errors.invalid(field, together, "conflicting scopes"))


LIMIT_FIELDS = ("min", "defaultRequest", "default", "max")
NAMES = {"min": "min value", "defaultRequest": "default request value", "default": "default value", "max": "max value"}


def _limit_range(spec: Manifest, path: str, causes: list[Cause]) -> None:
    seen = set[str]()
    for i, item in enumerate(spec.get("limits", ())):
        kind, where = item.get("type", ""), f"{path}.limits[{i}]"
        if kind in seen:
            causes.append(field_errors.duplicate(f"{where}.type", kind))
        seen.add(kind)
        if kind == "Pod":
            detail = "may not be specified when `type` is 'Pod'"
            fields = [field for field in ("default", "defaultRequest") if item.get(field)]
            causes += [field_errors.forbidden(f"{where}.{field}", detail) for field in fields]
        if kind == "PersistentVolumeClaim" and "storage" not in {**item.get("min", {}), **item.get("max", {})}:
            detail = "either minimum or maximum storage value is required, but neither was provided"
            causes.append(field_errors.required(f"{where}.limits", detail))
        _ordered_limits(item, where, causes)


def _ordered_limits(item: Manifest, path: str, causes: list[Cause]) -> None:
    """Check min <= defaultRequest <= default <= max."""
    for low, high in itertools.combinations(LIMIT_FIELDS, 2):
        lower, higher = item.get(low, {}), item.get(high, {})
        for name in sorted(lower.keys() & higher.keys()):
            if amount(lower[name]) > amount(higher[name]):
                detail = f"{NAMES[low]} {lower[name]} is greater than {NAMES[high]} {higher[name]}"
                causes.append(field_errors.invalid(f"{path}.{low}[{name}]", lower[name], detail))
    for name, ratio in sorted(item.get("maxLimitRequestRatio", {}).items()):
        if amount(ratio) < 1:
            causes.append(
                field_errors.invalid(f"{path}.maxLimitRequestRatio[{name}]", ratio, f"ratio {ratio} is less than 1")
            )


def _cron_job(cron_job: Manifest, path: str, causes: list[Cause]) -> None:
    name = cron_job.get("metadata", {}).get("name", "")
    if len(name) > CRON_JOB_NAME_LIMIT:  # a Job's name has eleven more characters for the time
        detail = f"must be no more than {CRON_JOB_NAME_LIMIT} characters"
        causes.append(field_errors.invalid("metadata.name", name, detail))


def _stateful_set(spec: Manifest, path: str, causes: list[Cause]) -> None:
    _selects_own(spec, path, causes)
    for i, claim in enumerate(spec.get("volumeClaimTemplates", ())):
        if not claim.get("metadata", {}).get("name"):
            causes.append(field_errors.required(f"{path}.volumeClaimTemplates[{i}].metadata.name"))


def _rolling_update(limits: Manifest, path: str, causes: list[Cause]) -> None:
    for field in ("maxUnavailable", "maxSurge"):
        if limits.get(field) == "":
            causes += share("", f"{path}.{field}")
    if all(str(limits.get(field, 0)).removesuffix("%") == "0" for field in ("maxUnavailable", "maxSurge")):
        detail = "may not be 0 when `maxSurge` is 0"
        causes.append(field_errors.invalid(f"{path}.maxUnavailable", limits.get("maxUnavailable", 0), detail))


OBJECT_CHECKS: dict[str, ObjectCheck] = {
    "V1RollingUpdateDaemonSet": _rolling_update,
    "V1RollingUpdateDeployment": _rolling_update,
    "V1CronJob": _cron_job,
    "V1DaemonSetSpec": _selects_own,
    "V1LimitRangeSpec": _limit_range,
    "V1DeploymentSpec": _selects_own,
    "V1ReplicaSetSpec": _selects_own,
    "V1StatefulSetSpec": _stateful_set,
    "V1ConfigMap": _config_map,
    "V1Secret": _secret,
    "V1JobSpec": _job_spec,
    "CoreV1Event": _event,
    "V1RoleBinding": _role_binding,
    "V1ClusterRoleBinding": _role_binding,
    "V1PolicyRule": _policy_rule,
    "V1Taint": _taint,
    "V1ResourceQuotaSpec": _quota_scopes,
    "V1ScopedResourceSelectorRequirement": _quota_selector,
    "V1Binding": _requires("target"),
}
