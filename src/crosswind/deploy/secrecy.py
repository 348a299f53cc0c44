"""Recognises secrets in options, environment variables and URLs, which must not be in a manifest. Pure.

Manifests are stored in Git and read by many people; they refer to a Secret by name and key instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from crosswind.types import Json

__all__ = ["SENSITIVE_OPTIONS", "is_secret_option", "secret_assignments", "secret_variable", "urls_with_user"]

SENSITIVE_OPTIONS = frozenset(
    {
        ("api", "secret_key"),
        ("api_auth", "jwt_secret"),
        ("atlas", "password"),
        ("celery", "broker_url"),
        ("celery", "flower_basic_auth"),
        ("celery", "result_backend"),
        ("core", "asset_manager_kwargs"),
        ("core", "fernet_key"),
        ("database", "sql_alchemy_conn"),
        ("database", "sql_alchemy_conn_async"),
        ("database", "sql_alchemy_engine_args"),
        ("logging", "remote_task_handler_kwargs"),
        ("opensearch", "password"),
        ("opensearch", "username"),
        ("secrets", "backend_kwargs"),
        ("sentry", "sentry_dsn"),
        ("smtp", "smtp_password"),
        ("workers", "secrets_backend_kwargs"),
    }
)
"""Options that the configuration descriptions of Airflow 3.3 and its providers mark as sensitive; a test compares."""

_CONFIDENTIAL = r"(?:password|passwd|passphrase|secret|token|api_?key|private_?key|access_?key|dsn|credentials?)"
_SECRET_OPTION = re.compile(rf"(?:^|_){_CONFIDENTIAL}$", re.I)
_SECRET_VARIABLE = re.compile(
    r"(?:^|_)(?:PASSWORD|PASSWD|PWD|PASSPHRASE|TOKEN|SECRET|KEY|DSN|CREDENTIALS?)$|^AIRFLOW_CONN_", re.I
)
_AIRFLOW_OPTION = re.compile(r"AIRFLOW__([A-Z0-9_.]+?)__([A-Z0-9_]+)", re.I)
_ASSIGNMENT = re.compile(
    rf"""(?P<name>["']?\w*{_CONFIDENTIAL}["']?)\s*[:=]\s*[rbuf]?(?P<quote>["'])(?P<value>[^"'\n]+)(?P=quote)""", re.I
)
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s\"'<>]+")
_SCHEMES_WITH_PUBLIC_USER = ("ssh", "git+ssh", "sftp")


def is_secret_option(section: str, option: str, value: object) -> bool:
    """Return whether an option of airflow.cfg holds a secret.

    ``option_cmd`` and ``option_secret`` name the place where Airflow reads the secret, and do not hold it. ``*_kwargs``
    may hold a secret unless all their values are numbers and booleans.
    """
    section, option = section.lower(), option.lower()
    if any(option == f"{name}{end}" for _, name in SENSITIVE_OPTIONS for end in ("_cmd", "_secret")):
        return False
    if (section, option) in SENSITIVE_OPTIONS or _SECRET_OPTION.search(option):
        return True
    return option.endswith("_kwargs") and _has_text(value)


def secret_variable(variable: Mapping[str, Json]) -> str:
    """Return why an environment variable with a literal value must come from a Secret, "" if it need not.

    ``plain: true`` beside the value marks it as no secret.
    """
    name, value = str(variable.get("name", "")), variable.get("value")
    if not isinstance(value, str) or not value or variable.get("plain") is True:
        return ""
    if airflow := _AIRFLOW_OPTION.fullmatch(name):
        return "an option that is secret" if is_secret_option(airflow[1], airflow[2], value) else ""
    if not _SECRET_VARIABLE.search(name) or _is_plain_url(value):
        return ""
    return "the name of a secret"


def urls_with_user(value: Json) -> Iterator[str]:
    """Yield the URLs that contain a password or token, in a text or in any text of a list or mapping."""
    if isinstance(value, str):
        for url in _URL.findall(value):
            parts = _parts(url)
            if parts is not None and _reveals(*parts):
                yield url
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from urls_with_user(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from urls_with_user(item)


def secret_assignments(text: str) -> Iterator[str]:
    """Yield the variables of a Python file that are named like a secret and have a literal value."""
    for line in text.splitlines():
        for assignment in _ASSIGNMENT.finditer(line.partition("#")[0]):
            yield assignment["name"].strip("\"'")


def _parts(url: str) -> tuple[str, str | None, str | None] | None:
    try:
        parts = urlsplit(url)
        return parts.scheme.lower(), parts.username, parts.password
    except ValueError:
        return None


def _reveals(scheme: str, user: str | None, password: str | None) -> bool:
    if password:
        return not password.startswith(("$", "{"))  # a reference that is expanded later
    return bool(user) and scheme not in _SCHEMES_WITH_PUBLIC_USER


def _is_plain_url(value: str) -> bool:
    return bool(_URL.fullmatch(value)) and not any(urls_with_user(value))


def _has_text(value: object) -> bool:
    if isinstance(value, str):
        try:
            parsed: Json = json.loads(value)
        except ValueError:
            return bool(value.strip())
        return _has_text(parsed) if not isinstance(parsed, str) else bool(parsed)
    if isinstance(value, Mapping):
        return any(_has_text(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_has_text(item) for item in value)
    return False
