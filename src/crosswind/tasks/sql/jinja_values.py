"""Values of Jinja's expressions, as far as they follow from the text alone and stay small.

The length of a text does not bound the size of its values: ``9 ** 9 ** 9`` or ``'a'|center(10 ** 9)`` exhaust
time or memory. Operations whose result may be large are therefore not carried out.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import prod
from typing import Any

from jinja2 import TemplateError, Undefined, nodes
from jinja2.nodes import Impossible

__all__ = ["UNKNOWN", "value_of"]

UNKNOWN = object()
"""The value of an expression that depends on the run, or that is too large."""
_MAX_SIZE = 256 * 1024
"""Characters, digits and elements of a value: as many as the text of a query may have."""
_MAX_DIGITS = 1000
"""Digits of a whole number. Python refuses to print more than 4300."""
_MAX_ARGUMENT = 1000
"""The largest number that a filter gets, which may be a width, a number of copies or an exponent."""
_MAX_PRODUCT = 16 * 1024 * 1024
"""Characters of a filter's result if it repeats all arguments for each character of its input."""
_WIDE_FORMAT = re.compile(r"%(?:\([^)]*\))?[^%a-zA-Z]*(?:\*|\d{4})")
"""A conversion of printf's format with a large width, or with one that is another argument."""
_VALUE_FILTERS = {"default", "d"}
"""Filters that return one of their arguments as it is."""


def value_of(node: nodes.Node, known: Mapping[str, Any], context: nodes.EvalContext) -> Any:
    """Return the value of an expression whose names have the values ``known``, else ``UNKNOWN``."""
    if isinstance(node, nodes.Name):
        return known.get(node.name, UNKNOWN)
    try:
        return _constant(node, known, context).value
    except (Impossible, TemplateError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError):
        return UNKNOWN
    except (RecursionError, MemoryError):
        return UNKNOWN


def _constant(node: nodes.Node, known: Mapping[str, Any], context: nodes.EvalContext) -> nodes.Const:
    """Return the value of an expression as a node; raises ``Impossible`` if it has none."""
    if isinstance(node, nodes.Name):
        if node.name not in known:
            raise Impossible
        return nodes.Const(known[node.name])
    folded = _with_constants(node, known, context)
    if (cost := _COSTS.get(type(folded))) is not None and cost(folded) > _MAX_SIZE:
        raise Impossible
    value = folded.as_const(context)
    if isinstance(value, Iterator):  # of filters such as batch, unique and reverse
        value = list(islice(value, _MAX_SIZE))
    if _size(value) > _MAX_SIZE or (isinstance(value, int) and _size(value) > _MAX_DIGITS):
        raise Impossible
    return nodes.Const(value)


def _with_constants(node: Any, known: Mapping[str, Any], context: nodes.EvalContext) -> Any:
    """Return a copy of a node in which the expressions below it have become constants."""

    def replaced(child: Any) -> Any:
        if isinstance(child, nodes.Expr):
            return _constant(child, known, context)
        return _with_constants(child, known, context) if isinstance(child, nodes.Node) else child

    result = copy.copy(node)
    for name, value in node.iter_fields():
        setattr(result, name, [replaced(child) for child in value] if isinstance(value, list) else replaced(value))
    return result


def _size(value: Any) -> int:
    """Return the number of characters, digits and elements of a value. It stops to count above ``_MAX_SIZE``."""
    size, todo = 0, [value]
    while todo and size <= _MAX_SIZE:
        part = todo.pop()
        if isinstance(part, str):
            size += len(part)
        elif isinstance(part, int):
            size += part.bit_length() // 3
        elif isinstance(part, Mapping):
            todo += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            todo += part
        elif not isinstance(part, float | slice | Undefined | None):
            raise Impossible  # nothing is known about its size
        size += 1
    return size


def _sum(parts: Iterable[nodes.Expr]) -> int:
    return sum(_size(part.as_const()) for part in parts)


def _product(node: nodes.Mul) -> int:
    left, right = node.left.as_const(), node.right.as_const()
    if isinstance(left, int | float) and isinstance(right, int | float):
        return _size(left) + _size(right)
    return _weight(left) * _weight(right)


def _power(node: nodes.Pow) -> int:
    return _size(node.left.as_const()) * _weight(node.right.as_const())


def _weight(value: Any) -> int:
    """Return the size of a value, or the value of a number, which may be a width or a number of copies."""
    return abs(value) if isinstance(value, int) else _size(value)


def _modulo(node: nodes.Mod) -> int:
    _check_format(node.left.as_const())
    return _sum((node.left, node.right))


def _check_format(text: object) -> None:
    if isinstance(text, str) and _WIDE_FORMAT.search(text):
        raise Impossible


def _filtered(node: nodes.Filter) -> int:
    if node.node is None or node.dyn_args is not None or node.dyn_kwargs is not None:
        raise Impossible
    value = node.node.as_const()
    arguments: Sequence[Any] = [argument.as_const() for argument in node.args]
    arguments = [*arguments, *(keyword.value.as_const() for keyword in node.kwargs)]
    if node.name == "format":
        _check_format(value)
    elif node.name not in _VALUE_FILTERS:
        if any(isinstance(argument, int) and abs(argument) > _MAX_ARGUMENT for argument in arguments):
            raise Impossible
        if prod(max(_weight(argument), 1) for argument in (_size(value), *arguments)) > _MAX_PRODUCT:
            raise Impossible
    return 0


_COSTS: dict[type[nodes.Expr], Callable[[Any], int]] = {
    nodes.Add: lambda node: _sum((node.left, node.right)),
    nodes.Concat: lambda node: _sum(node.nodes),
    nodes.List: lambda node: _sum(node.items),
    nodes.Tuple: lambda node: _sum(node.items),
    nodes.Mul: _product,
    nodes.Pow: _power,
    nodes.Mod: _modulo,
    nodes.Filter: _filtered,
}
"""By the type of an operation, the size that its result has at most; it may also raise ``Impossible``."""
