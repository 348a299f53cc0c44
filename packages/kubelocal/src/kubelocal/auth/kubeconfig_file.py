"""Kubeconfigs of local clusters: files of their own, and entries in a user's kubeconfig.

An extension, which ``kubectl config`` keeps, marks both: in a file it names the process that owns the file.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from kubelocal import owned_paths
from kubelocal.errors import SettingError
from kubelocal.owned_paths import FileSignature, Owner
from kubelocal.types import Json, Manifest
from kubelocal.yaml_input import parse

__all__ = [
    "SIGNATURE",
    "context_name",
    "dumped",
    "kubeconfig",
    "merged",
    "parsed",
    "remove_kubeconfig",
    "renamed",
    "single_context",
    "users_part",
    "without",
    "write_kubeconfig",
]

_EXTENSION = "crosswind.local"
_LISTS = {"clusters": "cluster", "users": "user", "contexts": "context"}
_FILE_FIELDS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
_MAX_KUBECONFIG_BYTES = 1024 * 1024


def context_name(cluster: str) -> str:
    """Return the name of cluster, user and context of a local cluster in kubeconfigs."""
    return f"crosswind-{cluster}"


def kubeconfig(url: str, token: str, authority: str, name: str = "local") -> Manifest:
    """Return a kubeconfig for one server; ``authority`` is the certificate of its authority (PEM)."""
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
    """Return the extension that distinguishes our entry from a user's entry of the same name."""
    return {"extensions": [{"name": _EXTENSION, "extension": {"command": "kubelocal"}}]}


def write_kubeconfig(path: Path, config: Manifest, me: Owner) -> None:
    """Write a kubeconfig with mode 0600. Raises ``SettingError`` instead of replacing a user's file."""
    extension = {"command": SIGNATURE.command, "owner": me.fields, "name": config["current-context"]}
    marked = {**config, "extensions": [{"name": _EXTENSION, "extension": extension}]}
    owned_paths.write(path, dumped(marked), SIGNATURE, me=me, mode=0o600)


def remove_kubeconfig(path: Path, me: Owner) -> None:
    """Remove a kubeconfig that ``me`` wrote; where the user has added entries, remove only ours."""
    try:
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
    except OSError:
        return
    config = _ours(content)
    extension = _extension(config)
    if extension is None or Owner.read(extension.get("owner")) != me:
        return
    if _is_ours(content):
        owned_paths.remove(path, SIGNATURE, me)
        return
    rest = without(config, str(extension.get("name")))
    rest["extensions"] = [item for item in rest.get("extensions") or [] if item.get("name") != _EXTENSION]
    owned_paths.write(path, dumped(rest), FileSignature(SIGNATURE.command, lambda _: True), me=me)


def renamed(config: Manifest, name: str) -> Manifest:
    """Return our cluster, user and context in ``config`` under another name, as a separate kubeconfig."""
    result: Manifest = {"current-context": name}
    for key, kind in _LISTS.items():
        ours = next((entry[kind] for entry in config.get(key) or [] if _extension(entry.get(kind)) is not None), None)
        if ours is None:
            raise SettingError(f"it has no {kind} of kubelocal")
        result[key] = [{"name": name, kind: {**ours, "cluster": name, "user": name} if kind == "context" else ours}]
    return result


def merged(config: Mapping[str, Json], ours: Manifest, *, switch: bool) -> Manifest:
    """Return a user's kubeconfig with the entries of ``ours``, which replace our earlier ones.

    ``switch``: make ours the current context, else the current one stays. Raises ``SettingError`` when the user
    has an entry of that name.
    """
    name = ours["current-context"]
    rest = without(config, name)
    for key, kind in _LISTS.items():
        if any(entry.get("name") == name for entry in rest.get(key) or []):
            raise SettingError(f"it has a {kind} {name} that kubelocal has not made: rename it, or the local cluster")
    result: Manifest = {"apiVersion": "v1", "kind": "Config", **rest}
    for key in _LISTS:
        result[key] = [*(result.get(key) or []), *ours[key]]
    if switch or config.get("current-context") == name:
        result["current-context"] = name
    return result


