"""The names that messages use for a pod's fields, so that a message names what the task's author can change.

The author of an executor's task changes a pod template or ``pod_override``; the author of a ``KubernetesPodOperator``
changes its arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EXECUTOR_FIELDS", "OPERATOR_FIELDS", "FieldNames"]


@dataclass(frozen=True, slots=True)
class FieldNames:
    """The names of a pod's fields where its task is defined. The defaults are the executor's."""

    account: str = "scheduler's"
    """The component whose service account creates the pod."""
    memory_limit: str = "resources.limits.memory of {base} in the task's pod_override or in the template"
    memory: str = "resources.requests.memory and limits.memory of {base}"
    own_requests: str = "resources.requests (memory, ephemeral-storage) of base"
    requests: str = "resources.requests"
    resources: str = "resources in the template"
    deadline: str = "raise it in the template or pod_override"
    spec: str = "the template or pod_override"
    pull_secrets: str = "imagePullSecrets"
    user: str = "securityContext.runAsUser to a number other than 0 (50000 in Airflow's images)"
    program: str = " (base needs python and Airflow)"
    toleration: str = "add a toleration for the taint"
    placement: str = "correct nodeSelector or affinity"
    priority: str = "priorityClassName"
    volume: str = "the volume in the template"
    service_account: str = "serviceAccountName in the template"
    namespace: str = "namespace in the template or configuration"


EXECUTOR_FIELDS = FieldNames()
OPERATOR_FIELDS = FieldNames(
    account="worker's",
    memory_limit="limits.memory in container_resources",
    memory="requests.memory and limits.memory in container_resources",
    own_requests="requests (memory, ephemeral-storage) in container_resources",
    requests="requests in container_resources",
    resources="container_resources, that of crosswind-xcom in the connection's xcom_sidecar_container_resources",
    deadline="raise active_deadline_seconds",
    spec="the operator's arguments or its pod_template_file",
    pull_secrets="image_pull_secrets",
    user="container_security_context.runAsUser to a number other than 0",
    program="",
    toleration="add one to tolerations for the taint",
    placement="correct node_selector or affinity",
    priority="priority_class_name",
    volume="volumes",
    service_account="service_account_name",
    namespace="namespace",
)
