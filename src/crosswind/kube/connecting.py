"""Where the API server is and who we are: in-cluster or by kubeconfig, kept fresh while we run."""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime
import logging
import math
import os
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from crosswind.errors import CredentialsError, KubeconfigError
from crosswind.kube import kubeconfigs, plugins, proxies
from crosswind.kube.retry import pause_after
from crosswind.kube.transport import Server
from crosswind.settings import KubeSettings

__all__ = ["Credentials", "FixedCredentials", "Login", "RenewedCredentials", "borrow", "import_credentials", "load"]

log = logging.getLogger(__name__)

_TOKEN_FILE_SECONDS = 60.0
"""How often a token file is read again; the kubelet renews it long before its hour is over."""

_RENEWAL_PAUSE = 5.0
"""Seconds between two attempts to get better credentials, however many requests are refused."""

_LONGEST_RENEWAL_PAUSE = 60.0
"""Seconds between two attempts after many that failed."""

_RENEWAL_SECONDS = 75.0
"""How long one attempt may take as a whole: everybody who was refused waits for it."""

_SIGN_IN_SECONDS = 60.0
"""How long signing in may take: an exec plug-in or an OIDC provider may have to ask a cloud."""


_INLINE = ("certificate-authority-data", "client-certificate-data", "client-key-data")
"""What a kubeconfig may hold itself instead of naming a file."""


class Credentials(Protocol):
    """What goes into the ``Authorization`` header."""

    async def current(self) -> str | None:
        """Return the header's value; None for none (client certificates)."""
        ...

    async def renew(self, used: str | None) -> bool:
        """The server refused ``used``: return whether another try has a chance; ``CredentialsError`` if that failed."""
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


@dataclass(frozen=True, slots=True)
class Login:
    """Everything that was read at once. ``lifetime``: seconds until it should be read again."""

    url: str
    source: str
    authorization: str | None = field(default=None, repr=False)
    lifetime: float = math.inf
    verify: bool = True
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    ca_data: bytes | None = field(default=None, repr=False)
    """What the kubeconfig holds itself, as PEM: it wins over the file."""
    cert_data: bytes | None = field(default=None, repr=False)
    key_data: bytes | None = field(default=None, repr=False)
    tls_server_name: str | None = None
    proxy: str | None = field(default=None, repr=False)

    @property
    def has_certificate(self) -> bool:
        """Whether we show a client certificate."""
        return bool(self.cert_data or self.cert_file)


class RenewedCredentials:
    """Credentials that are read again when they get old, and when the server refuses them."""

    def __init__(self, read: Callable[[], Awaitable[Login]], login: Login, tls: ssl.SSLContext | None) -> None:
        self._read, self._tls = read, tls
        self._lock = asyncio.Lock()
        self._failures, self._failure, self._again_at = 0, "", -math.inf
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
        self._login = login
        self._read_at = time.monotonic()
        self._stale_at = self._read_at + max(login.lifetime, _RENEWAL_PAUSE)
        if self._tls and login.has_certificate:
            _add_certificate(self._tls, login)  # counts for new connections


def import_credentials() -> None:
    """Import what reading credentials needs: 0.4 s of work, for whoever wants it done before something else begins."""
    import kubernetes_asyncio.client
    import kubernetes_asyncio.config  # noqa: F401


async def load(settings: KubeSettings) -> tuple[Server, Credentials]:
    """Return where the server is and the credentials for it; ``KubeconfigError`` says what to mend."""

    async def read() -> Login:
        login = _in_cluster() if settings.in_cluster else await _by_kubeconfig(settings)
        if settings.ssl_ca_cert:
            login = replace(login, ca_file=settings.ssl_ca_cert, ca_data=None)
        return replace(login, verify=login.verify and settings.verify_ssl)

    login = await read()
    return _shared(read, login, settings, _proxy(login))


