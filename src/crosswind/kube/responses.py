"""Interprets answers of the API server, without I/O, as objects or errors of ``crosswind.errors``."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from crosswind import errors
from crosswind.kube.requests import Request
from crosswind.types import Json, Manifest

__all__ = ["decode", "error_of", "error_of_status", "listed", "mapping_of", "object_of"]

_MESSAGE_LIMIT = 1000
"""Characters of a Status' message: it may list every field of a pod, and the first causes suffice."""

_CHECK_ADDRESS = "; check the server's address and any proxy in between"

_ERRORS: dict[int, type[errors.ApiError]] = {
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    408: errors.ServerError,
    409: errors.Conflict,
    410: errors.Gone,
    422: errors.Invalid,
    429: errors.TooManyRequests,
}
"""The errors by HTTP code. Every other 3xx and 4xx is BadRequest, every other code ServerError."""


def decode(body: bytes, request: Request) -> Json:
    """Return the JSON of a successful answer; raise ``Unreachable`` when a proxy or another server answered."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise errors.Unreachable(
            f"{request}: the answer is not JSON, so it does not come from a Kubernetes API server{_CHECK_ADDRESS}"
        ) from None


def object_of(content: Json, request: Request) -> Manifest:
    """Return an answer that is an object with name and uid; raise ``Unreachable`` for any other (``null``, ``{}``).

    Such an answer is no refusal: the server may have carried out the request.
    """
    answer = mapping_of(content)
    metadata = mapping_of(answer.get("metadata"))
    is_stored = isinstance(metadata.get("name"), str) and isinstance(metadata.get("uid"), str)
    if is_stored or str(answer.get("kind")).endswith(
        ("Review", "Request")
    ):  # TokenReview, TokenRequest and the like are not stored
        return answer
    raise errors.Unreachable(f"{request}: unexpected answer: not an object of {request.subject}{_CHECK_ADDRESS}")


def listed(content: Json, request: Request) -> list[Manifest]:
    """Return the objects of a list; raise ``Unreachable`` for an answer that is no list.

    ``{}`` is no empty list: read as one, it would mean that every pod is gone.
    """
    answer = mapping_of(content)
    items = answer.get("items") or []  # Go writes null for an empty one
    if (
        isinstance(answer.get("metadata"), dict)
        and isinstance(items, list)
        and all(isinstance(mapping_of(item).get("metadata"), dict) for item in items)
    ):
        return items
    raise errors.Unreachable(f"{request}: unexpected answer: not a list of objects{_CHECK_ADDRESS}")


def mapping_of(value: Json) -> Manifest:
    """Return ``value`` if it is an object of JSON, else {}."""
    return value if isinstance(value, dict) else {}


def error_of(request: Request, code: int, headers: Mapping[str, str], body: bytes) -> errors.ApiError:
    """Return the error for an answer with code 300 or above. It repeats nothing of a body that is no Status."""
    status = _status(body) or {"message": _without_status(code, headers)}
    status.setdefault("code", code)
    return error_of_status(status, request, retry_after=_seconds(headers.get("Retry-After")), code=code)


def error_of_status(
    status: Manifest, request: Request, *, retry_after: float | None = None, code: int | None = None
) -> errors.ApiError:
    """Return the error for a Status: of an answer, an ERROR event of a watch, or the last message of an exec."""
    status = mapping_of(status)
    code = code or _integer(status.get("code")) or 500
    reason = str(status.get("reason") or "")
    details = status.get("details")
    details = details if isinstance(details, dict) else {}
    message = _short(str(status.get("message") or reason or f"status {code}"))
    kind = _class_of(code, reason, message)
    if retry_after is None:
        retry_after = _seconds(details.get("retryAfterSeconds"))
    return kind(
        message + _fix(kind, message, request),
        status=code,
        reason=reason,
        details=details,
        retry_after=retry_after,
        request=str(request),
    )


def _class_of(code: int, reason: str, message: str) -> type[errors.ApiError]:
    if code == 403 and "exceeded quota" in message:
        return errors.QuotaExceeded
    if code == 504 and "Too large resource version" in message:  # the server was restored from a backup
        return errors.Gone
    if code == 409 and reason == "AlreadyExists":
        return errors.AlreadyExists
    default = errors.BadRequest if 300 <= code < 500 else errors.ServerError
    return _ERRORS.get(code, default)


def _fix(kind: type[errors.ApiError], message: str, request: Request) -> str:
    """Return the fix in parentheses where it is certain, else ""."""
    if kind is errors.Forbidden and (" cannot " in message or message.endswith("is forbidden: ")):
        return _grant(request)
    if kind is errors.Unauthorized:
        return " (the cluster does not accept these credentials: log in again, or renew the token or certificate)"
    if kind is errors.NotFound and message.startswith("namespaces ") and request.subject != "namespaces":
        return f" (create it with: kubectl create namespace {request.namespace}; or name another one in the settings)"
    return ""


def _grant(request: Request) -> str:
    # Exec and port-forward over WebSockets are GET requests that need both verbs. The refusal of "create" has no text
    # after "is forbidden: ".
    verbs = '"get" and "create"' if request.upgrade else f'"{request.verb}"'
    scope = f'in namespace "{request.namespace}" by a Role' if request.namespace else "by a ClusterRole"
    group = f' of API group "{request.group}"' if request.group else ""
    return f' (allow {verbs} on "{request.subject}"{group} {scope} and its binding)'


def _status(body: bytes) -> Manifest | None:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return content if isinstance(content, dict) and content.get("kind") == "Status" else None


def _without_status(code: int, headers: Mapping[str, str]) -> str:
    kind = headers.get("Content-Type", "no content type").split(";")[0]
    if 300 <= code < 400:
        return f"status {code}, a redirect: the server's address is probably not that of a Kubernetes API server"
    return f"status {code} without a Status body ({kind})"


def _short(message: str) -> str:
    return message if len(message) <= _MESSAGE_LIMIT else message[:_MESSAGE_LIMIT] + " ..."


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _seconds(value: object) -> float | None:
    """Return a number of seconds, None for any other text; Kubernetes sends no HTTP dates here."""
    try:
        seconds = float(value)  # type: ignore[arg-type]  # anything else raises
    except (TypeError, ValueError):
        return None
    return seconds if 0 <= seconds < 86_400 else None
