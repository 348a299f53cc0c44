"""Where the API server is and who we are: in-cluster or by kubeconfig, kept fresh while we run."""

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
from crosswind.kube.logins import Borrowed, Login, Source, source_of
from crosswind.kube.retry import pause_after
from crosswind.kube.tls import add_certificate, context_of
from crosswind.kube.transport import Server
from crosswind.settings import KubeSettings

__all__ = ["Credentials", "FixedCredentials", "Login", "RenewedCredentials", "borrow", "import_credentials", "load"]

log = logging.getLogger(__name__)

_RENEWAL_PAUSE = 5.0
"""Seconds between two attempts to get better credentials, however many requests are refused."""

_LONGEST_RENEWAL_PAUSE = 60.0
"""Seconds between two attempts after many that failed."""

_RENEWAL_SECONDS = 75.0
"""How long one attempt may take as a whole: everybody who was refused waits for it."""

_LOOK_PAUSE = 1.0
"""Seconds between two looks at where the server is, however many requests do not reach it."""


class Credentials(Protocol):
    """What goes into the ``Authorization`` header."""

    async def current(self) -> str | None:
        """Return the header's value; None for none (client certificates)."""
        ...

    async def renew(self, used: str | None) -> bool:
        """The server refused ``used``: return whether another try has a chance; ``CredentialsError`` if that failed."""
        ...

    async def find(self) -> bool:
        """The server was not reached: return whether it is elsewhere by now, or shows itself by another CA."""
        ...


@dataclass(frozen=True, slots=True)
class FixedCredentials:
    """A header that never changes, such as ``Bearer abc``, or none."""

    authorization: str | None = field(default=None, repr=False)

    async def current(self) -> str | None:
        """Return the header's value."""
        return self.authorization

    async def renew(self, used: str | None) -> bool:
        """Return False: there is nothing else to try."""
        return False

    async def find(self) -> bool:
        """Return False: the server is where it always is."""
        return False


class RenewedCredentials:
    """Credentials that are read again when they get old, and when the server refuses them or is not reached.

    ``look``: returns where the server is, without signing in. ``serve``: makes the server that a login is for.
    ``moved``: hears of another one when its address, CA, server name or proxy has changed.
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
        self._lock = asyncio.Lock()
        self._failures, self._failure, self._again_at = 0, "", -math.inf
        self._login = login
        self._accept(login)

    async def current(self) -> str | None:
        """Return the header's value, read again when its time has come; a failure then keeps the old one."""
        if time.monotonic() >= self._stale_at and not self._lock.locked():
            async with self._lock:  # the others go on with the old one meanwhile: it is renewed ahead of its time
                if time.monotonic() >= self._stale_at:
                    await self._freshen()
        return self._login.authorization

    async def renew(self, used: str | None) -> bool:
        """Read again unless that was done a moment ago; ``CredentialsError`` when it fails, or has just failed.

        Thousands of requests may be refused at once: those that waited for the lock share the outcome of the first.
        """
        async with self._lock:
            if self._login.authorization != used:
                return True
            if time.monotonic() < max(self._read_at + _RENEWAL_PAUSE, self._again_at):
                if self._failure:
                    raise CredentialsError(self._failure)
                return False
            before = self._login
            await self._read_again()
            return self._login.authorization != used or before.has_certificate

    async def find(self) -> bool:
        """Look where the server is, at most once a second, and read everything again only if something has changed.

        An API server may be away for minutes, and no exec plug-in is to be run again and again for that.
        """
        moves = self._moves
        async with self._lock:
            if self._moves != moves:
                return True
            now = time.monotonic()
            if self._look is None or now < max(self._looked_at + _LOOK_PAUSE, self._again_at):
                return False
            self._looked_at = now
            try:
                seen = await self._look()
                if seen.place == self._login.place and seen.certificate in (None, self._login.certificate):
                    return False
                await self._read_again()
            except (KubeconfigError, CredentialsError) as error:
                log.warning("Where the API server is cannot be read again: %s", error)
                return False
            return self._moves != moves

    async def _freshen(self) -> None:
        try:
            await self._read_again()
        except CredentialsError as error:
            log.warning("%s", error)
            self._stale_at = self._again_at

    async def _read_again(self) -> None:
        """Read within a deadline. A failure counts as an attempt; the next one waits longer the more there were.

        Whatever is wrong is a ``CredentialsError``: it worked before, so somebody is replacing a file or a service is
        away, and waiting helps where failing every task would not.
        """
        try:
            async with asyncio.timeout(_RENEWAL_SECONDS):
                self._accept(await self._read())
        except (KubeconfigError, CredentialsError, TimeoutError) as error:
            self._failures += 1
            pause = pause_after(self._failures, first=_RENEWAL_PAUSE, ceiling=_LONGEST_RENEWAL_PAUSE)
            self._again_at = time.monotonic() + max(pause, _RENEWAL_PAUSE)
            why = f"reading them took more than {_RENEWAL_SECONDS:g} s" if isinstance(error, TimeoutError) else error
            self._failure = f"The credentials for {self._login.url} could not be renewed yet: {why}"
            raise CredentialsError(self._failure) from error
        self._failures, self._failure = 0, ""

    def _accept(self, login: Login) -> None:
        """Take a login; one that cannot be used raises, and the one before stays."""
        before = self._login
        if self._serve is not None and (login.place, login.certificate) != (before.place, before.certificate):
            # another certificate needs other connections, too: those that are kept alive were made with the old one
            server = self._serve(login)
            if login.place != before.place:
                log.warning("The API server is %s from now on, as %s says", server.url, login.source)
            self._tls, self._moves = server.tls, self._moves + 1
            self.moved(server)
        elif self._tls is not None and login is not self._login:
            add_certificate(self._tls, login)  # counts for new connections
        self._login = login
        self._read_at = time.monotonic()
        self._stale_at = self._read_at + max(login.lifetime, _RENEWAL_PAUSE)


def import_credentials() -> None:
    """Import what reading credentials needs: 0.4 s of work, for whoever wants it done before something else begins."""
    import kubernetes_asyncio.client
    import kubernetes_asyncio.config  # noqa: F401


async def load(settings: KubeSettings) -> tuple[Server, RenewedCredentials]:
    """Return where the server is and the credentials for it.

    ``KubeconfigError`` says what to mend, ``CredentialsError`` what did not work just now.
    """
    source = source_of(settings)
    return _shared(source, await source.read(), settings)


def borrow(configuration: Any, settings: KubeSettings) -> tuple[Server, RenewedCredentials]:
    """Return server and credentials of a ``kubernetes.client.Configuration``, which keeps its own token fresh.

    For callers that hold a client of the official package, however it signed in.
    """
    source = Borrowed(configuration, settings)
    return _shared(source, source.now(), settings)


def _shared(source: Source, login: Login, settings: KubeSettings) -> tuple[Server, RenewedCredentials]:
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
