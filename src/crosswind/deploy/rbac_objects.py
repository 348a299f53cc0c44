"""Service accounts, roles and bindings. Only the programs that call Kubernetes have permissions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from crosswind.deploy.objects import RenderedObject, named, new
from crosswind.deploy.value_sections import ArchiveLogs, IdentityValues
from crosswind.deploy.values import Values
from crosswind.types import Manifest

__all__ = [
    "executor_rules",
    "identity_annotations",
    "launcher_rules",
    "lease_rules",
    "log_rules",
    "rbac",
    "reaper_rules",
]

_GROUP = "rbac.authorization.k8s.io"
_ACCOUNTS = {
    "scheduler": "The schedulers' identity.",
    "api-server": "The API servers' identity.",
    "dag-processor": "The DAG processors' identity, without permissions in Kubernetes.",
    "triggerer": "The triggerers' identity.",
    "migrations": "The migration Job's identity, without permissions in Kubernetes.",
    "statsd": "The exporter's identity, without permissions in Kubernetes.",
    "reaper": "The reapers' identity.",
    "pgbouncer": "PgBouncer's identity, without permissions in Kubernetes.",
    "admin-user": "The identity of the Job that creates the first user, without permissions in Kubernetes.",
}
"""The reason for each component's service account."""

_OPTIONAL: Mapping[str, Callable[[Values], bool]] = {
    "statsd": lambda values: values.metrics.statsd,
    "triggerer": lambda values: values.triggerer.replicas > 0,
    "reaper": lambda values: bool(values.reaper.namespaces),
    "pgbouncer": lambda values: values.pgbouncer.config is not None,
    "admin-user": lambda values: values.web.admin is not None,
}
"""Components that not every deployment has, and whether it has them."""


def rbac(values: Values) -> Iterator[RenderedObject]:
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


_EXECUTOR = "the permissions with which the executor runs tasks in pods"
_LOGS = "the permissions to show the log of a running task"
_LAUNCHER = "the permissions with which tasks and triggers run pods of their own"
_REAPER = "the permissions to end the sidecars of finished pods"
_LEASE = "the permissions with which several reapers elect the active one"


def executor_rules(values: Values) -> list[Manifest]:
    """Return the executor's permissions: pods, their logs, and the Secrets that carry workloads.

    Logs are archived. That of a pod that had waited for a task shows whether its worker has got it.
    """
    rules = [_rule("pods", "create", "get", "list", "watch", "patch", "delete")]
    if _keeps_logs(values) or values.config.get("crosswind", {}).get("warm"):
        rules.append(_rule("pods/log", "get"))
    if values.config.get("crosswind", {}).get("workload_delivery", "secret") == "secret":
        rules.append(_rule("secrets", "create", "list", "patch", "delete"))
    rules.append(_rule("events", "list"))  # only an event names the volume that a pod waits for
    if _keeps_pods(values):
        rules += _ending_rules()
    return rules


def _keeps_pods(values: Values) -> bool:
    """Return whether any pod stays after its task: by Airflow's default those of failed tasks do."""
    options = values.config.get("kubernetes_executor", {})
    defaults = {"delete_worker_pods": True, "delete_worker_pods_on_failure": False}
    return not all(str(options.get(name, default)).lower() in ("true", "t", "1") for name, default in defaults.items())


def _keeps_logs(values: Values) -> bool:
    archive_logs = values.config.get("crosswind", {}).get("archive_logs", "auto")
    return archive_logs == "always" or (archive_logs == "auto" and isinstance(values.logs, ArchiveLogs))


def log_rules() -> list[Manifest]:
    """Return an API server's permissions, to show the log of a running task."""
    return [_rule("pods", "list"), _rule("pods/log", "get")]


def launcher_rules() -> list[Manifest]:
    """Return the pod operator's permissions, in a worker or in a triggerer."""
    return [
        _rule("pods", "create", "get", "list", "watch", "patch", "delete"),
        _rule("pods/log", "get"),
        _rule("events", "list"),
        *_ending_rules(),  # on_finish_action may keep the pod
    ]


def reaper_rules(values: Values) -> list[Manifest]:
    """Return the permission set of ``docs/guides/reaper.md`` that the values name."""
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
    """Return the reapers' permissions on their Lease. RBAC cannot restrict ``create`` to a name."""
    leases = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    return [
        {**leases, "verbs": ["create"]},
        {**leases, "resourceNames": [named(values, "reaper")], "verbs": ["get", "update"]},
    ]


def _ending_rules() -> list[Manifest]:
    """Return the permissions to end the sidecars of a kept pod, and to report that in an event of the pod."""
    return [
        _rule("pods/portforward", "get", "create"),
        _rule("pods/exec", "get", "create"),
        _rule("events", "create"),
    ]


def _rule(resource: str, *verbs: str) -> Manifest:
    return {"apiGroups": [""], "resources": [resource], "verbs": [*verbs]}


def _accounts(values: Values) -> Iterator[RenderedObject]:
    for component, reason in _ACCOUNTS.items():
        if component not in _OPTIONAL or _OPTIONAL[component](values):
            yield _account(values, component, reason, values.namespace)
    for namespace in values.worker_namespaces:
        reason = "The tasks' identity" + ("." if values.workers.launch_pods else ", without permissions in Kubernetes.")
        yield _account(values, "worker", reason, namespace)


def _account(values: Values, component: str, reason: str, namespace: str) -> RenderedObject:
    section = getattr(values, "workers" if component == "worker" else component.replace("-", "_"), None)
    manifest = new(values, "v1/ServiceAccount", named(values, component), component, namespace=namespace)
    if isinstance(section, IdentityValues) and (annotations := identity_annotations(section)):
        manifest["metadata"]["annotations"] = annotations
    manifest["automountServiceAccountToken"] = False  # pods that need the token request it themselves
    return RenderedObject(f"rbac/{_place(values, namespace)}{component}-service-account.yaml", reason, manifest)


def identity_annotations(section: IdentityValues) -> dict[str, str]:
    """Return the annotation by which a cloud gives its identity to a service account's pods."""
    names = {
        "eks.amazonaws.com/role-arn": section.aws_role,
        "iam.gke.io/gcp-service-account": section.gcp_service_account,
        "azure.workload.identity/client-id": section.azure_client,
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
) -> Iterator[RenderedObject]:
    manifest = new(values, f"{_GROUP}/v1/Role", named(values, role), subject, namespace=namespace, rules=rules)
    path = f"rbac/{_place(values, namespace)}{role}-role.yaml"
    yield RenderedObject(path, f"Exactly {reason}, in namespace {namespace}.", manifest)
    yield from _bind(values, namespace, role, subject, subject_namespace or values.namespace)


def _bind(values: Values, namespace: str, role: str, subject: str, subject_namespace: str) -> Iterator[RenderedObject]:
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
    yield RenderedObject(path, f"Grants the {subject} the permissions of role {named(values, role)}.", manifest)
