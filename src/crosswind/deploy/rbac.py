"""Who may do what. Each program has an identity of its own; only those that call Kubernetes have permissions."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.objects import Rendered, named, new
from crosswind.deploy.values import ArchiveLogs, Identity, Values
from crosswind.types import Manifest

__all__ = ["executor_rules", "launcher_rules", "lease_rules", "log_rules", "rbac", "reaper_rules"]

_GROUP = "rbac.authorization.k8s.io"
_ACCOUNTS = {
    "scheduler": "The schedulers' identity.",
    "api-server": "The API servers' identity.",
    "dag-processor": "The DAG processors' identity; it may do nothing in Kubernetes.",
    "triggerer": "The triggerers' identity.",
    "migrations": "The migration Job's identity; it may do nothing in Kubernetes.",
    "statsd": "The exporter's identity; it may do nothing in Kubernetes.",
    "reaper": "The reapers' identity.",
    "pgbouncer": "PgBouncer's identity; it may do nothing in Kubernetes.",
    "admin-user": "The identity of the Job that makes the first user; it may do nothing in Kubernetes.",
}


def rbac(values: Values) -> Iterator[Rendered]:
    """Yield service accounts, roles and bindings."""
    yield from _accounts(values)
    for namespace in values.worker_namespaces:
        yield from _grant(values, namespace, "executor", executor_rules(values), "scheduler", _EXECUTOR)
        yield from _grant(values, namespace, "log-reader", log_rules(), "api-server", _LOGS)
        if values.workers.launch_pods:
            rules = launcher_rules()
            yield from _grant(values, namespace, "launcher", rules, "worker", _LAUNCHER, subject_namespace=namespace)
            if values.triggerer.replicas:
                yield from _bind(values, namespace, "launcher", "triggerer", values.namespace)
    if values.reaper.namespaces:
        yield from _grant(values, values.namespace, "reaper-lease", lease_rules(values), "reaper", _LEASE)
    for namespace in values.reaper.namespaces:
        yield from _grant(values, namespace, "reaper", reaper_rules(values), "reaper", _REAPER)


_EXECUTOR = "what the executor calls to run tasks in pods"
_LOGS = "what showing the log of a running task takes"
_LAUNCHER = "what tasks and triggers need to run pods of their own"
_REAPER = "what ending the sidecars of finished pods takes"
_LEASE = "what it takes that one of several reapers works"


def executor_rules(values: Values) -> list[Manifest]:
    """Return what the executor calls: pods, their logs to keep them, and the Secrets that workloads travel in."""
    rules = [_rule("pods", "create", "get", "list", "watch", "patch", "delete")]
    if _keeps_logs(values):
        rules.append(_rule("pods/log", "get"))
    if values.config.get("crosswind", {}).get("workload_delivery", "secret") == "secret":
        rules.append(_rule("secrets", "create", "list", "patch", "delete"))
    # says which volume a waiting pod waits for
    rules.append(_rule("events", "list"))
    if _keeps_pods(values):
        rules += _ending_rules()
    return rules


def _keeps_pods(values: Values) -> bool:
    """Whether any pod stays when its task has ended: by Airflow's default those of failed tasks do."""
    options = values.config.get("kubernetes_executor", {})
    deletes = {
        name: str(options.get(name, default)).lower() in ("true", "t", "1")
        for name, default in (("delete_worker_pods", True), ("delete_worker_pods_on_failure", False))
    }
    return not all(deletes.values())


def _keeps_logs(values: Values) -> bool:
    wanted = values.config.get("crosswind", {}).get("archive_logs", "auto")
    return wanted == "always" or (wanted == "auto" and isinstance(values.logs, ArchiveLogs))


def log_rules() -> list[Manifest]:
    """Return what an API server calls to show the log of a running task."""
    return [_rule("pods", "list"), _rule("pods/log", "get")]


def launcher_rules() -> list[Manifest]:
    """Return what a pod operator calls, in a worker or in a triggerer."""
    return [
        _rule("pods", "create", "get", "list", "watch", "patch", "delete"),
        _rule("pods/log", "get"),
        _rule("events", "list"),
        *_ending_rules(),  # a task may keep its pod (on_finish_action)
    ]


