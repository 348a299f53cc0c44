"""Where a login comes from: a kubeconfig, the pod's service account, or the client of the official package.

A source is looked at (``look``: where the server is, without signing in) and read (``read``: with what signs us in).
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import urlsplit

from crosswind.errors import ConfigError, CredentialsError, KubeconfigError
from crosswind.kube import kubeconfigs, plugins, proxies
from crosswind.kube.kubeconfig_fields import header, inline
from crosswind.regular_files import read_bytes, read_text
from crosswind.settings import KubeSettings

__all__ = ["Borrowed", "InCluster", "Kubeconfig", "Login", "Source", "source_of"]

TOKEN_FILE_SECONDS = 60.0
"""How often a token file is read again; the kubelet renews it long before its hour is over."""

SIGN_IN_SECONDS = 60.0
"""How long signing in may take: an exec plug-in or an OIDC provider may have to ask a cloud."""


@dataclass(frozen=True, slots=True)
class Login:
    """Everything that was read at once. ``lifetime``: seconds until it should be read again."""

    url: str
    source: str
    authorization: str | None = field(default=None, repr=False)
    lifetime: float = math.inf
    verify: bool = True
    ca: bytes | None = field(default=None, repr=False)
    """PEM. The content, not the path: a file that is rotated keeps its name."""
    ca_source: str = ""
    """Where the CA stands, for messages."""
    cert_file: str | None = None
    key_file: str | None = None
    cert_data: bytes | None = field(default=None, repr=False)
    """PEM that the kubeconfig holds itself; it wins over the file."""
    key_data: bytes | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    """The content of the client certificate, wherever it stands; one that is renewed may keep its file's name."""
    tls_server_name: str | None = None
    proxy: str | None = field(default=None, repr=False)

    @property
    def has_certificate(self) -> bool:
        """Whether we show a client certificate."""
        return bool(self.cert_data or self.cert_file)

    @property
    def place(self) -> tuple[object, ...]:
        """Where the server is and how it proves to be it; a connection made for another one is of no use."""
        return self.url, self.verify, self.ca, self.tls_server_name, self.proxy


class Source(Protocol):
    """Where a login comes from. Both raise ``KubeconfigError`` and ``CredentialsError``."""

    async def look(self) -> Login:
        """Return where the server is; what signs us in may be missing."""
        ...

    async def read(self) -> Login:
        """Return a whole login."""
        ...


def source_of(settings: KubeSettings) -> Source:
    """Return where settings say that a login comes from."""
    return InCluster(settings) if settings.in_cluster else Kubeconfig(settings)


class Kubeconfig:
    """A kubeconfig, read again each time: another address, CA or user in it counts from then on.

    The context that was chosen first is kept to, as long as there is one of its name: ``kubectl config use-context``
    in a shell is no reason to go on in another cluster.
    """

    def __init__(self, settings: KubeSettings) -> None:
        self._settings = settings
        self._context = settings.context

    async def look(self) -> Login:
        """Return where the server is."""
        return (await asyncio.to_thread(self._look))[1]

    async def read(self) -> Login:
        """Return a whole login: a plug-in is run, a provider asked."""
        chosen, login = await asyncio.to_thread(self._look)
        try:
            return await self._signed(chosen, login)
        except (ConfigError, CredentialsError) as error:
            kind = KubeconfigError if isinstance(error, ConfigError) else CredentialsError
            raise kind(f"{chosen.source} cannot be used: {error}") from error

    def _look(self) -> tuple[kubeconfigs.Chosen, Login]:
        chosen = self._choose()
        self._context = chosen.context
        try:
            return chosen, self._place(chosen)
        except ConfigError as error:
            raise KubeconfigError(f"{chosen.source} cannot be used: {error}") from error

    def _choose(self) -> kubeconfigs.Chosen:
        try:
            return self._of(self._context)
        except KubeconfigError:
            if self._context == self._settings.context:
                raise
            return self._of(self._settings.context)

    def _of(self, context: str | None) -> kubeconfigs.Chosen:
        if self._settings.kubeconfig_text:
            return kubeconfigs.of_text(self._settings.kubeconfig_text, context)
        return kubeconfigs.read(self._settings.kubeconfig, context)

    def _place(self, chosen: kubeconfigs.Chosen) -> Login:
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

    async def _signed(self, chosen: kubeconfigs.Chosen, login: Login) -> Login:
        user, cluster = chosen.user, chosen.cluster
        if user.get("auth-provider"):
            return replace(login, authorization=header(await _provided(user), "provider's token"))
        if user.get("exec"):
            signed = await plugins.sign_in(user["exec"], cluster, timeout=SIGN_IN_SECONDS)
            bearer = f"Bearer {signed.token}" if signed.token else None
            login = replace(login, authorization=header(bearer, "plug-in's token"), lifetime=_lifetime(signed))
            if signed.certificate and signed.key:
                pair = signed.certificate.encode(), signed.key.encode()
                login = replace(login, cert_data=pair[0], key_data=pair[1], certificate=pair[0])
            return login
        return replace(await asyncio.to_thread(_with_authorization, login, user), **_certificate(user))


