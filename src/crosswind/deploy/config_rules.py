"""Options of airflow.cfg that the manifests depend on: the manifests follow some and refuse the others. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from crosswind.deploy.addresses import port_number
from crosswind.deploy.executor_options import option_problems
from crosswind.deploy.secrecy import is_secret_option
from crosswind.types import Json

__all__ = ["FOLLOWED", "config_problems", "variable_problems"]

FOLLOWED = {
    ("api", "port"),
    ("scheduler", "scheduler_health_check_server_port"),
    ("scheduler", "enable_health_check"),
    ("logging", "trigger_log_server_port"),
    ("metrics", "statsd_port"),
    ("metrics", "statsd_prefix"),
    ("crosswind", "archive_logs"),
    ("crosswind", "queues"),
    ("crosswind", "warm"),
    ("crosswind", "workload_delivery"),
    ("kubernetes_executor", "delete_worker_pods"),
    ("kubernetes_executor", "delete_worker_pods_on_failure"),
}
"""Options whose values the rendered ports, probes, Services, network policies, namespaces and permissions use."""

_REFUSED = {
    ("core", "executor"): "write executor: in the values file",
    ("core", "dags_folder"): "write dags.path, or dags.subdir",
    ("core", "auth_manager"): "write web.auth",
    ("dag_processor", "dag_bundle_storage_path"): "leave it out; the manifests mount a volume for bundles",
    ("fab", "config_file"): "write the file's content into web.fabConfig",
    ("kubernetes_executor", "namespace"): "write workers.namespaces",
    ("kubernetes_executor", "multi_namespace_mode"): "write workers.namespaces",
    ("kubernetes_executor", "multi_namespace_mode_namespace_list"): "write workers.namespaces",
    ("kubernetes_executor", "pod_template_file"): "write what the pods need into workers; it is rendered",
    ("kubernetes_executor", "worker_container_repository"): "write image",
    ("kubernetes_executor", "worker_container_tag"): "write image",
    ("logging", "base_log_folder"): "leave it out; the manifests mount a volume there",
    ("logging", "remote_logging"): "write logs: {to: remote, url: ...}",
    ("logging", "remote_base_log_folder"): "write logs: {to: remote, url: ...}",
    ("logging", "remote_log_conn_id"): "write logs: {to: remote, url: ..., connection: ...}",
    ("api", "ssl_cert"): "leave it out; TLS ends at the ingress, the gateway or the mesh's proxy",
    ("api", "ssl_key"): "leave it out; TLS ends at the ingress, the gateway or the mesh's proxy",
}
"""Options that contradict the rendered objects, and the key to write instead."""

_LISTEN_HOSTS = {("api", "host"), ("scheduler", "scheduler_health_check_server_host")}
_ALL_INTERFACES = ("0.0.0.0", "::", "")  # noqa: S104 - inside a pod
_PORTS = {(section, option) for section, option in FOLLOWED if option.endswith("port")}
_SECTION_NAME = re.compile(r"[^\[\]\x00-\x1f\x7f]+")
_OPTION_NAME = re.compile(r"[a-z0-9_.-]+")
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]")
_AIRFLOW_VARIABLE = re.compile(r"AIRFLOW__([A-Z0-9_.]+?)__([A-Z0-9_]+)", re.I)


def config_problems(config: Mapping[str, Mapping[str, Json]]) -> Iterator[str]:
    """Yield the problems of the values' ``config``; each completes a sentence that begins with the key."""
    for section, options in config.items():
        if not _SECTION_NAME.fullmatch(section) or section != section.strip():
            yield f"has a section {section!r}, which airflow.cfg cannot name; write it without brackets or line breaks"
            continue
        for option, value in options.items():
            yield from _option_problems(section, option, value)


def _option_problems(section: str, option: str, value: Json) -> Iterator[str]:
    place = f"[{section}] {option}"
    if not _OPTION_NAME.fullmatch(option):
        yield f"has {place!r}, which is not an option name; use lower-case letters, digits and underscores"
    elif is_secret_option(section, option, value):
        yield f"has {place}, which is secret; put it into a Secret and refer to it"
    elif fix := _REFUSED.get((section, option)):
        yield f"has {place}, which contradicts the rendered objects; {fix}"
    elif (section, option) in _LISTEN_HOSTS and str(value) not in _ALL_INTERFACES:
        yield f"has {place} = {value}, where probes and other pods do not reach it; leave it out"
    elif (section, option) in _PORTS and not _is_port(value):
        yield f"has {place} = {value}, which is not a usable port; write a number from 1024 to 65535"
    elif problems := [*option_problems(section, option, value)]:
        yield from (f"has {place}, which {problem}" for problem in problems)
    else:
        yield from _text_problems(place, str(value))


def _is_port(value: Json) -> bool:
    """Return whether an unprivileged process can listen at the port."""
    return 1024 <= (port_number(str(value)) or 0) <= 65535


def _text_problems(place: str, text: str) -> Iterator[str]:
    """Refuse a value that airflow.cfg cannot hold. ``airflow_config`` indents the further lines of a long value."""
    if _CONTROL_CHARACTERS.search(text):
        yield f"has control characters in {place}; write it without them"
    if any(line.lstrip().startswith(("#", ";")) for line in text.split("\n")[1:]):
        yield f"has a line in {place} that airflow.cfg takes for a comment; write the value in one line"


def variable_problems(variable: Mapping[str, Json]) -> Iterator[str]:
    """Yield why an environment variable must not set an option: Airflow prefers it to airflow.cfg."""
    match = _AIRFLOW_VARIABLE.fullmatch(str(variable.get("name", "")))
    if not match:
        return
    section, option = match[1].lower(), match[2].lower()
    if fix := _REFUSED.get((section, option)):
        yield f"has {variable['name']}, which contradicts the rendered objects; {fix}"
    elif (section, option) in FOLLOWED:
        fix = f"write config: {{{section}: {{{option}: ...}}}}"
        yield f"has {variable['name']}, which the rendered objects do not follow; {fix}"
    else:
        problems = option_problems(section, option, variable.get("value"))
        yield from (f"has {variable['name']}, which {problem}" for problem in problems)
