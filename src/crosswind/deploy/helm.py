"""The same deployment as values for Airflow's official Helm chart, version 1.22, and what that chart cannot say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crosswind.deploy import meshes
from crosswind.deploy.configuration import derived_options
from crosswind.deploy.values import (
    BundleDags,
    Component,
    GitSyncDags,
    RemoteLogs,
    Values,
    VolumeDags,
    VolumeLogs,
    Workers,
)
from crosswind.deploy.volumes import claim_name
from crosswind.types import Manifest

__all__ = ["helm_values", "inexpressible"]

_KEYS = {
    "database": "connection",
    "fernet_key": "fernet-key",
    "api_secret_key": "api-secret-key",
    "jwt_secret": "jwt-secret",
}
"""The keys that the chart's Secrets have."""

_POD = {
    "runAsNonRoot": True,
    "runAsUser": 50000,
    "runAsGroup": 0,
    "fsGroup": 0,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_CONTAINER = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
_TMP: Manifest = {
    "extraVolumes": [{"name": "tmp", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - a folder in the pod
}
"""With a read-only root file system the chart leaves Airflow nothing for temporary files."""

_SECURITY = {"securityContexts": {"pod": _POD, "container": _CONTAINER}}


def helm_values(values: Values) -> Manifest:
    """Return values for ``helm install RELEASE apache-airflow/airflow -f FILE``; the release is to have our name."""
    repository, tag, digest = _image(values.image)
    found: Manifest = {
        "fullnameOverride": values.name,
        "airflowVersion": values.airflow_version,
        "defaultAirflowRepository": repository,
        "defaultAirflowTag": tag,
        **({"defaultAirflowDigest": digest} if digest else {}),
        "images": {"airflow": {"pullPolicy": values.image_pull_policy}, "migrationsWaitTimeout": 600},
        "executor": values.executor,
        # the chart asks for its own executors by name where permissions are concerned
        "rbac": {"create": True},
        "allowPodLaunching": True,
        "multiNamespaceMode": values.worker_namespaces != (values.namespace,),
        "enableBuiltInSecretEnvVars": {"AIRFLOW_CONN_AIRFLOW_DB": False},
        **_secrets(values),
        "config": _config(values),
        "postgresql": {"enabled": False},
        "redis": {"enabled": False},
        "scheduler": {**_program(values, values.scheduler), **_pods(values, calls_kubernetes=True)},
        "apiServer": {**_program(values, values.api_server), **_pods(values, calls_kubernetes=True)},
        "dagProcessor": {**_program(values, values.dag_processor), **_pods(values)},
        "triggerer": {
            **_program(values, values.triggerer),
            **_pods(values),
            "enabled": values.triggerer.replicas > 0,
            "persistence": {"enabled": False},
        },
        "workers": {"kubernetes": _workers(values)},
        "migrateDatabaseJob": _migrations(values),
        "createUserJob": {"enabled": False},
        "statsd": {"enabled": values.metrics.statsd, **_statsd(values)},
    }
    found |= {key: part for key, part in (("dags", _dags(values)), ("logs", _logs(values))) if part}
    if values.image_pull_secrets:
        found["imagePullSecrets"] = [{"name": name} for name in values.image_pull_secrets]
    if values.web.host:
        found["ingress"] = {"apiServer": _ingress(values)}
    return found


def inexpressible(values: Values) -> Iterator[str]:
    """Yield what the chart cannot do that the manifests do, a line each."""
    yield "Workers get the database's address and the Fernet key, which they do not need."
    yield "Permissions are wider: schedulers, workers and triggerers share a role that may exec into pods."
    yield "The scheduler may not make Secrets for workloads: bind the role of rbac/executor-role.yaml."
    yield "Probes of the scheduler start a Python each minute."
    if values.web.host:
        yield "The Ingress brings the execution API outside: keep /execution off it in your ingress controller."
    if values.network.policies:
        yield "There are no policies for what pods may call; apply network/ of the manifests beside the chart."
    if values.mesh.kind == "istio":
        yield "Istio's objects are not part of it; apply istio/ of the manifests beside the chart."
        yield "Names of ports tell Istio no protocol."
    for field, key in _KEYS.items():
        if getattr(values.secrets, field).key != key:
            yield f"Secret {getattr(values.secrets, field).name} must have its value at key {key}."
    yield from _git_keys(values)
    if values.reaper.namespaces:
        yield "There is no reaper; apply reaper/ and rbac/*reaper* of the manifests beside the chart."
    if values.secrets.store:
        yield "Secrets are not fetched; apply secrets/ of the manifests beside the chart."
    if (isinstance(values.logs, VolumeLogs) and values.logs.volume.efs) or isinstance(values.dags, VolumeDags):
        yield "Volumes of EFS are not made; apply volumes/ of the manifests beside the chart."
    apart = [namespace for namespace in values.worker_namespaces if namespace != values.namespace]
    if apart:
        yield "With workers in other namespaces its roles hold in the whole cluster."
        names = f"{values.secrets.database.name} and {values.secrets.fernet_key.name}"
        yield (
            f"In {', '.join(apart)} it makes nothing: apply rbac/ and workers/ of the manifests there, and make copies"
            f" of Secrets {names}, which its worker pods refer to, and authors of DAGs can read."
        )
    if "@" in values.image:
        yield "Workers cannot have an image by digest: images.pod_template takes a tag only."


def _git_keys(values: Values) -> Iterator[str]:
    """Say under which keys the chart's git-sync reads the Secret; ours are others."""
    dags = values.dags
    if not isinstance(dags, GitSyncDags) or not dags.secret:
        return
    if dags.ssh:
        yield f"Secret {dags.secret} must have the private key at key gitSshKey (the manifests: ssh)."
        yield "Host keys are not read from a Secret: write the lines of known_hosts into dags.gitSync.knownHosts."
    else:
        keys = "GITSYNC_USERNAME and GITSYNC_PASSWORD"
        yield f"Secret {dags.secret} must have the keys {keys} (the manifests: username and password)."


def _image(image: str) -> tuple[str, str, str]:
    """Return repository, tag and digest."""
    name, _, digest = image.partition("@")
    head, colon, tag = name.rpartition(":")
    return (head, tag, digest) if colon and "/" not in tag else (name, "" if digest else "latest", digest)


def _secrets(values: Values) -> Manifest:
    secrets = values.secrets
    return {
        "data": {"metadataSecretName": secrets.database.name},
        "fernetKeySecretName": secrets.fernet_key.name,
        "apiSecretKeySecretName": secrets.api_secret_key.name,
        "jwtSecretName": secrets.jwt_secret.name,
    }


def _config(values: Values) -> Manifest:
    """Leave out what the chart derives itself."""
    ours = {
        "core": {"executor", "dags_folder"},
        "metrics": None,
        "logging": {"base_log_folder"},
        "fab": {"config_file"},
    }
    derived = {"pod_template_file"}
    if values.worker_namespaces == (values.namespace,):
        derived.add("namespace")
    ours["kubernetes_executor"] = derived
    found: dict[str, dict[str, Any]] = {}
    for section, options in derived_options(values).items():
        leave = ours.get(section, set())
        kept = {} if leave is None else {key: value for key, value in options.items() if key not in leave}
        if kept:
            found[section] = kept
    return found


def _program(values: Values, own: Component) -> Manifest:
    found: Manifest = {"replicas": own.replicas, "resources": own.resources, **_SECURITY}
    if own.replicas > 1:
        found["podDisruptionBudget"] = {"enabled": True, "config": {"maxUnavailable": 1}}
    if own.aws_role:
        found["serviceAccount"] = {"annotations": {"eks.amazonaws.com/role-arn": own.aws_role}}
    return {**found, **_placing(values, own)}


def _placing(values: Values, own: Component | Workers) -> Manifest:
    found: Manifest = {}
    parts = {
        "nodeSelector": {**values.pods.node_selector, **own.node_selector},
        "tolerations": [*values.pods.tolerations, *own.tolerations],
        "env": [*values.pods.env, *own.env],
        "extraVolumes": [*_TMP["extraVolumes"], *values.pods.volumes, *own.volumes],
        "extraVolumeMounts": [*_TMP["extraVolumeMounts"], *values.pods.volume_mounts, *own.volume_mounts],
        "affinity": own.affinity,
        "priorityClassName": own.priority_class or values.pods.priority_class,
    }
    found |= {key: part for key, part in parts.items() if part}
    return found


def _pods(values: Values, *, calls_kubernetes: bool = False) -> Manifest:
    return {
        "labels": meshes.pod_labels(values),
        "podAnnotations": meshes.pod_annotations(values, calls_kubernetes=calls_kubernetes),
    }


def _workers(values: Values) -> Manifest:
    own, meshed = values.workers, values.mesh.workers
    found: Manifest = {
        "resources": own.resources,
        "labels": meshes.pod_labels(values) if meshed else meshes.unmeshed_labels(values),
        "podAnnotations": meshes.pod_annotations(values) if meshed else meshes.unmeshed_annotations(values),
        **_SECURITY,
        **_placing(values, own),
    }
    if own.aws_role:
        found["serviceAccount"] = {"annotations": {"eks.amazonaws.com/role-arn": own.aws_role}}
    return found


def _migrations(values: Values) -> Manifest:
    # hooks deadlock with Argo CD, Flux and --wait
    found: Manifest = {"useHelmHooks": False, "applyCustomEnv": False, "resources": values.migrations.resources}
    found |= {**_SECURITY, **_TMP, "annotations": meshes.pod_annotations(values)}
    if values.in_main_wait:
        found["command"] = ["crosswind", "wrap", "--mesh", values.mesh.kind, "--", "/entrypoint"]
    return found


def _statsd(values: Values) -> Manifest:
    return {"podAnnotations": meshes.unmeshed_annotations(values)} if values.mesh.kind == "linkerd" else {}


def _dags(values: Values) -> Manifest:
    match values.dags:
        case VolumeDags(volume=volume):
            return {"persistence": {"enabled": True, "existingClaim": claim_name(values, "dags", volume)}}
        case GitSyncDags() as dags:
            secret = {"sshKeySecret" if dags.ssh else "credentialsSecret": dags.secret} if dags.secret else {}
            git = {"enabled": True, "repo": dags.repo, "ref": dags.ref, "subPath": dags.subdir, "depth": dags.depth}
            return {"gitSync": {**git, "period": dags.period, **secret}}
        case BundleDags():
            return {}
    return {}


def _logs(values: Values) -> Manifest:
    if isinstance(values.logs, RemoteLogs) or not isinstance(values.logs, VolumeLogs):
        return {}
    return {"persistence": {"enabled": True, "existingClaim": claim_name(values, "logs", values.logs.volume)}}


def _ingress(values: Values) -> Manifest:
    host: Manifest = {"name": values.web.host}
    if values.web.tls_secret:
        host["tls"] = {"enabled": True, "secretName": values.web.tls_secret}
    found: Manifest = {"enabled": not values.mesh.gateway, "hosts": [host], "path": values.web.path or "/"}
    if values.web.ingress_class:
        found["ingressClassName"] = values.web.ingress_class
    if values.web.annotations:
        found["annotations"] = dict(values.web.annotations)
    return found
