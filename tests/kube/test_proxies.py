"""The proxy of a request follows the environment by kubectl's rules, one line each."""

from __future__ import annotations

import pytest

from crosswind.errors import KubeconfigError
from crosswind.kube.proxies import bypasses, environment_proxy

PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    "url",
    [
        "https://localhost:6443",
        "https://127.0.0.1:6443",
        "http://127.8.9.10",
        "https://[::1]:6443",
        "https://[::ffff:127.0.0.1]:6443",
    ],
)
def test_loopback_takes_no_proxy_whatever_the_environment_says(url: str) -> None:
    assert environment_proxy(url, {"HTTPS_PROXY": PROXY, "HTTP_PROXY": PROXY}) is None


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("", "https://10.0.0.1", False),
        ("*", "https://10.0.0.1", True),
        ("10.0.0.0/8", "https://10.1.2.3:6443", True),
        ("10.1.2.3/8", "https://10.200.0.1", True),
        ("10.0.0.0/8", "https://11.0.0.1", False),
        ("10.0.0.0/8", "https://10.example", False),
        ("192.168.0.0/16, 10.0.0.0/8", "https://10.1.2.3", True),
        ("fd00::/8", "https://[fd12::1]:6443", True),
        ("fd00::/8", "https://10.0.0.1", False),
        ("10.0.0.0/99", "https://10.0.0.1", False),
        ("10.0.0.1", "https://10.0.0.1:6443", True),
        ("10.0.0.1:6443", "https://10.0.0.1:6443", True),
        ("10.0.0.1:443", "https://10.0.0.1", True),
        ("10.0.0.1:443", "https://10.0.0.1:6443", False),
        ("fd12::1", "https://[fd12::1]", True),
        ("[fd12::1]:6443", "https://[fd12::1]:6443", True),
        ("example.com", "https://example.com", True),
        ("Example.COM", "https://api.example.com", True),
        ("example.com", "https://API.Example.Com.", True),
        ("example.com", "https://myexample.com", False),
        (".example.com", "https://api.example.com", True),
        (".example.com", "https://example.com", False),
        ("*.example.com", "https://api.example.com", True),
        ("*.example.com", "https://example.com", False),
        ("example.com:6443", "https://api.example.com:6443", True),
        ("example.com:6443", "https://api.example.com", False),
        (",, ,", "https://example.com", False),
    ],
)
def test_no_proxy_understands_what_kubectl_understands(no_proxy: str, url: str, direct: bool) -> None:
    assert bypasses(url, no_proxy) == direct
    assert environment_proxy(url, {"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy}) == (None if direct else PROXY)


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "https://api", None),
        ({"https_proxy": PROXY}, "https://api", PROXY),
        ({"HTTP_PROXY": PROXY}, "https://api", None),
        ({"HTTP_PROXY": PROXY}, "http://api", PROXY),
        ({"HTTPS_PROXY": PROXY, "https_proxy": "http://other"}, "https://api", PROXY),
        ({"HTTPS_PROXY": "", "https_proxy": PROXY}, "https://api", PROXY),
        ({"HTTPS_PROXY": "proxy:3128"}, "https://api", PROXY),
        ({"HTTPS_PROXY": PROXY, "no_proxy": "api"}, "https://api", None),
    ],
)
def test_the_variables_are_those_of_kubectl(environment: dict[str, str], url: str, proxy: str | None) -> None:
    assert environment_proxy(url, environment) == proxy


def test_a_proxy_of_another_kind_is_refused_by_its_variable_without_its_password() -> None:
    with pytest.raises(KubeconfigError, match=r'^HTTPS_PROXY names a proxy of the kind "socks5"') as refused:
        environment_proxy("https://api", {"HTTPS_PROXY": "socks5://me:SECRET@proxy"})
    assert "SECRET" not in str(refused.value)
