"""The same deployment as values for Airflow's official Helm chart, version 1.22, and the features the chart lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from crosswind.deploy import dag_files, meshes
from crosswind.deploy.airflow_config import derived_options
from crosswind.deploy.pod_specs import CONTAINER_SECURITY, identity_labels, pod_security
from crosswind.deploy.rbac_objects import identity_annotations
from crosswind.deploy.statsd_exporter import pod_user
from crosswind.deploy.value_sections import (
    BundleDags,
    ComponentValues,
    GitSyncDags,
    IdentityValues,
    ImageDags,
    VolumeDags,
    VolumeLogs,
    WorkersValues,
)
from crosswind.deploy.values import Values
from crosswind.deploy.volume_claims import claim_name
from crosswind.deploy.worker_template import UNMOVED
from crosswind.types import Manifest

__all__ = ["helm_values", "inexpressible"]

_KEYS = {
    "database": "connection",
    "fernet_key": "fernet-key",
    "api_secret_key": "api-secret-key",
    "jwt_secret": "jwt-secret",
}
"""The keys that the chart's Secrets have."""

_TMP: Manifest = {
    "extraVolumes": [{"name": "tmp", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - a folder in the pod
}
"""With a read-only root file system the chart mounts no volume for temporary files."""


_DAGS_FOLDER = "/opt/airflow/dags"
"""The chart's default."""

_GIT_SYNC_USER = 65533


def helm_values(values: Values) -> Manifest:
    """Return values for ``helm install RELEASE apache-airflow/airflow -f FILE``, with ``values.name`` as RELEASE."""
    repository, tag, digest = _image(values.image)
    chart_values: Manifest = {
        "fullnameOverride": values.name,
        "airflowVersion": values.airflow_version,
        "defaultAirflowRepository": repository,
        "defaultAirflowTag": tag,
        **({"defaultAirflowDigest": digest} if digest else {}),
        "images": _images(values),
        "executor": values.executor,
        # The chart grants permissions to launch pods only to executors that it knows by name.
        "rbac": {"create": True},
        "allowPodLaunching": True,
        "multiNamespaceMode": values.worker_namespaces != (values.namespace,),
        "enableBuiltInSecretEnvVars": {"AIRFLOW_CONN_AIRFLOW_DB": False},
        **_secrets(values),
        "config": _config(values),
        "postgresql": {"enabled": False},
        "redis": {"enabled": False},
        "scheduler": _program(values, values.scheduler, calls_kubernetes=True),
        "apiServer": {**_program(values, values.api_server, calls_kubernetes=True), **_user_management(values)},
        "dagProcessor": _program(values, values.dag_processor, reads_dags=True),
        "triggerer": {
            **_program(values, values.triggerer, reads_dags=True),
            "enabled": values.triggerer.replicas > 0,
            "persistence": {"enabled": False},
        },
        "workers": {"kubernetes": _workers(values)},
        "migrateDatabaseJob": _migrations(values),
        "createUserJob": {"enabled": False},
        "statsd": {"enabled": values.metrics.statsd, **_statsd(values)},
    }
    chart_values |= {key: part for key, part in (("dags", _dags(values)), ("logs", _logs(values))) if part}
    if values.image_pull_secrets:
        chart_values["imagePullSecrets"] = [{"name": name} for name in values.image_pull_secrets]
    if values.web.host:
        chart_values["ingress"] = {"apiServer": _ingress(values)}
    return chart_values


def inexpressible(values: Values) -> Iterator[str]:
    """Yield the features of the manifests that the chart lacks, a line each."""
    yield from (sentence for applies, sentence in _LACKS if applies(values))
    yield from _secret_keys(values)
    yield from _git_keys(values)
    yield from _in_other_namespaces(values)


def _has_new_volume(values: Values) -> bool:
    parts = (values.dags, values.logs)
    return any(part.volume.claim is None for part in parts if isinstance(part, VolumeDags | VolumeLogs))


_LACKS: tuple[tuple[Callable[[Values], bool], str], ...] = (
    (lambda _: True, "Workers get the database's address and the Fernet key, which they do not need."),
    (lambda _: True, "Permissions are wider: schedulers, workers and triggerers share a role that may exec into pods."),
    (lambda _: True, "The scheduler may not create Secrets for workloads: bind the role of rbac/executor-role.yaml."),
    (lambda _: True, "Probes of the scheduler start a Python process each minute."),
    (
        lambda values: values.web.host is not None,
        "The Ingress exposes the execution API: block /execution in your ingress controller.",
    ),
    (
        lambda values: values.network.policies,
        "There are no policies for what pods may call; apply network/ of the manifests beside the chart.",
    ),
    (
        lambda values: values.mesh.kind == "istio",
        "Istio's objects are not part of it; apply istio/ of the manifests beside the chart.",
    ),
    (lambda values: values.mesh.kind == "istio", "The names of ports do not name their protocol, which Istio reads."),
    (
        lambda values: bool(values.reaper.namespaces),
        "There is no reaper; apply reaper/ and rbac/*reaper* of the manifests beside the chart.",
    ),
    (
        lambda values: values.secrets.store is not None,
        "Secrets are not fetched; apply secrets/ of the manifests beside the chart.",
    ),
    (_has_new_volume, "Volumes and claims are not created; apply volumes/ of the manifests before the chart."),
    (
        lambda values: values.create_namespaces,
        "Namespaces and their Pod Security levels are not created; apply 00-namespace-*.yaml of the manifests first.",
    ),
    (lambda values: values.delivery != "kubectl", "It has no annotations for Argo CD or Flux, such as sync waves."),
    (lambda values: values.web.admin is not None, "The first user is not created: run airflow users create."),
    (
        lambda values: values.pgbouncer.config is not None,
        "There is no PgBouncer; apply pgbouncer/ and rbac/*pgbouncer* of the manifests beside the chart.",
    ),
    (
        lambda values: values.metrics.alerts,
        "There are no alert rules; apply monitoring/ of the manifests beside the chart.",
    ),
    (
        lambda values: values.workers.admission_policy,
        "Task pods are not limited to Secrets of their own: the policy of the manifests would refuse the chart's pods,"
        " which read the database's Secret.",
    ),
    (
        lambda values: bool(values.pods.priority_class or values.migrations.priority_class),
        "The migration Job has no priority class.",
    ),
    (
        lambda values: "@" in values.image,
        "Workers cannot have an image by digest: images.pod_template takes a tag only.",
    ),
)
"""Features that the chart lacks, and which deployments use them."""


def _secret_keys(values: Values) -> Iterator[str]:
    for field, key in _KEYS.items():
        secret = getattr(values.secrets, field)
        if secret.key != key:
            yield f"Secret {secret.name} must have its value at key {key}."


def _in_other_namespaces(values: Values) -> Iterator[str]:
    others = [namespace for namespace in values.worker_namespaces if namespace != values.namespace]
    if not others:
        return
    yield "With workers in other namespaces its roles hold in the whole cluster."
    secrets = f"{values.secrets.database.name} and {values.secrets.fernet_key.name}"
    yield (
        f"In {', '.join(others)} it creates no objects: apply rbac/ and workers/ of the manifests there, and copy the"
        f" Secrets {secrets}, to which its worker pods refer, and which authors of DAGs can read."
    )


def _git_keys(values: Values) -> Iterator[str]:
    """Yield the keys under which the chart's git-sync reads the Secret, which differ from those of the manifests."""
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
    """Return the options of airflow.cfg except those that the chart derives itself."""
    chart_options = {
        "core": {"executor", "dags_folder"},
        "metrics": None,
        "logging": {"base_log_folder"},
        "fab": {"config_file"},
    }
    derived = {"pod_template_file"}
    if values.worker_namespaces == (values.namespace,):
        derived.add("namespace")
    chart_options["kubernetes_executor"] = derived
    config: dict[str, dict[str, Any]] = {}
    for section, options in derived_options(values).items():
        omitted = chart_options.get(section, set())
        remaining = {} if omitted is None else {key: value for key, value in options.items() if key not in omitted}
        if remaining:
            config[section] = remaining
    return config


def _program(
    values: Values, own: ComponentValues, *, calls_kubernetes: bool = False, reads_dags: bool = False
) -> Manifest:
    program: Manifest = {"replicas": own.replicas, "resources": own.resources, **_security(values)}
    if own.replicas > 1:
        program["podDisruptionBudget"] = {"enabled": True, "config": {"maxUnavailable": 1}}
    mesh_annotations = meshes.pod_annotations(values, calls_kubernetes=calls_kubernetes)
    program |= {
        "labels": meshes.pod_labels(values) | identity_labels(own),
        "podAnnotations": {**mesh_annotations, **values.pods.annotations, **own.annotations},
    }
    return {**program, **_service_account(own), **_pod_values(values, own, reads_dags=reads_dags)}


def _security(values: Values, *, read_only_root: bool = True) -> Manifest:
    container = {**CONTAINER_SECURITY, "readOnlyRootFilesystem": read_only_root}
    return {"securityContexts": {"pod": pod_security(values), "container": container}}


def _service_account(own: IdentityValues) -> Manifest:
    annotations = identity_annotations(own)
    return {"serviceAccount": {"annotations": annotations}} if annotations else {}


def _pod_values(values: Values, own: ComponentValues | WorkersValues, *, reads_dags: bool = False) -> Manifest:
    # The chart itself fetches or mounts all DAG files but those of bundles.
    bundled = reads_dags and isinstance(values.dags, BundleDags)
    volumes, mounts = (dag_files.volumes(values), dag_files.mounts(values)) if bundled else ([], [])
    parts = {
        "nodeSelector": {**values.pods.node_selector, **own.node_selector},
        "tolerations": [*values.pods.tolerations, *own.tolerations],
        "env": [*(dag_files.environment(values) if bundled else ()), *values.pods.env, *own.env],
        "extraVolumes": [*_TMP["extraVolumes"], *volumes, *values.pods.volumes, *own.volumes],
        "extraVolumeMounts": [*_TMP["extraVolumeMounts"], *mounts, *values.pods.volume_mounts, *own.volume_mounts],
        "affinity": own.affinity,
        "priorityClassName": own.priority_class or values.pods.priority_class,
    }
    return {key: part for key, part in parts.items() if part}


def _workers(values: Values) -> Manifest:
    own, meshed = values.workers, values.mesh.workers
    mesh_labels = meshes.pod_labels(values) if meshed else meshes.unmeshed_labels(values)
    mesh_annotations = meshes.unmeshed_annotations(values)
    if meshed:
        mesh_annotations = meshes.pod_annotations(values, calls_kubernetes=own.launch_pods)
    return {
        "resources": own.resources,
        "labels": mesh_labels | identity_labels(own),
        "podAnnotations": {**UNMOVED, **mesh_annotations, **values.pods.annotations, **own.annotations},
        **_security(values, read_only_root=own.read_only_root),
        **_pod_values(values, own, reads_dags=True),
        **_service_account(own),
    }


def _migrations(values: Values) -> Manifest:
    own = values.migrations
    pod = _pod_values(values, own)
    pod.pop("priorityClassName", None)
    # As a Helm hook the Job would deadlock with Argo CD, Flux and --wait: hooks run after the pods that wait for it.
    job: Manifest = {"useHelmHooks": False, "applyCustomEnv": False, "resources": own.resources}
    job |= {**_security(values), **pod, **_service_account(own)}
    job |= {
        "labels": meshes.pod_labels(values) | identity_labels(own),
        "annotations": {**meshes.pod_annotations(values), **values.pods.annotations, **own.annotations},
    }
    if values.in_main_wait:
        job["command"] = ["crosswind", "wrap", "--mesh", values.mesh.kind, "--", "/entrypoint"]
    return job


def _user_management(values: Values) -> Manifest:
    """Return Flask AppBuilder's file. The chart expands it as a template."""
    if values.web.auth != "fab":
        return {}
    return {"apiServerConfig": values.web.fab_config.replace("{{", "{{ `{{` }}")}


def _images(values: Values) -> Manifest:
    images: Manifest = {"airflow": {"pullPolicy": values.image_pull_policy}, "migrationsWaitTimeout": 600}
    others = {"statsd": values.metrics.image if values.metrics.statsd else ""}
    others["gitSync"] = values.dags.image if isinstance(values.dags, GitSyncDags) else ""
    return images | {name: _repository_and_tag(image) for name, image in others.items() if image}


def _repository_and_tag(image: str) -> dict[str, str]:
    """Return an image as the chart joins it: REPOSITORY:TAG, where a digest is split at its colon too."""
    repository, tag, digest = _image(image)
    if digest:
        repository, _, tag = image.rpartition(":")
    return {"repository": repository, "tag": tag}


def _statsd(values: Values) -> Manifest:
    if not values.metrics.statsd:
        return {}
    statsd: Manifest = {"securityContexts": {"pod": pod_user(values), "container": CONTAINER_SECURITY}}
    if values.mesh.kind == "linkerd":
        statsd["podAnnotations"] = meshes.unmeshed_annotations(values)
    return statsd


def _dags(values: Values) -> Manifest:
    match values.dags:
        case ImageDags(path=path):
            return {} if path == _DAGS_FOLDER else {"mountPath": path}
        case VolumeDags(volume=volume, path=path):
            folder = {} if path == _DAGS_FOLDER else {"mountPath": path}
            return {**folder, "persistence": {"enabled": True, "existingClaim": claim_name(values, "dags", volume)}}
        case GitSyncDags() as dags:
            secret = {"sshKeySecret" if dags.ssh else "credentialsSecret": dags.secret} if dags.secret else {}
            git = {"enabled": True, "repo": dags.repo, "ref": dags.ref, "subPath": dags.subdir, "depth": dags.depth}
            return {"gitSync": {**git, "period": dags.period, **secret, "securityContexts": _git_sync_security(values)}}
        case BundleDags():
            return {}


def _git_sync_security(values: Values) -> Manifest:
    """Return the security of git-sync, which adds its user to /etc/passwd under the chart."""
    user = {} if values.platform == "openshift" else {"runAsUser": _GIT_SYNC_USER}
    return {"container": {**user, **CONTAINER_SECURITY, "readOnlyRootFilesystem": False}}


def _logs(values: Values) -> Manifest:
    if not isinstance(values.logs, VolumeLogs):
        return {}
    return {"persistence": {"enabled": True, "existingClaim": claim_name(values, "logs", values.logs.volume)}}


def _ingress(values: Values) -> Manifest:
    host: Manifest = {"name": values.web.host}
    if values.web.tls_secret:
        host["tls"] = {"enabled": True, "secretName": values.web.tls_secret}
    ingress: Manifest = {"enabled": not values.mesh.gateway, "hosts": [host], "path": values.web.path or "/"}
    if values.web.ingress_class:
        ingress["ingressClassName"] = values.web.ingress_class
    if values.web.annotations:
        ingress["annotations"] = dict(values.web.annotations)
    return ingress