class InCluster:
    """The pod's service account. The kubelet renews the token, and the CA when the cluster's is rotated."""

    def __init__(self, settings: KubeSettings) -> None:
        self._settings = settings

    async def look(self) -> Login:
        """Return where the server is."""
        return await self.read()

    async def read(self) -> Login:
        """Return a whole login: it is but two small files."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> Login:
        # imported here because it takes 0.4 s, which whoever only builds requests should not pay
        from kubernetes_asyncio.client import Configuration
        from kubernetes_asyncio.config import ConfigException, load_incluster_config

        configuration = Configuration()
        try:
            load_incluster_config(  # type: ignore[no-untyped-call]  # the library's gap
                client_configuration=configuration, try_refresh_token=False
            )
        except (ConfigException, OSError, UnicodeDecodeError) as error:
            raise KubeconfigError(
                f"in_cluster is set, but this is no pod with a service account: {error} Set in_cluster = False to use a"
                " kubeconfig, or let the pod have its token (automountServiceAccountToken)"
            ) from error
        return _login(configuration, "the pod's service account", self._settings, no_proxy=None)


class Borrowed:
    """The configuration of an official client, which keeps its own token fresh."""

    def __init__(self, configuration: Any, settings: KubeSettings) -> None:
        self._configuration, self._settings = configuration, settings

    async def look(self) -> Login:
        """Return where the server is."""
        return self.now()

    async def read(self) -> Login:
        """Return a whole login."""
        return self.now()

    def now(self) -> Login:
        """Return a whole login, without waiting."""
        configuration = self._configuration
        headers = [one["value"] for one in configuration.auth_settings().values() if one["key"] == "authorization"]
        basic = headers[0] if headers else configuration.username and configuration.get_basic_auth_token()
        no_proxy = getattr(configuration, "no_proxy", None) or ""
        login = _login(configuration, "the Kubernetes hook", self._settings, no_proxy=no_proxy)
        return replace(login, authorization=header(basic or None, "client's token"))


def _ca(settings: KubeSettings, cluster: Mapping[str, Any]) -> tuple[bytes | None, str]:
    """Return the CA and where it stands: the settings win over the kubeconfig, its data over its file."""
    if settings.ssl_ca_cert:
        return read_bytes(settings.ssl_ca_cert, what="ssl_ca_cert"), settings.ssl_ca_cert
    if data := inline(cluster, "certificate-authority-data"):
        return data, "certificate-authority-data"
    if path := cluster.get("certificate-authority"):
        return read_bytes(path, what="certificate-authority"), path
    return None, ""


def _proxy(proxy: str | None, url: str, no_proxy: str | None = None) -> str | None:
    """Return the proxy that was named for a server, else the environment's (HTTPS_PROXY, NO_PROXY).

    ``no_proxy``: what a client says that is reached directly. It copies the environment's proxy into its configuration,
    whatever server it is for.
    """
    if no_proxy is not None and (not proxy or proxies.bypasses(url, no_proxy)):
        return None
    if not proxy:
        return proxies.environment_proxy(url, os.environ)
    scheme = urlsplit(proxy).scheme
    if scheme not in ("http", "https"):
        raise KubeconfigError(f'a proxy-url of the kind "{scheme}" is not supported, only http and https')
    return proxy


def _with_authorization(login: Login, user: Mapping[str, Any]) -> Login:
    """Add what goes into the header; a token file wins over a token, as for kubectl, and is read again."""
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


def _certificate_of(user: Mapping[str, Any]) -> bytes | None:
    """Return the certificate that a user has without signing in."""
    if user.get("exec"):
        return None
    if data := inline(user, "client-certificate-data"):
        return data
    path = user.get("client-certificate")
    return read_bytes(path, what="client-certificate") if path else None


def _certificate(user: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "cert_file": user.get("client-certificate") or None,
        "key_file": user.get("client-key") or None,
        "cert_data": inline(user, "client-certificate-data"),
        "key_data": inline(user, "client-key-data"),
    }


def _lifetime(signed: plugins.Signed) -> float:
    if signed.expires is None:
        return math.inf
    left = (signed.expires - datetime.datetime.now(datetime.UTC)).total_seconds()
    return left - min(300.0, 0.2 * left)


async def _provided(user: Mapping[str, Any]) -> str | None:
    """Let the library sign in by an ``auth-provider`` (OIDC, GCP), which kubectl itself no longer has."""
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
        raise KubeconfigError(str(error)) from error
    except OSError as error:
        raise CredentialsError(f"signing in failed: {error.strerror or type(error).__name__}") from error
    except Exception as error:  # the library has no list of what it raises; its words may hold a secret
        raise KubeconfigError(
            f"auth-provider: a field is missing or of the wrong type ({type(error).__name__})"
        ) from error
    token: str | None = configuration.api_key.get("BearerToken")
    return token


def _login(configuration: Any, source: str, settings: KubeSettings, *, no_proxy: str | None) -> Login:
    """Return what a library's configuration says."""
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
