"""Masks the secrets in a pod that is shown to people.

Secrets belong in Secret objects, but authors also write them into environment variables, arguments, annotations and
probes.
Masking hides values under sensitive names, passwords in URLs and credentials in headers. It keeps the names of Secrets,
keys and files, which a reader looks for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from crosswind.types import Json, Manifest

__all__ = ["is_sensitive", "mask_pod", "mask_text"]

Hides: TypeAlias = Callable[[str], bool]
"""Returns whether a value under this name is hidden."""

_HIDDEN = "***"
_PARTS = (
    "passw",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "bearer",
    "authorization",
    "credential",
    "cookie",
    "apikey",
    "accesskey",
    "accountkey",
    "sharedkey",
    "sharedaccess",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "fernetkey",
    "connectionstring",
    "connstr",
    "airflowconn",
    "sqlalchemyconn",
    "resultbackend",
    "brokerurl",
    "webhookurl",
)
"""Parts of names, reduced to letters and digits, whose values are secrets. The caller adds Airflow's own list."""

_MAPS = frozenset({"annotations", "labels", "volumeAttributes", "options", "data", "stringData"})
"""Fields whose keys the author chooses."""

_NAMES = frozenset({"image", "name", "key", "secretName", "claimName", "mountPath", "serviceAccountName"})
"""Fields that hold names. A reader looks for them, and a colon in one (``image:tag``) separates no secret."""

# A password may hold slashes and at signs, as base64 does: it goes on to the last at sign, unless a port stands there.
_URL = re.compile(
    r"(?P<before>(?<![\w+.-])[a-z][\w+.-]{0,30}://[^\s:/?#@]{0,200}:)"
    r"""(?!\d{1,5}(?:[/?#\s]|$))[^\s"'<>]{1,500}(?=@)""",
    re.IGNORECASE,
)
_HEADER = re.compile(r"\b(bearer|basic|digest|negotiate)\s+[\w.~+/=-]{6,}", re.IGNORECASE)
_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_VALUE = r"""(?:"(?:[^"\\]|\\.)*"|\\"[^"\\]*\\"|'[^']*'|[^\s"',;&|)}]+)"""
_ASSIGNED = re.compile(
    rf"""(?P<name>(?<![\w.-])[\w.-]*\w)(?P<between>\\?["']?\s*(?:=|:(?!//))\s*)(?P<value>{_VALUE})"""
)
_OPTION = re.compile(rf"(?P<name>(?<![\w-])--?[A-Za-z][\w-]*)(?P<between>\s+)(?P<value>(?!-){_VALUE})")
_FLAG = re.compile(r"--?[A-Za-z][\w.-]*")


def is_sensitive(name: str) -> bool:
    """Return whether a name says that its value is a secret."""
    letters = re.sub(r"[\W_]+", "", name).lower()
    return any(part in letters for part in _PARTS)


def mask_pod(pod: Manifest, hides: Hides = is_sensitive) -> Manifest:
    """Return a copy of a pod with the values of secrets masked. ``hides``: returns whether a name's value is one."""
    masked: Manifest = _masked(pod, hides)
    return masked


def mask_text(text: str, hides: Hides = is_sensitive) -> str:
    """Return a text, such as a shell command or JSON, with the values of secrets masked."""

    def assigned(match: re.Match[str]) -> str:
        return f"{match['name']}{match['between']}{_HIDDEN}" if hides(match["name"]) else match[0]

    text = _KEY.sub(_HIDDEN, text)
    text = _URL.sub(rf"\g<before>{_HIDDEN}", text)
    text = _HEADER.sub(rf"\1 {_HIDDEN}", text)
    return _OPTION.sub(assigned, _ASSIGNED.sub(assigned, text))


def _masked(value: Json, hides: Hides) -> Json:
    if isinstance(value, dict):
        return {key: _field(key, item, value, hides) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return (
            _words(value, hides)
            if all(isinstance(item, str) for item in value)
            else [_masked(item, hides) for item in value]
        )
    return mask_text(value, hides) if isinstance(value, str) else value


def _field(key: str, value: Json, parent: Manifest, hides: Hides) -> Json:
    if key in _MAPS and isinstance(value, dict):
        return {name: _HIDDEN if hides(name) and item else _masked(item, hides) for name, item in value.items()}
    if key in _NAMES and isinstance(value, str):
        return value
    named = key == "value" and isinstance(value, str) and isinstance(parent.get("name"), str)
    return _HIDDEN if named and value and hides(parent["name"]) else _masked(value, hides)


def _words(words: list[str] | tuple[str, ...], hides: Hides) -> list[str]:
    """Mask the words of a command, and the word that follows an option such as ``--password``."""
    masked, behind = [], False
    for word in words:
        is_flag = _FLAG.fullmatch(word) is not None
        masked.append(_HIDDEN if behind and not is_flag else mask_text(word, hides))
        behind = is_flag and hides(word)
    return masked
