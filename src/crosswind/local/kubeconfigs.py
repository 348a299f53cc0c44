"""Kubeconfig files of ours: written so that only their owner reads them, and never over another's."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import yaml

from crosswind.errors import KubeconfigError
from crosswind.types import Manifest

__all__ = ["NAME", "kubeconfig", "write_kubeconfig", "write_private"]

NAME = "crosswind-local"
"""Name of cluster, user and context in a kubeconfig of ours."""


def kubeconfig(url: str, token: str, authority: str) -> Manifest:
    """Return a kubeconfig for one server, the certificate of its authority (PEM) and one bearer token."""
    cluster = {"server": url, "certificate-authority-data": base64.b64encode(authority.encode()).decode()}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": NAME,
        "clusters": [{"name": NAME, "cluster": cluster}],
        "users": [{"name": NAME, "user": {"token": token}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": "default"}}],
    }


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, in one step. Raises ``KubeconfigError`` when that cannot be done."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        part.replace(path)
    except OSError as problem:
        raise KubeconfigError(f"cannot write {path}: {problem.strerror}; name another file") from problem


def write_kubeconfig(path: Path, config: Manifest) -> None:
    """Write a kubeconfig of ours. Raises ``KubeconfigError`` rather than replace one that is not."""
    if path.exists() and not _ours(path):
        raise KubeconfigError(f"{path} is there and is not a kubeconfig of crosswind local: name another file")
    write_private(path, yaml.safe_dump(config, sort_keys=False))


def _ours(path: Path) -> bool:
    config = _load(path)
    return [c.get("name") for c in config.get("contexts") or []] in ([NAME], []) and not config.get("preferences")


def _load(path: Path) -> Manifest:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise KubeconfigError(f"cannot read kubeconfig {path}: {problem}") from problem
    if not isinstance(config, dict):
        raise KubeconfigError(f"{path} is not a kubeconfig")
    return config
