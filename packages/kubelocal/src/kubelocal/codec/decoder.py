"""Decoding of a request's body to an object: JSON types, unknown and duplicate fields, kinds, quantities, times.

Messages follow Go's ``encoding/json`` and apimachinery's strict decoder. The result is a new object without
nulls, empty lists and empty maps; quantities are canonical, times in UTC.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Literal, TypeAlias

import orjson

from kubelocal.codec import status_errors
from kubelocal.codec.kinds import Kind
from kubelocal.codec.quantities import canonical
from kubelocal.codec.schema import Field, Type, struct, type_of
from kubelocal.codec.wire_fields import omits_zero
from kubelocal.types import Json, Manifest

__all__ = ["Strictness", "check", "decode"]

Strictness: TypeAlias = Literal["Strict", "Warn", "Ignore"]
"""Handling of unknown and duplicate fields: refuse, warn, or drop silently."""

Decoder: TypeAlias = Callable[[Json, list[str]], Json]
SCHEME = "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"
ZEROS: dict[str, Json] = {"struct": {}, "string": "", "bytes": "", "quantity": "0"}  # a null in a list or map
INT32, INT64 = 2**31, 2**63
MAX_DEPTH = 200  # levels of an object: orjson parses 1,024 and writes 254
TOO_DEEP = f"exceeded max depth of {MAX_DEPTH}"


class Mismatch(Exception):
    """A value of a wrong JSON type or form; collects its path while it propagates."""

    def __init__(self, problem: str, go_type: str = "") -> None:
        super().__init__(problem)
        self.problem, self.go_type = problem, go_type
        self.owner, self.path = "", ""

    def within(self, owner: str, field: str) -> Mismatch:
        """Add the field and type that hold the value."""
        self.owner = self.owner or owner
        self.path = f"{field}.{self.path}" if self.path else field
        return self

    def __str__(self) -> str:
        if not self.go_type:
            return self.problem
        where = f"struct field {self.owner}.{self.path}" if self.path else "value"
        return f"json: cannot unmarshal {self.problem} into Go {where} of type {self.go_type}"


def decode(kind: Kind, body: bytes, *, strict: Strictness = "Warn") -> tuple[Manifest, list[str]]:
    """Decode a body as an object of this kind; return it and the warnings.

    The object has ``kind`` and ``apiVersion`` even if the body omits them. Raises ``StatusError``, 400.
    """
    try:
        parsed = orjson.loads(body)
    except ValueError as problem:
        raise _unrecognized(kind, f"couldn't get version/kind; json parse error: {problem}", body) from problem
    if type(parsed) is not dict:
        what = str(Mismatch(_json_type(parsed), "struct { APIVersion string; Kind string }"))
        raise _unrecognized(kind, f"couldn't get version/kind; json parse error: {what}", body)
    if _too_deep(parsed, body):
        raise _unrecognized(kind, f"couldn't get version/kind; json parse error: {TOO_DEEP}", body)
    body_kind = _check_kind(kind, parsed)
    try:
        return _decoded(kind, parsed, body, strict)
    except Mismatch as problem:
        message = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {problem}'
        raise status_errors.bad_request(message) if body_kind else _unrecognized(kind, str(problem), body) from problem


def check(kind: Kind, manifest: Manifest, *, strict: Strictness = "Warn") -> tuple[Manifest, list[str]]:
    """Do the same with the result of a patch; the argument is not changed.

    Raises ``StatusError``: 422 at the field ``patch``, where a body gets 400.
    """
    if type(manifest) is not dict:  # a JSON patch replaced the whole object
        problem = Mismatch(_json_type(manifest), f"v1.{kind.kind}")
        raise _wrong_patch(manifest, problem)
    _check_kind(kind, manifest)
    try:
        return _decoded(kind, manifest, b"", strict)
    except Mismatch as problem:
        raise _wrong_patch(manifest, problem) from problem


def _wrong_patch(patched: Json, problem: Mismatch) -> status_errors.StatusError:
    try:
        shown = orjson.dumps(patched).decode()
    except TypeError:  # nested deeper than orjson can write
        shown = ""
    message = f"Invalid value: {json.dumps(shown)}: {problem}"
    return status_errors.invalid("", "", [status_errors.Cause("FieldValueInvalid", message, "patch")])


def _decoded(kind: Kind, manifest: Manifest, body: bytes, strict: Strictness) -> tuple[Manifest, list[str]]:
    """Return the object and the warnings; ``body``: as sent, to find duplicate fields. Raises ``Mismatch``."""
    unknown: list[str] = []
    decoded: Manifest = _decoder(type_of(kind.kind, kind.group))(manifest, unknown)
    problems = _strict_problems(kind, manifest, body, bool(unknown)) if strict != "Ignore" else []
    if problems and strict == "Strict":
        raise Mismatch(f"strict decoding error: {', '.join(problems)}")
    return {"kind": kind.kind, "apiVersion": kind.api_version} | decoded, problems


def _too_deep(parsed: Json, body: bytes) -> bool:
    """Whether a body is nested deeper than can be stored; most have too few brackets for that."""
    return body.count(b"{") + body.count(b"[") > MAX_DEPTH and depth(parsed) > MAX_DEPTH


def depth(value: Json) -> int:
    """Return the nesting depth of a value."""
    levels, level = 0, [value]
    while level := [
        item
        for outer in level
        if isinstance(outer, dict | list)
        for item in (outer.values() if isinstance(outer, dict) else outer)
    ]:
        levels += 1
    return levels


def _check_kind(kind: Kind, body: Manifest) -> bool:
    """Check that the body's kind is the path's; return whether the body names one."""
    body_kind, version = body.get("kind") or "", body.get("apiVersion") or ""
    for value, field in ((body_kind, "Kind"), (version, "APIVersion")):
        if not isinstance(value, str):
            raise status_errors.bad_request(
                f"couldn't get version/kind; json parse error: {Mismatch(_json_type(value), 'string')} ({field})"
            )
    if (not body_kind or body_kind == kind.kind) and (not version or version == kind.api_version):
        return bool(body_kind)
    plain = version.rpartition("/")[2]
    message = f'{body_kind or kind.kind} in version "{plain or kind.version}" cannot be handled as a {kind.kind}'
    if version and version != kind.api_version:
        known = (
            ""
            if body_kind == kind.kind
            else f': no kind "{body_kind}" is registered for version "{version}" in scheme "{SCHEME}"'
        )
        expected = f"does not match the expected API version ({kind.api_version})"
        raise status_errors.bad_request(
            f"{message}{known}" if known else f"the API version in the data ({version}) {expected}"
        )
    raise status_errors.bad_request(f"{message}: converting (v1.{body_kind}) to (core.{kind.kind}): unknown conversion")


def _unrecognized(kind: Kind, problem: str, body: bytes) -> status_errors.StatusError:
    text = body.decode(errors="replace")
    shown = "<empty>" if not body else text if len(text) <= 30 else f"{text[:27]}..."
    return status_errors.bad_request(
        f"the object provided is unrecognized (must be of type {kind.kind}): {problem} ({shown})"
    )


# ---------------------------------------------------------------------------------------------- types


def _decoder(go_type: Type) -> Decoder:
    match go_type.form:
        case "struct":
            return _struct_decoder(go_type.name)
        case "list" | "map":
            assert go_type.inner is not None
            return (
                _list_decoder(go_type, go_type.inner)
                if go_type.form == "list"
                else _map_decoder(go_type, go_type.inner)
            )
        case form:
            return SCALARS[form]


class _Fields(dict[str, "Decoder | type | None"]):
    """The decoder of each field of a type, made on first use: most fields are never used."""

    def __init__(self, fields: dict[str, Field]) -> None:
        super().__init__()
        self.known = fields

    def __missing__(self, name: str) -> Decoder | type | None:
        field = self.known.get(name)
        if field is None:
            return None
        plain = {"string": str, "bool": bool}.get(field.type.form)
        decoder = self[name] = plain or _decoder(field.type)
        return decoder


@cache
def _struct_decoder(name: str) -> Decoder:
    shape = struct(name)
    fields, go, omitted = _Fields(shape.fields), shape.go, omits_zero(name)
    kept = {
        field.name
        for field in shape.fields.values()
        if field.name not in omitted or field.type.form in ("struct", "port", "any")
    }

    def decode_struct(value: Json, unknown: list[str]) -> Manifest:
        if type(value) is not dict:
            raise Mismatch(_json_type(value), f"v1.{go}")
        out = {}
        for key, item in value.items():
            decoder = fields[key]
            if type(item) is decoder:
                if item or key not in omitted:
                    out[key] = item
            elif decoder is None:
                unknown.append(key)
            elif item is not None:
                try:
                    decoded = PLAIN.get(decoder, decoder)(item, unknown)
                except Mismatch as problem:
                    raise problem.within(go, key) from None
                if decoded or key in kept:
                    out[key] = decoded
        return out

    return decode_struct


def _list_decoder(go_type: Type, inner: Type) -> Decoder:
    decode_item, plain, zero = _decoder(inner), {"string": str}.get(inner.form), ZEROS.get(inner.form)

    def decode_list(value: Json, unknown: list[str]) -> list[Json]:
        if type(value) is not list:
            raise Mismatch(_json_type(value), _go_type(go_type))
        if plain:
            for item in value:
                if type(item) is not plain:
                    return [decode_item(zero if item is None else item, unknown) for item in value]
            return value.copy()
        return [decode_item(zero if item is None else item, unknown) for item in value]

    return decode_list


def _map_decoder(go_type: Type, inner: Type) -> Decoder:
    decode_item, plain, zero = _decoder(inner), {"string": str}.get(inner.form), ZEROS.get(inner.form)

    def decode_map(value: Json, unknown: list[str]) -> Manifest:
        if type(value) is not dict:
            raise Mismatch(_json_type(value), _go_type(go_type))
        if plain:
            for item in value.values():
                if type(item) is not plain:
                    return {key: decode_item(zero if item is None else item, unknown) for key, item in value.items()}
            return value.copy()
        return {key: decode_item(zero if item is None else item, unknown) for key, item in value.items()}

    return decode_map


def _any(value: Json, _: list[str]) -> Json:
    if isinstance(value, dict | list) and depth(value) > MAX_DEPTH - 10:
        raise Mismatch(TOO_DEEP)
    return value


def _string(value: Json, _: list[str]) -> str:
    if type(value) is not str:
        raise Mismatch(_json_type(value), "string")
    return value


def _bool(value: Json, _: list[str]) -> bool:
    if type(value) is not bool:
        raise Mismatch(_json_type(value), "bool")
    return value


def _integer(limit: int, name: str) -> Decoder:
    def decode_integer(value: Json, _: list[str]) -> int:
        if type(value) is int and -limit <= value < limit:
            return value
        raise Mismatch(f"number {value}" if type(value) in (int, float) else _json_type(value), name)

    return decode_integer


def _float(value: Json, _: list[str]) -> float:
    if type(value) not in (int, float):
        raise Mismatch(_json_type(value), "float64")
    return float(value)


def _quantity(value: Json, _: list[str]) -> str:
    if type(value) not in (str, int, float):
        raise Mismatch("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    try:
        return canonical(str(value))
    except ValueError as problem:
        raise Mismatch(str(problem)) from None


def _bytes(value: Json, _: list[str]) -> str:
    if type(value) is not str:
        raise Mismatch(_json_type(value), "[]uint8")
    plain = value.replace("\n", "").replace("\r", "")
    try:
        base64.b64decode(plain, validate=True)
    except (binascii.Error, ValueError):
        wrong = re.search(r"[^A-Za-z0-9+/]|$", plain)
        raise Mismatch(f"illegal base64 data at input byte {wrong.start() if wrong else 0}") from None
    return plain


def _port(value: Json, _: list[str]) -> str | int:
    if type(value) is not str and type(value) is not int:
        raise Mismatch(_json_type(value), "intstr.IntOrString")
    return value


MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def _time(digits: bool) -> Decoder:
    layout = "2006-01-02T15:04:05.000000Z07:00" if digits else "2006-01-02T15:04:05Z07:00"

    def decode_time(value: Json, _: list[str]) -> str:
        if type(value) is not str:
            raise Mismatch(_json_type(value), "string")
        match = MOMENT.fullmatch(value)
        problem = f'parsing time "{value}" as "{layout}": cannot parse "{value}" as "2006"'
        if match and digits and len(match[1] or "") != 7:
            rest = value[19:]
            raise Mismatch(f'parsing time "{value}" as "{layout}": cannot parse "{rest}" as ".000000"')
        try:
            moment = datetime.fromisoformat(value) if match else None
        except ValueError:
            problem = f'parsing time "{value}": out of range'
            moment = None
        if moment is None:
            raise Mismatch(problem)
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ" if digits else "%Y-%m-%dT%H:%M:%SZ")

    return decode_time


SCALARS: dict[str, Decoder] = {
    "any": _any,
    "bool": _bool,
    "bytes": _bytes,
    "float": _float,
    "int32": _integer(INT32, "int32"),
    "int64": _integer(INT64, "int64"),
    "micro": _time(True),
    "port": _port,
    "quantity": _quantity,
    "string": _string,
    "time": _time(False),
}
PLAIN: dict[object, Decoder] = {str: _string, bool: _bool}
"""The functions that describe an invalid value of these types."""

GO_SCALARS = {
    "bytes": "[]uint8",
    "float": "float64",
    "time": "v1.Time",
    "micro": "v1.MicroTime",
    "quantity": "resource.Quantity",
}


def _go_type(go_type: Type) -> str:
    match go_type:
        case Type(form="list", inner=Type() as inner):
            return f"[]{_go_type(inner)}"
        case Type(form="map", inner=Type() as inner):
            return f"map[string]{_go_type(inner)}"
        case Type(form="struct", name=name):
            return f"v1.{struct(name).go}"
    return GO_SCALARS.get(go_type.form, go_type.form)


def _json_type(value: Json) -> str:
    if value is None:
        return "null"
    names = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
    return names[type(value)]


# ---------------------------------------------------------------------------------------------- strictness


def _strict_problems(kind: Kind, parsed: Manifest, body: bytes, unknown: bool) -> list[str]:
    """Return the strict decoder's complaints about a body: duplicate fields, then unknown ones."""
    problems = [f'duplicate field "{path}"' for path in _doubled(body)] if body and _may_double(parsed, body) else []
    if unknown:
        problems += [f'unknown field "{path}"' for path in _unknown(type_of(kind.kind, kind.group), parsed, "")]
    return problems


