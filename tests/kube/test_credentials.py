from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import ssl
import stat
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from kube_answers import self_signed
from kubernetes.client import Configuration
from kubernetes_asyncio.config import incluster_config

from crosswind.errors import CredentialsError, KubeconfigError, Unauthorized, Unreachable
from crosswind.kube import credentials as kube_credentials
from crosswind.kube import login_sources
from crosswind.kube.client import Client
from crosswind.kube.credentials import Login, RenewedCredentials
from crosswind.kube.resources import PODS
from crosswind.settings import KubeSettings
from deadlines import scaled
from kubelocal.auth.certificates import issue


def kubeconfig(folder: Path, user: dict[str, Any], **cluster: Any) -> KubeSettings:
    cluster = {"server": "http://127.0.0.1:6443", **cluster}
    path = folder / "config"
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "x",
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    return KubeSettings(kubeconfig=str(path))


def plugin(folder: Path, script: str) -> dict[str, Any]:
    path = folder / "plugin"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(path), "interactiveMode": "Never"}}


def answer(**status: Any) -> str:
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    return f"cat <<'END'\n{json.dumps(credential)}\nEND"


def put_service_account(patch: pytest.MonkeyPatch, token: Path, authority: Path) -> None:
    """Have the files of a pod's service account here; the official client knows one place alone."""
    patch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    patch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(authority))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_credentials, "_CHECK_INTERVAL_S", 0.0)
    monkeypatch.setattr(kube_credentials, "_RENEWAL_PAUSE_S", 0.0)


async def test_a_token_and_the_server_come_from_the_kubeconfig(tmp_path: Path) -> None:
    server, credentials = await kube_credentials.load(kubeconfig(tmp_path, {"token": "abc"}))
    assert (server.url, server.source) == ("http://127.0.0.1:6443", f"context x of {tmp_path}/config")
    assert await credentials.current() == "Bearer abc"


async def test_name_and_password_become_basic_credentials(tmp_path: Path) -> None:
    _, credentials = await kube_credentials.load(kubeconfig(tmp_path, {"username": "me", "password": "pw"}))
    assert await credentials.current() == "Basic " + base64.b64encode(b"me:pw").decode()


async def test_a_kubeconfig_may_come_as_text(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, {"token": "abc"}).kubeconfig
    assert path is not None
    server, credentials = await kube_credentials.load(KubeSettings(kubeconfig_text=Path(path).read_text()))
    assert await credentials.current() == "Bearer abc"
    assert "the connection's kubeconfig" in server.source
    with pytest.raises(KubeconfigError, match="the connection's kubeconfig is not a kubeconfig"):
        await kube_credentials.load(KubeSettings(kubeconfig_text="[]"))


