"""Selects the proxy for a request from the environment, by the rules of Go's ``httpproxy`` and so of kubectl.

https://pkg.go.dev/golang.org/x/net/http/httpproxy
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import TypeAlias
from urllib.parse import urlsplit

from crosswind.errors import KubeconfigError

__all__ = ["bypasses", "environment_proxy"]

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_VARIABLES = {"https": ("HTTPS_PROXY", "https_proxy"), "http": ("HTTP_PROXY", "http_proxy")}
_PORTS: dict[str, int | str] = {"https": 443, "http": 80}


def environment_proxy(url: str, environment: Mapping[str, str]) -> str | None:
    """Return the proxy of ``HTTPS_PROXY`` or ``HTTP_PROXY`` (or in lower case) for ``url``; None: connect directly.

    Raises ``KubeconfigError`` for a proxy that cannot be used; the message never holds the proxy's password.
    """
    no_proxy = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    for variable in _VARIABLES.get(urlsplit(url).scheme, ()):
        if proxy := environment.get(variable):
            return None if bypasses(url, no_proxy) else _checked(proxy, variable)
    return None


def bypasses(url: str, no_proxy: str) -> bool:
    """Return whether a request goes to its server directly, whatever proxy the environment names.

    True for ``localhost``, loopback addresses, and the entries of ``no_proxy``: ``*``, addresses, ranges
    (``10.0.0.0/8``), names (with their subdomains), ``.example.com`` and ``*.example.com`` (the subdomains alone).
    Names and addresses may have a port.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    port = str(parts.port or _PORTS.get(parts.scheme, ""))
    return any(_matches(entry.strip().lower(), host, address, port) for entry in no_proxy.split(","))


def _matches(entry: str, host: str, address: _Address | None, port: str) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        return address is not None and _in_range(address, entry)
    name, entry_port = _split(entry)
    if not name or (entry_port and entry_port != port):
        return False
    if (listed := _address(name)) is not None:
        return listed == address
    if name.startswith((".", "*.")):
        return host.endswith(name.removeprefix("*"))
    return host == name or host.endswith(f".{name}")


def _split(entry: str) -> tuple[str, str]:
    """Split ``host``, ``host:port``, ``[v6]:port`` or a bare IPv6 address into host and port."""
    if _address(entry) is not None:
        return entry, ""
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        return host, rest.removeprefix(":")
    host, _, port = entry.partition(":")
    return host, port


def _in_range(address: _Address, entry: str) -> bool:
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # Go treats ::ffff:127.0.0.1 and 127.0.0.1 as equal
    return getattr(address, "ipv4_mapped", None) or address


def _checked(proxy: str, variable: str) -> str:
    """Return a proxy's address as a URL: ``proxy:3128`` is ``http://proxy:3128``."""
    url = proxy if "://" in proxy else f"http://{proxy}"
    scheme = urlsplit(url).scheme
    if scheme not in ("http", "https"):
        raise KubeconfigError(
            f'{variable} names a proxy of the kind "{scheme}", only http and https are supported; '
            "unset it, or list the API server in NO_PROXY"
        )
    return url
