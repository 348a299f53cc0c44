"""Checks fragments of a Pod, such as a variable or a volume, by Kubernetes' types and rules for their fields.

People write such fragments into files of ours, and the API server would be the first to read them: it refuses numbers
that should be text, and our own code expects the fields that it requires. A field that is merely unknown passes,
because it may come from a newer Kubernetes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date
from functools import cache
from typing import Any, TypeAlias

from crosswind.documents import FieldPath, FieldProblem
from crosswind.pods.field_rules import FIELD_RULES, OBJECT_RULES, FieldRule
from crosswind.pods.field_types import FIELD_TYPES, corrected_spelling
from crosswind.pods.units import quantity_number
from crosswind.types import Json

__all__ = ["field_problems", "fragment_problems", "without_nulls"]

_ELEMENTS = {"texts": "text"}
_VALUES = {"map": "text", "quantities": "quantity"}
_NO_RULES: Mapping[str, FieldRule] = {}

_Check: TypeAlias = Callable[[Any, FieldPath, list[FieldProblem]], None]
"""Appends the problems of a value at a path."""


def fragment_problems(kind: str, fragment: Json, path: FieldPath = ()) -> list[FieldProblem]:
    """Return the problems of a fragment of type ``kind``, in the order of the document. ``path``: where it is.

    A field that is null counts as absent, as for Kubernetes.
    """
    problems: list[FieldProblem] = []
    _check(kind)(fragment, path, problems)
    return problems


def field_problems(kind: str, field: str, value: Json) -> list[FieldProblem]:
    """Return the problems of the value of a field of type ``kind``, with their paths below the value."""
    problems: list[FieldProblem] = []
    _field_check(kind, field)(value, (), problems)
    return problems


def without_nulls(kind: str, fragment: Json) -> Json:
    """Return a fragment without the fields and quantities that are null.

    A null field means nothing to Kubernetes. It reads a null quantity as 0, whose author means none. A null in a map of
    text stays: without it, a label selector would select more.
    """
    if kind == "quantities" and isinstance(fragment, Mapping):
        return {name: value for name, value in fragment.items() if value is not None}
    if kind in FIELD_TYPES and isinstance(fragment, Mapping):
        types = FIELD_TYPES[kind]
        present = {name: value for name, value in fragment.items() if value is not None}
        return {name: without_nulls(types.get(name, ("any", False))[0], value) for name, value in present.items()}
    if (element := _element(kind)) and isinstance(fragment, list):
        return [without_nulls(element, item) for item in fragment]
    return fragment


def _element(kind: str) -> str:
    """Return the type of the items of a list, "" if ``kind`` is no list."""
    return _ELEMENTS.get(kind, kind[1:-1] if kind.startswith("[") else "")


@cache
def _check(kind: str) -> _Check:
    """Return the check of a type. Checks are compiled once, because each task's override is checked."""
    if kind in FIELD_TYPES:
        return _object_check(kind)
    if kind in _VALUES:
        return _map_check(_check(_VALUES[kind]))
    if element := _element(kind):
        return _list_check(_check(element))
    return _SCALARS[kind]


@cache
def _field_check(kind: str, field: str) -> _Check:
    """Return the check of a field: that of its type, then its rule."""
    check, rule = _check(FIELD_TYPES[kind][field][0]), FIELD_RULES.get(kind, _NO_RULES).get(field)
    if rule is None:
        return check

    def check_field(value: Json, path: FieldPath, problems: list[FieldProblem]) -> None:
        before = len(problems)
        check(value, path, problems)
        if len(problems) == before and value != "":
            problems.extend(rule(value, path))

    return check_field


def _object_check(kind: str) -> _Check:
    types, rule = FIELD_TYPES[kind], OBJECT_RULES.get(kind)
    required = [name for name, (_, is_required) in types.items() if is_required]

    def check(value: Json, path: FieldPath, problems: list[FieldProblem]) -> None:
        if type(value) is not dict and not isinstance(value, Mapping):  # the first is ten times faster
            problems.append(FieldProblem(path, f"is {_shown(value)}", "write a mapping of fields"))
            return
        before = len(problems)
        for name, item in value.items():
            if name not in types:
                problems.extend(_unknown_field(name, types, path))
            elif item is not None:
                _field_check(kind, name)(item, (*path, name), problems)
        problems.extend(
            FieldProblem((*path, name), "is missing", f"write {name}: with a value")
            for name in required
            if not (item := value.get(name)) and item in (None, "", [], {})
        )
        if rule and len(problems) == before:
            problems.extend(rule(value, path))

    return check


def _unknown_field(name: Json, known: Collection[str], path: FieldPath) -> Iterator[FieldProblem]:
    if not isinstance(name, str):
        yield FieldProblem(path, f"has the field {name!r}, which is not text", "put it into quotes")
    elif (guess := corrected_spelling(name, known)) is not None:
        yield FieldProblem((*path, name), "is not a field of Kubernetes", f"write {guess}")


def _map_check(check: _Check) -> _Check:
    def check_map(value: Json, path: FieldPath, problems: list[FieldProblem]) -> None:
        if type(value) is not dict and not isinstance(value, Mapping):  # the first is ten times faster
            problems.append(FieldProblem(path, f"is {_shown(value)}", "write a mapping"))
            return
        for name, item in value.items():
            if not isinstance(name, str):
                problems.append(FieldProblem(path, f"has the key {name!r}, which is not text", "put it into quotes"))
            elif item is not None:
                check(item, (*path, name), problems)

    return check_map


def _list_check(check: _Check) -> _Check:
    def check_list(value: Json, path: FieldPath, problems: list[FieldProblem]) -> None:
        if not isinstance(value, list):
            problems.append(FieldProblem(path, f"is {_shown(value)}", "write a list"))
            return
        for index, item in enumerate(value):
            check(item, (*path, index), problems)

    return check_list


def _scalar_check(is_valid: Callable[[Any], bool], fix: Callable[[Any], str]) -> _Check:
    def check(value: Json, path: FieldPath, problems: list[FieldProblem]) -> None:
        if not is_valid(value):
            problems.append(FieldProblem(path, f"is {_shown(value)}", fix(value)))

    return check


def _text_fix(value: Json) -> str:
    return "write text" if isinstance(value, Mapping | list) or value is None else "put it into quotes"


def _is_amount(value: Json) -> bool:
    """Return whether a value is a quantity that a pod may have: none of its fields may be negative."""
    return (number := quantity_number(value)) is not None and number >= 0


def _quantity_fix(value: Json) -> str:
    return "write a quantity, such as 500m or 2Gi" if quantity_number(value) is None else "write 0 or more"


def _is_integer(value: Json) -> bool:
    """Return whether JSON would have an integer: kubectl writes 1.0 as 1."""
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def _shown(value: Json) -> str:
    """Return a value as YAML has it; a list or mapping is named only, because it may be long."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, date):
        return value.isoformat()
    names = {dict: "a mapping", list: "a list", type(None): "empty"}
    return names.get(type(value), repr(value))


_SCALARS: Mapping[str, _Check] = {
    "text": _scalar_check(lambda value: isinstance(value, str), _text_fix),
    "int": _scalar_check(_is_integer, lambda _: "write a whole number, without quotes"),
    "bool": _scalar_check(lambda value: isinstance(value, bool), lambda _: "write true or false, without quotes"),
    "port": _scalar_check(
        lambda value: isinstance(value, str) or _is_integer(value), lambda _: "write a number or a name"
    ),
    "quantity": _scalar_check(_is_amount, _quantity_fix),
    "any": lambda _value, _path, _problems: None,
}
