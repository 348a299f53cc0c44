"""What to do after a request to create something was refused or not answered. Pure."""

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
from crosswind.pods.authors import EXECUTOR, Author
from crosswind.pods.causes import is_known_refusal, why_refused

__all__ = ["GiveUp", "Retry", "after", "is_denied", "waits_for"]

_QUOTA_WAIT = 5.0
_LONGEST_WAIT = 15.0
_DENIED_PATIENCE = 5.0
"""Seconds for an admission webhook to change its mind: policies decide by caches that lag behind the cluster."""
_PERMISSION = "If the {account} service account may not do this, give it the role."
_NO_SECRETS = "Or let workloads travel in the pods' arguments: [crosswind] workload_delivery = args."
_NAMESPACE = "If the namespace is missing, create it, or correct its name in the template or the configuration."


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again in ``delay`` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The workload fails with ``message``."""

    message: str


def after(
    error: Exception,
    *,
    what: str,
    waited: float,
    patience: float,
    denied: float = 0.0,
    quota: float = math.inf,
    author: Author = EXECUTOR,
) -> Retry | GiveUp:
    """Decide.

    ``what`` names the object and its namespace. ``waited``: seconds since the workload was asked for. ``patience``:
    seconds after which what is transient (``kube.retry``) is given up. ``quota``: the same for a quota that is used up;
    by default it is waited for without end, for pods that end give it back. ``denied``: seconds since an admission
    webhook first denied it; it is asked again for some of them. ``author``: whose words the message has.
    """
    if isinstance(error, QuotaExceeded):
        if waited < quota:
            return Retry(_QUOTA_WAIT)
        return GiveUp(f"{what} was not created within {waited:.0f} seconds: {why_refused(error.message, author)}")
    if is_denied(error) and denied < _DENIED_PATIENCE:
        return Retry(_delay(error, denied))
    if is_transient(error) or isinstance(error, Conflict):
        if waited >= patience:
            reason = str(error)
            if isinstance(error, ApiError) and is_known_refusal(error.message):
                reason = why_refused(error.message, author)
            return GiveUp(f"{what} was not created within {waited:.0f} seconds: {reason}")
        return Retry(_delay(error, waited))
    return GiveUp(_message(error, what, author))


def waits_for(error: Exception, what: str, author: Author = EXECUTOR) -> str:
    """Return what keeps an object, named by ``what``, from being created for now."""
    reason = why_refused(error.message, author) if isinstance(error, QuotaExceeded) else str(error)
    return f"{what} cannot be created yet: {reason}"


def is_denied(error: Exception) -> bool:
    """Whether an admission webhook said no: the wording is Kubernetes' own, the code the webhook's (403 or 400)."""
    return isinstance(error, ApiError) and "denied the request" in error.message


def _delay(error: Exception, waited: float) -> float:
    return max(min(_LONGEST_WAIT, max(0.2, waited / 2)), retry_after(error))


def _message(error: Exception, what: str, author: Author) -> str:
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, ApiError):
        lacks_right = isinstance(error, Forbidden) and not (is_denied(error) or is_known_refusal(error.message))
        mend = (
            _PERMISSION.format(account=author.account)
            if lacks_right
            else _NAMESPACE
            if isinstance(error, NotFound)
            else ""
        )
        if what.startswith("Secret"):
            return f"{what} was not created: {error.message}. {mend} {_NO_SECRETS}"
        return f"{what} was not created: {why_refused(error.message, author)}. {mend}".strip()
    if isinstance(error, CrosswindError):
        return f"{what} was not created: {error}"
    return f"{what} was not created, by an error in crosswind itself: {type(error).__name__}: {error}"
