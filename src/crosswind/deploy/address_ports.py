"""The ports of the addresses in a values file (repositories, log stores, metrics), for network policies. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from crosswind.deploy.value_sections import GitDags, PodValues, RemoteLogs, is_ssh
from crosswind.deploy.values import Values

__all__ = ["log_store_ports", "named_ports", "repository_port", "repository_ports", "variable_ports"]

_DEFAULT_PORTS = {"ssh": 22, "git+ssh": 22, "https": 443, "http": 80, "git": 9418, "hdfs": 8020, "socks5": 1080}
_ADDRESS_OPTIONS = ("host", "endpoint", "url", "uri")
_RENDERED_SECTIONS = {"api", "core", "database", "kubernetes_executor", "fab"}
"""Sections of airflow.cfg whose addresses are those of this deployment, which the policies know already."""


def repository_port(repo: str) -> int | None:
    """Return the port of a Git repository; None for a repository on a local disk."""
    if "://" not in repo:
        return 22 if is_ssh(repo) else None
    return _port(repo)


def repository_ports(values: Values) -> list[int]:
    """Return the ports of the repositories with DAG files, including the bundles listed in ``config``."""
    repos = [values.dags.repo] if isinstance(values.dags, GitDags) else []
    bundle_list = values.config.get("dag_processor", {}).get("dag_bundle_config_list")
    repos += [*_bundle_repos(str(bundle_list))] if bundle_list else []
    return sorted({port for repo in repos if (port := repository_port(repo)) is not None})


def log_store_ports(values: Values) -> list[int]:
    """Return the ports of the object store that keeps the logs: the port in its address, else 443."""
    if not isinstance(values.logs, RemoteLogs):
        return []
    scheme = urlsplit(values.logs.url).scheme
    port = _port(values.logs.url) if scheme in _DEFAULT_PORTS or _explicit(values.logs.url) else 443
    return [port or 443]


def variable_ports(*parts: PodValues) -> list[int]:
    """Return the ports of the URLs in environment variables with a literal value, such as proxies and endpoints."""
    ports = set()
    for part in parts:
        for variable in part.env:
            value = variable.get("value")
            if isinstance(value, str) and "://" in value and (port := _port(value)) is not None:
                ports.add(port)
    return sorted(ports)


def named_ports(values: Values) -> tuple[list[int], list[int]]:
    """Return the TCP and UDP ports of the addresses in ``config``, such as metrics, traces, log stores and mail."""
    tcp: set[int] = set()
    udp: set[int] = set()
    for section, options in values.config.items():
        if section in _RENDERED_SECTIONS:
            continue
        for name, value in options.items():
            port = _option_port(name, value, options)
            if port is not None:
                (udp if name.startswith("statsd_") else tcp).add(port)
    return sorted(tcp), sorted(udp)


def _option_port(name: str, value: object, options: Mapping[str, object]) -> int | None:
    text = str(value)
    last = name.rpartition("_")[2]
    if last not in _ADDRESS_OPTIONS:
        return None
    if "://" in text:
        return _port(text)
    sibling = options.get(f"{name.removesuffix(last)}port")
    if last == "host" and sibling is not None:
        return int(str(sibling)) if str(sibling).isdigit() else None
    if name == "statsd_host":
        return 8125  # Airflow's default of statsd_port
    _, colon, port = text.rpartition(":")
    return int(port) if colon and port.isdigit() else None


def _bundle_repos(text: str) -> Iterator[str]:
    try:
        bundles = json.loads(text)
    except ValueError:
        return
    for bundle in bundles if isinstance(bundles, list) else ():
        repo = bundle.get("kwargs", {}).get("repo_url") if isinstance(bundle, dict) else None
        if isinstance(repo, str):
            yield repo


def _explicit(url: str) -> int | None:
    try:
        return urlsplit(url).port
    except ValueError:
        return None


def _port(url: str) -> int | None:
    return _explicit(url) or _DEFAULT_PORTS.get(urlsplit(url).scheme.lower())
