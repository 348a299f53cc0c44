"""Secrets that a Python file, such as that of Flask AppBuilder, holds as literals. Pure; the file is never run."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator

from crosswind.deploy.secrecy import is_secret_name

__all__ = ["secret_assignments"]

_ASSIGNMENT = re.compile(r"""(?P<name>\w+)["']?\s*(?::[^=\n"']*)?[:=]\s*[rbuf]{0,2}["'][^"'\n]""", re.I)


def secret_assignments(text: str) -> list[str]:
    """Return the names in a Python file that are those of a secret and have a literal value, in order.

    Names are those of variables, attributes, keys, arguments and defaults. A file that this version of Python cannot
    parse is searched for assignments, comments included.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser warns of escapes such as "\w"
            nodes = ast.walk(ast.parse(text))
        named = [pair for node in nodes for pair in _named_values(node)]
        return [name for name, value in named if is_secret_name(name) and _has_literal(value)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return [match["name"] for match in _ASSIGNMENT.finditer(text) if is_secret_name(match["name"])]


def _named_values(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names to which a node gives a value, each with the value's expression."""
    match node:
        case ast.Assign():
            for target in node.targets:
                yield from _targets(target, node.value)
        case ast.AnnAssign(value=ast.expr() as value) | ast.AugAssign(value=value) | ast.NamedExpr(value=value):
            yield from _targets(node.target, value)
        case ast.keyword(arg=str(name)):
            yield name, node.value
        case ast.Dict():
            yield from ((_text(key), value) for key, value in zip(node.keys, node.values, strict=True))
        case ast.Call(args=[*_, name, value]):  # setattr, setdefault, get with a default
            yield _text(name), value
        case ast.arguments():
            yield from _defaults(node)


def _targets(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    match target, value:
        case ast.Name(id=name), _:
            yield name, value
        case ast.Attribute(attr=name), _:
            yield name, value
        case ast.Subscript(slice=key), _:
            yield _text(key), value
        case ((ast.Tuple(elts=targets) | ast.List(elts=targets)), (ast.Tuple(elts=values) | ast.List(elts=values))):
            for inner, inner_value in zip(targets, values, strict=False):
                yield from _targets(inner, inner_value)


def _defaults(arguments: ast.arguments) -> Iterator[tuple[str, ast.expr]]:
    positional = [*arguments.posonlyargs, *arguments.args]
    pairs = [*zip(reversed(positional), reversed(arguments.defaults), strict=False)]
    for argument, default in [*pairs, *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]:
        if default is not None:
            yield argument.arg, default


def _has_literal(value: ast.expr) -> bool:
    """Return whether an expression gives text that the file contains. What a name or a file gives, it does not."""
    match value:
        case ast.Constant(value=str() | bytes() as constant):
            return bool(constant)
        case ast.JoinedStr(values=parts):
            return bool(parts) and all(map(_has_literal, parts))
        case ast.BinOp(left=left, right=right):
            return _has_literal(left) and _has_literal(right)
        case ast.BoolOp(values=parts) | ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            return any(map(_has_literal, parts))
        case ast.IfExp(body=body, orelse=otherwise):
            return _has_literal(body) or _has_literal(otherwise)
        case ast.Call(func=ast.Attribute(attr="get" | "getenv"), args=[_, default]):
            return _has_literal(default)
        case ast.Call(func=ast.Attribute(value=text)):  # "...".encode()
            return _has_literal(text)
    return False


def _text(node: ast.AST | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