def borrow(configuration: Any, settings: KubeSettings) -> tuple[Server, Credentials]:
    """Return server and credentials of a ``kubernetes.client.Configuration``, which keeps its own token fresh.

    For callers that hold a client of the official package, however it signed in.
    """

    async def read() -> Login:
        return _borrowed(configuration)

    login = _borrowed(configuration)
    return _shared(read, login, settings, _borrowed_proxy(configuration, login))


def _shared(
    read: Callable[[], Awaitable[Login]], login: Login, settings: KubeSettings, proxy: str | None
) -> tuple[Server, Credentials]:
    tls = _tls(login) if login.url.startswith("https:") else None
    server = Server(
        url=login.url,
        source=login.source,
        tls=tls,
        tls_server_name=login.tls_server_name,
        proxy=proxy,
        connect_timeout=settings.connect_timeout,
        request_timeout=settings.request_timeout,
    )
    return server, RenewedCredentials(read, login, tls)


def _borrowed(configuration: Any) -> Login:
    headers = [one["value"] for one in configuration.auth_settings().values() if one["key"] == "authorization"]
    header = headers[0] if headers else configuration.username and configuration.get_basic_auth_token()
    login = _login(configuration, "the Kubernetes hook", _TOKEN_FILE_SECONDS)
    return replace(login, authorization=header.strip() if header else None)


def _borrowed_proxy(configuration: Any, login: Login) -> str | None:
    """Return the proxy of an official client, unless its ``no_proxy`` names the server or the server is this machine.

    The client copies the environment's proxy into its configuration, whatever server it is for.
    """
    if not login.proxy or proxies.bypasses(login.url, getattr(configuration, "no_proxy", None) or ""):
        return None
    return _proxy(login)


def _in_cluster() -> Login:
    # imported here because it takes 0.4 s, which whoever only builds requests should not pay
    from kubernetes_asyncio.client import Configuration
    from kubernetes_asyncio.config import ConfigException, load_incluster_config

    configuration = Configuration()
    try:
        load_incluster_config(  # type: ignore[no-untyped-call]  # the library's gap
            client_configuration=configuration, try_refresh_token=False
        )
    except (ConfigException, OSError) as error:
        raise KubeconfigError(
            f"in_cluster is set, but this is no pod with a service account: {error} Set in_cluster = False to use a"
            " kubeconfig, or let the pod have its token (automountServiceAccountToken)"
        ) from error
    return _login(configuration, "the pod's service account", _TOKEN_FILE_SECONDS)


async def _by_kubeconfig(settings: KubeSettings) -> Login:
    from kubernetes_asyncio.client import Configuration
    from kubernetes_asyncio.config import load_kube_config_from_dict

    chosen = (
        kubeconfigs.of_text(settings.kubeconfig_text, settings.context)
        if settings.kubeconfig_text
        else kubeconfigs.read(settings.kubeconfig, settings.context)
    )
    configuration = Configuration()
    try:
        signed = await _signed(chosen)
        user = _user(chosen, signed)
        ca, certificate, key = (_inline({**chosen.cluster, **user}, name) for name in _INLINE)
        # without these: the library writes them into files, keys too, that a process which is killed leaves behind
        document = chosen.document(_without_inline(user), _without_inline(chosen.cluster))
        async with asyncio.timeout(_SIGN_IN_SECONDS):
            await load_kube_config_from_dict(document, client_configuration=configuration)
    except (KubeconfigError, CredentialsError) as error:
        raise type(error)(f"{chosen.source} cannot be used: {error}") from error
    except Exception as error:  # the library has no list of what it raises: AssertionError, KeyError, ValueError...
        raise KubeconfigError(f"{chosen.source} cannot be used: {_complaint(error)}") from error
    login = _login(configuration, chosen.source, _lifetime(chosen, signed))
    return replace(login, ca_data=ca, cert_data=certificate, key_data=key)


def _inline(part: dict[str, Any], name: str) -> bytes | None:
    """Return the PEM text that a field holds; the value itself, a key perhaps, is in no message."""
    value = part.get(name)
    if not value:
        return None
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError, AttributeError):
        raise KubeconfigError(f"{name} is not base64") from None


