"""The workers' pod template, without the database's address, the Fernet key and a service account token."""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.deploy import dag_files, meshes
from crosswind.deploy.airflow_config import AIRFLOW_CFG
from crosswind.deploy.objects import RenderedObject, as_yaml, labels, named, new
from crosswind.deploy.pod_specs import (
    CONTAINER_SECURITY,
    config_mounts,
    config_volumes,
    identity_labels,
    pod_security,
    scheduling,
)
from crosswind.deploy.values import Values
from crosswind.types import Manifest

__all__ = ["UNMOVED", "worker_pod", "workers"]

UNMOVED = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
"""A task whose pod is moved to another node starts again from the beginning."""


def workers(values: Values) -> Iterator[RenderedObject]:
    """Yield the ConfigMap with the template from which the executor creates task pods."""
    data = {"pod_template.yaml": as_yaml(worker_pod(values))}
    yield RenderedObject(
        "workers/pod-template.yaml",
        "The template of the task pods, one for each task; the executor in the scheduler reads it.",
        new(values, "v1/ConfigMap", named(values, "pod-template"), "worker", data=data),
    )


def worker_pod(values: Values) -> Manifest:
    """Return the template as a Pod."""
    own = values.workers
    meshed = values.mesh.workers
    mesh_labels = meshes.pod_labels(values) if meshed else meshes.unmeshed_labels(values)
    mesh_annotations = meshes.unmeshed_annotations(values)
    if meshed:
        mesh_annotations = meshes.pod_annotations(values, calls_kubernetes=own.launch_pods)
    annotations = {
        **UNMOVED,
        **mesh_annotations,
        **values.pods.annotations,
        **own.annotations,
    }
    spec: Manifest = {
        "restartPolicy": "Never",
        "serviceAccountName": named(values, "worker"),
        "automountServiceAccountToken": own.launch_pods,
        "enableServiceLinks": False,
        "securityContext": pod_security(values),
        "terminationGracePeriodSeconds": 600,
        **scheduling(values, own),
        "initContainers": dag_files.init_containers(values),
        "containers": [_base(values)],
        "volumes": [*config_volumes(values), *dag_files.volumes(values), *values.pods.volumes, *own.volumes],
    }
    if own.affinity:
        spec["affinity"] = own.affinity
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": named(values, "worker"),
            "labels": labels(values, "worker") | mesh_labels | identity_labels(own),
            "annotations": annotations,
        },
        "spec": {name: value for name, value in spec.items() if value != []},
    }


def _base(values: Values) -> Manifest:
    own = values.workers
    env = [
        {"name": "AIRFLOW_CONFIG", "value": AIRFLOW_CFG},
        {"name": "CONNECTION_CHECK_MAX_COUNT", "value": "0"},  # the image's entrypoint would wait for a database
        *dag_files.environment(values),
        *values.pods.env,
        *own.env,
    ]
    return {
        "name": "base",
        "image": values.image,
        "imagePullPolicy": values.image_pull_policy,
        "env": [*{variable["name"]: variable for variable in env}.values()],
        "resources": own.resources,
        "securityContext": {**CONTAINER_SECURITY, "readOnlyRootFilesystem": own.read_only_root},
        "volumeMounts": [
            *config_mounts(),
            *dag_files.mounts(values),
            *values.pods.volume_mounts,
            *own.volume_mounts,
        ],
    }
