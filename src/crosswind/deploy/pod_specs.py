"""The pod template that all of Airflow's programs share: user, configuration, secrets, volumes, DAG files, mesh.

Programs wait for the migrations in an init container, or in the main container where an ordinary sidecar provides the
network only after the init containers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from crosswind.deploy import dag_files, meshes
from crosswind.deploy.airflow_config import AIRFLOW_CFG, CONFIG_FOLDER, LOGS_FOLDER, config_data
from crosswind.deploy.objects import digest, labels, named, secret_env
from crosswind.deploy.value_sections import ComponentValues, IdentityValues, PodValues, SecretKey, VolumeLogs
from crosswind.deploy.values import Values
from crosswind.deploy.volume_claims import claim_name
from crosswind.types import Json, Manifest

__all__ = [
    "CONTAINER_SECURITY",
    "AirflowProgram",
    "config_mounts",
    "config_volumes",
    "identity_labels",
    "pod_security",
    "pod_template",
    "scheduling",
]

CONTAINER_SECURITY: Manifest = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_MIGRATION_WAIT_S = 600
_SECRETS = {
    "database": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "fernet_key": "AIRFLOW__CORE__FERNET_KEY",
    "api_secret_key": "AIRFLOW__API__SECRET_KEY",
    "jwt_secret": "AIRFLOW__API_AUTH__JWT_SECRET",
}


@dataclass(frozen=True)
class AirflowProgram:
    """One of Airflow's programs: its command, and the secrets, permissions and files that it needs."""

    component: str
    command: tuple[str, ...]
    secrets: tuple[str, ...] = ("database", "fernet_key")
    ports: Mapping[str, int] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    probes: Mapping[str, Manifest] = field(default_factory=dict)
    calls_kubernetes: bool = False
    reads_dags: bool = False
    waits: bool = True
    """Whether it starts only after the migrations."""
    grace_s: int = 60
    mounts: Mapping[str, str] = field(default_factory=dict)
    """Further ConfigMaps to mount: the folder by the ConfigMap's name."""


def pod_template(values: Values, program: AirflowProgram, own: ComponentValues) -> Manifest:
    """Return the pod template of a program's Deployment, StatefulSet or Job."""
    main = _main_container(values, program, own)
    init = [] if values.in_main_wait or not program.waits else [_waiting_container(values, own)]
    spec: Manifest = {
        "serviceAccountName": named(values, program.component),
        "automountServiceAccountToken": program.calls_kubernetes,
        "enableServiceLinks": False,
        "securityContext": pod_security(values),
        "terminationGracePeriodSeconds": program.grace_s,
        **scheduling(values, own),
        "initContainers": [*(dag_files.init_containers(values) if program.reads_dags else ()), *init],
        "containers": [main, *(dag_files.sidecars(values) if program.reads_dags else ())],
        "volumes": _volumes(values, program, own),
    }
    if own.affinity:
        spec["affinity"] = own.affinity
    metadata = {
        "labels": labels(values, program.component) | meshes.pod_labels(values) | identity_labels(own),
        "annotations": {
            "checksum/config": digest(config_data(values)),
            **meshes.pod_annotations(values, calls_kubernetes=program.calls_kubernetes),
            **values.pods.annotations,
            **own.annotations,
        },
    }
    return {"metadata": metadata, "spec": {name: value for name, value in spec.items() if value != []}}


