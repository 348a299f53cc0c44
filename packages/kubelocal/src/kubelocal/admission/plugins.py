"""The admission of a new pod between defaulting and validation, in the order of Kubernetes' admission plug-ins.

LimitRanger, ServiceAccount, Priority, DefaultTolerationSeconds, then the sidecar injectors (mutating webhooks), then
LimitRanger and ServiceAccount once more, so that injected containers get resources and the token too.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from kubelocal.admission import limit_ranger, pod_security, resource_quota
from kubelocal.admission.limit_ranger import set_resources
from kubelocal.codec.status_errors import StatusError, bad_request, forbidden
from kubelocal.injection import Injector, injectors
from kubelocal.interfaces import Registry
from kubelocal.settings import LocalSettings
from kubelocal.types import Manifest

__all__ = ["ADMITTERS", "Mutator", "mutators"]

Mutator = Callable[[Manifest, Registry], Manifest]

ADMITTERS = (limit_ranger.admit, pod_security.admit, resource_quota.admit)
"""The validating plug-ins for each new or changed object, in order."""

TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105
TOKEN_VOLUME = "kube-api-access-"  # noqa: S105
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
SYSTEM_PRIORITIES = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}
EVICTING_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
EVICTION_SECONDS = 300


def mutators(settings: LocalSettings) -> list[Mutator]:
    """Return the mutating plug-ins for new pods. Raises ``SettingError`` for a wrong file of sidecars."""
    injected = webhooks(injectors(settings))
    # plug-ins that complete containers run again for the injected ones
    return [set_resources, service_account, priority, tolerations, injected, set_resources, token_volume]


def service_account(pod: Manifest, registry: Registry) -> Manifest:
    """Set the service account, its pull secrets and its token volume; raise 403 for an unknown account."""
    namespace, spec = pod["metadata"]["namespace"], pod["spec"]
    name = spec.setdefault("serviceAccountName", "default") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    account = _account(pod, registry)
    if account is None:
        why = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
        raise forbidden("Pod", pod["metadata"].get("name", ""), why)
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [dict(secret) for secret in account["imagePullSecrets"]]
    return token_volume(pod, registry)


def _account(pod: Manifest, registry: Registry) -> Manifest | None:
    try:
        return registry.get("ServiceAccount", pod["metadata"]["namespace"], pod["spec"]["serviceAccountName"])
    except StatusError:
        return None


def token_volume(pod: Manifest, registry: Registry) -> Manifest:
    """Mount the account's token into each container without a mount at its path, unless pod or account opt out."""
    spec = pod["spec"]
    automount = spec.get("automountServiceAccountToken")
    if automount is None:
        automount = (_account(pod, registry) or {}).get("automountServiceAccountToken")
    bare = [container for container in _containers(spec) if not _has_token(container)]
    if automount is False or not bare:
        return pod
    volumes = spec.setdefault("volumes", [])
    name = next((volume["name"] for volume in volumes if volume["name"].startswith(TOKEN_VOLUME)), "")
    if not name:
        name = TOKEN_VOLUME + "".join(secrets.choice(ALPHABET) for _ in range(5))
        volumes.append({"name": name, "projected": _token_projection()})
    for container in bare:
        container.setdefault("volumeMounts", []).append({"name": name, "readOnly": True, "mountPath": TOKEN_PATH})
    return pod


def _containers(spec: Manifest) -> list[Manifest]:
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]


def _has_token(container: Manifest) -> bool:
    return any(mount.get("mountPath") == TOKEN_PATH for mount in container.get("volumeMounts") or ())


def _token_projection() -> Manifest:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    sources: list[Any] = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]
    return {"sources": sources, "defaultMode": 0o644}


def priority(pod: Manifest, registry: Registry) -> Manifest:
    """Resolve the priority class; raise 403 for an unknown one and for a pod with another priority."""
    spec, name = pod["spec"], pod["spec"].get("priorityClassName", "")
    value, policy = _priority_class(pod, registry, name)
    if spec.get("priority", value) != value:
        why = f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; priority admission"
        raise forbidden(
            "Pod",
            pod["metadata"].get("name", ""),
            f"{why} controller computed {value} from the given PriorityClass name",
        )
    spec["priority"] = value
    spec.setdefault("preemptionPolicy", policy)
    return pod


def _priority_class(pod: Manifest, registry: Registry, name: str) -> tuple[int, str]:
    usual = "PreemptLowerPriority"
    if not name:
        classes = (item for item in registry.list("PriorityClass") if item.get("globalDefault"))
        chosen: Manifest | None = min(classes, key=lambda item: int(item.get("value", 0)), default=None)
        if chosen is None:
            return 0, usual
        pod["spec"]["priorityClassName"] = chosen["metadata"]["name"]
    elif name in SYSTEM_PRIORITIES:
        return SYSTEM_PRIORITIES[name], usual
    else:
        try:
            chosen = registry.get("PriorityClass", "", name)
        except StatusError:
            why = f"no PriorityClass with name {name} was found"
            raise forbidden("Pod", pod["metadata"].get("name", ""), why) from None
    return chosen.get("value", 0), chosen.get("preemptionPolicy", usual)


def tolerations(pod: Manifest, registry: Registry) -> Manifest:
    """Tolerate an unreachable or not-ready node for five minutes, unless the pod has its own toleration."""
    tolerated = pod["spec"].setdefault("tolerations", [])
    for taint in EVICTING_TAINTS:
        if not any(_covers(toleration, taint) for toleration in tolerated):
            new = {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": EVICTION_SECONDS}
            tolerated.append(new)
    return pod


def _covers(toleration: Manifest, taint: str) -> bool:
    return toleration.get("key") in (taint, None, "") and toleration.get("effect") in ("NoExecute", None, "")


def webhooks(injecting: list[Injector]) -> Mutator:
    """Return the mutating plug-in that runs the sidecar injectors."""

    def inject(pod: Manifest, registry: Registry) -> Manifest:
        namespace = registry.get("Namespace", "", pod["metadata"]["namespace"])
        for injector in injecting:
            try:
                pod = injector(pod, namespace)
            except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as problem:
                # a pod that an injector cannot handle, for instance with malformed annotations
                message = f"{type(problem).__name__}: {problem}"
                raise bad_request(
                    f"the admission webhook of a sidecar injector denied the request: {message}"
                ) from None
        return pod

    return inject
