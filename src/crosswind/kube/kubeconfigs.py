"""Kubeconfig files, read strictly: what is wrong is said with the file, the name and the mend.

kubernetes_asyncio reads them too, but tells little about what it does not like, and leaves keys in temporary files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from crosswind.bounded_yaml import parse
from crosswind.errors import ConfigError, KubeconfigError
from crosswind.kube.kubeconfig_fields import check_cluster, check_context, check_user
from crosswind.regular_files import read_text

__all__ = ["Chosen", "choose", "of_text", "read"]

_ELSEWHERE = (
    "set KUBECONFIG, or name a file by --kubeconfig (Airflow: config_file); inside a pod, set in_cluster = True"
)

_IN_MEMORY = "the connection's kubeconfig"

_PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


@dataclass(frozen=True, slots=True)
class Chosen:
    """A context and what it points to. ``paths``: the files that are there, as KUBECONFIG lists them."""

    paths: tuple[str, ...]
    context: str
    cluster: dict[str, Any]
    user: dict[str, Any] = field(repr=False)
    namespace: str = "default"

    @property
    def source(self) -> str:
        """Where the credentials come from, for messages."""
        return f"context {self.context} of {', '.join(self.paths)}"


def read(kubeconfig: str | None, context: str | None) -> Chosen:
    """Read a kubeconfig (None: those of KUBECONFIG, else ~/.kube/config) and choose a context (None: current)."""
    wanted = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    paths = [os.path.expanduser(part) for part in wanted.split(os.pathsep) if part]
    present = [path for path in paths if os.path.exists(path)]
    if not present:
        raise KubeconfigError(f"there is no kubeconfig at {' or '.join(paths) or repr(wanted)}; {_ELSEWHERE}")
    return choose([(path, _parse(path)) for path in present], context)


def of_text(text: str, context: str | None) -> Chosen:
    """Choose a context of a kubeconfig that is no file, such as the one in an Airflow connection."""
    return choose([(_IN_MEMORY, _checked(text, _IN_MEMORY))], context)


def choose(documents: Sequence[tuple[str, dict[str, Any]]], context: str | None) -> Chosen:
    """Choose a context of the files; of doubled names the first file's counts, as for kubectl."""
    paths = tuple(path for path, _ in documents)
    where = ", ".join(paths)
    contexts, clusters, users = (_named(documents, key) for key in ("contexts", "clusters", "users"))
    offer = f"there are: {', '.join(sorted(contexts))}" if contexts else "there is none at all"
    name = context or next((str(d["current-context"]) for _, d in documents if d.get("current-context")), "")
    if not name:
        raise KubeconfigError(f"{where} has no current-context; name the context to use ({offer})")
    if name not in contexts:
        raise KubeconfigError(f'{where} has no context "{name}" ({offer})')
    chosen = contexts[name].content
    check_context(chosen, f'{contexts[name].path}: context "{name}"')
    cluster = _cluster(_followed(clusters, chosen, "cluster", f'{where}: context "{name}"'), str(chosen["cluster"]))
    user = {}
    if chosen.get("user"):
        entry = _followed(users, chosen, "user", f'{where}: context "{name}"')
        check_user(entry.content, f'{entry.path}: user "{chosen["user"]}"')
        user = _anchored(entry)
    return Chosen(paths, name, cluster, user, str(chosen.get("namespace") or "default"))


@dataclass(frozen=True, slots=True)
class _Entry:
    """A context, cluster or user, and the file that it stands in."""

    path: str
    content: dict[str, Any] = field(repr=False)


def _cluster(entry: _Entry, name: str) -> dict[str, Any]:
    where = f'{entry.path}: cluster "{name}"'
    check_cluster(entry.content, where)
    if not _is_address(str(entry.content.get("server") or "")):
        server = f'the server "{entry.content["server"]}"' if entry.content.get("server") else "no server"
        raise KubeconfigError(f'{where} has {server}; it must be "https://HOST:PORT"')
    return _anchored(entry)


def _is_address(server: str) -> bool:
    try:
        parts = urlsplit(server)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port out of range
        return False


def _followed(found: dict[str, _Entry], context: dict[str, Any], key: str, where: str) -> _Entry:
    name = context.get(key)
    if name not in found:
        raise KubeconfigError(f'{where} points to the {key} "{name}", which is not there ({", ".join(sorted(found))})')
    return found[name]


def _named(documents: Sequence[tuple[str, dict[str, Any]]], key: str) -> dict[str, _Entry]:
    found: dict[str, _Entry] = {}
    for path, document in documents:
        here: set[str] = set()
        for index, entry in enumerate(document.get(key) or []):
            if not isinstance(entry, dict) or not isinstance(entry.get(key[:-1]) or {}, dict) or not entry.get("name"):
                raise KubeconfigError(
                    f"{path}: each of {key} must have a name and a mapping {key[:-1]}, {key}[{index}] has not"
                )
            name = entry["name"]
            if not isinstance(name, str):
                raise KubeconfigError(f"{path}: {key}[{index}].name must be text; put quotes around it")
            if name in here:
                raise KubeconfigError(f'{path}: {key} has two of the name "{name}"; keep one of them')
            here.add(name)
            found.setdefault(name, _Entry(path, entry.get(key[:-1]) or {}))
    return found


def _anchored(entry: _Entry) -> dict[str, Any]:
    """Return a cluster or user whose paths no longer depend on where its file is."""
    folder = Path(entry.path).parent.absolute()
    content: dict[str, Any] = {
        key: str(folder / value) if key in _PATHS and value else value for key, value in entry.content.items()
    }
    plugin = content.get("exec")
    if plugin and os.sep in plugin["command"]:  # a bare name is looked up on PATH
        content["exec"] = {**plugin, "command": str(folder / plugin["command"])}
    return content


def _parse(path: str) -> dict[str, Any]:
    try:
        text = read_text(path, what="kubeconfig")
    except ConfigError as error:
        raise KubeconfigError(str(error)) from error
    return _checked(text, path)


def _checked(text: str, path: str) -> dict[str, Any]:
    """Return what a file says; an empty one says nothing, as for kubectl."""
    try:
        document = parse(text, path)
    except ConfigError as error:
        raise KubeconfigError(f"kubeconfig {error}") from None
    document = {} if document is None else document
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key) or [], list) for key in ("contexts", "clusters", "users")
    ):
        raise KubeconfigError(f"{path} is not a kubeconfig: it needs the lists contexts, clusters and users")
    for key, known in (("apiVersion", "v1"), ("kind", "Config")):
        if (document.get(key) or known) != known:
            raise KubeconfigError(f"{path} is not a kubeconfig that is known: its {key} is not {known}")
    return document
