"""What happens to a new pod between its defaults and its validation, in the order of Kubernetes' admission plug-ins.

LimitRanger, ServiceAccount, Priority, DefaultTolerationSeconds, then the sidecar injectors (mutating webhooks), then
LimitRanger and ServiceAccount once more, so that injected containers get resources and the token too.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from crosswind.local import limit_ranges, pod_security, quota
from crosswind.local.injection import Injector, injectors
from crosswind.local.limit_ranges import set_resources
from crosswind.local.seams import Registry
from crosswind.local.statuses import StatusError, bad_request, forbidden
from crosswind.settings import LocalSettings
from crosswind.types import Manifest

__all__ = ["ADMITTERS", "Mutator", "mutators"]

Mutator = Callable[[Manifest, Registry], Manifest]

ADMITTERS = (limit_ranges.admit, pod_security.admit, quota.admit)
"""What is asked about each new or changed object, in order."""

TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105
TOKEN_VOLUME = "kube-api-access-"  # noqa: S105
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
SYSTEM_PRIORITIES = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}
EVICTING_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
EVICTION_SECONDS = 300


def mutators(settings: LocalSettings) -> list[Mutator]:
    """Return what the registry runs on each new pod. ``ConfigError``: the file of sidecars is wrong."""
    injected = webhooks(injectors(settings))
    # those that complete containers run once more, for the injected ones
    return [set_resources, service_account, priority, tolerations, injected, set_resources, token_volume]


def service_account(pod: Manifest, registry: Registry) -> Manifest:
    """Name the service account, take its pull secrets, mount its token. 403: there is no such account."""
    namespace, spec = pod["metadata"]["namespace"], pod["spec"]
    name = spec.setdefault("serviceAccountName", "default") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    account = _account(pod, registry)
    if account is None:
        why = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
        raise forbidden("Pod", pod["metadata"].get("name", ""), why)
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [dict(one) for one in account["imagePullSecrets"]]
    return token_volume(pod, registry)


def _account(pod: Manifest, registry: Registry) -> Manifest | None:
    try:
        return registry.get("ServiceAccount", pod["metadata"]["namespace"], pod["spec"]["serviceAccountName"])
    except StatusError:
        return None


def token_volume(pod: Manifest, registry: Registry) -> Manifest:
    """Mount the account's token into each container that has nothing at its path, unless pod or account forbid it."""
    spec = pod["spec"]
    wanted = spec.get("automountServiceAccountToken")
    if wanted is None:
        wanted = (_account(pod, registry) or {}).get("automountServiceAccountToken")
    bare = [one for one in _containers(spec) if not _has_token(one)]
    if wanted is False or not bare:
        return pod
    volumes = spec.setdefault("volumes", [])
    name = next((one["name"] for one in volumes if one["name"].startswith(TOKEN_VOLUME)), "")
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
    """Resolve the priority class. 403: there is no such class, or the pod claims another number."""
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
        classes = (one for one in registry.list("PriorityClass") if one.get("globalDefault"))
        chosen: Manifest | None = max(classes, key=lambda one: -one["value"], default=None)
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
    return chosen["value"], chosen.get("preemptionPolicy", usual)


def tolerations(pod: Manifest, registry: Registry) -> Manifest:
    """Let the pod stay for five minutes on a node that is lost, unless it says how long itself."""
    listed = pod["spec"].setdefault("tolerations", [])
    for taint in EVICTING_TAINTS:
        if not any(_covers(one, taint) for one in listed):
            new = {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": EVICTION_SECONDS}
            listed.append(new)
    return pod


def _covers(toleration: Manifest, taint: str) -> bool:
    return toleration.get("key") in (taint, None, "") and toleration.get("effect") in ("NoExecute", None, "")


def webhooks(injecting: list[Injector]) -> Mutator:
    """Return the mutator that runs injectors on a pod, with its namespace."""

    def inject(pod: Manifest, registry: Registry) -> Manifest:
        namespace = registry.get("Namespace", "", pod["metadata"]["namespace"])
        for one in injecting:
            try:
                pod = one(pod, namespace)
            except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as problem:
                # a pod that an injector cannot read, such as annotations of its own that make no sense
                told = f"{type(problem).__name__}: {problem}"
                raise bad_request(f"the admission webhook of a sidecar injector denied the request: {told}") from None
        return pod

    return inject
