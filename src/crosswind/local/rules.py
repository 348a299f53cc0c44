"""The pieces of which rules for objects are made: a field, whether it must be there, and a check of its value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from crosswind.local import causes
from crosswind.local.naming_rules import NameRule
from crosswind.local.statuses import Cause
from crosswind.types import Manifest

__all__ = [
    "Check",
    "Rule",
    "Whole",
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
"""From a value and its path to what is wrong with it."""

Whole: TypeAlias = Callable[[Manifest, str, list[Cause]], None]
"""Appends what is wrong with an object as a whole, given its path ("" for the outermost)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule for one field. Empty text and lists count as missing; ``detail`` is said of a missing one."""

    field: str
    check: Check | None = None
    required: bool = False
    detail: str = ""


def named(rule: NameRule) -> Check:
    """Check that the value follows a rule for names."""
    return lambda value, path: causes.lacking(path, value, complaints) if (complaints := rule(value)) else ()


def one_of(*choices: str) -> Check:
    """Check that the value is one of these."""
    return lambda value, path: () if value in choices else (causes.unsupported(path, value, choices),)


def at_least(lowest: int) -> Check:
    """Check that the number is not below."""
    told = f"must be greater than or equal to {lowest}" if lowest == 0 else f"must be greater than {lowest - 1}"
    return lambda value, path: () if value >= lowest else (causes.invalid(path, value, told),)


def between(lowest: int, highest: int, told: str = "") -> Check:
    """Check that the number is in a range, bounds included."""
    words = told or f"must be between {lowest} and {highest}, inclusive"
    return lambda value, path: () if lowest <= value <= highest else (causes.invalid(path, value, words),)


def share(value: Any, path: str) -> Iterable[Cause]:
    """Check that the value is a count or a percentage."""
    if isinstance(value, int):
        return at_least(0)(value, path)
    if re.fullmatch("[0-9]{1,9}%", value):
        return ()
    told = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used"
    return (causes.invalid(path, value, f"{told} for validation is '[0-9]+%')"),)


def each(check: Check) -> Check:
    """Check that every item of the list passes."""
    return lambda value, path: [cause for i, item in enumerate(value) for cause in check(item, f"{path}[{i}]")]


def keys(rule: NameRule) -> Check:
    """Check that every key of the map follows a rule for names."""
    return lambda value, path: [c for key in value for c in causes.lacking(f"{path}[{key}]", key, rule(key))]


def relative_path(value: str, path: str) -> Iterable[Cause]:
    """Check that the path stays below where it begins."""
    if value.startswith("/"):
        return (causes.invalid(path, value, "must be a relative path"),)
    return descending_path(value, path)


def descending_path(value: str, path: str) -> Iterable[Cause]:
    """Check that no part of the path leads upwards."""
    return (causes.invalid(path, value, "must not contain '..'"),) if ".." in value.split("/") else ()


def file_path(value: str, path: str) -> Iterable[Cause]:
    """Check a file's path in a volume that the kubelet writes: it stays below, and is none of the kubelet's own."""
    if found := relative_path(value, path):
        return found
    # the kubelet's own are ..data and a folder named ..TIME
    return (causes.invalid(path, value, "must not start with '..'"),) if value.startswith("..") else ()


def exactly_one(fields: Iterable[str], missing: str, several: str) -> Whole:
    """Check that exactly one of the fields is there: a handler or source is neither missing nor doubled."""
    choices = frozenset(fields)

    def whole(value: Manifest, path: str, found: list[Cause]) -> None:
        chosen = [field for field in value if field in choices]
        if not chosen:
            found.append(causes.required(path, missing))
        found.extend(causes.forbidden(f"{path}.{field}", several) for field in chosen[1:])

    return whole
