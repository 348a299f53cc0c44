"""Kubernetes quantities: ``500m``, ``1Gi``, ``1e3``.

Grammar: k8s.io/apimachinery ``resource.Quantity``: a signed decimal number with a decimal (m, k, M, ...), binary (Ki, Mi,
...) or exponent (e3, E3) suffix.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from math import ceil

__all__ = ["milli", "parse", "whole"]

_SHAPE = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)")
_DECIMAL = {
    unit: Fraction(10) ** power for unit, power in zip("numkMGTPE", (-9, -6, -3, 3, 6, 9, 12, 15, 18), strict=True)
}
_BINARY = {f"{unit}i": Fraction(1024) ** power for power, unit in enumerate("KMGTPE", start=1)}
_FACTORS = {"": Fraction(1), **_DECIMAL, **_BINARY}


@lru_cache(maxsize=4096)
def parse(quantity: str | int | float) -> Fraction:
    """Return the exact value. ``ValueError``: not a quantity."""
    found = _SHAPE.fullmatch(str(quantity))
    if not found:
        raise ValueError(f"{quantity!r} is not a quantity such as 500m, 2, 1Gi or 1e3")
    number, exponent, unit = found.groups()
    return Fraction(number) * (Fraction(10) ** int(exponent[1:]) if exponent else _FACTORS[unit or ""])


def milli(quantity: str | int | float) -> int:
    """Return thousandths, rounded up, as CPU is counted."""
    return ceil(parse(quantity) * 1000)


def whole(quantity: str | int | float) -> int:
    """Return units, rounded up, as bytes are counted."""
    return ceil(parse(quantity))
