"""Quantities of Kubernetes as numbers, and numbers as people read them. Pure."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from functools import lru_cache

from crosswind.types import Json

__all__ = ["is_quantity", "memory_bytes", "quantity_number", "show_bytes", "show_seconds"]

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|[KMGTPE]i?)?")
_FACTORS: dict[str, float] = {"": 1, "m": 0.001, "k": 1000}
for _power, _unit in enumerate("KMGTPE", 1):
    _FACTORS |= {f"{_unit}i": 1024**_power, _unit: 1000**_power}

_ANY_QUANTITY = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?[0-9]{1,3}))?")
_SCALES = {"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("0.001"), "": Decimal(1)} | {
    unit: Decimal(int(factor)) for unit, factor in _FACTORS.items() if factor > 1
}


def is_quantity(value: Json) -> bool:
    """Return whether Kubernetes reads a value as a quantity: a number, or text such as ``500m`` and ``2Gi``."""
    return quantity_number(value) is not None


def quantity_number(value: Json) -> Decimal | None:
    """Return the number that Kubernetes reads a quantity as, such as 0.5 for ``500m``; None for anything else."""
    if isinstance(value, str):
        return _number(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return Decimal(str(value))


@lru_cache(1024)
def _number(quantity: str) -> Decimal | None:
    match = _ANY_QUANTITY.fullmatch(quantity)
    return Decimal(f"{match[1]}e{match[3] or 0}") * _SCALES[match[2] or ""] if match else None


def memory_bytes(quantity: Json) -> int | None:
    """Return a quantity of memory such as ``512Mi`` in bytes; None for anything else."""
    match = _QUANTITY.fullmatch(str(quantity)) if isinstance(quantity, str | int) else None
    return round(float(match[1]) * _FACTORS[match[2] or ""]) if match else None


def show_bytes(number: float) -> str:
    """Return bytes as ``381 MiB`` or ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1000:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB" if number < 1000 else f"{number / 1024:.1f} TiB"


def show_seconds(seconds: float) -> str:
    """Return a duration as ``0.4 s``, ``42 s``, ``3 min 5 s``, ``2 h 4 min`` or ``3 d 2 h``."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    for size, unit, smaller_size, smaller in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"