@pytest.mark.usefixtures("at_once")
async def test_server_and_token_can_be_borrowed_from_the_official_client(monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = Configuration(host="http://one:8001/")
    configuration.api_key = {"BearerToken": "Bearer first"}
    server, credentials = kube_credentials.load_from_configuration(configuration, KubeSettings(request_timeout=7))
    assert (server.url, server.request_timeout) == ("http://one:8001", 7)
    assert await credentials.current() == "Bearer first"
    configuration.api_key = {"BearerToken": "Bearer second"}
    assert await credentials.renew("Bearer first")
    assert await credentials.current() == "Bearer second"


@pytest.mark.parametrize(
    ("host", "no_proxy", "proxy"),
    [
        ("https://10.1.2.3", "", "http://proxy:3128"),
        ("https://10.1.2.3", "10.0.0.0/8", None),
        ("https://127.0.0.1:6443", "", None),
    ],
)
def test_a_borrowed_proxy_is_for_far_servers_alone(
    monkeypatch: pytest.MonkeyPatch, host: str, no_proxy: str, proxy: str | None
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    configuration = Configuration(host=host)
    configuration.proxy, configuration.no_proxy = "http://proxy:3128", no_proxy
    assert kube_credentials.load_from_configuration(configuration, KubeSettings())[0].proxy == proxy


@pytest.mark.usefixtures("at_once")
async def test_a_token_file_is_read_again_after_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    _, credentials = await kube_credentials.load(kubeconfig(tmp_path, {"tokenFile": str(token)}))
    assert await credentials.current() == "Bearer old"
    token.write_text("new\n")
    assert await credentials.renew("Bearer old")
    assert await credentials.current() == "Bearer new"
    assert not await credentials.renew("Bearer new")


async def test_an_exec_plugin_signs_in_and_is_asked_again_before_its_token_expires(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    script = f"echo >> {counter}\n" + answer(token="one", expirationTimestamp="2026-01-01T00:00:00Z")
    _, credentials = await kube_credentials.load(kubeconfig(tmp_path, plugin(tmp_path, script)))
    assert await credentials.current() == "Bearer one"
    assert counter.read_text() == "\n", "an expired token must not start the plug-in for each request"


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (
            {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-plugin"}},
            'plug-in "no-such-plugin" cannot be started: No such file',
        ),
        ({"exec": {"apiVersion": "v1"}}, "exec needs the fields command and apiVersion"),
        ({"client-certificate": "/no/such.pem", "client-key": "/no/such.key"}, "/no/such.pem"),
        ({"client-certificate-data": "SECRET!", "client-key-data": "SECRET!"}, "is not base64|cannot be used"),
        ({"tokenFile": "/no/such/token"}, "tokenFile /no/such/token cannot be read: No such file"),
    ],
)
async def test_unusable_users_are_said_with_context_and_file(
    tmp_path: Path, user: dict[str, Any], message: str
) -> None:
    with pytest.raises(KubeconfigError, match=message) as caught:
        await kube_credentials.load(kubeconfig(tmp_path, user, server="https://127.0.0.1:6443"))
    assert f"{tmp_path}/config" in str(caught.value)
    assert 'context "x"' in str(caught.value) or "context x" in str(caught.value) or 'user "u"' in str(caught.value)
    assert "SECRET" not in str(caught.value)


async def test_the_output_of_a_failing_plugin_is_in_the_error(tmp_path: Path) -> None:
    settings = kubeconfig(tmp_path, plugin(tmp_path, "echo 'session expired, run: cloud login' >&2; exit 1"))
    with pytest.raises(CredentialsError, match="session expired, run: cloud login"):
        await kube_credentials.load(settings)


async def test_a_plugin_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_sources, "SIGN_IN_SECONDS", 0.2)
    settings = kubeconfig(tmp_path, plugin(tmp_path, "sleep 30 & sleep 30"))
    with pytest.raises(CredentialsError, match=r'plugin" did not answer within 0.2 s'):
        await kube_credentials.load(settings)


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ({"certificate-authority": "/no/ca.pem"}, "/no/ca.pem"),
        (
            {"certificate-authority-data": base64.b64encode(b"words").decode()},
            "CA in certificate-authority-data cannot be used",
        ),
        ({"proxy-url": "socks5://127.0.0.1:1"}, 'proxy-url of the kind "socks5" is not supported'),
    ],
)
async def test_unusable_clusters_are_said(tmp_path: Path, cluster: dict[str, Any], message: str) -> None:
    with pytest.raises(KubeconfigError, match=message):
        await kube_credentials.load(kubeconfig(tmp_path, {"token": "t"}, server="https://127.0.0.1:6443", **cluster))


async def test_a_kubeconfig_without_verification_and_with_server_name(tmp_path: Path) -> None:
    cluster = {"insecure-skip-tls-verify": True, "tls-server-name": "kubernetes"}
    server, _ = await kube_credentials.load(
        kubeconfig(tmp_path, {"token": "t"}, server="https://127.0.0.1:1", **cluster)
    )
    assert server.tls is not None
    assert (server.tls.check_hostname, server.tls_server_name) == (False, "kubernetes")


@pytest.mark.parametrize(
    ("environment", "proxy_url", "proxy"),
    [
        ({}, None, None),
        ({"https_proxy": "http://proxy:3128"}, None, "http://proxy:3128"),
        ({"https_proxy": "http://proxy:3128", "no_proxy": ".example"}, None, None),
        ({"https_proxy": "http://proxy:3128", "no_proxy": ".example"}, "http://own:1", "http://own:1"),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "api.example:443"}, None, None),
    ],
)
async def test_the_proxy_is_the_kubeconfigs_or_the_environments(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    proxy_url: str | None,
    proxy: str | None,
) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cluster = {"proxy-url": proxy_url} if proxy_url else {}
    server, _ = await kube_credentials.load(
        kubeconfig(tmp_path, {"token": "t"}, server="https://api.example", **cluster)
    )
    assert server.proxy == proxy


