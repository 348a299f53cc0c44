"""Kubeconfig files, read strictly: what is wrong is said with the file, the name and the mend.

kubernetes_asyncio reads them too, and does the signing in, but tells little about what it does not like.
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
from crosswind.regular_files import read_text

__all__ = ["Chosen", "choose", "of_text", "read"]

_ELSEWHERE = "set KUBECONFIG or name a kubeconfig in the settings; inside a pod, set in_cluster = True"

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

    def document(self, user: dict[str, Any], cluster: dict[str, Any]) -> dict[str, Any]:
        """Return a kubeconfig of this context alone, with ``user`` and ``cluster`` in the place of its own."""
        return {
            "current-context": self.context,
            "contexts": [{"name": self.context, "context": {"cluster": "cluster", "user": "user"}}],
            "clusters": [{"name": "cluster", "cluster": cluster}],
            "users": [{"name": "user", "user": user}],
        }

    @property
    def source(self) -> str:
        """Where the credentials come from, for messages."""
        return f"context {self.context} of {', '.join(self.paths)}"


def read(kubeconfig: str | None, context: str | None) -> Chosen:
    """Read a kubeconfig (None: those of KUBECONFIG, else ~/.kube/config) and choose a context (None: current)."""
    wanted = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    paths = [str(Path(part).expanduser()) for part in wanted.split(os.pathsep) if part]
    present = [path for path in paths if os.path.exists(path)]
    if not present:
        raise KubeconfigError(f"there is no kubeconfig at {' or '.join(paths)}; {_ELSEWHERE}")
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
    chosen = contexts[name]
    cluster = _followed(clusters, chosen, "cluster", f'{where}: context "{name}"')
    if not _is_address(str(cluster.get("server") or "")):
        server = f'the server "{cluster["server"]}"' if cluster.get("server") else "no server"
        raise KubeconfigError(f'{where}: cluster "{chosen["cluster"]}" has {server}; it must be "https://HOST:PORT"')
    user = _followed(users, chosen, "user", f'{where}: context "{name}"') if chosen.get("user") else {}
    return Chosen(paths, name, cluster, user, str(chosen.get("namespace") or "default"))


def _is_address(server: str) -> bool:
    try:
        parts = urlsplit(server)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port out of range
        return False


def _followed(found: dict[str, dict[str, Any]], context: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    name = context.get(key)
    if name not in found:
        raise KubeconfigError(f'{where} points to the {key} "{name}", which is not there ({", ".join(sorted(found))})')
    return found[name]


def _named(documents: Sequence[tuple[str, dict[str, Any]]], key: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path, document in documents:
        for entry in document.get(key) or []:
            if not isinstance(entry, dict) or "name" not in entry or not isinstance(entry.get(key[:-1]) or {}, dict):
                raise KubeconfigError(f"{path}: each of {key} must have a name and a mapping {key[:-1]}")
            content = _anchored(entry.get(key[:-1]) or {}, Path(path).parent)
            found.setdefault(str(entry["name"]), content)
    return found


def _anchored(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a cluster or user whose paths no longer depend on where its file is."""
    content = {key: str(folder.absolute() / value) if key in _PATHS else value for key, value in content.items()}
    plugin = content.get("exec")
    if isinstance(plugin, dict) and os.sep in str(plugin.get("command")):  # a bare name is looked up on PATH
        content["exec"] = {**plugin, "command": str(folder.absolute() / str(plugin["command"]))}
    return content


def _parse(path: str) -> dict[str, Any]:
    try:
        text = read_text(path, what="kubeconfig")
    except ConfigError as error:
        raise KubeconfigError(str(error)) from error
    return _checked(text, path)


def _checked(text: str, path: str) -> dict[str, Any]:
    try:
        document = parse(text, path)
    except ConfigError as error:
        raise KubeconfigError(f"kubeconfig {error}") from None
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key) or [], list) for key in ("contexts", "clusters", "users")
    ):
        raise KubeconfigError(f"{path} is not a kubeconfig: it needs the lists contexts, clusters and users")
    return document
