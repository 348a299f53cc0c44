"""The one rule for what is transient, and for how long and how often it is retried. Pure; nothing here waits.

An error is transient when the same request may succeed later without anybody changing it: the API server is away,
overloaded or restarting, or a credential could not be renewed at this moment. Everything else needs a person, and a
retry only hides it. Callers add what is transient for them alone: an update that conflicts, a quota that is used up.
"""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass, field

from crosswind.errors import (
    ApiError,
    CredentialsError,
    CrosswindError,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)

__all__ = ["LONGEST_RETRY_AFTER", "Retries", "is_overload", "is_transient", "pause_after", "retry_after"]

LONGEST_RETRY_AFTER = 60.0
"""How many seconds of a ``Retry-After`` are believed. A load balancer's maintenance page asks for an hour at times."""

_FIRST, _CEILING = 0.2, 30.0

_NEVER = frozenset({501, 505})
"""Codes of a server that will not do it later either: not implemented, HTTP version not supported."""


def is_transient(error: BaseException) -> bool:
    """Return whether the same request may succeed later, with nothing changed.

    A 401 is transient: the token is renewed meanwhile, or the server's authenticator (OIDC, a webhook) is away. Bound
    it by a deadline, as all of them. Groups of errors are transient when each of them is.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_transient(one) for one in error.exceptions)
    if isinstance(error, ServerError):
        return error.status not in _NEVER
    return isinstance(error, TooManyRequests | Unauthorized | Unreachable | CredentialsError)


def is_overload(error: BaseException) -> bool:
    """Return whether an error says that the server takes fewer requests than it is sent.

    Credentials that fail say nothing about its load.
    """
    return isinstance(error, TooManyRequests | ServerError | Unreachable)


def retry_after(error: BaseException | None) -> float:
    """Return the seconds that the server asked to wait, as far as they are believed; 0.0 for none."""
    asked = error.retry_after if isinstance(error, ApiError) else None
    return min(asked or 0.0, LONGEST_RETRY_AFTER)


def pause_after(
    failures: int, error: BaseException | None = None, *, first: float = _FIRST, ceiling: float = _CEILING
) -> float:
    """Return the seconds to wait after so many failures in a row; 0.0 after none.

    Random below a bound that doubles from ``first`` up to ``ceiling``, so that clients that failed together do not come
    back together. The server's own wish (``Retry-After``) is the least.
    """
    if not failures:
        return 0.0
    bound = min(ceiling, first * 2.0 ** min(failures - 1, 16))
    return retry_after(error) + random.uniform(bound / 2, bound)  # noqa: S311  # no secret


@dataclass(slots=True)
class Retries:
    """The failures in a row of one operation.

    ``patience``: seconds since the first failure after which a transient error is final too. ``first``, ``ceiling``:
    see ``pause_after``.
    """

    patience: float = math.inf
    first: float = _FIRST
    ceiling: float = _CEILING
    failures: int = 0
    _since: float = field(default=0.0, repr=False)

    def succeeded(self) -> None:
        """Forget the failures."""
        self.failures = 0

    def after(self, error: CrosswindError) -> float:
        """Count a failure and return the seconds until the next try; raises the error when there is to be none."""
        now = asyncio.get_running_loop().time()
        self._since = self._since if self.failures else now
        self.failures += 1
        pause = pause_after(self.failures, error, first=self.first, ceiling=self.ceiling)
        if not is_transient(error) or now + pause - self._since > self.patience:
            raise error
        return pause