async def test_in_cluster_outside_a_pod_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(KubeconfigError, match=r"not a pod with a service account: .* Set in_cluster = False"):
        await kube_credentials.load(KubeSettings(in_cluster=True))


@pytest.mark.usefixtures("at_once")
async def test_in_cluster_reads_the_token_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("one")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    put_service_account(monkeypatch, token, authority)
    monkeypatch.setattr(login_sources, "TOKEN_FILE_SECONDS", 0.0)
    server, credentials = await kube_credentials.load(KubeSettings(in_cluster=True))
    assert server.url == "https://[fd00::1]:443"
    token.write_text("two")
    assert await credentials.current() == "Bearer two"


class Logins:
    """Returns the tokens t1, t2, ... and may fail."""

    def __init__(self, lifetime: float) -> None:
        self.login = Login("http://x", "test", "t0", lifetime)
        self.count = 0
        self.error: KubeconfigError | CredentialsError | None = None

    async def read(self) -> Login:
        self.count += 1
        if self.error:
            raise self.error
        return replace(self.login, authorization=f"t{self.count}")


async def test_many_refusals_at_once_renew_once() -> None:
    login_sources = Logins(lifetime=3600)
    credentials = RenewedCredentials(login_sources.read, login_sources.login, None)
    credentials._read_at = float("-inf")  # as if read long ago
    assert await credentials.renew("t0")
    assert await credentials.renew("t0")
    assert not await credentials.renew("t1"), "a moment ago: the new one is no better"
    assert login_sources.count == 1


async def test_a_renewal_that_fails_ahead_of_time_keeps_the_old_token(caplog: pytest.LogCaptureFixture) -> None:
    login_sources = Logins(lifetime=3600)
    credentials = RenewedCredentials(login_sources.read, login_sources.login, None)
    credentials._stale_at = float("-inf")  # as if it were old
    login_sources.error = KubeconfigError("the cloud is down")
    assert await credentials.current() == "t0"
    assert "the cloud is down" in caplog.text


async def test_requests_that_are_refused_together_share_one_failed_renewal() -> None:
    login_sources = Logins(lifetime=3600)
    login_sources.error = CredentialsError("the exec plug-in failed")
    credentials = RenewedCredentials(login_sources.read, login_sources.login, None)
    credentials._read_at = float("-inf")  # as if read long ago
    outcomes = await asyncio.gather(*(credentials.renew("t0") for _ in range(64)), return_exceptions=True)
    assert login_sources.count == 1, "a plug-in that hangs for a minute would be waited for an hour"
    assert {type(outcome) for outcome in outcomes} == {CredentialsError}
    assert "the exec plug-in failed" in str(outcomes[-1])


async def test_a_renewal_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_credentials, "_RENEWAL_TIMEOUT_S", 0.05)

    async def read() -> Login:
        await asyncio.Event().wait()
        raise AssertionError

    credentials = RenewedCredentials(read, Login("http://x", "test", "t0"), None)
    credentials._read_at = float("-inf")
    with pytest.raises(CredentialsError, match="took more than"):
        await credentials.renew("t0")


async def test_a_look_at_the_address_that_hangs_holds_requests_up_once_and_takes_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kube_credentials, "_LOOK_TIMEOUT_S", 0.2)
    monkeypatch.setattr(kube_credentials, "_CHECK_INTERVAL_S", 0.0)
    looks, answers = [], asyncio.Event()
    login = Login("http://x", "test", "t0")

    async def look() -> Login:
        looks.append(1)
        await answers.wait()
        return login

    async def read() -> Login:
        raise AssertionError("the address has not changed")

    credentials = RenewedCredentials(read, login, None, look=look)
    async with asyncio.timeout(scaled(10)):
        assert await asyncio.gather(*(credentials.relocate() for _ in range(50))) == [False] * 50
        assert len(looks) == 1
        answers.set()
        assert not await credentials.relocate()
        assert not await credentials.relocate()
    assert len(looks) == 2


async def test_while_one_request_renews_ahead_of_time_the_others_use_the_old_token() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def read() -> Login:
        begun.set()
        await go_on.wait()
        return Login("http://x", "test", "new")

    credentials = RenewedCredentials(read, Login("http://x", "test", "old"), None)
    credentials._stale_at = float("-inf")
    first = asyncio.create_task(credentials.current())
    await begun.wait()
    assert await credentials.current() == "old"
    go_on.set()
    assert await first == "new"


