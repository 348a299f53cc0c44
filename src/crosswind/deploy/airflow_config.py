"""``airflow.cfg``, which all pods of the deployment share. It holds no secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from crosswind.deploy.objects import RenderedObject, named, new
from crosswind.deploy.value_sections import BundleDags, GitSyncDags, ImageDags, PodLogs, RemoteLogs, VolumeDags
from crosswind.deploy.values import Values

__all__ = [
    "AIRFLOW_CFG",
    "BUNDLES_FOLDER",
    "CONFIG_FOLDER",
    "GIT_FOLDER",
    "LOGS_FOLDER",
    "TEMPLATE_FOLDER",
    "airflow_cfg",
    "api_port",
    "config_data",
    "config_maps",
    "dags_folder",
    "derived_options",
    "has_health_check",
    "health_port",
    "statsd_port",
    "statsd_prefix",
    "trigger_log_port",
]

CONFIG_FOLDER = "/etc/airflow"
AIRFLOW_CFG = f"{CONFIG_FOLDER}/airflow.cfg"
TEMPLATE_FOLDER = "/etc/airflow-template"
LOGS_FOLDER = "/opt/airflow/logs"
GIT_FOLDER = "/git"
BUNDLES_FOLDER = "/bundles"
_AUTH_MANAGERS = {
    "fab": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
    "simple": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
}

Options = dict[str, dict[str, Any]]


def config_maps(values: Values) -> Iterator[RenderedObject]:
    """Yield the ConfigMap, a copy for each namespace: a pod can mount only ConfigMaps of its own namespace."""
    data = config_data(values)
    for namespace in values.namespaces:
        main = namespace == values.namespace
        yield RenderedObject(
            "configmap.yaml" if main else f"workers/{namespace}/configmap.yaml",
            "Airflow's configuration, shared by all components so that they agree. It holds no secrets."
            if main
            else f"A copy for the workers in namespace {namespace}: pods read ConfigMaps of their own namespace only.",
            new(values, "v1/ConfigMap", named(values, "config"), "config", namespace=namespace, data=data),
        )


def config_data(values: Values) -> dict[str, str]:
    """Return the content of the configuration's files by name."""
    files = {"airflow.cfg": airflow_cfg(values)}
    if values.web.auth == "fab":
        files["webserver_config.py"] = values.web.fab_config
    return files


def airflow_cfg(values: Values) -> str:
    """Return the text of ``airflow.cfg``."""
    options = derived_options(values)
    lines: list[str] = []
    for section in sorted(options):
        lines += [f"[{section}]", *(f"{key} = {_escaped(value)}" for key, value in options[section].items()), ""]
    return "\n".join(lines)


def derived_options(values: Values) -> Options:
    """Return all options by section. Options of ``values.config`` replace derived ones."""
    options = _derived(values)
    for section, user_options in values.config.items():
        options.setdefault(section, {}).update(user_options)
    return options


def api_port(values: Values) -> int:
    """Return the port of the API servers' containers; their Service always has port 8080."""
    return _number(values, "api", "port", 8080)


def health_port(values: Values) -> int:
    """Return the port of the schedulers' health check."""
    return _number(values, "scheduler", "scheduler_health_check_server_port", 8974)


def trigger_log_port(values: Values) -> int:
    """Return the port at which triggerers serve their logs."""
    return _number(values, "logging", "trigger_log_server_port", 8794)


def statsd_port(values: Values) -> int:
    """Return the UDP port at which the exporter receives metrics."""
    return _number(values, "metrics", "statsd_port", 9125)


def statsd_prefix(values: Values) -> str:
    """Return the prefix of the metrics' names."""
    return str(values.config.get("metrics", {}).get("statsd_prefix", "airflow"))


def has_health_check(values: Values) -> bool:
    """Return whether schedulers serve their health endpoint."""
    return str(values.config.get("scheduler", {}).get("enable_health_check", True)).lower() in ("true", "t", "1")


def _number(values: Values, section: str, option: str, default: int) -> int:
    return int(str(values.config.get(section, {}).get(option, default)))


