"""Bodies in Kubernetes' protobuf form, read as JSON values: what ``kubectl create`` and other typed Go clients send.

Answers are always JSON, which those clients accept too. Source: ``k8s.io/apimachinery/pkg/runtime/generated.proto``;
``field_table`` has the numbers of the fields.
"""

from __future__ import annotations

import base64
import struct as binary
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TypeAlias

import orjson

from crosswind.local.field_table import wire_fields
from crosswind.local.kinds import Kind
from crosswind.local.schema import Type, struct, type_of
from crosswind.local.statuses import bad_request
from crosswind.types import Json, Manifest

__all__ = ["MEDIA_TYPE", "read_protobuf"]

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
Wire: TypeAlias = int | bytes


def read_protobuf(kind: Kind, body: bytes) -> Manifest:
    """Return the object that a body holds; raise 400 for what cannot be read."""
    if not body.startswith(MAGIC):
        raise bad_request("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    try:
        envelope = dict(_fields(body[len(MAGIC) :]))
        named = {number: _text(value) for number, value in _fields(_bytes(envelope.get(1, b"")))}
        content = _message(type_of(kind.kind, kind.group).name, _bytes(envelope.get(2, b"")))
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, OSError, binary.error) as problem:
        raise bad_request(f"unable to decode the protobuf message: {problem}; send JSON") from problem
    heads = {"kind": named.get(2, ""), "apiVersion": named.get(1, "")}
    return {**{key: value for key, value in heads.items() if value}, **content}


def _fields(data: bytes) -> Iterator[tuple[int, Wire]]:
    """Yield numbers and values of a message's fields."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
                yield key >> 3, value
            case 1 | 2 | 5 as form:
                size, at = _varint(data, at) if form == 2 else ({1: 8, 5: 4}[form], at)
                if at + size > len(data):
                    raise ValueError("it is cut short")
                yield key >> 3, data[at : at + size]
                at += size
            case form:
                raise ValueError(f"wire type {form} is unknown")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _message(name: str, data: bytes, inlined: str = "") -> Manifest:
    """Read a message of a type, or of one that is inlined in it: its fields are then those of the outer type."""
    shape, known = struct(name), wire_fields(inlined or name)
    out: Manifest = {}
    for number, wire in _fields(data):
        field = known.get(number)
        if field is None:
            if wire:  # refused and not dropped; Go writes out what has no value too
                raise ValueError(f"field {number} of {shape.go} is unknown")
        elif field.inlined:
            out |= _message(name, _bytes(wire), field.name)
        else:
            _add(out, field.name, shape.fields[field.name].type, wire, field.zero)
    return out


def _add(out: Manifest, field: str, wanted: Type, wire: Wire, zero: str) -> None:
    if wanted.form == "list" and wanted.inner:
        out.setdefault(field, []).append(_value(wanted.inner, wire))
    elif wanted.form == "map" and wanted.inner:
        entry = dict(_fields(_bytes(wire)))
        out.setdefault(field, {})[_text(entry.get(1, b""))] = _value(wanted.inner, entry.get(2, b""))
    # Go writes a zero for each field that it holds by value, where JSON leaves it out
    elif (value := _value(wanted, wire)) not in (0, "", None) or _is_kept(value, zero):
        out[field] = value


def _is_kept(value: Json, zero: str) -> bool:
    return value is not None and (zero == "?" or (zero == "!" and value != ""))


def _value(wanted: Type, wire: Wire) -> Json:
    match wanted.form:
        case "struct":
            return _message(wanted.name, _bytes(wire))
        case "string":
            return _text(wire)
        case "bytes":
            return base64.b64encode(_bytes(wire)).decode()
        case "bool":
            return bool(_integer(wire))
        case "int32" | "int64":
            return _integer(wire)
        case "quantity":
            return _text(dict(_fields(_bytes(wire))).get(1, b"0"))
        case "port":
            parts = dict(_fields(_bytes(wire)))
            return _text(parts.get(3, b"")) if parts.get(1) else _integer(parts.get(2, 0))
        case "time" | "micro":
            return _time(dict(_fields(_bytes(wire))), wanted.form == "micro")
        case "list":  # in a map: a message around it
            return [_text(item) for _, item in _fields(_bytes(wire))]
        case "any":  # JSON as it is: FieldsV1, RawExtension
            raw: Json = orjson.loads(_bytes(dict(_fields(_bytes(wire))).get(1, b"null")))
            return raw
        case form:
            raise ValueError(f"a field of form {form} is not read")


def _time(parts: dict[int, Wire], micro: bool) -> str | None:
    seconds = _integer(parts.get(1, 0))
    if seconds <= 0:  # Go's zero time
        return None
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{_integer(parts.get(2, 0)) // 1000:06d}Z" if micro else f"{whole}Z"


def _integer(wire: Wire) -> int:
    if isinstance(wire, bytes):
        raise TypeError("a number was wanted")
    return wire - (1 << 64) if wire >= 1 << 63 else wire


def _text(wire: Wire) -> str:
    return _bytes(wire).decode()


def _bytes(wire: Wire) -> bytes:
    if isinstance(wire, int):
        raise TypeError("a number was not wanted")
    return wire