@pytest.mark.usefixtures("at_once")
async def test_a_kubeconfig_that_breaks_later_is_no_mistake_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = kubeconfig(tmp_path, {"token": "old"})
    _, credentials = await kube_credentials.load(settings)
    Path(str(settings.kubeconfig)).write_text("apiVersion: v1\nclusters: [")  # a file that is being written
    with pytest.raises(CredentialsError, match="not readable as YAML"):
        await credentials.renew("Bearer old")
    kubeconfig(tmp_path, {"token": "new"})
    await asyncio.sleep(0)
    credentials._retry_at = float("-inf")  # type: ignore[attr-defined]  # as if the pause was over
    assert await credentials.renew("Bearer old")
    assert await credentials.current() == "Bearer new"


async def test_keys_of_a_kubeconfig_stay_in_no_file_and_no_other_user_can_read_them(
    tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    chain, key = (path.read_bytes() for path in certificate)
    seen: list[tuple[int, int]] = []

    loads = ssl.SSLContext.load_cert_chain

    def look_and_load(context: ssl.SSLContext, certfile: Any, keyfile: Any, password: Any) -> None:
        seen.append((stat.S_IMODE(os.stat(keyfile).st_mode), stat.S_IMODE(os.stat(Path(keyfile).parent).st_mode)))
        loads(context, certfile, keyfile, password)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", look_and_load)
    data = {
        "client-certificate-data": base64.b64encode(chain).decode(),
        "client-key-data": base64.b64encode(key).decode(),
    }
    authority = base64.b64encode("# of Jörg\n".encode() + chain).decode()
    settings = kubeconfig(tmp_path, data, server="https://127.0.0.1:6443", **{"certificate-authority-data": authority})
    server, _ = await kube_credentials.load(settings)
    assert server.tls is not None
    assert server.tls.get_ca_certs()
    assert seen == [(0o600, 0o700)]
    assert list(temporary.iterdir()) == []


async def test_a_key_with_a_password_is_refused_without_a_prompt(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    key = serialization.load_pem_private_key(certificate[1].read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"pw")
    )
    (tmp_path / "key").write_bytes(locked)
    user = {"client-certificate": str(certificate[0]), "client-key": str(tmp_path / "key")}
    with pytest.raises(KubeconfigError, match="the key has a password"):
        await kube_credentials.load(kubeconfig(tmp_path, user, server="https://127.0.0.1:6443"))


def served(tmp_path: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """Create a CA, and return its file and the TLS context of a server with a certificate of it."""
    made = issue(["127.0.0.1"])
    for part, text in (("ca", made.authority), ("pem", made.server), ("key", made.key)):
        (tmp_path / f"{name}.{part}").write_text(text)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
    return tmp_path / f"{name}.ca", tls


@contextlib.asynccontextmanager
async def api(name: str, *, tls: ssl.SSLContext | None = None, port: int = 0, revoked: str = "") -> AsyncIterator[int]:
    """Serve a pod with the server's name and, as its uid, the token of the request."""

    async def handler(request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "")
        shown = request.transport.get_extra_info("peercert") if request.transport else None
        if revoked and shown and ((("commonName", revoked),),) == shown["subject"]:
            return web.json_response({"kind": "Status", "code": 401, "message": "revoked"}, status=401)
        return web.json_response({"kind": "Pod", "metadata": {"name": name, "uid": token, "namespace": "n"}})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls, reuse_address=True)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def asked(client: Client) -> tuple[str, str]:
    metadata = (await client.get(PODS, "p", namespace="n"))["metadata"]
    return metadata["name"], metadata["uid"]


@pytest.mark.usefixtures("at_once")
async def test_another_address_in_the_kubeconfig_is_followed_with_its_token(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with api("one") as port:
            settings = kubeconfig(tmp_path, {"token": "old"}, server=f"http://127.0.0.1:{port}")
            client = await stack.enter_async_context(await Client.connect(settings))
            assert await asked(client) == ("one", "Bearer old")
        with pytest.raises(Unreachable) as caught:
            await asked(client)
        assert not caught.value.sent
        async with api("two") as port:
            kubeconfig(tmp_path, {"token": "new"}, server=f"http://127.0.0.1:{port}")
            assert await asked(client) == ("two", "Bearer new")


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("inline", [False, True])
async def test_a_new_authority_at_the_same_address_is_followed(tmp_path: Path, inline: bool) -> None:
    """A rotated CA: the file has new content, or the kubeconfig holds new data."""

    def written(authority: Path) -> KubeSettings:
        (tmp_path / "ca").write_bytes(authority.read_bytes())
        data = base64.b64encode(authority.read_bytes()).decode()
        trusted = {"certificate-authority-data": data} if inline else {"certificate-authority": "ca"}
        return kubeconfig(tmp_path, {"token": "t"}, server=f"https://127.0.0.1:{port}", **trusted)

    (old, old_tls), (new, new_tls) = served(tmp_path, "old"), served(tmp_path, "new")
    async with contextlib.AsyncExitStack() as stack:
        async with api("one", tls=old_tls) as port:
            client = await stack.enter_async_context(await Client.connect(written(old)))
            assert await asked(client) == ("one", "Bearer t")
        async with api("two", tls=new_tls, port=port):
            with pytest.raises(Unreachable, match="certificate that is not trusted"):
                await asked(client)
            written(new)
            assert await asked(client) == ("two", "Bearer t")
        async with api("three", tls=old_tls, port=port):
            with pytest.raises(Unreachable, match="certificate that is not trusted"):
                await asked(client)


@pytest.mark.usefixtures("at_once")
async def test_another_server_name_and_proxy_are_followed(tmp_path: Path) -> None:
    authority, tls = served(tmp_path, "a")
    async with api("one", tls=tls) as port:
        settings = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(authority)}
        kube = kubeconfig(tmp_path, {"token": "t"}, **settings, **{"tls-server-name": "elsewhere.example"})
        async with await Client.connect(kube) as client:
            with pytest.raises(Unreachable, match="not trusted"):
                await asked(client)
            kubeconfig(tmp_path, {"token": "t"}, **settings, **{"tls-server-name": "kubernetes"})
            assert await asked(client) == ("one", "Bearer t")
    async with api("proxy") as port:
        kube = kubeconfig(tmp_path, {"token": "t"}, server="http://127.0.0.1:9", **{"proxy-url": "http://127.0.0.1:9"})
        async with await Client.connect(kube) as client:
            with pytest.raises(Unreachable, match="proxy"):
                await asked(client)
            kubeconfig(tmp_path, {"token": "t"}, server="http://10.9.9.9", **{"proxy-url": f"http://127.0.0.1:{port}"})
            assert await asked(client) == ("proxy", "Bearer t")


@pytest.mark.usefixtures("at_once")
async def test_a_rotated_authority_of_the_service_account_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old, old_tls), (new, new_tls) = served(tmp_path, "old"), served(tmp_path, "new")
    (tmp_path / "token").write_text("one")
    (tmp_path / "ca.crt").write_bytes(old.read_bytes())
    put_service_account(monkeypatch, tmp_path / "token", tmp_path / "ca.crt")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    async with contextlib.AsyncExitStack() as stack:
        async with api("one", tls=old_tls) as port:
            monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
            client = await stack.enter_async_context(await Client.connect(KubeSettings(in_cluster=True)))
            assert await asked(client) == ("one", "Bearer one")
        async with api("two", tls=new_tls, port=port):
            (tmp_path / "ca.crt").write_bytes(new.read_bytes())
            (tmp_path / "token").write_text("two")
            assert await asked(client) == ("two", "Bearer two")


