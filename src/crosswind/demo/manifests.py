"""The objects that the demo creates in a cluster, and the pod template of its workers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from crosswind.types import Manifest

__all__ = ["FOR_SLOW_MACHINES", "SLOW_MACHINE_CONFIG", "files", "namespace", "output_claim", "worker_template"]

AIRFLOW_HOME = "/opt/airflow"
SLOW_MACHINE_CONFIG = {"core": {"dagbag_import_timeout": 300}, "workers": {"execution_api_timeout": 60}}
"""Of services and workers. The first import of Airflow takes long there, and so does the API server's first answer to a
worker. One that gives up after Airflow's 5 s has its start refused when it repeats it, so that the task fails."""

FOR_SLOW_MACHINES = {
    f"AIRFLOW__{section.upper()}__{option.upper()}": str(value)
    for section, options in SLOW_MACHINE_CONFIG.items()
    for option, value in options.items()
}
"""The same as environment."""

OUTPUT_CLAIM = "demo-output"


def namespace(name: str) -> Manifest:
    """Return a namespace with Istio's injection."""
    labels = {"istio-injection": "enabled", "app.kubernetes.io/part-of": "crosswind-demo"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def files(name: str, contents: Mapping[str, str]) -> Manifest:
    """Return a ConfigMap of text files. ``contents``: the texts by path."""
    data = {_key(path): text for path, text in contents.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": _config_map(name)}, "data": data}


def _config_map(name: str) -> str:
    return f"demo-{name.replace('_', '-')}"


def _key(path: str) -> str:
    """Return the key of a file: keys must not contain slashes."""
    return path.replace("/", "__")


def _files_volume(name: str, paths: Iterable[str]) -> Manifest:
    items = [{"key": _key(path), "path": path} for path in paths]
    return {"configMap": {"name": _config_map(name), "items": items}}


def output_claim() -> Manifest:
    """Return the claim of the volume that the tasks share."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "100Mi"}}}
    metadata = {"name": OUTPUT_CLAIM}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def worker_template(
    image: str, pull_policy: str, execution_api_url: str, mounts: Mapping[str, Iterable[str]]
) -> Manifest:
    """Return the pod template: a shared output volume, and no secrets.

    ``mounts``: folders in Airflow's home whose files come from ConfigMaps, each with the paths of its files.
    """
    environment = {
        "AIRFLOW_HOME": AIRFLOW_HOME,
        "AIRFLOW__CORE__DAGS_FOLDER": f"{AIRFLOW_HOME}/dags",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": execution_api_url,
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": f"{AIRFLOW_HOME}/logs",
        "PYTHONWARNINGS": "ignore",
        **FOR_SLOW_MACHINES,
    }
    volumes: dict[str, Manifest] = {
        **{name: _files_volume(name, paths) for name, paths in mounts.items()},
        "output": {"persistentVolumeClaim": {"claimName": OUTPUT_CLAIM}},
        "logs": {"emptyDir": {}},
    }
    names = {name: name.replace("_", "-") for name in volumes}
    base = {
        "name": "base",
        "image": image,
        "imagePullPolicy": pull_policy,
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "volumeMounts": [{"name": names[name], "mountPath": f"{AIRFLOW_HOME}/{name}"} for name in volumes],
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [base],
        "volumes": [{"name": names[name]} | source for name, source in volumes.items()],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"}, "spec": spec}
