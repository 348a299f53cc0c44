"""Quantities of Kubernetes as numbers, and numbers as people read them. Pure."""

from __future__ import annotations

import re

from crosswind.types import Json

__all__ = ["memory_bytes", "show_bytes", "show_seconds"]

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|[KMGTPE]i?)?")
_FACTORS: dict[str, float] = {"": 1, "m": 0.001, "k": 1000}
for _power, _unit in enumerate("KMGTPE", 1):
    _FACTORS |= {f"{_unit}i": 1024**_power, _unit: 1000**_power}


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
