"""The sources of a login: a kubeconfig, the pod's service account, or the configuration of an official client.

Each source has two methods: ``look`` returns the server's address without signing in, ``read`` the whole login.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import math
import os
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import urlsplit

from crosswind.documents import read_bytes, read_text
from crosswind.errors import ConfigError, CredentialsError, KubeconfigError
from crosswind.kube import exec_plugins, kubeconfigs, proxies
from crosswind.kube.kubeconfig_fields import ClusterEntry, UserEntry, header, inline
from crosswind.settings import KubeSettings

__all__ = ["ConfigurationSource", "InClusterSource", "KubeconfigSource", "Login", "LoginSource", "login_source"]

TOKEN_FILE_SECONDS = 60.0
"""Interval at which a token file is read again; the kubelet renews it long before its hour is over."""

SIGN_IN_SECONDS = 60.0
"""Limit for signing in: an exec plug-in or an OIDC provider may send requests to a cloud."""


@dataclass(frozen=True, slots=True)
class Login:
    """The server's address and our credentials. ``lifetime``: seconds until they should be read again."""

    url: str
    source: str
    authorization: str | None = field(default=None, repr=False)
    lifetime: float = math.inf
    verify: bool = True
    ca: bytes | None = field(default=None, repr=False)
    """PEM. The content, not the path: a file that is rotated keeps its name."""
    ca_source: str = ""
    """Field or path of the CA, for messages."""
    cert_file: str | None = None
    key_file: str | None = None
    cert_data: bytes | None = field(default=None, repr=False)
    """PEM in the kubeconfig itself; it takes precedence over the file."""
    key_data: bytes | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    """The content of the client certificate, from data or file: a renewed certificate may keep its file's name."""
    tls_server_name: str | None = None
    proxy: str | None = field(default=None, repr=False)

    @property
    def has_certificate(self) -> bool:
        """Whether there is a client certificate."""
        return bool(self.cert_data or self.cert_file)

    @property
    def place(self) -> tuple[object, ...]:
        """The server's address and how it is verified; connections that were opened for another one are useless."""
        return self.url, self.verify, self.ca, self.tls_server_name, self.proxy


class LoginSource(Protocol):
    """A source of logins. Both methods raise ``KubeconfigError`` and ``CredentialsError``."""

    async def look(self) -> Login:
        """Return a login with the server's address; the credentials may be missing."""
        ...

    async def read(self) -> Login:
        """Return a whole login."""
        ...


def login_source(settings: KubeSettings) -> LoginSource:
    """Return the source that the settings select."""
    return InClusterSource(settings) if settings.in_cluster else KubeconfigSource(settings)


class KubeconfigSource:
    """A kubeconfig, read again each time, so that a new address, CA or user in it takes effect.

    The context that was chosen first stays, for as long as the file has one of its name: ``kubectl config use-context``
    in a shell must not move a running scheduler to another cluster.
    """

    def __init__(self, settings: KubeSettings) -> None:
        self._settings = settings
        self._context = settings.context

    async def look(self) -> Login:
        """Return the server's address."""
        return (await asyncio.to_thread(self._look))[1]

    async def read(self) -> Login:
        """Return a whole login; may run a plug-in or send a request to a provider."""
        chosen, login = await asyncio.to_thread(self._look)
        try:
            return await self._signed(chosen, login)
        except (ConfigError, CredentialsError) as error:
            kind = KubeconfigError if isinstance(error, ConfigError) else CredentialsError
            raise kind(f"{chosen.source} cannot be used: {error}") from error

    def _look(self) -> tuple[kubeconfigs.KubeconfigContext, Login]:
        chosen = self._choose()
        self._context = chosen.context
        try:
            return chosen, self._place(chosen)
        except ConfigError as error:
            raise KubeconfigError(f"{chosen.source} cannot be used: {error}") from error

    def _choose(self) -> kubeconfigs.KubeconfigContext:
        try:
            return self._of(self._context)
        except KubeconfigError:
            if self._context == self._settings.context:
                raise
            return self._of(self._settings.context)

    def _of(self, context: str | None) -> kubeconfigs.KubeconfigContext:
        if self._settings.kubeconfig_text:
            return kubeconfigs.of_text(self._settings.kubeconfig_text, context)
        return kubeconfigs.read(self._settings.kubeconfig, context)

    def _place(self, chosen: kubeconfigs.KubeconfigContext) -> Login:
        cluster = chosen.cluster
        url = cluster["server"].rstrip("/")
        ca, ca_source = _ca(self._settings, cluster)
        return Login(
            url=url,
            source=chosen.source,
            verify=self._settings.verify_ssl and not cluster.get("insecure-skip-tls-verify"),
            ca=ca,
            ca_source=ca_source,
            certificate=_certificate_of(chosen.user),
            tls_server_name=cluster.get("tls-server-name") or None,
            proxy=_proxy(cluster.get("proxy-url"), url),
        )

    async def _signed(self, chosen: kubeconfigs.KubeconfigContext, login: Login) -> Login:
        user, cluster = chosen.user, chosen.cluster
        if user.get("auth-provider"):
            return replace(login, authorization=header(await _provided(user), "provider's token"))
        if plugin := user.get("exec"):
            signed = await exec_plugins.sign_in(plugin, cluster, timeout=SIGN_IN_SECONDS)
            bearer = f"Bearer {signed.token}" if signed.token else None
            login = replace(login, authorization=header(bearer, "plug-in's token"), lifetime=_lifetime(signed))
            if signed.certificate and signed.key:
                pair = signed.certificate.encode(), signed.key.encode()
                login = replace(login, cert_data=pair[0], key_data=pair[1], certificate=pair[0])
            return login
        return replace(await asyncio.to_thread(_with_authorization, login, user), **_certificate(user))