def _may_double(parsed: Manifest, body: bytes) -> bool:
    r"""Return whether the body may contain a duplicate field: it has more quotes than its values, or a ``\u``."""
    return b"\\u" in body or body.count(b'"') != orjson.dumps(parsed).count(b'"')


class _Pairs(dict[str, Json]):
    """A JSON object that records its duplicate keys."""

    twice: tuple[str, ...] = ()


def _doubled(body: bytes) -> list[str]:
    def build(pairs: list[tuple[str, Json]]) -> _Pairs:
        built = _Pairs(pairs)
        if len(built) != len(pairs):
            built.twice = tuple(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return built

    return list(_walk_doubled(json.loads(body, object_pairs_hook=build), ""))


def _walk_doubled(value: Json, path: str) -> Iterator[str]:
    if isinstance(value, _Pairs):
        for key, item in value.items():
            if key in value.twice:
                yield _join(path, key)
            yield from _walk_doubled(item, _join(path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _walk_doubled(item, f"{path}[{i}]")


def _unknown(go_type: Type, value: Json, path: str) -> Iterator[str]:
    match go_type:
        case Type(form="list", inner=Type() as inner):
            for i, item in enumerate(value or ()):
                yield from _unknown(inner, item, f"{path}[{i}]")
        case Type(form="map", inner=Type(form="struct") as inner):
            for key, item in (value or {}).items():
                yield from _unknown(inner, item, _join(path, key))
        case Type(form="struct", name=name):
            fields = struct(name).fields
            for key, item in (value or {}).items():
                if key not in fields:
                    yield _join(path, key)
                else:
                    yield from _unknown(fields[key].type, item, _join(path, key))


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
