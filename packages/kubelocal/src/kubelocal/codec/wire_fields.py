"""``protobuf_fields.txt`` as data: facts of Kubernetes' Go types that the package ``kubernetes`` lacks.

The file is written by ``tools/protobuf_fields.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["WireField", "form_of", "omits_zero", "wire_fields"]

_FIELD = re.compile(r"(?P<inlined>\+?)(?P<name>\w+)(?P<zero>[?!]?)=(?P<number>\d+):?(?P<form>\w*)")


@dataclass(frozen=True, slots=True)
class WireField:
    """A field in protobuf. ``zero``: the handling of "", 0 and false.

    "?": differs from a missing field, as Go has a pointer. "!": written although it equals a missing one. "": omitted.
    ``inlined``: JSON has its fields beside those of the outer type, and ``name`` is its type. ``form``: as in
    ``schema.Type``, "" where the package has the right one.
    """

    name: str
    number: int
    zero: str
    inlined: bool
    form: str


@cache
def _lines() -> dict[str, str]:
    text = files(__package__).joinpath("protobuf_fields.txt").read_text()
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line and not line.startswith("#"))


@cache
def wire_fields(name: str) -> dict[int, WireField]:
    """Return the fields of a type, such as ``V1Container``, by number; none for a type that the file lacks."""
    groups = (match.groupdict() for match in _FIELD.finditer(_lines().get(name, "")))
    fields = (
        WireField(group["name"], int(group["number"]), group["zero"], bool(group["inlined"]), group["form"])
        for group in groups
    )
    return {field.number: field for field in fields}


@cache
def omits_zero(owner: str) -> frozenset[str]:
    """Return the fields of a type that Go leaves out of JSON when they are "", 0 or false."""
    fields = wire_fields(owner).values()
    inlined = [omits_zero(field.name) for field in fields if field.inlined]
    return frozenset(field.name for field in fields if not field.inlined and not field.zero).union(*inlined)


@cache
def form_of(owner: str, name: str) -> str:
    """Return the form of a field of a type, also of an inlined one; "" where the package has the right one."""
    for field in wire_fields(owner).values():
        if field.inlined:
            if form := form_of(field.name, name):
                return form
        elif field.name == name:
            return field.form
    return ""