class InClusterSource:
    """The pod's service account. The kubelet renews the token, and replaces the CA when the cluster rotates it."""

    def __init__(self, settings: KubeSettings) -> None:
        self._settings = settings

    async def look(self) -> Login:
        """Return the server's address."""
        return await self.read()

    async def read(self) -> Login:
        """Return a whole login, from two small files."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> Login:
        # imported here because it takes 0.4 s, which code that only builds requests should not pay
        from kubernetes_asyncio.client import Configuration
        from kubernetes_asyncio.config import ConfigException, load_incluster_config

        configuration = Configuration()
        try:
            load_incluster_config(  # type: ignore[no-untyped-call]  # the library's gap
                client_configuration=configuration, try_refresh_token=False
            )
        except (ConfigException, OSError, UnicodeDecodeError) as error:
            raise KubeconfigError(
                f"in_cluster is set, but this is not a pod with a service account: {error} Set in_cluster = False to"
                " use a kubeconfig, or let the pod have its token (automountServiceAccountToken)"
            ) from error
        return _login(configuration, "the pod's service account", self._settings, no_proxy=None)


class ConfigurationSource:
    """The configuration of an official client, which renews its token itself."""

    def __init__(self, configuration: Any, settings: KubeSettings) -> None:
        self._configuration, self._settings = configuration, settings

    async def look(self) -> Login:
        """Return the server's address."""
        return self.now()

    async def read(self) -> Login:
        """Return a whole login."""
        return self.now()

    def now(self) -> Login:
        """Return a whole login, without waiting."""
        configuration = self._configuration
        settings = configuration.auth_settings().values()
        headers = [setting["value"] for setting in settings if setting["key"] == "authorization"]
        basic = headers[0] if headers else configuration.username and configuration.get_basic_auth_token()
        no_proxy = getattr(configuration, "no_proxy", None) or ""
        login = _login(configuration, "the Kubernetes hook", self._settings, no_proxy=no_proxy)
        return replace(login, authorization=header(basic or None, "client's token"))


def _ca(settings: KubeSettings, cluster: ClusterEntry) -> tuple[bytes | None, str]:
    """Return the CA and its field or path: the settings precede the kubeconfig, its data its file."""
    if settings.ssl_ca_cert:
        return read_bytes(settings.ssl_ca_cert, what="ssl_ca_cert"), settings.ssl_ca_cert
    if data := inline(cluster, "certificate-authority-data"):
        return data, "certificate-authority-data"
    if path := cluster.get("certificate-authority"):
        return read_bytes(path, what="certificate-authority"), path
    return None, ""


def _proxy(proxy: str | None, url: str, no_proxy: str | None = None) -> str | None:
    """Return the proxy that is configured for a server, else the environment's (HTTPS_PROXY, NO_PROXY).

    ``no_proxy``: the exceptions in an official client's configuration. Such a client copies the environment's proxy
    into its configuration for every server, so that the exceptions must be applied here.
    """
    if no_proxy is not None and (not proxy or proxies.bypasses(url, no_proxy)):
        return None
    if not proxy:
        return proxies.environment_proxy(url, os.environ)
    scheme = urlsplit(proxy).scheme
    if scheme not in ("http", "https"):
        raise KubeconfigError(f'a proxy-url of the kind "{scheme}" is not supported, only http and https')
    return proxy


