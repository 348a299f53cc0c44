"""``airflow.cfg``: what all pods of the deployment must agree on. Nothing secret is in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from crosswind.deploy.objects import Rendered, named, new
from crosswind.deploy.values import BundleDags, GitSyncDags, ImageDags, PodLogs, RemoteLogs, Values, VolumeDags

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
_MANAGERS = {
    "fab": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
    "simple": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
}

Options = dict[str, dict[str, Any]]


def config_maps(values: Values) -> Iterator[Rendered]:
    """Yield the configuration, a copy for each namespace in which its pods run."""
    data = config_data(values)
    for namespace in values.namespaces:
        main = namespace == values.namespace
        yield Rendered(
            "configmap.yaml" if main else f"workers/{namespace}/configmap.yaml",
            "Airflow's configuration, one for all components so that they agree; nothing secret is in it."
            if main
            else f"The same for the workers in namespace {namespace}, for pods read it in their own.",
            new(values, "v1/ConfigMap", named(values, "config"), "config", namespace=namespace, data=data),
        )


def config_data(values: Values) -> dict[str, str]:
    """Return the files of the configuration."""
    files = {"airflow.cfg": airflow_cfg(values)}
    if values.web.auth == "fab":
        files["webserver_config.py"] = values.web.fab_config
    return files


def airflow_cfg(values: Values) -> str:
    """Return the file."""
    options = derived_options(values)
    lines: list[str] = []
    for section in sorted(options):
        lines += [f"[{section}]", *(f"{key} = {_written(value)}" for key, value in options[section].items()), ""]
    return "\n".join(lines)


def derived_options(values: Values) -> Options:
    """Return all options by section; what ``values.config`` says wins over what is derived."""
    options = _derived(values)
    for section, given in values.config.items():
        options.setdefault(section, {}).update(given)
    return options


def api_port(values: Values) -> int:
    """Return the port at which the API servers' containers listen; their Service has 8080 whatever it is."""
    return _number(values, "api", "port", 8080)


def health_port(values: Values) -> int:
    """Return the port of the schedulers' health check."""
    return _number(values, "scheduler", "scheduler_health_check_server_port", 8974)


def trigger_log_port(values: Values) -> int:
    """Return the port at which triggerers serve their logs."""
    return _number(values, "logging", "trigger_log_server_port", 8794)


def statsd_port(values: Values) -> int:
    """Return the UDP port at which the exporter takes metrics."""
    return _number(values, "metrics", "statsd_port", 9125)


def statsd_prefix(values: Values) -> str:
    """Return what the names of metrics begin with."""
    return str(values.config.get("metrics", {}).get("statsd_prefix", "airflow"))


def has_health_check(values: Values) -> bool:
    """Return whether schedulers answer requests for their health."""
    return str(values.config.get("scheduler", {}).get("enable_health_check", True)).lower() in ("true", "t", "1")


def _number(values: Values, section: str, option: str, default: int) -> int:
    return int(str(values.config.get(section, {}).get(option, default)))


def dags_folder(values: Values) -> str | None:
    """Return where the DAG files are in pods; None with a bundle, which has a folder of its own."""
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
            "auth_manager": _MANAGERS.get(values.web.auth, values.web.auth),
            "execution_api_server_url": _execution_url(values),
            "load_examples": False,
        },
        "api": {"base_url": _base_url(values)} if values.web.host else {},
        "scheduler": {"enable_health_check": True},
        "kubernetes_executor": _executor(values),
        "logging": {"base_log_folder": LOGS_FOLDER},
        "metrics": _metrics(values),
    }
    if folder := dags_folder(values):
        options["core"]["dags_folder"] = folder
    if isinstance(values.dags, BundleDags):
        options["dag_processor"] = _bundle(values.dags)
    if isinstance(values.logs, RemoteLogs):
        options["logging"] |= {"remote_logging": True, "remote_base_log_folder": values.logs.url}
        if values.logs.connection:
            options["logging"]["remote_log_conn_id"] = values.logs.connection
    if isinstance(values.logs, PodLogs):
        options["crosswind"] = {"archive_logs": "never"}
    if values.web.auth == "fab":
        options["fab"] = {"config_file": f"{CONFIG_FOLDER}/webserver_config.py", "enable_proxy_fix": True}
    if values.web.auth == "simple":
        options["core"]["simple_auth_manager_passwords_file"] = "/tmp/passwords.json"  # noqa: S108 - in the pod
    return {section: given for section, given in options.items() if given}


def _execution_url(values: Values) -> str:
    """Return the full name, which workers in other namespaces find too; an ingress' path is part of it."""
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


def _written(value: object) -> str:
    """Return an option's text; ``%`` begins a reference in the file, doubled it is itself."""
    return str(value).replace("\r\n", "\n").replace("%", "%%").replace("\n", "\n  ")
