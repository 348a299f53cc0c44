"""Keeps the address of the API server and our credentials current while the process runs.

``RenewedCredentials`` starts no task: the request that finds the credentials old renews them, under a lock and within
a deadline, and other requests use the old ones meanwhile. A renewal that is cancelled leaves the old ones in place.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from crosswind.errors import CredentialsError, KubeconfigError
from crosswind.kube.login_sources import ConfigurationSource, Login, LoginSource, login_source
from crosswind.kube.retry import pause_after
from crosswind.kube.tls import add_certificate, context_of
from crosswind.kube.transport import Server
from crosswind.settings import KubeSettings

__all__ = [
    "Credentials",
    "FixedCredentials",
    "Login",
    "RenewedCredentials",
    "import_credentials",
    "load",
    "load_from_configuration",
]

log = logging.getLogger(__name__)

_RENEWAL_PAUSE_S = 5.0
"""Seconds between two renewals, however many requests are refused."""

_MAX_RENEWAL_PAUSE_S = 60.0
"""Seconds between two renewals after many that failed."""

_RENEWAL_TIMEOUT_S = 75.0
"""Limit for one renewal as a whole: every request that was refused waits for it."""

_LOOK_TIMEOUT_S = 10.0
"""Seconds for which requests that fail wait for the server's address to be read again."""

_CHECK_INTERVAL_S = 1.0
"""Seconds between two reads of the server's address, however many requests fail to reach it."""


class Credentials(Protocol):
    """Provides the ``Authorization`` header."""

    async def current(self) -> str | None:
        """Return the header's value; None for no header (client certificates)."""
        ...

    async def renew(self, used: str | None) -> bool:
        """Renew ``used``, which the server refused; return whether the request should be sent again.

        Raises ``CredentialsError`` when the renewal fails.
        """
        ...

    async def relocate(self) -> bool:
        """Return whether the server, which could not be reached, has a new address or CA by now."""
        ...


@dataclass(frozen=True, slots=True)
class FixedCredentials:
    """A header that never changes, such as ``Bearer abc``, or none."""

    authorization: str | None = field(default=None, repr=False)

    async def current(self) -> str | None:
        """Return the header's value."""
        return self.authorization

    async def renew(self, used: str | None) -> bool:
        """Return False: a fixed header cannot be renewed."""
        return False

    async def relocate(self) -> bool:
        """Return False: the server's address is fixed."""
        return False


