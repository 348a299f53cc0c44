"""Kubernetes' protobuf encoding, decoded to JSON values: ``kubectl create`` and other typed Go clients send it.

Answers are always JSON, which those clients accept too. Source: ``k8s.io/apimachinery/pkg/runtime/generated.proto``;
``wire_fields`` has the numbers of the fields.
"""

from __future__ import annotations

import base64
import struct as binary
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TypeAlias

import orjson

from kubelocal.codec.kinds import Kind
from kubelocal.codec.schema import Type, struct, type_of
from kubelocal.codec.status_errors import bad_request
from kubelocal.codec.wire_fields import wire_fields
from kubelocal.types import Json, Manifest

__all__ = ["MEDIA_TYPE", "read_protobuf"]

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
Wire: TypeAlias = int | bytes


def read_protobuf(kind: Kind, body: bytes) -> Manifest:
    """Decode a body; raise 400 for a malformed one."""
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
    """Yield number and value of each field of a message."""
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
    """Decode a message of a type. Fields of an inlined message belong to the outer type."""
    shape, known = struct(name), wire_fields(inlined or name)
    out: Manifest = {}
    for number, wire in _fields(data):
        field = known.get(number)
        if field is None:
            if wire:  # refused instead of dropped, because Go writes fields without a value too
                raise ValueError(f"field {number} of {shape.go} is unknown")
        elif field.inlined:
            out |= _message(name, _bytes(wire), field.name)
        else:
            _add(out, field.name, shape.fields[field.name].type, wire, field.zero)
    return out


def _add(out: Manifest, field: str, field_type: Type, wire: Wire, zero: str) -> None:
    if field_type.form == "list" and field_type.inner:
        out.setdefault(field, []).append(_value(field_type.inner, wire))
    elif field_type.form == "map" and field_type.inner:
        entry = dict(_fields(_bytes(wire)))
        out.setdefault(field, {})[_text(entry.get(1, b""))] = _value(field_type.inner, entry.get(2, b""))
    # Go writes a zero for each field held by value, which JSON omits
    elif (value := _value(field_type, wire)) not in (0, "", None) or _is_kept(value, zero):
        out[field] = value


def _is_kept(value: Json, zero: str) -> bool:
    return value is not None and (zero == "?" or (zero == "!" and value != ""))


def _value(field_type: Type, wire: Wire) -> Json:
    match field_type.form:
        case "struct":
            return _message(field_type.name, _bytes(wire))
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
            return _time(dict(_fields(_bytes(wire))), field_type.form == "micro")
        case "list":  # in a map: a message around it
            return [_text(item) for _, item in _fields(_bytes(wire))]
        case "any":  # raw JSON: FieldsV1, RawExtension
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
        raise TypeError("a number is expected here")
    return wire - (1 << 64) if wire >= 1 << 63 else wire


def _text(wire: Wire) -> str:
    return _bytes(wire).decode()


def _bytes(wire: Wire) -> bytes:
    if isinstance(wire, int):
        raise TypeError("a message is expected here")
    return wire
