"""The ports of the addresses in a values file (repositories, log stores, metrics), for network policies. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from crosswind.deploy.addresses import RENDERED_SECTIONS, option_port, url_port
from crosswind.deploy.json_values import parse_json
from crosswind.deploy.value_sections import GitDags, PodValues, RemoteLogs, is_ssh
from crosswind.deploy.values import Values

__all__ = ["log_store_ports", "named_ports", "repository_port", "repository_ports", "variable_ports"]


def repository_port(repo: str) -> int | None:
    """Return the port of a Git repository; None for a repository on a local disk."""
    if "://" not in repo:
        return 22 if is_ssh(repo) else None
    return url_port(repo)


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
    return [url_port(values.logs.url) or 443]


def variable_ports(*parts: PodValues) -> list[int]:
    """Return the ports of the URLs in environment variables with a literal value, such as proxies and endpoints."""
    ports = set()
    for part in parts:
        for variable in part.env:
            value = variable.get("value")
            if isinstance(value, str) and "://" in value and (port := url_port(value)) is not None:
                ports.add(port)
    return sorted(ports)


def named_ports(values: Values) -> tuple[list[int], list[int]]:
    """Return the TCP and UDP ports of the addresses in ``config``, such as metrics, traces, log stores and mail."""
    tcp: set[int] = set()
    udp: set[int] = set()
    for section, options in values.config.items():
        if section in RENDERED_SECTIONS:
            continue
        for name in options:
            port = option_port(name, options)
            if port is not None:
                (udp if name.startswith("statsd_") else tcp).add(port)
    return sorted(tcp), sorted(udp)


def _bundle_repos(text: str) -> Iterator[str]:
    try:
        bundles = parse_json(text)
    except ValueError:
        return
    for bundle in bundles if isinstance(bundles, list) else ():
        arguments = bundle.get("kwargs") if isinstance(bundle, Mapping) else None
        repo = arguments.get("repo_url") if isinstance(arguments, Mapping) else None
        if isinstance(repo, str):
            yield repo
