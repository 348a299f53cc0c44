"""From a request's body to an object: JSON types, unknown and doubled fields, kinds, quantities, times, base64.

Messages follow Go's ``encoding/json`` and apimachinery's strict decoder. What comes out is a fresh object: nulls, empty
lists and empty maps are left out, quantities are canonical, times are in UTC.
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
from typing import Any, Literal, TypeAlias

import orjson

from crosswind.local import statuses
from crosswind.local.field_table import omits_zero
from crosswind.local.kinds import Kind
from crosswind.local.quantities import canonical
from crosswind.local.schema import Field, Type, struct, type_of
from crosswind.types import Json, Manifest

__all__ = ["Strictness", "check", "decode"]

Strictness: TypeAlias = Literal["Strict", "Warn", "Ignore"]
"""What becomes of unknown and doubled fields: refused, told in a warning, dropped in silence."""

Decoder: TypeAlias = Callable[[Any, list[str]], Any]
SCHEME = "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"
ZEROS: dict[str, Any] = {"struct": {}, "string": "", "bytes": "", "quantity": "0"}  # what a null in a list or map is
INT32, INT64 = 2**31, 2**63
DEEPEST = 200  # levels of an object: what reads JSON takes 1,024, what writes it 254
TOO_DEEP = f"exceeded max depth of {DEEPEST}"


class Mismatch(Exception):
    """A value of a wrong JSON type or form; gathers its path on the way up."""

    def __init__(self, problem: str, wanted: str = "") -> None:
        super().__init__(problem)
        self.problem, self.wanted = problem, wanted
        self.owner, self.path = "", ""

    def within(self, owner: str, field: str) -> Mismatch:
        """Say that the value is in this field of this type."""
        self.owner = self.owner or owner
        self.path = f"{field}.{self.path}" if self.path else field
        return self

    def __str__(self) -> str:
        if not self.wanted:
            return self.problem
        where = f"struct field {self.owner}.{self.path}" if self.path else "value"
        return f"json: cannot unmarshal {self.problem} into Go {where} of type {self.wanted}"


def decode(kind: Kind, body: bytes, *, strict: Strictness = "Warn") -> tuple[Manifest, list[str]]:
    """Read a body as an object of this kind; return it and the warnings.

    ``kind`` and ``apiVersion`` may be missing in the body and are there in the object. Raises ``StatusError``, 400.
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
    named = _check_kind(kind, parsed)
    try:
        return _decoded(kind, parsed, body, strict)
    except Mismatch as problem:
        told = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {problem}'
        raise statuses.bad_request(told) if named else _unrecognized(kind, str(problem), body) from problem


def check(kind: Kind, manifest: Manifest, *, strict: Strictness = "Warn") -> tuple[Manifest, list[str]]:
    """Do the same with what a patch has made of an object; the argument is left alone.

    Raises ``StatusError``: 422 at the field ``patch``, where a body gets 400.
    """
    if type(manifest) is not dict:  # a JSON patch replaced the whole of it
        problem = Mismatch(_json_type(manifest), f"v1.{kind.kind}")
        raise _wrong_patch(manifest, problem)
    _check_kind(kind, manifest)
    try:
        return _decoded(kind, manifest, b"", strict)
    except Mismatch as problem:
        raise _wrong_patch(manifest, problem) from problem


def _wrong_patch(patched: Json, problem: Mismatch) -> statuses.StatusError:
    try:
        shown = orjson.dumps(patched).decode()
    except TypeError:  # nested deeper than orjson writes
        shown = ""
    told = f"Invalid value: {json.dumps(shown)}: {problem}"
    return statuses.invalid("", "", [statuses.Cause("FieldValueInvalid", told, "patch")])


def _decoded(kind: Kind, manifest: Manifest, body: bytes, strict: Strictness) -> tuple[Manifest, list[str]]:
    """Return the object and the warnings; ``body``: as it was sent, for doubled fields. Raises ``Mismatch``."""
    unknown: list[str] = []
    decoded: Manifest = _decoder(type_of(kind.kind, kind.group))(manifest, unknown)
    problems = _strict_problems(kind, manifest, body, bool(unknown)) if strict != "Ignore" else []
    if problems and strict == "Strict":
        raise Mismatch(f"strict decoding error: {', '.join(problems)}")
    return {"kind": kind.kind, "apiVersion": kind.api_version} | decoded, problems