def without(config: Mapping[str, Json], name: str, current: str = "") -> Manifest:
    """Return a kubeconfig without our entries of one name.

    ``current``: becomes the current context where that was ours; "" when the file has no such context.
    """
    result = dict(config)
    for key, kind in _LISTS.items():
        if key in result:
            entries = result[key] or []
            result[key] = [
                entry for entry in entries if entry.get("name") != name or _extension(entry.get(kind)) is None
            ]
    names = [context.get("name") for context in result.get("contexts") or []]
    if result.get("current-context") == name and name not in names:
        result["current-context"] = current if current in names else ""
    return result


def single_context(paths: Sequence[Path], name: str) -> Manifest:
    """Return one context of kubeconfig files with its cluster and user; the first entry of a name counts.

    File names become absolute, because a kubeconfig has them relative to itself. Raises ``SettingError``.
    """
    files = [(path, parsed(path.read_bytes())) for path in paths if path.is_file()]
    context = _entry(files, "contexts", name)[0]
    parts = {key: _entry(files, key, context.get(kind)) for key, kind in (("clusters", "cluster"), ("users", "user"))}
    chosen: Manifest = {"apiVersion": "v1", "kind": "Config", "current-context": name}
    chosen["contexts"] = [{"name": name, "context": {**context, "cluster": name, "user": name}}]
    for key, (entry, path) in parts.items():
        names = {field: str(path.resolve().parent / entry[field]) for field in _FILE_FIELDS if entry.get(field)}
        chosen[key] = [{"name": name, _LISTS[key]: entry | names}]
    return chosen


def _entry(files: Sequence[tuple[Path, Manifest]], key: str, name: str | None) -> tuple[Manifest, Path]:
    """Return the content of the entry of that name, and its file."""
    entries = [(entry, path) for path, config in files for entry in config.get(key) or []]
    for entry, path in entries:
        if entry.get("name") == name and isinstance(entry.get(_LISTS[key]), dict):
            return entry[_LISTS[key]], path
    names = ", ".join(str(entry.get("name")) for entry, _ in entries) or "none at all"
    raise SettingError(f'the kubeconfig has no {_LISTS[key]} "{name}"; there are: {names}')


def users_part(config: Mapping[str, Json]) -> Manifest:
    """Return a kubeconfig without our entries and the current context."""
    result = {key: value for key, value in config.items() if key not in ("apiVersion", "kind", "current-context")}
    for key, kind in _LISTS.items():
        result[key] = [entry for entry in result.get(key) or [] if _extension(entry.get(kind)) is None]
    return result


def dumped(config: Manifest) -> bytes:
    """Return a kubeconfig as YAML, with its keys in order."""
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode()


def parsed(content: bytes) -> Manifest:
    """Parse a kubeconfig, an empty file as {}. Raises ``SettingError``."""
    try:
        config = parse(content.decode(), "kubeconfig") or {}
    except (SettingError, UnicodeDecodeError) as problem:
        raise SettingError("it is not YAML") from problem
    if not isinstance(config, dict) or not _is_well_formed(config):
        raise SettingError("it is not a kubeconfig")
    return config


def _is_ours(content: bytes) -> bool:
    """Whether a file has our extension and no entry of the user's."""
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
    """Parse a file with our extension; return {} for any other, without parsing it."""
    if _EXTENSION.encode() not in content or len(content) >= _MAX_KUBECONFIG_BYTES:
        return {}
    try:
        return parsed(content)
    except SettingError:
        return {}


def _is_well_formed(config: Manifest) -> bool:
    lists = [config.get(key) or [] for key in (*_LISTS, "extensions")]
    return all(isinstance(part, list) and all(isinstance(entry, dict) for entry in part) for part in lists)


SIGNATURE = FileSignature("kubelocal up", _is_ours, _owner, head=_MAX_KUBECONFIG_BYTES)
"""How a kubeconfig that a local cluster wrote is recognised."""
