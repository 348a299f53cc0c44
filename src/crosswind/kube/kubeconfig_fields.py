"""What the fields of a kubeconfig may be. A mistake is told with its field, and never with a value that may be secret.

https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

from crosswind.errors import KubeconfigError
from crosswind.types import Json

__all__ = ["check_cluster", "check_context", "check_user", "header", "inline"]

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
    """Raise ``KubeconfigError`` unless a context's fields are what they have to be. ``where``: file and name."""
    _raise_first(_texts(context, ("cluster", "user", "namespace")), where)


def check_cluster(cluster: Mapping[str, Json], where: str) -> None:
    """Raise ``KubeconfigError`` unless a cluster's fields are what they have to be."""
    _raise_first([*_texts(cluster, _CLUSTER_TEXTS), *_flags(cluster, ("insecure-skip-tls-verify",))], where)


def check_user(user: Mapping[str, Json], where: str) -> None:
    """Raise ``KubeconfigError`` unless a user's fields are what they have to be."""
    problems = [*_texts(user, _USER_TEXTS), *_impersonation(user), *_halves(user)]
    if user.get("exec") is not None:
        problems += _exec(user["exec"])
    if user.get("auth-provider") is not None:
        problems += _provider(user["auth-provider"])
    _raise_first(problems, where)


def inline(part: Mapping[str, Any], field: str) -> bytes | None:
    """Return what a field with base64 holds, None when it is not there; ``KubeconfigError`` names the field."""
    if not (text := part.get(field)):
        return None
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise KubeconfigError(f"{field} is not base64; write the PEM text through: base64 -w0") from None


def header(authorization: str | None, what: str) -> str | None:
    """Return a header's value without the end of its line; ``KubeconfigError`` for what no header can hold."""
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
            yield f"{above}{field} must be text, is {_kind(value)}; put quotes around it if it is meant"


def _flags(part: Mapping[str, Json], fields: tuple[str, ...], above: str = "") -> Iterator[str]:
    for field in fields:
        value = part.get(field)
        if value is not None and not isinstance(value, bool):
            yield f"{above}{field} must be true or false, without quotes"


def _impersonation(user: Mapping[str, Json]) -> Iterator[str]:
    for field in _IMPERSONATION:
        if user.get(field):
            yield f"{field} (to act as somebody else) is not supported; name a user that may do what is wanted itself"


def _halves(user: Mapping[str, Json]) -> Iterator[str]:
    for one, other in _PAIR:
        if (user.get(one) or user.get(f"{one}-data")) and not (user.get(other) or user.get(f"{other}-data")):
            yield f"there is {one} without {other}; give both, as files or as -data"


def _exec(plugin: Json) -> Iterator[str]:
    if not isinstance(plugin, dict):
        yield f"exec must be a mapping, is {_kind(plugin)}"
        return
    yield from _texts(plugin, ("command", "apiVersion", "installHint", "interactiveMode"), "exec.")
    yield from _flags(plugin, ("provideClusterInfo",), "exec.")
    if not plugin.get("command") or not plugin.get("apiVersion"):
        yield "exec needs the fields command and apiVersion"
    elif plugin["apiVersion"] not in _EXEC_VERSIONS:
        yield f"exec.apiVersion {plugin['apiVersion']} is not known; there are: {', '.join(_EXEC_VERSIONS)}"
    if plugin.get("interactiveMode") == "Always":
        yield "exec.interactiveMode is Always, and nobody sits there to answer; sign in without questions"
    yield from _arguments(plugin.get("args"))
    yield from _environment(plugin.get("env"))


def _arguments(arguments: Json) -> Iterator[str]:
    if arguments is not None and not isinstance(arguments, list):
        yield f"exec.args must be a list, is {_kind(arguments)}"
        return
    for index, word in enumerate(arguments or ()):
        if not isinstance(word, str):
            yield f"exec.args[{index}] must be text, is {_kind(word)}; put quotes around it"


def _environment(variables: Json) -> Iterator[str]:
    if variables is not None and not isinstance(variables, list):
        yield f"exec.env must be a list of name and value, is {_kind(variables)}"
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