def pod_security(values: Values) -> Manifest:
    """Return the user of Airflow's images with group 0, which their entrypoint requires, and no privileges.

    On OpenShift the namespace's range determines the user and the group of volumes; the images run as any user of
    group 0.
    """
    if values.platform == "openshift":
        return {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "runAsNonRoot": True,
        "runAsUser": 50000,
        "runAsGroup": 0,
        "fsGroup": 0,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def identity_labels(own: IdentityValues) -> dict[str, str]:
    """Return the label that AKS' workload identity webhook selects pods by."""
    return {"azure.workload.identity/use": "true"} if own.azure_client else {}


def scheduling(values: Values, own: PodValues) -> Manifest:
    """Return pull secrets, node selector, tolerations and priority. A component's own values override those of all."""
    fields: Manifest = {
        "imagePullSecrets": [{"name": name} for name in values.image_pull_secrets],
        "nodeSelector": {**values.pods.node_selector, **own.node_selector},
        "tolerations": [*values.pods.tolerations, *own.tolerations],
        "priorityClassName": own.priority_class or values.pods.priority_class,
    }
    return {name: value for name, value in fields.items() if value}


def config_volumes(values: Values) -> list[Manifest]:
    """Return the volumes that every Airflow process needs, because the root file system is read-only."""
    logs: Manifest = {"name": "logs", "emptyDir": {}}
    if isinstance(values.logs, VolumeLogs):
        claim = claim_name(values, "logs", values.logs.volume)
        logs = {"name": "logs", "persistentVolumeClaim": {"claimName": claim}}
    config = {"name": "config", "configMap": {"name": named(values, "config")}}
    return [config, logs, {"name": "tmp", "emptyDir": {}}]


def config_mounts() -> list[Manifest]:
    """Return the mounts of ``config_volumes``, without subPath: the kubelet never updates a file mounted by subPath."""
    return [
        {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
        {"name": "logs", "mountPath": LOGS_FOLDER},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a folder in the pod
    ]


def _main_container(values: Values, program: AirflowProgram, own: ComponentValues) -> Manifest:
    waits = program.waits and values.in_main_wait
    container: Manifest = {
        "name": program.component,
        "image": values.image,
        "imagePullPolicy": values.image_pull_policy,
        "args": _after_migrations(program.command) if waits else [*program.command],
        "env": _environment(values, program, own),
        "ports": [{"name": name, "containerPort": port} for name, port in program.ports.items()],
        "resources": own.resources,
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [
            *config_mounts(),
            *(dag_files.mounts(values) if program.reads_dags else ()),
            *({"name": name, "mountPath": folder, "readOnly": True} for name, folder in program.mounts.items()),
            *values.pods.volume_mounts,
            *own.volume_mounts,
        ],
        **program.probes,
    }
    return {name: value for name, value in container.items() if value != []}


_WAIT_COMMAND = ("airflow", "db", "check-migrations", f"--migration-wait-timeout={_MIGRATION_WAIT_S}")


def _waiting_container(values: Values, own: ComponentValues) -> Manifest:
    program = AirflowProgram("", (), secrets=("database",))
    return {
        "name": "wait-for-migrations",
        "image": values.image,
        "imagePullPolicy": values.image_pull_policy,
        "args": [*_WAIT_COMMAND],
        "env": [*_environment(values, program, own), {"name": "CONNECTION_CHECK_MAX_COUNT", "value": "0"}],
        "resources": own.resources,
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [*config_mounts(), *values.pods.volume_mounts, *own.volume_mounts],
    }


def _after_migrations(command: Iterable[str]) -> list[str]:
    """Wait in the main container: init containers run before ordinary sidecars and have no network."""
    return ["bash", "-c", f"{' '.join(_WAIT_COMMAND)} && exec {' '.join(command)}"]


def _environment(values: Values, program: AirflowProgram, own: PodValues) -> list[Manifest]:
    secrets: dict[str, SecretKey] = {name: getattr(values.secrets, name) for name in program.secrets}
    variables = [
        {"name": "AIRFLOW_CONFIG", "value": AIRFLOW_CFG},
        *(secret_env(_SECRETS[name], secret) for name, secret in secrets.items()),
        *({"name": name, "value": value} for name, value in program.env.items()),
        *(dag_files.environment(values) if program.reads_dags else ()),
        *values.pods.env,
        *own.env,
    ]
    return [*{variable["name"]: variable for variable in variables}.values()]


def _volumes(values: Values, program: AirflowProgram, own: PodValues) -> list[Json]:
    return [
        *config_volumes(values),
        *(dag_files.volumes(values) if program.reads_dags else ()),
        *({"name": name, "configMap": {"name": named(values, name)}} for name in program.mounts),
        *values.pods.volumes,
        *own.volumes,
    ]
