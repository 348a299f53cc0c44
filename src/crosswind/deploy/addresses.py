"""Addresses in a values file: which of them Kubernetes, Istio and Git can use, and the ports that they name. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Network, ip_network
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator

from crosswind.types import Json

__all__ = [
    "RENDERED_SECTIONS",
    "Cidr",
    "Host",
    "HostName",
    "HostPort",
    "is_ip",
    "option_port",
    "port_number",
    "port_problems",
    "split_url",
    "url_port",
    "valid_url",
]

_DEFAULT_PORTS = {"ssh": 22, "git+ssh": 22, "https": 443, "http": 80, "git": 9418, "hdfs": 8020, "socks5": 1080}
_ADDRESS_OPTIONS = ("host", "endpoint", "url", "uri")
RENDERED_SECTIONS = frozenset({"api", "core", "database", "kubernetes_executor", "fab"})
"""Sections of airflow.cfg whose addresses are those of this deployment, which the policies know already."""

_CIDR = re.compile(r"[0-9a-fA-F.:]+/[0-9]{1,3}")
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$)({_LABEL}\.)*(?![0-9]+$){_LABEL}")
"""The last label has a letter, which distinguishes a name from an IP address; Istio demands it."""


def split_url(url: str) -> SplitResult | None:
    """Return the parts of a URL, None for text with a bracket that is none of an IPv6 address."""
    try:
        return urlsplit(url)
    except ValueError:
        return None


def url_port(url: str) -> int | None:
    """Return the port of a URL, else that of its scheme; None if neither is known."""
    parts = split_url(url)
    if parts is None:
        return None
    return _explicit_port(parts) or _DEFAULT_PORTS.get(parts.scheme)


def port_number(text: str) -> int | None:
    """Return a port that one can call; None for any other text."""
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text) and 1 <= int(text) <= 65535 else None


def option_port(name: str, options: Mapping[str, Json]) -> int | None:
    """Return the port of an option's address in a section of airflow.cfg; None if it has no address or no port."""
    text = str(options[name])
    if "://" in text and _is_address(name):
        return url_port(text)
    written = _written_port(name, options)
    return port_number(written[1]) if written else None


def port_problems(config: Mapping[str, Mapping[str, Json]]) -> Iterator[str]:
    """Yield the problems of the ports from which network policies follow; each completes a sentence about the key."""
    for section, options in config.items():
        for name in options if section not in RENDERED_SECTIONS else ():
            written = _written_port(name, options)
            if written and port_number(written[1]) is None:
                yield f"has [{section}] {written[0]} with a port that is none; write a number from 1 to 65535"


def is_ip(host: str) -> bool:
    """Return whether a ``Host`` is an IPv4 address."""
    return not _HOST_NAME.fullmatch(host)


def _is_address(name: str) -> bool:
    return name.rpartition("_")[2] in _ADDRESS_OPTIONS


def _written_port(name: str, options: Mapping[str, Json]) -> tuple[str, str] | None:
    """Return the option that has the port of an address, and its text."""
    text = str(options[name])
    if not _is_address(name) or "://" in text:
        return None
    sibling = f"{name.removesuffix('host')}port"
    if name.endswith("host") and (port := str(options.get(sibling, ""))):
        return sibling, port
    if name == "statsd_host":
        return name, "8125"  # Airflow's default of statsd_port
    port = text.rpartition(":")[2]
    return (name, port) if ":" in text and re.fullmatch("[0-9]+", port) else None


def _explicit_port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:
        return None


def valid_url(text: str) -> str:
    """Return a URL, or an address in another notation; raises ``ValueError`` for a URL that Git and stores refuse."""
    if "://" not in text:
        return text
    parts = split_url(text)
    if parts is None:
        raise ValueError("has a bracket that is not part of an IPv6 address; write one such as https://[2001:db8::1]/x")
    port = parts.netloc.rpartition("@")[2].rpartition("]")[2].partition(":")[2]
    if port and port_number(port) is None:
        raise ValueError("has a port that is none; write a number from 1 to 65535, or a slash after the host")
    return text


def _cidr(text: str) -> str:
    """Refuse what a network policy cannot hold; Kubernetes 1.36 is stricter than Python."""
    try:
        network = ip_network(text, strict=False) if _CIDR.fullmatch(text) else None
    except ValueError:
        network = None
    if network is None:
        raise ValueError(f"is {text!r}, which is not a range of addresses; write one such as 10.0.0.0/16")
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped and network.prefixlen >= 96:
        network = ip_network(f"{mapped}/{network.prefixlen - 96}")
        raise ValueError(f"is {text!r}, which writes IPv4 addresses as IPv6; write {network}")
    if text.rpartition("/")[2] != str(network.prefixlen):
        raise ValueError(f"is {text!r}, whose length has a leading zero; write {network}")
    if ip_network(text.rpartition("/")[0]).network_address != network.network_address:
        raise ValueError(f"is {text!r}, whose address has bits beyond the length; write {network}")
    return text


Cidr = Annotated[str, AfterValidator(_cidr)]


def _host_name(text: str) -> str:
    if not _HOST_NAME.fullmatch(text):
        raise ValueError(f"is {text!r}, which is not a host name; write a name such as airflow.example.com")
    return text


def _host(text: str) -> str:
    try:
        return text if _HOST_NAME.fullmatch(text) else str(IPv4Address(text))
    except ValueError:
        fix = "write a name such as db.example.com, or an IPv4 address"
        raise ValueError(f"is {text!r}, which is not a host name; {fix}") from None


def _host_port(text: str) -> str:
    host, _, port = text.rpartition(":")
    if port_number(port) is None or port.startswith("0"):
        raise ValueError(f"is {text!r}, which has no port from 1 to 65535; write one such as api.example.com:443")
    return f"{_host(host)}:{port}"


HostName = Annotated[str, AfterValidator(_host_name)]
"""A host by its name: an Ingress does not accept an IP address."""

Host = Annotated[str, AfterValidator(_host)]
"""A host by its name or IPv4 address."""

HostPort = Annotated[str, AfterValidator(_host_port)]
"""``HOST:PORT``."""
