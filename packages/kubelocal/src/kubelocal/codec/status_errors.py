"""``Status`` errors as Kubernetes writes them, raised anywhere and sent by the application in one place.

Wording and details follow ``k8s.io/apimachinery/pkg/api/errors``. ``kind`` is a kind of ``kinds.KINDS`` ("Pod") or,
for a resource that is not served, the words to print.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kubelocal.codec.kinds import BODIES, KINDS, Kind
from kubelocal.types import Json, Manifest

__all__ = [
    "Cause",
    "StatusError",
    "already_exists",
    "bad_request",
    "conflict",
    "expired",
    "failure",
    "forbidden",
    "internal_error",
    "invalid",
    "method_not_allowed",
    "no_such_resource",
    "not_acceptable",
    "not_found",
    "success",
    "too_many_requests",
    "unauthorized",
    "unsupported_media_type",
]


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause of an invalid object; ``message`` does not include the field.

    ``reason``: FieldValueInvalid, FieldValueRequired, FieldValueNotSupported, FieldValueForbidden and so on.
    """

    reason: str
    message: str
    field: str


class StatusError(Exception):
    """An error response; ``status`` is its body, ``code`` the HTTP code."""

    def __init__(self, status: Manifest) -> None:
        super().__init__(status["message"])
        self.status = status
        self.code: int = status["code"]
        self.reason: str = status.get("reason", "")

    @property
    def retry_after(self) -> int | None:
        """Seconds that the client should wait; None if not given."""
        seconds: int | None = self.status.get("details", {}).get("retryAfterSeconds")
        return seconds


def failure(code: int, reason: str, message: str, details: dict[str, Json] | None = None) -> StatusError:
    """Make an error of any type; prefer the functions below."""
    status: Manifest = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
    if reason:
        status["reason"] = reason
    if details is not None:
        status["details"] = details
    status["code"] = code
    return StatusError(status)


def success(kind: str, name: str, uid: str) -> Manifest:
    """Return the Status of a successful deletion."""
    details = {**_resource(kind, name), "uid": uid}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def not_found(kind: str, name: str) -> StatusError:
    """404: the object does not exist."""
    return failure(404, "NotFound", f'{_words(kind)} "{name}" not found', _resource(kind, name))


def no_such_resource() -> StatusError:
    """404: the path names no served kind."""
    return failure(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(kind: str, name: str) -> StatusError:
    """409: the object exists."""
    return failure(409, "AlreadyExists", f'{_words(kind)} "{name}" already exists', _resource(kind, name))


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def conflict(kind: str, name: str, why: str = MODIFIED, *, causes: Sequence[Cause] = ()) -> StatusError:
    """409: the object has changed since the client read it."""
    details = _resource(kind, name) | ({"causes": [_cause(cause) for cause in causes]} if causes else {})
    return failure(409, "Conflict", f'Operation cannot be fulfilled on {_words(kind)} "{name}": {why}', details)


def invalid(kind: str, name: str, causes: Sequence[Cause]) -> StatusError:
    """422: fields are invalid."""
    known = _known(kind)
    words = f"{kind}.{known.group}" if known and known.group else kind
    lines = list(dict.fromkeys(f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in causes))
    summary = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    details = {**_resource(kind, name), "kind": kind, "causes": [_cause(cause) for cause in causes]}
    return failure(422, "Invalid", f'{words} "{name}" is invalid: {summary}', details)


def forbidden(kind: str, name: str, why: str, *, causes: Sequence[Cause] = ()) -> StatusError:
    """403: a permission, quota or admission rule forbids it."""
    details = _resource(kind, name) | ({"causes": [_cause(cause) for cause in causes]} if causes else {})
    subject = f'{_words(kind)} "{name}" is' if name else f"{_words(kind)} is"
    return failure(403, "Forbidden", f"{subject} forbidden: {why}", details)


def unauthorized() -> StatusError:
    """401: the token is missing or invalid."""
    return failure(401, "Unauthorized", "Unauthorized")


def bad_request(message: str) -> StatusError:
    """400: the request is malformed."""
    return failure(400, "BadRequest", message)


def expired(message: str = "The provided continue parameter is too old") -> StatusError:
    """410: the history no longer contains that version."""
    return failure(410, "Expired", message)


def method_not_allowed() -> StatusError:
    """405: the resource does not support the verb."""
    return failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def not_acceptable(accepted: Sequence[str]) -> StatusError:
    """406: no media type that the client accepts is supported."""
    message = f"only the following media types are accepted: {', '.join(accepted)}"
    return failure(406, "NotAcceptable", message)


def unsupported_media_type(accepted: Sequence[str]) -> StatusError:
    """415: the body's media type is not supported."""
    message = f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
    return failure(415, "UnsupportedMediaType", message)


def too_many_requests(message: str, retry_after: int = 1, *, causes: Sequence[Cause] = ()) -> StatusError:
    """429: retry after ``retry_after`` seconds."""
    details: dict[str, Json] = {"causes": [_cause(cause) for cause in causes]} if causes else {}
    return failure(429, "TooManyRequests", message, details | {"retryAfterSeconds": retry_after})


def internal_error(message: str) -> StatusError:
    """500: a bug of this server."""
    details = {"causes": [{"message": message}]}
    return failure(500, "InternalError", f"Internal error occurred: {message}", details)


def _known(kind: str) -> Kind | None:
    return KINDS.get(kind) or BODIES.get(kind)


def _words(kind: str) -> str:
    known = _known(kind)
    return known.qualified if known else kind


def _resource(kind: str, name: str) -> dict[str, Json]:
    known = _known(kind)
    details: dict[str, Json] = {"name": name} if name else {}
    if known and known.group:
        details["group"] = known.group
    return details | {"kind": known.plural if known else kind}


def _cause(cause: Cause) -> dict[str, str]:
    return {
        name: text
        for name, text in (("reason", cause.reason), ("message", cause.message), ("field", cause.field))
        if text
    }