def mutual(server: tuple[Path, Path], client: Path) -> ssl.SSLContext:
    """Return the TLS context of a server that demands the certificate of one client."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(client))
    tls.load_cert_chain(*server)
    tls.verify_mode = ssl.CERT_REQUIRED
    return tls


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("inline", [False, True])
async def test_a_renewed_client_certificate_is_shown_on_new_connections(
    tmp_path: Path, certificate: tuple[Path, Path], inline: bool
) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    old, new = self_signed(tmp_path / "old", "old"), self_signed(tmp_path / "new", "new")
    (tmp_path / "both.pem").write_bytes(old[0].read_bytes() + new[0].read_bytes())

    def written(pair: tuple[Path, Path]) -> KubeSettings:
        for name, path in zip(("me.pem", "me.key"), pair, strict=True):
            (tmp_path / name).write_bytes(path.read_bytes())
        data = [base64.b64encode(path.read_bytes()).decode() for path in pair]
        user = dict(zip(("client-certificate-data", "client-key-data"), data, strict=True))
        files = {"client-certificate": "me.pem", "client-key": "me.key"}
        server = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(certificate[0])}
        return kubeconfig(tmp_path, user if inline else files, **server)

    async with contextlib.AsyncExitStack() as stack:
        async with api("one", tls=mutual(certificate, tmp_path / "both.pem"), revoked="old") as port:
            client = await stack.enter_async_context(await Client.connect(written(new)))
            assert await asked(client) == ("one", "")
            other = await stack.enter_async_context(await Client.connect(written(old)))
            with pytest.raises(Unauthorized):
                await asked(other)
            written(new)
            assert await asked(other) == ("one", "")
        async with api("two", tls=mutual(certificate, old[0]), port=port):
            with pytest.raises(Unreachable):
                await asked(client)
            written(old)
            with contextlib.suppress(Unreachable):  # in TLS 1.3 the refusal arrives after the request was sent
                await asked(client)
            assert await asked(client) == ("two", "")


@pytest.mark.usefixtures("at_once")
async def test_an_api_server_that_is_away_runs_no_plugin(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    user = plugin(tmp_path, f"echo >> {counter}\n" + answer(token="t"))
    async with await Client.connect(kubeconfig(tmp_path, user, server="http://127.0.0.1:9")) as client:
        for _ in range(20):
            with pytest.raises(Unreachable):
                await asked(client)
    assert counter.read_text() == "\n"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of kubernetes_asyncio's own call of aiohttp
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", CredentialsError),
        (b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n", CredentialsError),
        (b"", CredentialsError),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", KubeconfigError),
    ],
)
async def test_a_provider_that_is_busy_or_broken_passes_and_one_that_refuses_does_not(
    tmp_path: Path, answer: bytes, error: type[Exception]
) -> None:
    async def provide(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(provide, "127.0.0.1", 0)
    issuer = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    config = {"client-id": "me", "client-secret": "SECRET", "idp-issuer-url": issuer, "refresh-token": "SECRET"}
    user = {"auth-provider": {"name": "oidc", "config": config}}
    async with server:
        with pytest.raises(error) as raised:
            await Client.connect(kubeconfig(tmp_path, user, server="http://127.0.0.1:9"))
    assert "SECRET" not in str(raised.value)


@pytest.mark.usefixtures("at_once")
async def test_a_request_that_may_have_arrived_is_not_sent_again(tmp_path: Path) -> None:
    arrived = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await reader.readline())
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with await Client.connect(kubeconfig(tmp_path, {"token": "t"}, server=f"http://127.0.0.1:{port}")) as client:
        kubeconfig(tmp_path, {"token": "t"}, server="http://127.0.0.1:9")  # it has moved too
        with pytest.raises(Unreachable) as caught:
            await client.create(PODS, {"metadata": {"name": "p", "namespace": "n"}})
    assert caught.value.sent
    assert len(arrived) == 1
    server.close()


@pytest.mark.usefixtures("at_once")
async def test_another_current_context_is_no_reason_to_go_to_another_cluster(tmp_path: Path) -> None:
    def written(current: str, *names: str) -> KubeSettings:
        path = tmp_path / "config"
        path.write_text(
            yaml.safe_dump(
                {
                    "current-context": current,
                    "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in names],
                    "clusters": [{"name": name, "cluster": {"server": f"http://{name}.example"}} for name in names],
                    "users": [{"name": name, "user": {"token": name}} for name in names],
                }
            )
        )
        return KubeSettings(kubeconfig=str(path))

    server, credentials = await kube_credentials.load(written("mine", "mine", "other"))
    assert server.url == "http://mine.example"
    written("other", "mine", "other")
    assert not await credentials.relocate()
    moved: list[str] = []
    credentials.moved = lambda server: moved.append(server.url)
    written("other", "other")  # the other context is gone
    assert await credentials.relocate()
    assert (moved, await credentials.current()) == (["http://other.example"], "Bearer other")


def test_no_credentials_are_shown() -> None:
    login = Login("http://x", "test", "Bearer SECRET", proxy="http://me:SECRET@proxy")
    assert "SECRET" not in repr(login) + repr(kube_credentials.FixedCredentials("Bearer SECRET"))
