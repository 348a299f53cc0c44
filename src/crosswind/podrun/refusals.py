"""Decides whether a request to create an object is sent again after it was refused or not answered."""

from __future__ import annotations

import math
from dataclasses import dataclass

from crosswind.errors import (
    ApiError,
    ConfigError,
    Conflict,
    CrosswindError,
    Forbidden,
    NotFound,
    QuotaExceeded,
)
from crosswind.kube.retry import is_transient, retry_after
from crosswind.pods.causes import is_known_refusal, why_refused
from crosswind.pods.field_names import EXECUTOR_FIELDS, FieldNames

__all__ = ["GiveUp", "Retry", "decide_retry", "is_denied", "waits_for"]

_QUOTA_RETRY_S = 5.0
_MAX_RETRY_S = 15.0
_WEBHOOK_PATIENCE_S = 5.0
"""Time for which a denial by an admission webhook is retried: policies decide by caches that lag behind the cluster."""
_PERMISSION = "If the {account} service account may not do this, give it the role."
_NO_SECRETS = "Or let workloads travel in the pods' arguments: [crosswind] workload_delivery = args."
_NAMESPACE = "If the namespace is missing, create it, or correct its name in the template or the configuration."


@dataclass(frozen=True, slots=True)
class Retry:
    """Send the request again in ``delay`` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The workload fails with ``message``."""

    message: str


def decide_retry(
    error: Exception,
    *,
    what: str,
    waited: float,
    patience: float,
    denied: float = 0.0,
    quota: float = math.inf,
    fields: FieldNames = EXECUTOR_FIELDS,
) -> Retry | GiveUp:
    """Decide after an error whether to send the request again or to give up.

    ``what`` names the object and its namespace. ``waited``: seconds since the workload was requested. ``patience``:
    seconds after which a transient error (``kube.retry``) is final. ``quota``: the same for a quota that is used up; by
    default without end, because pods that end free it again. ``denied``: seconds since an admission webhook first
    denied the object. ``fields``: the names of a pod's fields where the task is defined, for the message.
    """
    if isinstance(error, QuotaExceeded):
        if waited < quota:
            return Retry(_QUOTA_RETRY_S)
        return GiveUp(f"{what} was not created within {waited:.0f} seconds: {why_refused(error.message, fields)}")
    if is_denied(error) and denied < _WEBHOOK_PATIENCE_S:
        return Retry(_delay(error, denied))
    if is_transient(error) or isinstance(error, Conflict):
        if waited >= patience:
            reason = str(error)
            if isinstance(error, ApiError) and is_known_refusal(error.message):
                reason = why_refused(error.message, fields)
            return GiveUp(f"{what} was not created within {waited:.0f} seconds: {reason}")
        return Retry(_delay(error, waited))
    return GiveUp(_message(error, what, fields))


def waits_for(error: Exception, what: str, fields: FieldNames = EXECUTOR_FIELDS) -> str:
    """Return why an object, named by ``what``, cannot be created yet."""
    reason = why_refused(error.message, fields) if isinstance(error, QuotaExceeded) else str(error)
    return f"{what} cannot be created yet: {reason}"


def is_denied(error: Exception) -> bool:
    """Return whether an admission webhook denied the request.

    The API server chooses the wording, the webhook the code (400 or 403).
    """
    return isinstance(error, ApiError) and "denied the request" in error.message


def _delay(error: Exception, waited: float) -> float:
    return max(min(_MAX_RETRY_S, max(0.2, waited / 2)), retry_after(error))


def _message(error: Exception, what: str, fields: FieldNames) -> str:
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, ApiError):
        lacks_permission = isinstance(error, Forbidden) and not (is_denied(error) or is_known_refusal(error.message))
        fix = (
            _PERMISSION.format(account=fields.account)
            if lacks_permission
            else _NAMESPACE
            if isinstance(error, NotFound)
            else ""
        )
        if what.startswith("Secret"):
            return f"{what} was not created: {error.message}. {fix} {_NO_SECRETS}"
        return f"{what} was not created: {why_refused(error.message, fields)}. {fix}".strip()
    if isinstance(error, CrosswindError):
        return f"{what} was not created: {error}"
    return f"{what} was not created, because of a bug in Crosswind: {type(error).__name__}: {error}"
