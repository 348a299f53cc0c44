"""What Airflow on this machine consists of: values for ``crosswind render``, secrets, and a pod template. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from crosswind.deploy.values import Values
from crosswind.types import Manifest

__all__ = [
    "NAMESPACE",
    "OUTPUT",
    "WORKERS",
    "Place",
    "for_this_machine",
    "namespaces",
    "secret",
    "values",
    "worker_template",
]

NAMESPACE = "airflow"
WORKERS = "airflow-tasks"
"""The namespace of the task pods, the only ones beside which a sidecar runs."""
AIRFLOW_HOME = "/opt/airflow"
OUTPUT = f"{AIRFLOW_HOME}/output"
"""A folder that all pods share."""
OWN = ("/tmp", "/run", "/dev", "/proc", "/sys")  # noqa: S108 - what a container has of its own
POD_TEMPLATE = "pod_template.yaml"


@dataclass(frozen=True, slots=True)
class Place:
    """What pods see of this machine: the DAG folder at its own path, and a folder to share."""

    dags: Path
    output: Path

    @property
    def shown(self) -> Path:
        """The folder to mount.

        Containers see this machine's files, so what lies beside a DAG folder is there. In /tmp and its like nothing is
        but what is mounted: the folder above is, unless that is /tmp itself.
        """
        above = self.dags.parent
        hidden = any(above.is_relative_to(own) for own in OWN)
        return above if hidden and str(above) not in OWN else self.dags

    def volumes(self) -> list[Manifest]:
        """Return the volumes of a pod."""
        return [
            {"name": "dags", "hostPath": {"path": str(self.shown), "type": "Directory"}},
            {"name": "output", "hostPath": {"path": str(self.output), "type": "Directory"}},
        ]

    def mounts(self) -> list[Manifest]:
        """Return the mounts of a container."""
        return [
            {"name": "dags", "mountPath": str(self.shown), "readOnly": True},
            {"name": "output", "mountPath": OUTPUT},
        ]


def namespaces(inject: bool) -> Iterator[Manifest]:
    """Yield the namespaces of Airflow and of its workers; only workers get the sidecar."""
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    labels = {"istio-injection": "enabled"} if inject else {}
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": WORKERS, "labels": labels}}


def secret(name: str, data: Mapping[str, str]) -> Manifest:
    """Return a Secret of texts."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "stringData": {**data}}


def worker_template(image: str, place: Place, execution_api_url: str) -> Manifest:
    """Return the template of the task pods, where Airflow's own programs are no pods."""
    environment = {
        "AIRFLOW_HOME": AIRFLOW_HOME,
        "AIRFLOW__CORE__DAGS_FOLDER": str(place.dags),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": execution_api_url,
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": f"{AIRFLOW_HOME}/logs",
    }
    base = {
        "name": "base",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "volumeMounts": [*place.mounts(), {"name": "logs", "mountPath": f"{AIRFLOW_HOME}/logs"}],
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [base],
        "volumes": [*place.volumes(), {"name": "logs", "emptyDir": {}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"}, "spec": spec}


def values(
    image: str, version: str, place: Place, sockets: Path, config: Mapping[str, Mapping[str, str | int | bool]]
) -> Values:
    """Return the values of an Airflow in pods whose database is on this machine."""
    own = {"name": "database", "hostPath": {"path": str(sockets), "type": "Directory"}}
    pods = {
        "volumes": [*place.volumes(), own],
        "volumeMounts": [*place.mounts(), {"name": "database", "mountPath": str(sockets)}],
    }
    given = {
        "image": image,
        "airflowVersion": version,
        "createNamespaces": False,
        "namespace": NAMESPACE,
        "config": {section: dict(options) for section, options in config.items()},
        "dags": {"source": "image", "path": str(place.dags)},
        "web": {"auth": "simple"},
        "metrics": {"statsd": False},
        "network": {"policies": False},
        "apiServer": {"replicas": 1},
        "pods": pods,
        "workers": {"namespaces": [WORKERS], "launchPods": True, "readOnlyRoot": False},
    }
    return Values.model_validate(given)


def for_this_machine(manifest: Manifest) -> Manifest:
    """Return a rendered object whose pods run as we do, not as the user of Airflow's image.

    The Python that stands for the image may be readable for us alone.
    """
    changed = copy.deepcopy(manifest)
    if template := ((changed.get("spec") or {}).get("template") or {}).get("spec"):
        _as_we_are(template)
    if text := (changed.get("data") or {}).get(POD_TEMPLATE):
        pod = yaml.safe_load(text)
        _as_we_are(pod["spec"])
        changed["data"][POD_TEMPLATE] = yaml.safe_dump(pod, sort_keys=False)
    return changed


def _as_we_are(spec: Manifest) -> None:
    for name in ("runAsUser", "runAsGroup", "runAsNonRoot", "fsGroup", "fsGroupChangePolicy", "supplementalGroups"):
        (spec.get("securityContext") or {}).pop(name, None)
