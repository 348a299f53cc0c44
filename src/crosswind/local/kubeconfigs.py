"""Kubeconfigs of local clusters: files of their own, and entries of ours among a user's.

A file of ours carries a mark that ``kubectl config`` keeps: an extension that names the owner's process.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import yaml

from crosswind import ownership
from crosswind.ownership import Mark, Owner
from crosswind.types import Json, Manifest

__all__ = ["MARK", "context_name", "kubeconfig", "merged", "remove_kubeconfig", "without", "write_kubeconfig"]

_EXTENSION = "crosswind.local"
_LISTS = ("clusters", "users", "contexts")
_LARGEST = 1024 * 1024


def context_name(cluster: str) -> str:
    """Return what cluster, user and context of a local cluster are called in kubeconfigs."""
    return f"crosswind-{cluster}"


def kubeconfig(url: str, token: str, authority: str, name: str = "local") -> Manifest:
    """Return a kubeconfig for one server, the certificate of its authority (PEM) and one bearer token."""
    called = context_name(name)
    cluster = {"server": url, "certificate-authority-data": base64.b64encode(authority.encode()).decode()}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": called,
        "clusters": [{"name": called, "cluster": cluster}],
        "users": [{"name": called, "user": {"token": token}}],
        "contexts": [{"name": called, "context": {"cluster": called, "user": called, "namespace": "default"}}],
    }


def write_kubeconfig(path: Path, config: Manifest, me: Owner) -> None:
    """Write a kubeconfig of ours, for its owner's eyes. Raises ``ConfigError`` rather than replace one that is not."""
    extension = {"command": MARK.command, "owner": me.fields, "name": config["current-context"]}
    marked = {**config, "extensions": [{"name": _EXTENSION, "extension": extension}]}
    ownership.write(path, _dumped(marked), MARK, me=me, mode=0o600)


def remove_kubeconfig(path: Path, me: Owner) -> None:
    """Remove a kubeconfig that ``me`` wrote; when entries of others have come into it, only ours go."""
    try:
        content = path.read_bytes() if not path.is_symlink() else b""
    except OSError:
        return
    config = _parsed(content)
    extension = _extension(config)
    if extension is None or Owner.read(extension.get("owner")) != me:
        return
    if _is_ours(content):
        ownership.remove(path, MARK, me)
        return
    rest = without(config, str(extension.get("name")))
    rest["extensions"] = [one for one in rest.get("extensions") or [] if one.get("name") != _EXTENSION]
    ownership.write(path, _dumped(rest), Mark(MARK.command, lambda _: True), me=me)


def merged(config: Mapping[str, Json], ours: Manifest, *, switch: bool) -> Manifest:
    """Return a user's kubeconfig with the entries of ``ours`` in it, in place of former ones of the same name.

    ``switch``: make ours the current context. Without it the current one stays, whatever it is.
    """
    name = ours["current-context"]
    found: Manifest = {"apiVersion": "v1", "kind": "Config", **without(config, name)}
    for key in _LISTS:
        found[key] = [*(found.get(key) or []), *ours[key]]
    if switch or config.get("current-context") == name:
        found["current-context"] = name
    return found


def without(config: Mapping[str, Json], name: str) -> Manifest:
    """Return a kubeconfig without the cluster, user and context of one name; it is current no longer."""
    found = dict(config)
    for key in _LISTS:
        if key in found:
            found[key] = [entry for entry in found[key] or [] if entry.get("name") != name]
    if found.get("current-context") == name:
        found["current-context"] = ""
    return found


def _dumped(config: Manifest) -> bytes:
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode()


def _is_ours(content: bytes) -> bool:
    """Whether a file carries the mark, and nothing that a user has added."""
    config = _parsed(content)
    extension = _extension(config)
    if extension is None:
        return False
    return all(entry.get("name") == extension.get("name") for key in _LISTS for entry in config.get(key) or [])


def _owner(content: bytes) -> Owner | None:
    extension = _extension(_parsed(content))
    return Owner.read(extension.get("owner")) if extension else None


def _extension(config: Manifest) -> Manifest | None:
    for entry in config.get("extensions") or []:
        if isinstance(entry, dict) and entry.get("name") == _EXTENSION and isinstance(entry.get("extension"), dict):
            extension: Manifest = entry["extension"]
            return extension
    return None


def _parsed(content: bytes) -> Manifest:
    """Return what a file of ours says; nothing for any other, which is not even parsed."""
    if _EXTENSION.encode() not in content or len(content) >= _LARGEST:
        return {}
    try:
        config = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) and _is_well_formed(config) else {}


def _is_well_formed(config: Manifest) -> bool:
    lists = [config.get(key) or [] for key in (*_LISTS, "extensions")]
    return all(isinstance(one, list) and all(isinstance(entry, dict) for entry in one) for one in lists)


MARK = Mark("crosswind local up", _is_ours, _owner, head=_LARGEST)
"""The mark of a kubeconfig that a local cluster has written."""
