"""Reads kubeconfig files strictly: each error names the file, the entry and the fix.

kubernetes_asyncio reads them too, but its errors name little, and it leaves keys in temporary files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from crosswind.documents import parse, read_text
from crosswind.errors import ConfigError, KubeconfigError
from crosswind.kube.kubeconfig_fields import ClusterEntry, UserEntry, check_cluster, check_context, check_user
from crosswind.types import Manifest

__all__ = ["KubeconfigContext", "choose_context", "context_names", "of_text", "read"]

_FIX = "set KUBECONFIG, or name a file by --kubeconfig (Airflow: config_file); inside a pod, set in_cluster = True"

_IN_MEMORY = "the connection's kubeconfig"

_PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


@dataclass(frozen=True, slots=True)
class KubeconfigContext:
    """A context with its cluster and user. ``paths``: the files that exist, in the order of KUBECONFIG."""

    paths: tuple[str, ...]
    context: str
    cluster: ClusterEntry
    user: UserEntry = field(repr=False)
    namespace: str = "default"

    @property
    def source(self) -> str:
        """The context and its files, for messages."""
        return f"context {self.context} of {', '.join(self.paths)}"


def read(kubeconfig: str | None, context: str | None) -> KubeconfigContext:
    """Read a kubeconfig (None: those of KUBECONFIG, else ~/.kube/config) and choose a context (None: current)."""
    return choose_context(_documents(kubeconfig), context)


def context_names(kubeconfig: str | None) -> list[str]:
    """Return the names of the contexts that ``read`` can choose."""
    return sorted(_named(_documents(kubeconfig), "contexts"))


def _documents(kubeconfig: str | None) -> list[tuple[str, Manifest]]:
    locations = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    paths = [os.path.expanduser(part) for part in locations.split(os.pathsep) if part]
    present = [path for path in paths if os.path.exists(path)]
    if not present:
        raise KubeconfigError(f"there is no kubeconfig at {' or '.join(paths) or repr(locations)}; {_FIX}")
    return [(path, _parse(path)) for path in present]


def of_text(text: str, context: str | None) -> KubeconfigContext:
    """Choose a context of a kubeconfig given as text, such as the one in an Airflow connection."""
    return choose_context([(_IN_MEMORY, _checked(text, _IN_MEMORY))], context)


def choose_context(documents: Sequence[tuple[str, Manifest]], context: str | None) -> KubeconfigContext:
    """Choose a context of the files; where two files define a name, the first one counts, as for kubectl."""
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
    user: UserEntry = {}
    if chosen.get("user"):
        entry = _followed(users, chosen, "user", f'{where}: context "{name}"')
        check_user(entry.content, f'{entry.path}: user "{chosen["user"]}"')
        user = cast(UserEntry, _anchored(entry))
    return KubeconfigContext(paths, name, cluster, user, str(chosen.get("namespace") or "default"))


@dataclass(frozen=True, slots=True)
class _Entry:
    """A context, cluster or user, and its file."""

    path: str
    content: Manifest = field(repr=False)


def _cluster(entry: _Entry, name: str) -> ClusterEntry:
    where = f'{entry.path}: cluster "{name}"'
    check_cluster(entry.content, where)
    if not _is_address(str(entry.content.get("server") or "")):
        server = f'the server "{entry.content["server"]}"' if entry.content.get("server") else "no server"
        raise KubeconfigError(f'{where} has {server}; it must be "https://HOST:PORT"')
    return cast(ClusterEntry, _anchored(entry))


def _is_address(server: str) -> bool:
    try:
        parts = urlsplit(server)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port out of range
        return False


def _followed(entries: dict[str, _Entry], context: Manifest, key: str, where: str) -> _Entry:
    """Return the cluster or user to which a context refers."""
    name = context.get(key)
    if name not in entries:
        existing = ", ".join(sorted(entries))
        raise KubeconfigError(f'{where} points to the {key} "{name}", which does not exist ({existing})')
    return entries[name]


def _named(documents: Sequence[tuple[str, Manifest]], key: str) -> dict[str, _Entry]:
    entries: dict[str, _Entry] = {}
    for path, document in documents:
        names: set[str] = set()
        for index, entry in enumerate(document.get(key) or []):
            if not isinstance(entry, dict) or not isinstance(entry.get(key[:-1]) or {}, dict) or not entry.get("name"):
                raise KubeconfigError(
                    f"{path}: each of {key} must have a name and a mapping {key[:-1]}, {key}[{index}] has not"
                )
            name = entry["name"]
            if not isinstance(name, str):
                raise KubeconfigError(f"{path}: {key}[{index}].name must be text; put quotes around it")
            if name in names:
                raise KubeconfigError(f'{path}: {key} has two of the name "{name}"; keep one of them')
            names.add(name)
            entries.setdefault(name, _Entry(path, entry.get(key[:-1]) or {}))
    return entries


def _anchored(entry: _Entry) -> Manifest:
    """Return a cluster or user with absolute paths: in the file they are relative to its folder."""
    folder = Path(entry.path).parent.absolute()
    content: Manifest = {
        key: str(folder / value) if key in _PATHS and value else value for key, value in entry.content.items()
    }
    plugin = content.get("exec")
    if plugin and os.sep in plugin["command"]:  # a bare name is looked up on PATH
        content["exec"] = {**plugin, "command": str(folder / plugin["command"])}
    return content


def _parse(path: str) -> Manifest:
    try:
        text = read_text(path, what="kubeconfig")
    except ConfigError as error:
        raise KubeconfigError(str(error)) from error
    return _checked(text, path)


def _checked(text: str, path: str) -> Manifest:
    """Return the content of a file; an empty file is an empty mapping, as for kubectl."""
    try:
        document = parse(text, path)
    except ConfigError as error:
        raise KubeconfigError(f"kubeconfig {error}") from None
    document = {} if document is None else document
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key) or [], list) for key in ("contexts", "clusters", "users")
    ):
        raise KubeconfigError(f"{path} is not a kubeconfig: it needs the lists contexts, clusters and users")
    for key, expected in (("apiVersion", "v1"), ("kind", "Config")):
        if (document.get(key) or expected) != expected:
            raise KubeconfigError(f"{path} is not a supported kubeconfig: its {key} is not {expected}")
    return document
