"""Recognises secrets in options, environment variables and URLs, which must not be in a manifest. Pure.

Manifests are stored in Git and read by many people; they refer to a Secret by name and key instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from crosswind.deploy.json_values import parse_json
from crosswind.types import Json

__all__ = ["SENSITIVE_OPTIONS", "is_secret_name", "is_secret_option", "secret_variable", "urls_with_user"]

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

_SECRET_NAME = re.compile(
    r"(?:password|passwd|passphrase|secret|token|(?:api|private|access|account|secret)_?key|connection_?string"
    r"|credentials?|(?:^|[\W_])(?:pwd|dsn))$",
    re.I,
)
_SECRET_VARIABLE = re.compile(r"_KEY$|^KEY$|^AIRFLOW_CONN_", re.I)
"""Names of variables that hold a secret, beside those of ``_SECRET_NAME``."""

_AIRFLOW_OPTION = re.compile(r"AIRFLOW__([A-Z0-9_.]+?)__([A-Z0-9_]+)", re.I)
_SCHEME = r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*)://"
_URL = re.compile(rf"{_SCHEME}(?P<rest>[^\s\"'<>]+)")
_TEXT_THAT_IS_URL = re.compile(rf"{_SCHEME}(?P<rest>\S+)")
_SCHEMES_WITH_PUBLIC_USER = ("ssh", "git+ssh", "sftp")
_REFERENCE = re.compile(r"(?:\$\{\w+\}|\$\(\w+\)|\{\{?[\w.]+\}?\})+")
"""``${VARIABLE}``, ``$(VARIABLE)`` of Kubernetes, ``{name}``: text that a program replaces later."""


def is_secret_name(name: str) -> bool:
    """Return whether a name says that its value is a secret. ``*_file``, ``*_name`` and ``*_url`` do not."""
    return _SECRET_NAME.search(name) is not None


def is_secret_option(section: str, option: str, value: object) -> bool:
    """Return whether an option of airflow.cfg holds a secret.

    ``option_cmd`` and ``option_secret`` name the place where Airflow reads the secret, and do not hold it. ``*_kwargs``
    may hold a secret unless all their values are numbers and booleans.
    """
    section, option = section.lower(), option.lower()
    if any(option == f"{name}{end}" for _, name in SENSITIVE_OPTIONS for end in ("_cmd", "_secret")):
        return False
    if (section, option) in SENSITIVE_OPTIONS or is_secret_name(option):
        return True
    return option.endswith("_kwargs") and _has_text(value)


def secret_variable(variable: Mapping[str, Json]) -> str:
    """Return why an environment variable with a literal value must come from a Secret, "" if it need not.

    ``plain: true`` beside the value marks it as no secret. Text in an unknown field is a value too.
    """
    name = str(variable.get("name", ""))
    literals = [item for field, item in variable.items() if field != "name" and isinstance(item, str) and item]
    if not literals or variable.get("plain") is True:
        return ""
    if airflow := _AIRFLOW_OPTION.fullmatch(name):
        secret = any(is_secret_option(airflow[1], airflow[2], literal) for literal in literals)
        return "an option that is secret" if secret else ""
    named = is_secret_name(name) or _SECRET_VARIABLE.search(name)
    return "the name of a secret" if named and not all(map(_is_plain_url, literals)) else ""


def urls_with_user(value: Json) -> Iterator[str]:
    """Yield the URLs that contain a password or token, in a text or in any text of a list or mapping."""
    if isinstance(value, str):
        whole = _TEXT_THAT_IS_URL.fullmatch(value)  # in which quotes may be part of the password
        for url in [whole] if whole else _URL.finditer(value):
            if _reveals(url["scheme"].lower(), url["rest"]):
                yield url[0]
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from urls_with_user(name)
            yield from urls_with_user(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from urls_with_user(item)


def _reveals(scheme: str, rest: str) -> bool:
    """Return whether the part of a URL after ``://`` contains a user's secret.

    A password may hold slashes, as base64 does. Without an at sign before the first slash, it therefore goes on to the
    last at sign, unless a port stands there.
    """
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    within = "@" in authority
    user, colon, password = (authority if within else rest).rpartition("@")[0].partition(":")
    if within:
        if password:
            return not _REFERENCE.fullmatch(password)
        return bool(user) and scheme not in _SCHEMES_WITH_PUBLIC_USER and not _REFERENCE.fullmatch(user)
    if not colon or re.match(r"\[|.*[/?#]", user):  # no user, or the address of a host in IPv6
        return False
    return not re.fullmatch(rf"\d{{1,5}}|{_REFERENCE.pattern}", authority.partition(":")[2])


def _is_plain_url(value: str) -> bool:
    return bool(_URL.fullmatch(value)) and not any(urls_with_user(value))


def _has_text(value: object) -> bool:
    if isinstance(value, str):
        try:
            parsed = parse_json(value)
        except ValueError:
            return bool(value.strip())
        return _has_text(parsed) if not isinstance(parsed, str) else bool(parsed)
    if isinstance(value, Mapping):
        return any(_has_text(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_has_text(item) for item in value)
    return False
