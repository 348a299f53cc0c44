"""The one rule that decides which errors are transient, and how long and how often a request is retried.

An error is transient when the same, unchanged request may succeed later: the API server is down, overloaded or
restarting, or a credential could not be renewed at the moment. Every other error needs a person, and a retry would only
hide it. Callers add the errors that are transient for them alone: an update that conflicts, a quota that is used up.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from crosswind.errors import (
    ApiError,
    CredentialsError,
    CrosswindError,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)

__all__ = [
    "MAX_RETRY_AFTER_S",
    "Retries",
    "is_overload",
    "is_transient",
    "pause_after",
    "retry_after",
    "retry_transient",
]

T = TypeVar("T")

MAX_RETRY_AFTER_S = 60.0
"""Seconds to which a ``Retry-After`` is cut: a load balancer's maintenance page may ask for an hour."""

_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.2, 30.0

_PERMANENT_CODES = frozenset({501, 505})
"""Server errors that no retry cures: not implemented, HTTP version not supported."""


def is_transient(error: BaseException) -> bool:
    """Return whether the same request may succeed later.

    A 401 is transient: the token is being renewed, or the server's authenticator (OIDC, a webhook) is down. Bound the
    retries by a deadline, as for every error. A group of errors is transient when each of its members is.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_transient(member) for member in error.exceptions)
    if isinstance(error, ServerError):
        return error.status not in _PERMANENT_CODES
    return isinstance(error, TooManyRequests | Unauthorized | Unreachable | CredentialsError)


def is_overload(error: BaseException) -> bool:
    """Return whether an error means that the server gets more requests than it can handle.

    A failure of credentials says nothing about its load.
    """
    return isinstance(error, TooManyRequests | ServerError | Unreachable)


def retry_after(error: BaseException | None) -> float:
    """Return the seconds that the server asked to wait, at most ``MAX_RETRY_AFTER_S``; 0.0 for none."""
    requested = error.retry_after if isinstance(error, ApiError) else None
    return min(requested or 0.0, MAX_RETRY_AFTER_S)


def pause_after(
    failures: int, error: BaseException | None = None, *, first: float = _FIRST_PAUSE_S, ceiling: float = _MAX_PAUSE_S
) -> float:
    """Return the seconds to wait after so many failures in a row; 0.0 after none.

    The pause is random below a bound that doubles from ``first`` up to ``ceiling``, so that clients that failed
    together do not return together. It is at least what the server requested (``Retry-After``).
    """
    if not failures:
        return 0.0
    # 16: a float of 2 ** 1024 overflows after a night of failures.
    bound = min(ceiling, first * 2.0 ** min(failures - 1, 16))
    # Added, not the larger of the two: all clients of an overloaded server get the same Retry-After.
    return retry_after(error) + random.uniform(bound / 2, bound)  # noqa: S311  # no secret


@dataclass(slots=True)
class Retries:
    """Counts the failures in a row of one operation.

    ``patience``: seconds since the first failure after which a transient error is final too. ``first``, ``ceiling``:
    see ``pause_after``.
    """

    patience: float = math.inf
    first: float = _FIRST_PAUSE_S
    ceiling: float = _MAX_PAUSE_S
    failures: int = 0
    _since: float = field(default=0.0, repr=False)

    def succeeded(self) -> None:
        """Reset the count of failures."""
        self.failures = 0

    def after(self, error: CrosswindError) -> float:
        """Count a failure and return the seconds until the next attempt; raise the error when there is none."""
        now = asyncio.get_running_loop().time()
        # Patience counts from the first failure in a row, not from the start of a long operation.
        self._since = self._since if self.failures else now
        self.failures += 1
        pause = pause_after(self.failures, error, first=self.first, ceiling=self.ceiling)
        # The pause counts too: an attempt after the deadline would be made for nothing.
        if not is_transient(error) or now + pause - self._since > self.patience:
            raise error
        return pause


async def retry_transient(request: Callable[[], Awaitable[T]], patience: float) -> T:
    """Return what ``request`` returns; send it again while its error is transient, for ``patience`` seconds."""
    retries = Retries(patience=patience)
    while True:
        try:
            return await request()
        except CrosswindError as error:
            await asyncio.sleep(retries.after(error))