class RenewedCredentials:
    """Credentials that are read again when they get old, and when the server refuses them or cannot be reached.

    ``look``: returns the server's address, without signing in. ``serve``: returns the ``Server`` of a login. ``moved``:
    called with a new ``Server`` when its address, CA, server name, proxy or our certificate has changed.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[Login]],
        login: Login,
        tls: ssl.SSLContext | None,
        *,
        look: Callable[[], Awaitable[Login]] | None = None,
        serve: Callable[[Login], Server] | None = None,
    ) -> None:
        self._read, self._tls = read, tls
        self._look, self._serve = look, serve
        self.moved: Callable[[Server], None] = lambda server: None
        self._moves = 0
        self._looked_at = -math.inf
        self._looking: tuple[asyncio.Future[Login], float] | None = None
        """The look that is under way, and its deadline."""
        self._lock = asyncio.Lock()
        self._failures, self._failure, self._retry_at = 0, "", -math.inf
        self._login = login
        self._accept(login)

    async def current(self) -> str | None:
        """Return the header's value, renewed when it is old; the old one stays when the renewal fails."""
        # The caller that gets the lock pays for the renewal. When it is cancelled meanwhile, the next request tries
        # again.
        if time.monotonic() >= self._stale_at and not self._lock.locked():
            # The header is renewed before it expires: other requests use the old one meanwhile, instead of waiting.
            async with self._lock:
                # Again under the lock: a 401 may have renewed the credentials while this request waited for it.
                if time.monotonic() >= self._stale_at:
                    await self._renew_if_possible()
        return self._login.authorization

    async def renew(self, used: str | None) -> bool:
        """Read the credentials again, unless that was done a moment ago; return whether they differ from ``used``.

        Thousands of requests may be refused at once: those that waited for the lock share the result of the first.
        Raises ``CredentialsError`` when the renewal fails or has just failed.
        """
        async with self._lock:
            # Another request renewed them while this one was under way, or waited for the lock: its answer is stale.
            if self._login.authorization != used:
                return True
            # The server refuses credentials that are new: to read them again at once, for each of a thousand requests,
            # would run as many plug-ins. The requests fail, and their callers retry.
            if time.monotonic() < max(self._read_at + _RENEWAL_PAUSE_S, self._retry_at):
                if self._failure:
                    raise CredentialsError(self._failure)
                return False
            before = self._login
            await self._read_again()
            # A client certificate is in no header, so an equal header does not show that nothing has changed.
            return self._login.authorization != used or before.has_certificate

    async def relocate(self) -> bool:
        """Read the server's address, at most once a second; read the credentials again only if it has changed.

        An API server may be down for minutes, and an exec plug-in must not run for each request that fails then.
        """
        moves = self._moves
        async with self._lock:
            # Another request has found the new address while this one waited for the lock.
            if self._moves != moves:
                return True
            now = time.monotonic()
            if self._look is None or now < max(self._looked_at + _CHECK_INTERVAL_S, self._retry_at):
                return False
            # Before the look, so that a look that fails or is cancelled counts too.
            self._looked_at = now
            try:
                # Only the address, which costs a file; signing in may cost a program or a request to a provider.
                current = await self._look_within_deadline(self._look)
                if current.place == self._login.place and current.certificate in (None, self._login.certificate):
                    return False
                await self._read_again()
            except (KubeconfigError, CredentialsError) as error:
                log.warning("The address of the API server cannot be read again: %s", error)
                self._looked_at = time.monotonic()  # the requests that wait for the lock do not look once more each
                return False
            return self._moves != moves

    async def _look_within_deadline(self, look: Callable[[], Awaitable[Login]]) -> Login:
        """Return what ``look`` returns. While a look hangs on a file system, no thread of another one joins it.

        Raises its errors, and ``CredentialsError`` at the deadline: every request that fails waits for the lock.
        """
        if self._looking is None:
            self._looking = asyncio.ensure_future(look()), time.monotonic() + _LOOK_TIMEOUT_S
        looking, deadline = self._looking
        done, _ = await asyncio.wait([looking], timeout=max(0.0, deadline - time.monotonic()))
        if not done:
            raise CredentialsError(f"its file system did not answer in {_LOOK_TIMEOUT_S:g} s")
        self._looking = None
        return looking.result()

    async def _renew_if_possible(self) -> None:
        try:
            await self._read_again()
        except CredentialsError as error:
            log.warning("%s", error)
            # The old credentials may still be valid for minutes. If not, the server answers 401, and ``renew`` reports
            # why.
            self._stale_at = self._retry_at

    async def _read_again(self) -> None:
        """Read the credentials within a deadline; each failure lengthens the pause before the next attempt.

        Every failure is a ``CredentialsError``, which is transient: the credentials worked before, so a file is being
        replaced or a service is down, and waiting helps where failing every task would not.
        """
        try:
            # Every request waits for the lock that is held here, so a plug-in or a file system that hangs must not keep
            # it.
            async with asyncio.timeout(_RENEWAL_TIMEOUT_S):
                self._accept(await self._read())
        except (KubeconfigError, CredentialsError, TimeoutError) as error:
            self._failures += 1
            pause = pause_after(self._failures, first=_RENEWAL_PAUSE_S, ceiling=_MAX_RENEWAL_PAUSE_S)
            self._retry_at = time.monotonic() + max(pause, _RENEWAL_PAUSE_S)
            reason = (
                f"reading them took more than {_RENEWAL_TIMEOUT_S:g} s" if isinstance(error, TimeoutError) else error
            )
            self._failure = f"The credentials for {self._login.url} could not be renewed yet: {reason}"
            raise CredentialsError(self._failure) from error
        self._failures, self._failure = 0, ""

    def _accept(self, login: Login) -> None:
        """Use a new login. A login that cannot be used raises, and the old one stays."""
        before = self._login
        if self._serve is not None and (login.place, login.certificate) != (before.place, before.certificate):
            # a new certificate needs new connections too: those in the pool were opened with the old one
            server = self._serve(login)
            if login.place != before.place:
                log.warning("The API server is %s from now on, as %s says", server.url, login.source)
            self._tls, self._moves = server.tls, self._moves + 1
            self.moved(server)
        elif self._tls is not None and login is not self._login:
            add_certificate(self._tls, login)  # applies to new connections
        self._login = login
        # Never sooner than the pause: a login without lifetime, or one in the past, would be renewed by every request.
        self._read_at = time.monotonic()
        self._stale_at = self._read_at + max(login.lifetime, _RENEWAL_PAUSE_S)


def import_credentials() -> None:
    """Import the modules that reading credentials needs, which takes 0.4 s, ahead of time."""
    import kubernetes_asyncio.client
    import kubernetes_asyncio.config  # noqa: F401


async def load(settings: KubeSettings) -> tuple[Server, RenewedCredentials]:
    """Return the server and the credentials for it.

    Raises ``KubeconfigError`` for settings that must be fixed, ``CredentialsError`` for a failure that may pass.
    """
    source = login_source(settings)
    return _shared(source, await source.read(), settings)


def load_from_configuration(configuration: Any, settings: KubeSettings) -> tuple[Server, RenewedCredentials]:
    """Return server and credentials of a ``kubernetes.client.Configuration``, which keeps its own token fresh.

    For callers that hold a client of the official package, however it signed in.
    """
    source = ConfigurationSource(configuration, settings)
    return _shared(source, source.now(), settings)


def _shared(source: LoginSource, login: Login, settings: KubeSettings) -> tuple[Server, RenewedCredentials]:
    def serve(login: Login) -> Server:
        return Server(
            url=login.url,
            source=login.source,
            tls=context_of(login),
            tls_server_name=login.tls_server_name,
            proxy=login.proxy,
            connect_timeout=settings.connect_timeout,
            request_timeout=settings.request_timeout,
        )

    server = serve(login)
    return server, RenewedCredentials(source.read, login, server.tls, look=source.look, serve=serve)
