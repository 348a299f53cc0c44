"""Kubernetes' quantities (``500m``, ``1Gi``, ``1e3``): parsed exactly, written in canonical form.

Canonical: no fraction, the largest suffix that allows it, and the family of suffixes that was written: binary (``Ki``),
decimal (``k``) or exponent (``e3``). Source: apimachinery, ``pkg/api/resource``.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

__all__ = ["BINARY", "DECIMAL", "amount", "canonical", "written"]

BINARY, DECIMAL, EXPONENT = "binary", "decimal", "exponent"
SUFFIXES: dict[str, tuple[str, Fraction]] = {
    **{name: (BINARY, Fraction(1024**power)) for power, name in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
    **{
        name: (DECIMAL, Fraction(1000) ** power)
        for power, name in enumerate(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), -3)
    },
}
FORM = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+|)")
INVALID_QUANTITY_MESSAGE = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


@lru_cache(4096)
def _parse(text: str) -> tuple[Fraction, str]:
    match = FORM.fullmatch(text)
    if not match:
        raise ValueError(INVALID_QUANTITY_MESSAGE)
    sign, digits, suffix = match.groups()
    if suffix[:1] in ("e", "E") and len(suffix) > 1 and suffix != "Ei":
        if abs(int(suffix[1:])) > 30:
            raise ValueError("unable to parse quantity's suffix")
        family, factor = EXPONENT, Fraction(10) ** int(suffix[1:])
    else:
        family, factor = SUFFIXES[suffix]
    return Fraction(f"{sign}{digits}") * factor, family


def amount(text: str) -> Fraction:
    """Return a quantity's value; raises ``ValueError`` for a malformed one."""
    return _parse(text)[0]


@lru_cache(4096)
def canonical(text: str) -> str:
    """Return a quantity as the API server writes it: ``0.5`` is ``500m``, ``1024Mi`` is ``1Gi``.

    Raises ``ValueError`` for a malformed one.
    """
    value, family = _parse(text)
    return written(value, family)


def written(value: Fraction, family: str = DECIMAL) -> str:
    """Write a value in canonical form; less than 1n is rounded up."""
    if family == BINARY and (abs(value) < 1024 or value.denominator != 1):
        family = DECIMAL
    if family == BINARY:
        names = [name for name, (of, factor) in SUFFIXES.items() if of == BINARY and (value / factor).denominator == 1]
        name = names[-1] if names else ""
        return f"{int(value / SUFFIXES[name][1])}{name}"
    sign, units = ("-" if value < 0 else ""), -(-abs(value) * 10**9 // 1)
    if not units:
        return "0"
    power = -9
    while units % 1000 == 0 and power < 18:
        units, power = units // 1000, power + 3
    if family == EXPONENT:
        return f"{sign}{units}e{power}" if power else f"{sign}{units}"
    return (
        f"{sign}{units}{ {-9: 'n', -6: 'u', -3: 'm', 0: '', 3: 'k', 6: 'M', 9: 'G', 12: 'T', 15: 'P', 18: 'E'}[power] }"
    )
