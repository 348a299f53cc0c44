"""Kubernetes' rules for names, labels and keys, with its messages.

Each rule maps a text to its complaints, none for a valid one.
Source: apimachinery, ``pkg/util/validation``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

__all__ = ["NameRule", "config_key", "dns_label", "dns_subdomain", "env_name", "label_key", "label_value", "port_name"]

NameRule: TypeAlias = Callable[[str], Sequence[str]]

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DASHES = "alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
_ENDS = "and must start and end with an alphanumeric character"
_DOTS = f"must consist of lower case alphanumeric characters, '-' or '.', {_ENDS}"


def _rule_message(problem: str, form: str, *examples: str) -> str:
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{problem} (e.g. {shown}regex used for validation is '{form}')"


def _rule(form: str, longest: int, problem: str, *examples: str) -> NameRule:
    matches, complaint = re.compile(form).fullmatch, _rule_message(problem, form, *examples)

    @lru_cache(4096)
    def complaints(text: str) -> Sequence[str]:
        if len(text) <= longest and matches(text):
            return ()
        long = [f"must be no more than {longest} bytes"] if len(text.encode()) > longest else []
        return (*long, *(() if matches(text) else (complaint,)))

    return complaints


dns_subdomain = _rule(rf"{_LABEL}(\.{_LABEL})*", 253, f"a lowercase RFC 1123 subdomain {_DOTS}", "example.com")
_plain_label = _rule(
    _LABEL,
    63,
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character",
    "my-name",
    "123-abc",
)
dns_1035_label = _rule(
    "[a-z]([-a-z0-9]*[a-z0-9])?",
    63,
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
    "start with an alphabetic character, and end with an alphanumeric character",
    "my-name",
    "abc-123",
)
label_value = _rule(
    "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
    63,
    f"a valid label must be an empty string or consist of {_DASHES}",
    "MyValue",
    "my_value",
    "12345",
)
_key_signs = _rule(
    "[-._a-zA-Z0-9]+",
    253,
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    "key.name",
    "KEY_NAME",
    "key-name",
)


@lru_cache(4096)
def config_key(text: str) -> Sequence[str]:
    """Check a key of a Secret or ConfigMap, which becomes a file name beside the kubelet's own ``..data``."""
    if complaints := _key_signs(text):
        return complaints
    if text in (".", ".."):
        return (f"must not be '{text}'",)
    return ("must not start with '..'",) if text.startswith("..") else ()


_NAME = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_NAMES = ("MyName", "my.name", "123-abc")
_name_part = _rule(_NAME, 63, f"must consist of {_DASHES}", *_NAMES)


@lru_cache(4096)
def dns_label(text: str) -> Sequence[str]:
    """Check the name of a container, volume or namespace."""
    complaints = _plain_label(text)
    if complaints and "." in text and not dns_subdomain(text):
        return (*(c for c in complaints if c.startswith("must be no more")), "must not contain dots")
    return complaints


@lru_cache(4096)
def label_key(text: str) -> Sequence[str]:
    """Check the key of a label, annotation or resource: ``name`` or ``example.com/name``."""
    prefix, slash, name = text.rpartition("/")
    if "/" in prefix:
        rule_text = _rule_message(f"a qualified name must consist of {_DASHES}", _NAME, *_NAMES)
        return (f"{rule_text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",)
    complaints = ["prefix part must be non-empty"] if slash and not prefix else []
    complaints += [f"prefix part {complaint}" for complaint in dns_subdomain(prefix)] if prefix else []
    if not name:
        return (*complaints, "name part must be non-empty")
    return (*complaints, *(f"name part {complaint}" for complaint in _name_part(name)))


def env_name(text: str) -> Sequence[str]:
    """Check the name of an environment variable: printable ASCII without ``=``."""
    if text.isascii() and text.isprintable() and "=" not in text:
        return ()
    return ("a valid environment variable name must consist only of printable ASCII characters other than '='",)


def port_name(text: str) -> Sequence[str]:
    """Check the name of a port (RFC 6335)."""
    problems = {
        "must be no more than 15 bytes": len(text) > 15,
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)": not re.fullmatch("[-a-z0-9]+", text),
        "must contain at least one letter (a-z)": not re.search("[a-z]", text),
        "must not contain consecutive hyphens": "--" in text,
        "must not begin or end with a hyphen": text.startswith("-") or text.endswith("-"),
    }
    return [problem for problem, holds in problems.items() if holds]