def _too_deep(parsed: Json, body: bytes) -> bool:
    """Tell whether a body is nested deeper than can be stored; most have too few brackets for that."""
    return body.count(b"{") + body.count(b"[") > DEEPEST and depth(parsed) > DEEPEST


def depth(value: Json) -> int:
    """Return how deep lists and objects are nested in a value."""
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
    """Compare the body's kind with the address's; tell whether it names one."""
    named, version = body.get("kind") or "", body.get("apiVersion") or ""
    for value, field in ((named, "Kind"), (version, "APIVersion")):
        if not isinstance(value, str):
            raise statuses.bad_request(
                f"couldn't get version/kind; json parse error: {Mismatch(_json_type(value), 'string')} ({field})"
            )
    if (not named or named == kind.kind) and (not version or version == kind.api_version):
        return bool(named)
    plain = version.rpartition("/")[2]
    told = f'{named or kind.kind} in version "{plain or kind.version}" cannot be handled as a {kind.kind}'
    if version and version != kind.api_version:
        known = (
            ""
            if named == kind.kind
            else f': no kind "{named}" is registered for version "{version}" in scheme "{SCHEME}"'
        )
        expected = f"does not match the expected API version ({kind.api_version})"
        raise statuses.bad_request(f"{told}{known}" if known else f"the API version in the data ({version}) {expected}")
    raise statuses.bad_request(f"{told}: converting (v1.{named}) to (core.{kind.kind}): unknown conversion")


def _unrecognized(kind: Kind, problem: str, body: bytes) -> statuses.StatusError:
    text = body.decode(errors="replace")
    shown = "<empty>" if not body else text if len(text) <= 30 else f"{text[:27]}..."
    return statuses.bad_request(
        f"the object provided is unrecognized (must be of type {kind.kind}): {problem} ({shown})"
    )


# ---------------------------------------------------------------------------------------------- types


def _decoder(wanted: Type) -> Decoder:
    match wanted.form:
        case "struct":
            return _struct_decoder(wanted.name)
        case "list" | "map":
            assert wanted.inner is not None
            return _list_decoder(wanted, wanted.inner) if wanted.form == "list" else _map_decoder(wanted, wanted.inner)
        case form:
            return SCALARS[form]


class _Fields(dict[str, "Decoder | type | None"]):
    """How to decode each field of a type, found out when first met: most fields of most types never are."""

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

    def decode_struct(value: Any, unknown: list[str]) -> dict[str, Any]:
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


def _list_decoder(wanted: Type, inner: Type) -> Decoder:
    one, plain, zero = _decoder(inner), {"string": str}.get(inner.form), ZEROS.get(inner.form)

    def decode_list(value: Any, unknown: list[str]) -> list[Any]:
        if type(value) is not list:
            raise Mismatch(_json_type(value), _go_type(wanted))
        if plain:
            for item in value:
                if type(item) is not plain:
                    return [one(zero if item is None else item, unknown) for item in value]
            return value.copy()
        return [one(zero if item is None else item, unknown) for item in value]

    return decode_list


def _map_decoder(wanted: Type, inner: Type) -> Decoder:
    one, plain, zero = _decoder(inner), {"string": str}.get(inner.form), ZEROS.get(inner.form)

    def decode_map(value: Any, unknown: list[str]) -> dict[str, Any]:
        if type(value) is not dict:
            raise Mismatch(_json_type(value), _go_type(wanted))
        if plain:
            for item in value.values():
                if type(item) is not plain:
                    return {key: one(zero if item is None else item, unknown) for key, item in value.items()}
            return value.copy()
        return {key: one(zero if item is None else item, unknown) for key, item in value.items()}

    return decode_map