def reaper_rules(values: Values) -> list[Manifest]:
    """Return the permission set of ``docs/reaper.md`` that the values name."""
    rules = [
        _rule("pods", "get", "list", "watch"),
        _rule("pods/portforward", "get", "create"),
        _rule("events", "create", "list"),
    ]
    if values.reaper.permissions in ("B", "C"):
        rules.append(_rule("pods/exec", "get", "create"))
    if values.reaper.permissions == "C":
        rules.append(_rule("pods", "patch", "delete"))
    return rules


def lease_rules(values: Values) -> list[Manifest]:
    """Return what the reapers do with their Lease; making one cannot be narrowed by name."""
    leases = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    return [
        {**leases, "verbs": ["create"]},
        {**leases, "resourceNames": [named(values, "reaper")], "verbs": ["get", "update"]},
    ]


def _ending_rules() -> list[Manifest]:
    """Return what ending the sidecars of a kept pod takes, and reporting it on the pod."""
    return [
        _rule("pods/portforward", "get", "create"),
        _rule("pods/exec", "get", "create"),
        _rule("events", "create"),
    ]


def _rule(resource: str, *verbs: str) -> Manifest:
    return {"apiGroups": [""], "resources": [resource], "verbs": [*verbs]}


def _accounts(values: Values) -> Iterator[Rendered]:
    for component, reason in _ACCOUNTS.items():
        if component == "statsd" and not values.metrics.statsd:
            continue
        if component == "triggerer" and not values.triggerer.replicas:
            continue
        if component == "reaper" and not values.reaper.namespaces:
            continue
        if component == "pgbouncer" and not values.pgbouncer.config:
            continue
        if component == "admin-user" and not values.web.admin:
            continue
        yield _account(values, component, reason, values.namespace)
    for namespace in values.worker_namespaces:
        reason = "The tasks' identity" + ("." if values.workers.launch_pods else "; it may do nothing in Kubernetes.")
        yield _account(values, "worker", reason, namespace)


def _account(values: Values, component: str, reason: str, namespace: str) -> Rendered:
    own = {"worker": "workers"}.get(component, component.replace("-", "_"))
    part = getattr(values, own, None)
    manifest = new(values, "v1/ServiceAccount", named(values, component), component, namespace=namespace)
    if isinstance(part, Identity) and (annotations := _identity(part)):
        manifest["metadata"]["annotations"] = annotations
    # pods that need the token ask for it themselves
    manifest["automountServiceAccountToken"] = False
    return Rendered(f"rbac/{_place(values, namespace)}{component}-service-account.yaml", reason, manifest)


def _identity(part: Identity) -> dict[str, str]:
    """Return the annotation by which a cloud gives a service account's pods an identity of its own."""
    names = {
        "eks.amazonaws.com/role-arn": part.aws_role,
        "iam.gke.io/gcp-service-account": part.gcp_service_account,
        "azure.workload.identity/client-id": part.azure_client,
    }
    return {name: value for name, value in names.items() if value}


def _place(values: Values, namespace: str) -> str:
    return "" if namespace == values.namespace else f"{namespace}/"


def _grant(
    values: Values,
    namespace: str,
    role: str,
    rules: list[Manifest],
    subject: str,
    reason: str,
    *,
    subject_namespace: str | None = None,
) -> Iterator[Rendered]:
    manifest = new(values, f"{_GROUP}/v1/Role", named(values, role), subject, namespace=namespace, rules=rules)
    path = f"rbac/{_place(values, namespace)}{role}-role.yaml"
    yield Rendered(path, f"Exactly {reason}, in namespace {namespace}.", manifest)
    yield from _bind(values, namespace, role, subject, subject_namespace or values.namespace)


def _bind(values: Values, namespace: str, role: str, subject: str, subject_namespace: str) -> Iterator[Rendered]:
    account = {"kind": "ServiceAccount", "name": named(values, subject), "namespace": subject_namespace}
    manifest = new(
        values,
        f"{_GROUP}/v1/RoleBinding",
        named(values, f"{role}-{subject}"),
        subject,
        namespace=namespace,
        roleRef={"apiGroup": _GROUP, "kind": "Role", "name": named(values, role)},
        subjects=[account],
    )
    path = f"rbac/{_place(values, namespace)}{role}-{subject}-binding.yaml"
    yield Rendered(path, f"Gives the {subject} the permissions of role {named(values, role)}.", manifest)
