"""Integers in clients' text, parsed as Go's ``strconv`` does.

Python's ``int`` accepts more (``1_000``, other scripts' digits, blanks) and raises for long texts.
"""

from __future__ import annotations

import re

__all__ = ["parse_int", "parse_uint", "shortened"]

_FORM = re.compile(r"([+-]?)0*([0-9]+)", re.ASCII)
_MAX_DIGITS = 20  # digits of the largest 64-bit number
_MAX_QUOTED_CHARS = 64  # characters of an invalid text that a message repeats


def parse_int(text: str) -> int:
    """Parse a signed 64-bit number; raises ``ValueError`` with the message of ``strconv.ParseInt``."""
    number = _number(text, "ParseInt")
    if not -(1 << 63) <= number < 1 << 63:
        raise _wrong(text, "ParseInt", "value out of range")
    return number


def parse_uint(text: str) -> int:
    """Parse an unsigned 64-bit number; raises ``ValueError`` with the message of ``strconv.ParseUint``."""
    if text[:1] in ("+", "-"):
        raise _wrong(text, "ParseUint", "invalid syntax")
    number = _number(text, "ParseUint")
    if number >= 1 << 64:
        raise _wrong(text, "ParseUint", "value out of range")
    return number


def shortened(text: str) -> str:
    """Return the part of a client's text that a message repeats."""
    return text if len(text) <= _MAX_QUOTED_CHARS else f"{text[:_MAX_QUOTED_CHARS]}..."


def _number(text: str, function: str) -> int:
    match = _FORM.fullmatch(text)
    if not match:
        raise _wrong(text, function, "invalid syntax")
    sign, digits = match.groups()
    if len(digits) > _MAX_DIGITS:
        raise _wrong(text, function, "value out of range")
    return int(f"{sign}{digits}")


def _wrong(text: str, function: str, problem: str) -> ValueError:
    return ValueError(f'strconv.{function}: parsing "{shortened(text)}": {problem}')
