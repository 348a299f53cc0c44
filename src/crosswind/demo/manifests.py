"""The objects that the demo puts into a cluster, and the pod template of its workers. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from crosswind.types import Manifest

__all__ = ["files", "namespace", "output_claim", "worker_template"]

AIRFLOW_HOME = "/opt/airflow"
OUTPUT_CLAIM = "demo-output"


def namespace(name: str) -> Manifest:
    """A namespace in which Istio's injector is on."""
    labels = {"istio-injection": "enabled", "app.kubernetes.io/part-of": "crosswind-demo"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def files(name: str, contents: Mapping[str, str]) -> Manifest:
    """A ConfigMap of text files."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": dict(contents)}


def output_claim() -> Manifest:
    """The volume that the tasks share."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "100Mi"}}}
    metadata = {"name": OUTPUT_CLAIM}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def worker_template(image: str, pull_policy: str, execution_api_url: str) -> Manifest:
    """The pod template: DAG and data from ConfigMaps, a shared output volume, no secret of any kind."""
    environment = {
        "AIRFLOW_HOME": AIRFLOW_HOME,
        "AIRFLOW__CORE__DAGS_FOLDER": f"{AIRFLOW_HOME}/dags",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": execution_api_url,
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": f"{AIRFLOW_HOME}/logs",
        "PYTHONWARNINGS": "ignore",
    }
    volumes: dict[str, Manifest] = {
        "dags": {"configMap": {"name": "demo-dags"}},
        "data": {"configMap": {"name": "demo-data"}},
        "output": {"persistentVolumeClaim": {"claimName": OUTPUT_CLAIM}},
        "logs": {"emptyDir": {}},
    }
    base = {
        "name": "base",
        "image": image,
        "imagePullPolicy": pull_policy,
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "volumeMounts": [{"name": name, "mountPath": f"{AIRFLOW_HOME}/{name}"} for name in volumes],
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [base],
        "volumes": [{"name": name} | source for name, source in volumes.items()],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"}, "spec": spec}
