"""Checks the fields of a kubeconfig. An error names the field, and never a value that may be secret.

https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import TypedDict

from crosswind.errors import KubeconfigError
from crosswind.types import Json

__all__ = [
    "AuthProvider",
    "ClusterEntry",
    "ExecConfig",
    "UserEntry",
    "check_cluster",
    "check_context",
    "check_user",
    "header",
    "inline",
]


class ExecConfig(TypedDict, total=False):
    """The exec plug-in of a user."""

    command: str
    apiVersion: str
    args: list[str] | None
    env: list[dict[str, str]] | None
    installHint: str
    provideClusterInfo: bool


class AuthProvider(TypedDict, total=False):
    """The auth provider of a user, which exec plug-ins have replaced."""

    name: str
    config: dict[str, str]


ClusterEntry = TypedDict(
    "ClusterEntry",
    {
        "server": str,
        "certificate-authority": str,
        "certificate-authority-data": str,
        "insecure-skip-tls-verify": bool,
        "tls-server-name": str,
        "proxy-url": str,
    },
    total=False,
)
"""A cluster of a kubeconfig. In the functional form, because the names have dashes."""

UserEntry = TypedDict(
    "UserEntry",
    {
        "client-certificate": str,
        "client-certificate-data": str,
        "client-key": str,
        "client-key-data": str,
        "token": str,
        "tokenFile": str,
        "username": str,
        "password": str,
        "exec": ExecConfig | None,
        "auth-provider": AuthProvider | None,
    },
    total=False,
)
"""A user of a kubeconfig."""

_EXEC_VERSIONS = tuple(f"client.authentication.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))

_CLUSTER_TEXTS = ("server", "certificate-authority", "certificate-authority-data", "tls-server-name", "proxy-url")
_PAIR = (("client-certificate", "client-key"), ("client-key", "client-certificate"))
_USER_TEXTS = (
    "token",
    "tokenFile",
    "username",
    "password",
    *(f"{name}{data}" for name, _ in _PAIR for data in ("", "-data")),
)
_IMPERSONATION = ("as", "as-uid", "as-groups", "as-user-extra")


def check_context(context: Mapping[str, Json], where: str) -> None:
    """Raise ``KubeconfigError`` unless the fields of a context are valid. ``where``: file and name, for the message."""
    _raise_first(_texts(context, ("cluster", "user", "namespace")), where)


def check_cluster(cluster: Mapping[str, Json], where: str) -> None:
    """Raise ``KubeconfigError`` unless the fields of a cluster are valid."""
    _raise_first([*_texts(cluster, _CLUSTER_TEXTS), *_flags(cluster, ("insecure-skip-tls-verify",))], where)


def check_user(user: Mapping[str, Json], where: str) -> None:
    """Raise ``KubeconfigError`` unless the fields of a user are valid."""
    problems = [*_texts(user, _USER_TEXTS), *_impersonation(user), *_halves(user)]
    if user.get("exec") is not None:
        problems += _exec(user["exec"])
    if user.get("auth-provider") is not None:
        problems += _provider(user["auth-provider"])
    _raise_first(problems, where)


def inline(part: Mapping[str, object], field: str) -> bytes | None:
    """Return the content of a base64 field, None without the field; raise ``KubeconfigError`` for other text."""
    text = part.get(field)
    if not isinstance(text, str) or not text:
        return None
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise KubeconfigError(f"{field} is not base64; write the PEM text through: base64 -w0") from None


def header(authorization: str | None, what: str) -> str | None:
    """Return a header's value without a line end; raise ``KubeconfigError`` for characters that no header can hold."""
    if authorization is None:
        return None
    stripped = authorization.strip()
    if not stripped.isascii() or not stripped.isprintable():
        raise KubeconfigError(f"the {what} has characters that no HTTP header can hold, such as the end of a line")
    return stripped


def _raise_first(problems: list[str] | Iterator[str], where: str) -> None:
    for problem in problems:
        raise KubeconfigError(f"{where}: {problem}")


def _kind(value: Json) -> str:
    names = {bool: "true or false", dict: "a mapping", list: "a list", int: "a number", float: "a number"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), f"a {type(value).__name__}")


def _texts(part: Mapping[str, Json], fields: tuple[str, ...], above: str = "") -> Iterator[str]:
    for field in fields:
        value = part.get(field)
        if value is not None and not isinstance(value, str):
            yield f"{above}{field} must be text, not {_kind(value)}; put quotes around it if that is intended"


def _flags(part: Mapping[str, Json], fields: tuple[str, ...], above: str = "") -> Iterator[str]:
    for field in fields:
        value = part.get(field)
        if value is not None and not isinstance(value, bool):
            yield f"{above}{field} must be true or false, without quotes"


def _impersonation(user: Mapping[str, Json]) -> Iterator[str]:
    for field in _IMPERSONATION:
        if user.get(field):
            yield f"{field} (impersonation) is not supported; name a user that has the permissions itself"


def _halves(user: Mapping[str, Json]) -> Iterator[str]:
    for half, other in _PAIR:
        if (user.get(half) or user.get(f"{half}-data")) and not (user.get(other) or user.get(f"{other}-data")):
            yield f"there is {half} without {other}; give both, as files or as -data"


def _exec(plugin: Json) -> Iterator[str]:
    if not isinstance(plugin, dict):
        yield f"exec must be a mapping, not {_kind(plugin)}"
        return
    yield from _texts(plugin, ("command", "apiVersion", "installHint", "interactiveMode"), "exec.")
    yield from _flags(plugin, ("provideClusterInfo",), "exec.")
    if not plugin.get("command") or not plugin.get("apiVersion"):
        yield "exec needs the fields command and apiVersion"
    elif plugin["apiVersion"] not in _EXEC_VERSIONS:
        yield f"exec.apiVersion {plugin['apiVersion']} is not known; there are: {', '.join(_EXEC_VERSIONS)}"
    if plugin.get("interactiveMode") == "Always":
        yield "exec.interactiveMode is Always, but nobody can answer its questions here; sign in without questions"
    yield from _arguments(plugin.get("args"))
    yield from _environment(plugin.get("env"))


def _arguments(arguments: Json) -> Iterator[str]:
    if arguments is not None and not isinstance(arguments, list):
        yield f"exec.args must be a list, not {_kind(arguments)}"
        return
    for index, word in enumerate(arguments or ()):
        if not isinstance(word, str):
            yield f"exec.args[{index}] must be text, not {_kind(word)}; put quotes around it"


def _environment(variables: Json) -> Iterator[str]:
    if variables is not None and not isinstance(variables, list):
        yield f"exec.env must be a list of name and value, not {_kind(variables)}"
        return
    for index, variable in enumerate(variables or ()):
        fields = variable if isinstance(variable, dict) else {}
        if not all(isinstance(fields.get(key), str) for key in ("name", "value")) or not fields["name"]:
            yield f"exec.env[{index}] must have a name and a value, both text"


def _provider(provider: Json) -> Iterator[str]:
    if not isinstance(provider, dict) or not isinstance(provider.get("name"), str):
        yield "auth-provider must be a mapping with a name; exec plug-ins have replaced it in Kubernetes"
    elif not isinstance(provider.get("config") or {}, dict):
        yield "auth-provider.config must be a mapping"
