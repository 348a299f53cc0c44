"""An admission policy: task pods may use their own Secrets and service account, and no others.

The namespace of the task pods may hold credentials of repositories and Secrets of other teams. The author of a DAG can
request any of them by ``pod_override``, so only the API server can refuse them. Needs Kubernetes 1.30 or later; the
language is CEL (https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/).
"""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy.objects import RenderedObject, labels, named
from crosswind.deploy.references import VOLUME_SECRETS, references
from crosswind.deploy.values import Values
from crosswind.deploy.worker_template import worker_pod
from crosswind.engine.workload_secrets import SECRET_PREFIX, WORKLOAD_VOLUME
from crosswind.types import Manifest

__all__ = ["worker_admission"]

_GROUP = "admissionregistration.k8s.io/v1"
_CONTAINERS = (
    "object.spec.containers + (has(object.spec.initContainers) ? object.spec.initContainers : [])"
    " + (has(object.spec.ephemeralContainers) ? object.spec.ephemeralContainers : [])"
)


def worker_admission(values: Values) -> Iterator[RenderedObject]:
    """Yield the policy and its binding if ``workers.admissionPolicy`` is on."""
    if not values.workers.admission_policy:
        return
    name = f"{values.namespace}-{named(values, 'workers')}"
    metadata = {"name": name, "labels": labels(values, "worker")}
    yield RenderedObject(
        "workers/admission-policy.yaml",
        "Refuses task pods that use other Secrets or service accounts than their own.",
        {
            "apiVersion": _GROUP,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": metadata,
            "spec": _policy(values),
        },
    )
    selector = {
        "matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "In", "values": [*values.worker_namespaces]}
        ]
    }
    yield RenderedObject(
        "workers/admission-binding.yaml",
        "Applies the policy to the namespaces of the workers.",
        {
            "apiVersion": _GROUP,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": metadata,
            "spec": {
                "policyName": name,
                "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": selector},
            },
        },
    )


def _policy(values: Values) -> Manifest:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    ephemeral = {**rule, "operations": ["UPDATE"], "resources": ["pods/ephemeralcontainers"]}
    return {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule, ephemeral]},
        "variables": [
            {"name": "containers", "expression": _CONTAINERS},
            {"name": "volumes", "expression": "has(object.spec.volumes) ? object.spec.volumes : []"},
            {"name": "secrets", "expression": _list(_secrets(values))},
            {"name": "accounts", "expression": _list([named(values, "worker"), *values.workers.service_accounts])},
        ],
        "validations": [
            _refuses(
                "has(object.spec.serviceAccountName) && object.spec.serviceAccountName in variables.accounts",
                "task pods must use the workers' service account; add others to workers.serviceAccounts",
            ),
            _refuses(
                "variables.containers.all(c, !has(c.env) || c.env.all(e, !has(e.valueFrom)"
                " || !has(e.valueFrom.secretKeyRef) || e.valueFrom.secretKeyRef.name in variables.secrets))",
                "a variable of a task's pod refers to a Secret that is not named in workers.secrets",
            ),
            _refuses(
                "variables.containers.all(c, !has(c.envFrom) || c.envFrom.all(e, !has(e.secretRef)"
                " || e.secretRef.name in variables.secrets))",
                "envFrom of a task's pod refers to a Secret that is not named in workers.secrets",
            ),
            _refuses(
                "variables.volumes.all(v, !has(v.secret) || !has(v.secret.secretName)"
                " || v.secret.secretName in variables.secrets"
                f" || (v.name == '{WORKLOAD_VOLUME}'"
                f" && v.secret.secretName.matches('^{SECRET_PREFIX}[0-9a-f]{{16}}$')))",
                "a volume of a task's pod refers to a Secret that is not named in workers.secrets",
            ),
            _refuses(
                "variables.volumes.all(v, !has(v.projected) || !has(v.projected.sources)"
                " || v.projected.sources.all(s, !has(s.secret) || s.secret.name in variables.secrets))",
                "a projected volume of a task's pod refers to a Secret that is not named in workers.secrets",
            ),
            _refuses(
                f"variables.volumes.all(v, {' && '.join(_driver_rules())})",
                "the driver of a volume of a task's pod gets a Secret that is not named in workers.secrets",
            ),
        ],
    }


def _driver_rules() -> Iterator[str]:
    """Yield a condition for each kind of volume whose driver, and not the pod itself, reads a Secret."""
    for kind, path in VOLUME_SECRETS.items():
        if kind != "secret":
            fields = [".".join(("v", kind, *path[:depth])) for depth in range(len(path) + 1)]
            yield f"({' || '.join(f'!has({field})' for field in fields)} || {fields[-1]} in variables.secrets)"


def _secrets(values: Values) -> list[str]:
    """Return the Secrets that the pod template refers to, and those that the values allow."""
    worker = {**worker_pod(values), "metadata": {"namespace": values.worker_namespaces[0]}}
    own = {name for kind, _, name in references(worker) if kind == "Secret"}
    return sorted({*own, *values.workers.secrets})


def _list(names: list[str]) -> str:
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"


def _refuses(expression: str, message: str) -> Manifest:
    return {"expression": expression, "message": message}
