"""The errors that crosswind raises, named for what the caller will do.

::

    CrosswindError
    ├── ConfigError               fix a file or a setting; nothing was done
    │   ├── DocumentError         a YAML document: file, line and fix
    │   ├── TemplateError         a pod template
    │   ├── OverrideError         an ``executor_config`` or ``pod_override``
    │   ├── KubeconfigError       the cluster's address or our credentials
    │   └── TaskFileError         a task file: file, line and fix
    ├── ApiError                  the API server refused the request (carries its ``Status``)
    │   ├── BadRequest            400, 415: the request is wrong; do not repeat it
    │   ├── Unauthorized          401: credentials are missing, wrong or expired
    │   ├── Forbidden             403: a permission is missing
    │   │   └── QuotaExceeded     403 with "exceeded quota": wait until other pods end
    │   ├── NotFound              404
    │   ├── AlreadyExists         409, reason AlreadyExists
    │   ├── Conflict              409: read again and retry
    │   ├── Gone                  410: the server does not have the resourceVersion any more; list again
    │   ├── Invalid               422: a field is wrong; do not repeat it
    │   ├── TooManyRequests       429: wait ``retry_after`` seconds
    │   └── ServerError           5xx: wait and retry
    ├── CredentialsError          a token or certificate could not be renewed: retry
    ├── Unreachable               no answer: connection refused, reset, timed out, TLS
    ├── PodTimeout                a pod was not scheduled or did not start in time
    └── XComError                 a task's result is lost or unusable
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AlreadyExists",
    "ApiError",
    "BadRequest",
    "ConfigError",
    "Conflict",
    "CredentialsError",
    "CrosswindError",
    "DocumentError",
    "Forbidden",
    "Gone",
    "Invalid",
    "KubeconfigError",
    "NotFound",
    "OverrideError",
    "PodTimeout",
    "QuotaExceeded",
    "ServerError",
    "TaskFileError",
    "TemplateError",
    "TooManyRequests",
    "Unauthorized",
    "Unreachable",
    "XComError",
    "counted",
]


class CrosswindError(Exception):
    """The base of all errors."""


class ConfigError(CrosswindError):
    """A file or setting is wrong; the message names it, its value and the fix."""


class DocumentError(ConfigError):
    """A YAML document cannot be read. ``line`` is counted from 1, 0 is the whole file; ``problem`` leaves both out."""

    def __init__(self, where: str, line: int, problem: str) -> None:
        super().__init__(f"{where}:{line}: {problem}" if line else f"{where}: {problem}")
        self.line = line
        self.problem = problem


class TemplateError(ConfigError):
    """A pod template cannot be used."""


class OverrideError(ConfigError):
    """An ``executor_config`` or ``pod_override`` cannot be used."""


class KubeconfigError(ConfigError):
    """The kubeconfig, its context or the in-cluster credentials cannot be used."""


class TaskFileError(ConfigError):
    """A task file cannot be used."""


class ApiError(CrosswindError):
    """The API server refused a request.

    ``status``: HTTP code. ``reason`` and ``details``: those of the Status, such as ``NotFound``, else "" and {}.
    ``retry_after``: seconds that the server asked to wait, or None. ``request``: method and path, without query, for
    the message.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        reason: str = "",
        details: dict[str, Any] | None = None,
        retry_after: float | None = None,
        request: str = "",
    ) -> None:
        super().__init__(f"{request}: {message}" if request else message)
        self.message = message
        self.status = status
        self.reason = reason
        self.details = details or {}
        self.retry_after = retry_after
        self.request = request


class BadRequest(ApiError):
    """400, 405, 406 or 415."""


class Unauthorized(ApiError):
    """401."""


class Forbidden(ApiError):
    """403."""


class QuotaExceeded(Forbidden):
    """403, because a ResourceQuota is used up."""


class NotFound(ApiError):
    """404."""


class AlreadyExists(ApiError):
    """409 with reason AlreadyExists."""


class Conflict(ApiError):
    """409 of any other reason."""


class Gone(ApiError):
    """410, as an answer or as an event of a watch; also 504 for a version that is newer than the server's."""


class Invalid(ApiError):
    """422; ``details["causes"]`` names the fields."""


class TooManyRequests(ApiError):
    """429."""


class ServerError(ApiError):
    """500 and above."""


class CredentialsError(CrosswindError):
    """A credential could not be read or renewed at the moment: an exec plug-in failed, a token file is missing.

    Not a ``ConfigError``: credentials that worked before, or may work in a minute, are retried and fail no task yet.
    """


class Unreachable(CrosswindError):
    """No answer came.

    ``sent``: whether the server may have received the request, and so may have carried it out; False when there was no
    connection to send it on.
    """

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class PodTimeout(CrosswindError):
    """A pod was not scheduled or did not start in time; the message names the cause."""


class XComError(CrosswindError):
    """The value that a task left for XCom is incomplete, too long or no JSON; the message names the fix."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in singular or plural.

    >>> counted(1, "task"), counted(2, "task")
    ('1 task', '2 tasks')
    """
    return f"{number} {noun}" + ("" if number == 1 else "s")