def _without_inline(part: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name not in _INLINE}


async def _signed(chosen: kubeconfigs.Chosen) -> plugins.Signed | None:
    plugin = chosen.user.get("exec")
    return await plugins.sign_in(plugin, chosen.cluster, timeout=_SIGN_IN_SECONDS) if plugin else None


def _user(chosen: kubeconfigs.Chosen, signed: plugins.Signed | None) -> dict[str, Any]:
    """Return the user with a plug-in replaced by what it gave."""
    if signed is None:
        return chosen.user
    if signed.token:
        return {"token": signed.token}
    data = {"client-certificate-data": signed.certificate, "client-key-data": signed.key}
    return {key: base64.b64encode(pem.encode()).decode() for key, pem in data.items()}


def _login(configuration: Any, source: str, lifetime: float) -> Login:
    authorization = configuration.api_key.get("BearerToken")
    return Login(
        url=configuration.host.rstrip("/"),
        source=source,
        authorization=authorization.strip() if authorization else None,  # token files end with a newline
        lifetime=lifetime,
        verify=configuration.verify_ssl,
        ca_file=configuration.ssl_ca_cert,
        cert_file=configuration.cert_file,
        key_file=configuration.key_file,
        tls_server_name=configuration.tls_server_name,
        proxy=configuration.proxy,
    )


def _lifetime(chosen: kubeconfigs.Chosen, signed: plugins.Signed | None) -> float:
    if "tokenFile" in chosen.user:
        return _TOKEN_FILE_SECONDS
    if signed is None or signed.expires is None:
        return math.inf
    left = (signed.expires - datetime.datetime.now(datetime.UTC)).total_seconds()
    return left - min(300.0, 0.2 * left)


def _complaint(error: Exception) -> str:
    """Return what is wrong, without any value of the file that may be secret."""
    from kubernetes_asyncio.config import ConfigException

    if isinstance(error, TimeoutError):
        return f"signing in took more than {_SIGN_IN_SECONDS:g} s"
    if isinstance(error, ConfigException):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return f"a field is missing or of the wrong type ({type(error).__name__})"


def _tls(login: Login) -> ssl.SSLContext:
    try:
        # ssl takes ASCII alone; what is not, stands in comments between the certificates
        data = login.ca_data.decode("ascii", "ignore") if login.ca_data else None
        context = ssl.create_default_context(cafile=None if data else login.ca_file, cadata=data)
    except (ssl.SSLError, OSError, ValueError) as error:
        which = "CA in certificate-authority-data" if login.ca_data else f"CA file {login.ca_file}"
        raise KubeconfigError(f"{login.source}: the {which} cannot be used: {error}") from error
    # Python 3.13 began to demand extensions that the CA certificates of many clusters do not have; kubectl does not
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not login.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _add_certificate(context: ssl.SSLContext, login: Login) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix="crosswind-") as folder:  # nobody else's to read; ssl takes files only
            certificate = _file(folder, "certificate", login.cert_data) or login.cert_file
            assert certificate
            context.load_cert_chain(certificate, _file(folder, "key", login.key_data) or login.key_file)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise KubeconfigError(f"{login.source}: the client certificate or its key cannot be used: {error}") from error


def _file(folder: str, name: str, content: bytes | None) -> str | None:
    if content is None:
        return None
    path = Path(folder, name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    return str(path)


def _proxy(login: Login) -> str | None:
    """Return the kubeconfig's proxy, else the environment's (HTTPS_PROXY, NO_PROXY); looked up once."""
    if login.proxy:
        scheme = urlsplit(login.proxy).scheme
        if scheme not in ("http", "https"):
            raise KubeconfigError(
                f'{login.source}: a proxy-url of the kind "{scheme}" is not supported, only http and https'
            )
        return login.proxy
    return proxies.environment_proxy(login.url, os.environ)