def dags_folder(values: Values) -> str | None:
    """Return the folder of the DAG files in pods; None for a bundle, which Airflow keeps in its own folder."""
    match values.dags:
        case ImageDags(path=path) | VolumeDags(path=path):
            return path
        case GitSyncDags(subdir=subdir):
            return f"{GIT_FOLDER}/repo/{subdir}".rstrip("/")
    return None


def _derived(values: Values) -> Options:
    options: Options = {
        "core": {
            "executor": values.executor,
            "auth_manager": _AUTH_MANAGERS.get(values.web.auth, values.web.auth),
            "execution_api_server_url": _execution_url(values),
            "load_examples": False,
        },
        "api": {"base_url": _base_url(values)} if values.web.host else {},
        "scheduler": {"enable_health_check": True},
        "kubernetes_executor": _executor(values),
        "logging": {"base_log_folder": LOGS_FOLDER, **_remote_logging(values)},
        "metrics": _metrics(values),
        "crosswind": {"archive_logs": "never"} if isinstance(values.logs, PodLogs) else {},
    }
    if folder := dags_folder(values):
        options["core"]["dags_folder"] = folder
    if isinstance(values.dags, BundleDags):
        options["dag_processor"] = _bundle(values.dags)
    if values.web.auth == "fab":
        options["fab"] = {"config_file": f"{CONFIG_FOLDER}/webserver_config.py", "enable_proxy_fix": True}
    if values.web.auth == "simple":
        options["core"]["simple_auth_manager_passwords_file"] = "/tmp/passwords.json"  # noqa: S108 - in the pod
    return {section: section_options for section, section_options in options.items() if section_options}


def _remote_logging(values: Values) -> dict[str, Any]:
    if not isinstance(values.logs, RemoteLogs):
        return {}
    connection = {"remote_log_conn_id": values.logs.connection} if values.logs.connection else {}
    return {"remote_logging": True, "remote_base_log_folder": values.logs.url, **connection}


def _execution_url(values: Values) -> str:
    """Return the execution API's URL with the Service's full name, which also resolves in other namespaces.

    The path of the UI precedes the execution API's own path.
    """
    host = f"{named(values, 'api-server')}.{values.namespace}.svc.{values.network.cluster_domain}"
    return f"http://{host}:8080{values.web.path}/execution/"


def _base_url(values: Values) -> str:
    scheme = "https" if values.web.tls_secret or values.mesh.gateway else "http"
    return f"{scheme}://{values.web.host}{values.web.path}"


def _executor(values: Values) -> dict[str, Any]:
    options: dict[str, Any] = {
        "namespace": values.worker_namespaces[0],
        "pod_template_file": f"{TEMPLATE_FOLDER}/pod_template.yaml",
    }
    if len(values.worker_namespaces) > 1:
        options["multi_namespace_mode"] = True
        options["multi_namespace_mode_namespace_list"] = ",".join(values.worker_namespaces)
    return options


def _metrics(values: Values) -> dict[str, Any]:
    if not values.metrics.statsd:
        return {}
    host = f"{named(values, 'statsd')}.{values.namespace}.svc.{values.network.cluster_domain}"
    return {"statsd_on": True, "statsd_host": host, "statsd_port": statsd_port(values), "statsd_prefix": "airflow"}


def _bundle(dags: BundleDags) -> dict[str, str]:
    kwargs = {"repo_url": dags.repo, "tracking_ref": dags.ref, "subdir": dags.subdir}
    if dags.secret:
        kwargs["git_conn_id"] = "git_default"
    bundle = {"name": "dags", "classpath": "airflow.providers.git.bundles.git.GitDagBundle", "kwargs": kwargs}
    return {"dag_bundle_config_list": json.dumps([bundle]), "dag_bundle_storage_path": BUNDLES_FOLDER}


def _escaped(value: object) -> str:
    """Return an option's text. A single ``%`` would start a reference to another option, a double one is a literal."""
    return str(value).replace("\r\n", "\n").replace("%", "%%").replace("\n", "\n  ")
