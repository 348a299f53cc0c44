"""Every error that crosswind raises on purpose, named by what the caller will do.

::

    CrosswindError
    ├── ConfigError               mend a file or a setting; nothing was done
    │   ├── TemplateError         a pod template
    │   ├── OverrideError         an ``executor_config`` or ``pod_override``
    │   ├── KubeconfigError       how to reach and identify at the cluster
    │   └── TaskFileError         a task file: file, line and mend
    ├── ApiError                  the API server answered no (carries its ``Status``)
    │   ├── BadRequest            400, 415: the request is wrong; do not repeat it
    │   ├── Unauthorized          401: credentials are missing, wrong or expired
    │   ├── Forbidden             403: a permission is missing
    │   │   └── QuotaExceeded     403 with "exceeded quota": wait, others will end
    │   ├── NotFound              404
    │   ├── AlreadyExists         409, reason AlreadyExists
    │   ├── Conflict              409: read again and retry
    │   ├── Gone                  410: the resourceVersion is not (any more) the server's; list again
    │   ├── Invalid               422: a field is wrong; do not repeat it
    │   ├── TooManyRequests       429: wait ``retry_after`` seconds
    │   └── ServerError           5xx: wait and retry
    ├── CredentialsError          a token or certificate could not be renewed just now: retry
    ├── Unreachable               no answer: refused, reset, timed out, TLS
    ├── PodTimeout                a pod was not scheduled, or did not start, in the time it had
    └── XComError                 a task's result cannot be had
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
]


class CrosswindError(Exception):
    """The base of all."""


class ConfigError(CrosswindError):
    """A file or setting is wrong; the message names it, its value and the mend."""


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

    ``status``: HTTP code. ``reason``: machine-readable word of the Status body, such as ``NotFound``, or "".
    ``details``: its ``details``, or {}. ``retry_after``: seconds the server asked to wait, or None.
    ``request``: method and path, without query, for the message.
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
    """410, as an answer or as an event of a watch; also 504 for a version that is ahead of the server's."""


class Invalid(ApiError):
    """422; ``details["causes"]`` names the fields."""


class TooManyRequests(ApiError):
    """429."""


class ServerError(ApiError):
    """500 and above."""


class CredentialsError(CrosswindError):
    """A credential could not be had or renewed at this moment: an exec plug-in failed, a token file is missing.

    Not a ``ConfigError``: what worked a minute ago, or may work in a minute, is retried and fails no task at once.
    """


class Unreachable(CrosswindError):
    """No answer came.

    ``sent``: whether the request may have reached the server, so that it may have been carried out; False when there
    was no connection to send it on.
    """

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class PodTimeout(CrosswindError):
    """A pod was not scheduled, or did not start, in the time it had; the message says what it waits for."""


class XComError(CrosswindError):
    """The value that a task left for XCom is not there in whole, too long, or no JSON; the message names the mend."""
