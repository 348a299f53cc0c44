"""The building blocks of validation rules: a field, whether it is required, and a check of its value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from kubelocal.codec import field_errors
from kubelocal.codec.status_errors import Cause
from kubelocal.registry.name_validation import NameRule
from kubelocal.types import Manifest

__all__ = [
    "Check",
    "ObjectCheck",
    "Rule",
    "at_least",
    "between",
    "descending_path",
    "each",
    "exactly_one",
    "file_path",
    "keys",
    "named",
    "one_of",
    "relative_path",
    "share",
]

Check: TypeAlias = Callable[[Any, str], Iterable[Cause]]
"""Maps a value and its path to the causes why it is invalid."""

ObjectCheck: TypeAlias = Callable[[Manifest, str, list[Cause]], None]
"""Appends the causes of an invalid object as a whole; the path is "" for the outermost one."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule for one field. Empty text and lists count as missing; ``detail`` is the message for those."""

    field: str
    check: Check | None = None
    required: bool = False
    detail: str = ""


def named(rule: NameRule) -> Check:
    """Check the value by a rule for names."""
    return lambda value, path: field_errors.broken_rules(path, value, complaints) if (complaints := rule(value)) else ()


def one_of(*choices: str) -> Check:
    """Check that the value is one of these."""
    return lambda value, path: () if value in choices else (field_errors.unsupported(path, value, choices),)


def at_least(lowest: int) -> Check:
    """Check a lower bound."""
    detail = f"must be greater than or equal to {lowest}" if lowest == 0 else f"must be greater than {lowest - 1}"
    return lambda value, path: () if value >= lowest else (field_errors.invalid(path, value, detail),)


def between(lowest: int, highest: int, detail: str = "") -> Check:
    """Check that the number is in a range, bounds included."""
    words = detail or f"must be between {lowest} and {highest}, inclusive"
    return lambda value, path: () if lowest <= value <= highest else (field_errors.invalid(path, value, words),)


def share(value: Any, path: str) -> Iterable[Cause]:
    """Check that the value is a count or a percentage."""
    if isinstance(value, int):
        return at_least(0)(value, path)
    if re.fullmatch("[0-9]{1,9}%", value):
        return ()
    detail = (
        "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used"
        " for validation is '[0-9]+%')"
    )
    return (field_errors.invalid(path, value, detail),)


def each(check: Check) -> Check:
    """Check that every item of the list passes."""
    return lambda value, path: [cause for i, item in enumerate(value) for cause in check(item, f"{path}[{i}]")]


def keys(rule: NameRule) -> Check:
    """Check that every key of the map follows a rule for names."""
    return lambda value, path: [c for key in value for c in field_errors.broken_rules(f"{path}[{key}]", key, rule(key))]


def relative_path(value: str, path: str) -> Iterable[Cause]:
    """Check that the path is relative and has no part '..'."""
    if value.startswith("/"):
        return (field_errors.invalid(path, value, "must be a relative path"),)
    return descending_path(value, path)


def descending_path(value: str, path: str) -> Iterable[Cause]:
    """Check that the path has no part '..'."""
    return (field_errors.invalid(path, value, "must not contain '..'"),) if ".." in value.split("/") else ()


def file_path(value: str, path: str) -> Iterable[Cause]:
    """Check a file's path in a volume that the kubelet writes: relative, and none of the kubelet's own names."""
    if causes := relative_path(value, path):
        return causes
    # the kubelet's own names are ..data and a folder named ..TIME
    return (field_errors.invalid(path, value, "must not start with '..'"),) if value.startswith("..") else ()


def exactly_one(fields: Iterable[str], missing: str, several: str) -> ObjectCheck:
    """Check that exactly one of the fields is set, for instance one handler or one source."""
    choices = frozenset(fields)

    def check_object(value: Manifest, path: str, causes: list[Cause]) -> None:
        chosen = [field for field in value if field in choices]
        if not chosen:
            causes.append(field_errors.required(path, missing))
        causes.extend(field_errors.forbidden(f"{path}.{field}", several) for field in chosen[1:])

    return check_object
