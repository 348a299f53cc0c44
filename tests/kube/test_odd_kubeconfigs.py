"""For any content of a kubeconfig, an error names the field; it is never a raw exception and holds no secret."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crosswind.errors import CredentialsError, KubeconfigError
from crosswind.kube import credentials as kube_credentials
from crosswind.kube import kubeconfigs
from crosswind.settings import KubeSettings

V1 = "client.authentication.k8s.io/v1"


def config(user: Any = None, cluster: Any = None, context: Any = None, **top: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"} if context is None else context}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"} if cluster is None else cluster}],
        "users": [{"name": "u", "user": {"token": "t"} if user is None else user}],
        **top,
    }


def https(**fields: Any) -> dict[str, Any]:
    return {"server": "https://127.0.0.1:1", **{name.replace("_", "-"): value for name, value in fields.items()}}


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (config(user={"token": 12345}), 'user "u": token must be text, not a number'),
        (config(user={"token": ["SECRET"]}), "token must be text, not a list"),
        (config(user={"token": "SEC\nRET"}), "the token has characters that no HTTP header can hold"),
        (config(user={"token": "SECRÉT"}), "the token has characters that no HTTP header can hold"),
        (config(user={"tokenFile": 3}), "tokenFile must be text"),
        (config(user={"tokenFile": "/dev/zero"}), "tokenFile /dev/zero cannot be read: it is a device"),
        (config(user={"username": 1, "password": "SECRET"}), "username must be text"),
        (config(user={"client-certificate-data": "QQ=="}), "client-certificate without client-key"),
        (config(user={"client-key": "key.pem"}), "client-key without client-certificate"),
        (
            config(user={"client-certificate-data": "SECRET!", "client-key-data": "QQ=="}),
            "certificate-data is not base64",
        ),
        (
            config(user={"client-certificate-data": "QQ==", "client-key-data": "SECRET?"}),
            "client-key-data is not base64",
        ),
        (
            config(user={"client-certificate-data": "QQ==", "client-key-data": "QQ=="}),
            "certificate or its key cannot be",
        ),
        (config(user={"client-certificate": "/dev/zero", "client-key": "/dev/zero"}), "it is a device"),
        (config(user={"as": "admin", "token": "SECRET"}), r"as \(impersonation\) is not supported"),
        (config(user={"exec": "aws"}), "exec must be a mapping"),
        (config(user={"exec": {"apiVersion": V1}}), "exec needs the fields command and apiVersion"),
        (config(user={"exec": {"command": "aws"}}), "exec needs the fields command and apiVersion"),
        (config(user={"exec": {"command": ["aws"], "apiVersion": V1}}), r"exec\.command must be text, not a list"),
        (config(user={"exec": {"command": "aws", "apiVersion": "v2"}}), r"exec\.apiVersion v2 is not known"),
        (config(user={"exec": {"command": "aws", "apiVersion": V1, "args": "a b"}}), r"exec\.args must be a list"),
        (config(user={"exec": {"command": "aws", "apiVersion": V1, "args": [1]}}), r"exec\.args\[0\] must be text"),
        (config(user={"exec": {"command": "aws", "apiVersion": V1, "env": {"A": "b"}}}), r"exec\.env must be a list"),
        (
            config(user={"exec": {"command": "aws", "apiVersion": V1, "env": [{"name": "A"}]}}),
            r"exec\.env\[0\] must have",
        ),
        (
            config(user={"exec": {"command": "aws", "apiVersion": V1, "interactiveMode": "Always"}}),
            "nobody can answer its questions",
        ),
        (config(user={"exec": {"command": "a\0b", "apiVersion": V1}}), "cannot be started"),
        (config(user={"exec": {"command": "/etc/hostname", "apiVersion": V1}}), "cannot be started: (Permission|Exec)"),
        (config(user={"auth-provider": "oidc"}), "auth-provider must be a mapping with a name"),
        (config(user={"auth-provider": {"name": "oidc"}}), "auth-provider"),
        (config(user={"auth-provider": {"name": "oidc", "config": []}}), "oidc: No valid id-token"),
        (config(user=["SECRET"]), r"users\[0\] has not"),
        (config(cluster=https(certificate_authority_data="SECRET!")), "certificate-authority-data is not base64"),
        (config(cluster=https(certificate_authority_data=7)), "certificate-authority-data must be text"),
        (config(cluster=https(certificate_authority_data="QQ==")), "CA in certificate-authority-data cannot be used"),
        (config(cluster=https(certificate_authority="/dev/zero")), "certificate-authority /dev/zero cannot be read"),
        (config(cluster=https(certificate_authority=["a"])), "certificate-authority must be text"),
        (config(cluster=https(insecure_skip_tls_verify="true")), "insecure-skip-tls-verify must be true or false"),
        (config(cluster=https(tls_server_name=1)), "tls-server-name must be text"),
        (config(cluster=https(proxy_url={})), "proxy-url must be text"),
        (config(cluster=https(proxy_url="ftp://x")), 'proxy-url of the kind "ftp"'),
        (config(cluster={"server": 6443}), "server must be text"),
        (config(cluster={"server": "https://[::1"}), 'has the server "https://\\[::1"'),
        (config(cluster={}), 'cluster "c" has no server'),
        (config(context={"cluster": ["c"], "user": "u"}), 'context "x": cluster must be text'),
        (config(context={"cluster": "c", "user": {"a": "b"}}), 'context "x": user must be text'),
        (config(context={"cluster": "c", "user": "u", "namespace": 5}), "namespace must be text"),
        (config(context={"cluster": "d", "user": "u"}), 'points to the cluster "d"'),
        (config(context={}), 'points to the cluster "None"'),
        (config(contexts=[{"context": {}}]), r"contexts\[0\] has not"),
        (config(contexts=[{"name": 7, "context": {}}]), r"contexts\[0\]\.name must be text"),
        (config(contexts=["x"]), r"contexts\[0\] has not"),
        (config(contexts={"x": {}}), "it needs the lists contexts, clusters and users"),
        (config(clusters="c"), "it needs the lists contexts, clusters and users"),
        (config(users=[{"name": "u", "user": {}}] * 2), 'users has two of the name "u"'),
        (config(apiVersion="v2"), "its apiVersion is not v1"),
        (config(apiVersion=["v1"]), "its apiVersion is not v1"),
        (config(kind="Secret"), "its kind is not Config"),
        (config(**{"current-context": ["x"]}), "has no context"),
        (["a"], "is not a kubeconfig"),
        (7, "is not a kubeconfig"),
    ],
)
async def test_an_odd_value_is_reported_with_its_field(tmp_path: Path, document: Any, field: str) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(KubeconfigError, match=field) as caught:
        await kube_credentials.load(KubeSettings(kubeconfig=str(path)))
    assert str(path) in str(caught.value)
    assert "SEC" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
async def test_a_byte_order_mark_is_no_matter(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "config"
    path.write_bytes(yaml.safe_dump(config()).encode(encoding))
    _, credentials = await kube_credentials.load(KubeSettings(kubeconfig=str(path)))
    assert await credentials.current() == "Bearer t"


async def test_a_token_file_wins_over_a_token_and_may_end_a_line(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("new\n")
    (tmp_path / "config").write_text(yaml.safe_dump(config(user={"token": "old", "tokenFile": "token"})))
    _, credentials = await kube_credentials.load(KubeSettings(kubeconfig=str(tmp_path / "config")))
    assert await credentials.current() == "Bearer new"


def test_files_of_kubeconfig_may_be_empty_and_paths_are_relative_to_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("")
    (tmp_path / "folder").mkdir()
    user = {"exec": {"command": "bin/aws", "apiVersion": V1}}
    (tmp_path / "folder" / "b").write_text(yaml.safe_dump(config(user=user)))
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([str(tmp_path / "a"), "", str(tmp_path / "folder" / "b")]))
    chosen = kubeconfigs.read(None, None)
    assert chosen.user["exec"]["command"] == str(tmp_path / "folder" / "bin" / "aws")
    users = [{"name": "u", "user": {"token": "a"}}]
    (tmp_path / "a").write_text(yaml.safe_dump({"current-context": "y", "users": users}))
    with pytest.raises(KubeconfigError, match='no context "y"'):
        kubeconfigs.read(None, None)
    assert kubeconfigs.read(None, "x").user == {"token": "a"}
    for nothing in (":", "~nobody-of-this-name/config", "\0"):
        with pytest.raises(KubeconfigError, match="there is no kubeconfig at"):
            kubeconfigs.read(nothing, None)


async def test_a_plugins_time_without_a_zone_is_utc(tmp_path: Path) -> None:
    script = tmp_path / "plugin"
    answer = '{"status": {"token": "t", "expirationTimestamp": "2036-01-01T00:00:00"}}'
    script.write_text(f"#!/bin/sh\necho '{answer}'\n")
    script.chmod(0o755)
    (tmp_path / "config").write_text(yaml.safe_dump(config(user={"exec": {"command": "./plugin", "apiVersion": V1}})))
    _, credentials = await kube_credentials.load(KubeSettings(kubeconfig=str(tmp_path / "config")))
    assert await credentials.current() == "Bearer t"


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=2), max_size=2)
FIELDS = st.sampled_from(
    ["token", "tokenFile", "username", "client-key", "client-certificate-data", "exec", "as", "auth-provider", "server"]
)
PARTS = st.dictionaries(FIELDS, VALUES | st.dictionaries(st.sampled_from(["command", "args", "env"]), VALUES))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(user=VALUES | PARTS, cluster=VALUES | PARTS, top=st.dictionaries(st.sampled_from(["contexts", "kind"]), VALUES))
async def test_no_kubeconfig_gives_any_other_error(user: Any, cluster: Any, top: dict[str, Any]) -> None:
    text = yaml.safe_dump(config(user, cluster if cluster is not None else {}, **top), allow_unicode=True)
    with contextlib.suppress(KubeconfigError, CredentialsError):
        await kube_credentials.load(KubeSettings(kubeconfig_text=text))
