"""Kubeconfigs of local clusters: files of their own, and entries of ours among a user's.

A file of ours carries a mark that ``kubectl config`` keeps: an extension that names the owner's process.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import yaml

from crosswind import ownership
from crosswind.bounded_yaml import parse
from crosswind.errors import ConfigError
from crosswind.ownership import Mark, Owner
from crosswind.types import Json, Manifest

__all__ = [
    "MARK",
    "context_name",
    "dumped",
    "kubeconfig",
    "merged",
    "parsed",
    "remove_kubeconfig",
    "renamed",
    "users_part",
    "without",
    "write_kubeconfig",
]

_EXTENSION = "crosswind.local"
_LISTS = {"clusters": "cluster", "users": "user", "contexts": "context"}
_LARGEST = 1024 * 1024


def context_name(cluster: str) -> str:
    """Return what cluster, user and context of a local cluster are called in kubeconfigs."""
    return f"crosswind-{cluster}"


def kubeconfig(url: str, token: str, authority: str, name: str = "local") -> Manifest:
    """Return a kubeconfig for one server, the certificate of its authority (PEM) and one bearer token."""
    called = context_name(name)
    cluster = {"server": url, "certificate-authority-data": base64.b64encode(authority.encode()).decode()}
    context = {"cluster": called, "user": called, "namespace": "default"}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": called,
        "clusters": [{"name": called, "cluster": cluster | _mark_of_entry()}],
        "users": [{"name": called, "user": {"token": token} | _mark_of_entry()}],
        "contexts": [{"name": called, "context": context | _mark_of_entry()}],
    }


def _mark_of_entry() -> Manifest:
    """Return what tells an entry of ours from a user's that happens to have its name."""
    return {"extensions": [{"name": _EXTENSION, "extension": {"command": "crosswind local"}}]}


def write_kubeconfig(path: Path, config: Manifest, me: Owner) -> None:
    """Write a kubeconfig of ours, for its owner's eyes. Raises ``ConfigError`` rather than replace one that is not."""
    extension = {"command": MARK.command, "owner": me.fields, "name": config["current-context"]}
    marked = {**config, "extensions": [{"name": _EXTENSION, "extension": extension}]}
    ownership.write(path, dumped(marked), MARK, me=me, mode=0o600)


def remove_kubeconfig(path: Path, me: Owner) -> None:
    """Remove a kubeconfig that ``me`` wrote; when entries of others have come into it, only ours go."""
    try:
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
    except OSError:
        return
    config = _ours(content)
    extension = _extension(config)
    if extension is None or Owner.read(extension.get("owner")) != me:
        return
    if _is_ours(content):
        ownership.remove(path, MARK, me)
        return
    rest = without(config, str(extension.get("name")))
    rest["extensions"] = [one for one in rest.get("extensions") or [] if one.get("name") != _EXTENSION]
    ownership.write(path, dumped(rest), Mark(MARK.command, lambda _: True), me=me)


def renamed(config: Manifest, name: str) -> Manifest:
    """Return the cluster, user and context of ours in ``config`` under another name, as a kubeconfig of their own."""
    found: Manifest = {"current-context": name}
    for key, kind in _LISTS.items():
        ours = next((entry[kind] for entry in config.get(key) or [] if _extension(entry.get(kind)) is not None), None)
        if ours is None:
            raise ConfigError(f"it has no {kind} of crosswind any more")
        found[key] = [{"name": name, kind: {**ours, "cluster": name, "user": name} if kind == "context" else ours}]
    return found


def merged(config: Mapping[str, Json], ours: Manifest, *, switch: bool) -> Manifest:
    """Return a user's kubeconfig with the entries of ``ours`` in it, in place of former ones of ours.

    ``switch``: make ours the current context; without it the current one stays. Raises ``ConfigError`` when the user
    has an entry of that name.
    """
    name = ours["current-context"]
    rest = without(config, name)
    for key, kind in _LISTS.items():
        if any(entry.get("name") == name for entry in rest.get(key) or []):
            raise ConfigError(f"it has a {kind} {name} that crosswind has not made: rename it, or the local cluster")
    found: Manifest = {"apiVersion": "v1", "kind": "Config", **rest}
    for key in _LISTS:
        found[key] = [*(found.get(key) or []), *ours[key]]
    if switch or config.get("current-context") == name:
        found["current-context"] = name
    return found


def without(config: Mapping[str, Json], name: str, current: str = "") -> Manifest:
    """Return a kubeconfig without the entries of ours of one name.

    ``current``: the current context, where it was ours; empty when there is no such context either.
    """
    found = dict(config)
    for key, kind in _LISTS.items():
        if key in found:
            entries = found[key] or []
            found[key] = [one for one in entries if one.get("name") != name or _extension(one.get(kind)) is None]
    names = [context.get("name") for context in found.get("contexts") or []]
    if found.get("current-context") == name and name not in names:
        found["current-context"] = current if current in names else ""
    return found


def users_part(config: Mapping[str, Json]) -> Manifest:
    """Return what the user has in a kubeconfig: all but entries of ours, whichever context is current."""
    found = {key: value for key, value in config.items() if key not in ("apiVersion", "kind", "current-context")}
    for key, kind in _LISTS.items():
        found[key] = [entry for entry in found.get(key) or [] if _extension(entry.get(kind)) is None]
    return found


def dumped(config: Manifest) -> bytes:
    """Return a kubeconfig as YAML, its keys in their order."""
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode()


def parsed(content: bytes) -> Manifest:
    """Return what a kubeconfig says; an empty one says nothing. Raises ``ConfigError``."""
    try:
        config = parse(content.decode(), "kubeconfig") or {}
    except (ConfigError, UnicodeDecodeError) as problem:
        raise ConfigError("it is not YAML") from problem
    if not isinstance(config, dict) or not _is_well_formed(config):
        raise ConfigError("it is not a kubeconfig")
    return config


def _is_ours(content: bytes) -> bool:
    """Whether a file carries the mark, and nothing that a user has added."""
    config = _ours(content)
    extension = _extension(config)
    if extension is None:
        return False
    return all(entry.get("name") == extension.get("name") for key in _LISTS for entry in config.get(key) or [])


def _owner(content: bytes) -> Owner | None:
    extension = _extension(_ours(content))
    return Owner.read(extension.get("owner")) if extension else None


def _extension(place: Json) -> Manifest | None:
    """Return our extension of a kubeconfig or of one of its entries."""
    extensions = place.get("extensions") if isinstance(place, dict) else None
    for entry in extensions if isinstance(extensions, list) else []:
        if isinstance(entry, dict) and entry.get("name") == _EXTENSION and isinstance(entry.get("extension"), dict):
            extension: Manifest = entry["extension"]
            return extension
    return None


def _ours(content: bytes) -> Manifest:
    """Return what a file of ours says; nothing for any other, which is not even parsed."""
    if _EXTENSION.encode() not in content or len(content) >= _LARGEST:
        return {}
    try:
        return parsed(content)
    except ConfigError:
        return {}


def _is_well_formed(config: Manifest) -> bool:
    lists = [config.get(key) or [] for key in (*_LISTS, "extensions")]
    return all(isinstance(one, list) and all(isinstance(entry, dict) for entry in one) for one in lists)


MARK = Mark("crosswind local up", _is_ours, _owner, head=_LARGEST)
"""The mark of a kubeconfig that a local cluster has written."""
