"""The objects of Airflow on this machine: values for ``crosswind render``, secrets and a pod template. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from crosswind.demo.manifests import FOR_SLOW_MACHINES, SLOW_MACHINE_CONFIG
from crosswind.deploy.values import Values
from crosswind.types import Manifest

__all__ = [
    "NAMESPACE",
    "OUTPUT",
    "WORKERS",
    "SharedFolders",
    "for_this_machine",
    "namespaces",
    "secret",
    "values",
    "worker_template",
]

NAMESPACE = "airflow"
WORKERS = "airflow-tasks"
"""The namespace of the task pods. Only these get a mesh sidecar."""
AIRFLOW_HOME = "/opt/airflow"
OUTPUT = f"{AIRFLOW_HOME}/output"
"""A folder that all pods share, as they see it."""
CONTAINER_FOLDERS = ("/tmp", "/run", "/dev", "/proc", "/sys")  # noqa: S108 - paths, not files
"""Folders that a container has of its own; under all others it sees this machine's files."""
POD_TEMPLATE = "pod_template.yaml"


@dataclass(frozen=True, slots=True)
class SharedFolders:
    """The folders of this machine that pods mount: the DAG folder, at its own path, and the shared folder."""

    dags: Path
    output: Path

    @property
    def mounted(self) -> Path:
        """The folder to mount for the DAGs.

        DAG files may read files beside their folder. Containers see those, because they see this machine's files. But
        under /tmp and the like they see only mounted folders, so there the parent folder is mounted, unless it is /tmp
        itself.
        """
        parent = self.dags.parent
        is_hidden = any(parent.is_relative_to(folder) for folder in CONTAINER_FOLDERS)
        return parent if is_hidden and str(parent) not in CONTAINER_FOLDERS else self.dags

    def volumes(self) -> list[Manifest]:
        """Return the volumes of a pod."""
        return [
            {"name": "dags", "hostPath": {"path": str(self.mounted), "type": "Directory"}},
            {"name": "output", "hostPath": {"path": str(self.output), "type": "Directory"}},
        ]

    def mounts(self) -> list[Manifest]:
        """Return the mounts of a container."""
        return [
            {"name": "dags", "mountPath": str(self.mounted), "readOnly": True},
            {"name": "output", "mountPath": OUTPUT},
        ]


def namespaces(inject: bool) -> Iterator[Manifest]:
    """Yield the namespaces of Airflow and of its workers; only workers get a sidecar."""
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    labels = {"istio-injection": "enabled"} if inject else {}
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": WORKERS, "labels": labels}}


def secret(name: str, data: Mapping[str, str]) -> Manifest:
    """Return a Secret. ``data``: its values as text."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "stringData": {**data}}


def worker_template(image: str, folders: SharedFolders, execution_api_url: str) -> Manifest:
    """Return the template of the task pods, for an Airflow whose components are processes."""
    environment = {
        "AIRFLOW_HOME": AIRFLOW_HOME,
        "AIRFLOW__CORE__DAGS_FOLDER": str(folders.dags),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": execution_api_url,
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": f"{AIRFLOW_HOME}/logs",
        **FOR_SLOW_MACHINES,
    }
    base = {
        "name": "base",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "volumeMounts": [*folders.mounts(), {"name": "logs", "mountPath": f"{AIRFLOW_HOME}/logs"}],
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [base],
        "volumes": [*folders.volumes(), {"name": "logs", "emptyDir": {}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"}, "spec": spec}


def values(
    image: str,
    version: str,
    folders: SharedFolders,
    sockets: Path,
    config: Mapping[str, Mapping[str, str | int | bool]],
) -> Values:
    """Return the values of an Airflow in pods whose database is on this machine."""
    database = {"name": "database", "hostPath": {"path": str(sockets), "type": "Directory"}}
    pods = {
        "volumes": [*folders.volumes(), database],
        "volumeMounts": [*folders.mounts(), {"name": "database", "mountPath": str(sockets)}],
    }
    content = {
        "image": image,
        "airflowVersion": version,
        "createNamespaces": False,
        "namespace": NAMESPACE,
        "config": {
            section: {**SLOW_MACHINE_CONFIG.get(section, {}), **config.get(section, {})}
            for section in {**SLOW_MACHINE_CONFIG, **config}
        },
        "dags": {"source": "image", "path": str(folders.dags)},
        "web": {"auth": "simple"},
        "metrics": {"statsd": False},
        "network": {"policies": False},
        "apiServer": {"replicas": 1},
        "pods": pods,
        "workers": {"namespaces": [WORKERS], "launchPods": True, "readOnlyRoot": False},
    }
    return Values.model_validate(content)


def for_this_machine(manifest: Manifest) -> Manifest:
    """Return a rendered object whose pods run as this process's user, not as the user of Airflow's image.

    On this machine the image is the Python of this process, which other users may not be allowed to read.
    """
    changed = copy.deepcopy(manifest)
    if template := ((changed.get("spec") or {}).get("template") or {}).get("spec"):
        _drop_user(template)
    if text := (changed.get("data") or {}).get(POD_TEMPLATE):
        pod = yaml.safe_load(text)
        _drop_user(pod["spec"])
        changed["data"][POD_TEMPLATE] = yaml.safe_dump(pod, sort_keys=False)
    return changed


def _drop_user(spec: Manifest) -> None:
    for name in ("runAsUser", "runAsGroup", "runAsNonRoot", "fsGroup", "fsGroupChangePolicy", "supplementalGroups"):
        (spec.get("securityContext") or {}).pop(name, None)