def _any(value: Any, _: list[str]) -> Any:
    if isinstance(value, dict | list) and depth(value) > DEEPEST - 10:
        raise Mismatch(TOO_DEEP)
    return value


def _string(value: Any, _: list[str]) -> str:
    if type(value) is not str:
        raise Mismatch(_json_type(value), "string")
    return value


def _bool(value: Any, _: list[str]) -> bool:
    if type(value) is not bool:
        raise Mismatch(_json_type(value), "bool")
    return value


def _integer(limit: int, name: str) -> Decoder:
    def decode_integer(value: Any, _: list[str]) -> int:
        if type(value) is int and -limit <= value < limit:
            return value
        raise Mismatch(f"number {value}" if type(value) in (int, float) else _json_type(value), name)

    return decode_integer


def _float(value: Any, _: list[str]) -> float:
    if type(value) not in (int, float):
        raise Mismatch(_json_type(value), "float64")
    return float(value)


def _quantity(value: Any, _: list[str]) -> str:
    if type(value) not in (str, int, float):
        raise Mismatch("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    try:
        return canonical(str(value))
    except ValueError as problem:
        raise Mismatch(str(problem)) from None


def _bytes(value: Any, _: list[str]) -> str:
    if type(value) is not str:
        raise Mismatch(_json_type(value), "[]uint8")
    plain = value.replace("\n", "").replace("\r", "")
    try:
        base64.b64decode(plain, validate=True)
    except (binascii.Error, ValueError):
        wrong = re.search(r"[^A-Za-z0-9+/]|$", plain)
        raise Mismatch(f"illegal base64 data at input byte {wrong.start() if wrong else 0}") from None
    return plain


def _port(value: Any, _: list[str]) -> str | int:
    if type(value) is not str and type(value) is not int:
        raise Mismatch(_json_type(value), "intstr.IntOrString")
    return value


MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def _time(digits: bool) -> Decoder:
    layout = "2006-01-02T15:04:05.000000Z07:00" if digits else "2006-01-02T15:04:05Z07:00"

    def decode_time(value: Any, _: list[str]) -> str:
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
PLAIN: dict[Any, Decoder] = {str: _string, bool: _bool}
"""What says how a value of these types is wrong."""

GO_SCALARS = {
    "bytes": "[]uint8",
    "float": "float64",
    "time": "v1.Time",
    "micro": "v1.MicroTime",
    "quantity": "resource.Quantity",
}


def _go_type(wanted: Type) -> str:
    match wanted:
        case Type(form="list", inner=Type() as inner):
            return f"[]{_go_type(inner)}"
        case Type(form="map", inner=Type() as inner):
            return f"map[string]{_go_type(inner)}"
        case Type(form="struct", name=name):
            return f"v1.{struct(name).go}"
    return GO_SCALARS.get(wanted.form, wanted.form)


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    names = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
    return names[type(value)]


# ---------------------------------------------------------------------------------------------- strictness


def _strict_problems(kind: Kind, parsed: Manifest, body: bytes, unknown: bool) -> list[str]:
    """Say what is wrong with a body's fields as the strict decoder does: doubled ones, then unknown ones."""
    problems = [f'duplicate field "{path}"' for path in _doubled(body)] if body and _may_double(parsed, body) else []
    if unknown:
        problems += [f'unknown field "{path}"' for path in _unknown(type_of(kind.kind, kind.group), parsed, "")]
    return problems


def _may_double(parsed: Manifest, body: bytes) -> bool:
    r"""Tell cheaply whether the body may hold a doubled field: it has more quotes than what was read, or a ``\u``."""
    return b"\\u" in body or body.count(b'"') != orjson.dumps(parsed).count(b'"')


class _Pairs(dict[str, Any]):
    """A JSON object that remembers which of its keys came twice."""

    twice: tuple[str, ...] = ()


def _doubled(body: bytes) -> list[str]:
    def build(pairs: list[tuple[str, Any]]) -> _Pairs:
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


def _unknown(wanted: Type, value: Json, path: str) -> Iterator[str]:
    match wanted:
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
