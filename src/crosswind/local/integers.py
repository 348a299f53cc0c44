"""Numbers in text that clients wrote, read as Go's ``strconv`` reads them.

Python's ``int`` takes too much (``1_000``, other scripts' digits, blanks) and raises for what is long.
"""

from __future__ import annotations

import re

__all__ = ["parse_int", "parse_uint", "shortened"]

_FORM = re.compile(r"([+-]?)0*([0-9]+)", re.ASCII)
_DIGITS = 20  # of the greatest number of 64 bits
_SHOWN = 64  # characters of a text that is no number, in a message


def parse_int(text: str) -> int:
    """Read a signed number of 64 bits; ``ValueError`` in the words of Go's ``strconv.ParseInt``."""
    number = _number(text, "ParseInt")
    if not -(1 << 63) <= number < 1 << 63:
        raise _wrong(text, "ParseInt", "value out of range")
    return number


def parse_uint(text: str) -> int:
    """Read a number of 64 bits without a sign; ``ValueError`` in the words of Go's ``strconv.ParseUint``."""
    if text[:1] in ("+", "-"):
        raise _wrong(text, "ParseUint", "invalid syntax")
    number = _number(text, "ParseUint")
    if number >= 1 << 64:
        raise _wrong(text, "ParseUint", "value out of range")
    return number


def shortened(text: str) -> str:
    """Return what a message shows of a client's text."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _number(text: str, function: str) -> int:
    match = _FORM.fullmatch(text)
    if not match:
        raise _wrong(text, function, "invalid syntax")
    sign, digits = match.groups()
    if len(digits) > _DIGITS:
        raise _wrong(text, function, "value out of range")
    return int(f"{sign}{digits}")


def _wrong(text: str, function: str, problem: str) -> ValueError:
    return ValueError(f'strconv.{function}: parsing "{shortened(text)}": {problem}')