def _with_authorization(login: Login, user: UserEntry) -> Login:
    """Add the header's value; a token file precedes a token, as for kubectl, and is read again."""
    if path := user.get("tokenFile"):
        token = read_text(path, what="tokenFile").strip()
        if not token:
            raise KubeconfigError(f"tokenFile {path} is empty")
        return replace(login, authorization=header(f"Bearer {token}", "tokenFile"), lifetime=TOKEN_FILE_SECONDS)
    if user.get("token"):
        return replace(login, authorization=header(f"Bearer {user['token']}", "token"))
    if user.get("username"):
        pair = f"{user['username']}:{user.get('password') or ''}"
        return replace(login, authorization="Basic " + base64.b64encode(pair.encode()).decode())
    return login


def _certificate_of(user: UserEntry) -> bytes | None:
    """Return the client certificate of a user that needs no plug-in for it."""
    if user.get("exec"):
        return None
    if data := inline(user, "client-certificate-data"):
        return data
    path = user.get("client-certificate")
    return read_bytes(path, what="client-certificate") if path else None


def _certificate(user: UserEntry) -> dict[str, Any]:
    return {
        "cert_file": user.get("client-certificate") or None,
        "key_file": user.get("client-key") or None,
        "cert_data": inline(user, "client-certificate-data"),
        "key_data": inline(user, "client-key-data"),
    }


def _lifetime(signed: exec_plugins.ExecCredential) -> float:
    if signed.expires is None:
        return math.inf
    left = (signed.expires - datetime.datetime.now(datetime.UTC)).total_seconds()
    return left - min(300.0, 0.2 * left)


async def _provided(user: UserEntry) -> str | None:
    """Let kubernetes_asyncio sign in by an ``auth-provider`` (OIDC, GCP), which kubectl has dropped."""
    from aiohttp import ClientError
    from kubernetes_asyncio.client import Configuration
    from kubernetes_asyncio.config import ConfigException, load_kube_config_from_dict

    document = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": "http://x"}}],
        "users": [{"name": "x", "user": {"auth-provider": user["auth-provider"]}}],
    }
    configuration = Configuration()
    try:
        async with asyncio.timeout(SIGN_IN_SECONDS):
            await load_kube_config_from_dict(document, client_configuration=configuration)
    except TimeoutError:
        raise CredentialsError(f"signing in took more than {SIGN_IN_SECONDS:g} s") from None
    except ConfigException as error:
        # The provider's answer is the cause. A busy or broken provider passes; a refusal needs another kubeconfig.
        status = getattr(error.__cause__, "status", 0)
        passes = status == 429 or status >= 500
        raise (CredentialsError if passes else KubeconfigError)(str(error)) from error
    except (OSError, ClientError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise CredentialsError(f"signing in failed: {reason}") from error
    except Exception as error:  # the library does not document its errors, and their text may hold a secret
        raise KubeconfigError(
            f"auth-provider: a field is missing or of the wrong type ({type(error).__name__})"
        ) from error
    token: str | None = configuration.api_key.get("BearerToken")
    return token


def _login(configuration: Any, source: str, settings: KubeSettings, *, no_proxy: str | None) -> Login:
    """Return the login of a library's configuration."""
    url = configuration.host.rstrip("/")
    path = settings.ssl_ca_cert or configuration.ssl_ca_cert
    try:
        ca = read_bytes(path, what="CA file") if path and url.startswith("https:") else None
        cert_file = configuration.cert_file
        certificate = read_bytes(cert_file, what="client certificate") if cert_file else None
        authorization = header(configuration.api_key.get("BearerToken"), "token")
        proxy = _proxy(configuration.proxy, url, no_proxy)
    except ConfigError as error:
        raise KubeconfigError(f"{source}: {error}") from error
    return Login(
        url=url,
        source=source,
        authorization=authorization,
        lifetime=TOKEN_FILE_SECONDS,
        verify=configuration.verify_ssl and settings.verify_ssl,
        ca=ca,
        ca_source=path or "",
        cert_file=cert_file,
        certificate=certificate,
        key_file=configuration.key_file,
        tls_server_name=configuration.tls_server_name,
        proxy=proxy,
    )
