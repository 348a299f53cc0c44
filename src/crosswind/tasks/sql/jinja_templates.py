"""Renders the Jinja of a query in several variants, which together take every branch.

A condition that depends on the run is true in one variant and false in another, and has the same value throughout a
variant. A loop over a list in the text runs over that list; other loops run twice, so that ``loop.first`` and
``loop.last`` are true once each. Variables that the template sets to plain values are replaced, and expressions that
depend on the run become ``HOLE``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, TemplateError, nodes

from crosswind.tasks.sql.jinja_values import UNKNOWN, value_of
from crosswind.tasks.sql.names import HOLE
from crosswind.tasks.sql.text import TOO_DEEP

__all__ = ["SqlTemplateError", "TemplateVariant", "is_template", "variants"]

MAX_VARIANTS = 32
_MAX_LENGTH = 2 * 1024 * 1024
_MAX_ROUNDS = 200
_MAX_STEPS = 250_000
"""Statements of the template that one variant runs. Loops within loops may run for ever without giving any text."""
_MAX_CALLS = 20

Choice = tuple[str, bool]
"""A condition, as the text of its syntax tree, and its value."""


class SqlTemplateError(ValueError):
    """The template cannot be parsed; ``line`` is counted from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line, self.message = line, message


@dataclass(slots=True)
class TemplateVariant:
    """The text of one combination of branches."""

    text: str
    lines: list[int]
    """The template's line of each line of ``text``."""
    choices: set[Choice] = field(default_factory=set)
    whole: bool = True
    """Whether only values are missing from the text, and no statements."""

    def line(self, number: int) -> int:
        """Return the template's line for a line of ``text``; 0 stays 0."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else number


def is_template(sql: str) -> bool:
    """Return whether the text contains Jinja."""
    return "{{" in sql or "{%" in sql or "{#" in sql


def variants(sql: str) -> Iterator[TemplateVariant]:
    """Yield variants until each branch is in one, at most ``MAX_VARIANTS``; raises ``SqlTemplateError``."""
    # Only the parser is used, so that autoescape does not matter.
    environment = Environment(extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"], keep_trailing_newline=True)  # noqa: S701
    try:
        template = environment.parse(sql)
    except TemplateError as error:
        raise SqlTemplateError(getattr(error, "lineno", 0) or 0, error.message or "not readable as Jinja") from None
    except RecursionError:
        raise SqlTemplateError(0, TOO_DEEP) from None
    except ValueError:  # Python refuses to read a number of more than 4300 digits
        raise SqlTemplateError(0, "it has a number with too many digits") from None
    todo: list[dict[str, bool]] = [{}]
    tried: set[Choice] = set()
    count = 0
    while todo and count < MAX_VARIANTS:
        conditions = todo.pop(0)
        try:
            variant = _Rendering(environment, conditions).run(template)
        except RecursionError:
            raise SqlTemplateError(0, TOO_DEEP) from None
        count += 1
        yield variant
        tried |= variant.choices
        for condition, value in sorted(variant.choices):
            opposite = (condition, not value)
            if opposite not in tried:
                tried.add(opposite)
                todo.append({**conditions, condition: not value})


class _Rendering:
    """The rendering of one variant. ``conditions``: the values of conditions; all others are true."""

    def __init__(self, environment: Environment, conditions: Mapping[str, bool]) -> None:
        self._context = nodes.EvalContext(environment)
        self._conditions = dict(conditions)
        self._parts: list[tuple[str, int]] = []
        self._length = self._calls = self._steps = 0
        self._macros: dict[str, nodes.Macro] = {}
        self._known: dict[str, Any] = {}
        self.choices: set[Choice] = set()
        self.whole = True

    def run(self, template: nodes.Template) -> TemplateVariant:
        self._body(template.body)
        lines, line = [1], 1
        text: list[str] = []
        for part, begin in self._parts:
            if text and text[-1].endswith("\n"):
                lines[-1] = begin
            for number in range(part.count("\n")):
                line = begin + number + 1
                lines.append(line)
            text.append(part)
        return TemplateVariant("".join(text), lines, self.choices, self.whole)

    def _emit(self, text: str, line: int) -> None:
        self._length += len(text)
        if self._length > _MAX_LENGTH:
            raise SqlTemplateError(line, "its loops give more text than can be read")
        if text:
            self._parts.append((text, line))

    def _body(self, body: Iterable[nodes.Node]) -> None:
        for node in body:
            self._steps += 1
            if self._steps > _MAX_STEPS:
                raise SqlTemplateError(node.lineno, f"its loops run more than {_MAX_STEPS} statements")
            getattr(self, f"_{type(node).__name__.lower()}", self._other)(node)

    def _other(self, node: nodes.Node) -> None:
        """Replace an include and similar statements, whose text is in another file."""
        if isinstance(node, nodes.Include | nodes.Extends | nodes.CallBlock):
            self.whole = False
            self._emit(f" {HOLE} ", node.lineno)

    def _exprstmt(self, node: nodes.ExprStmt) -> None:
        """Forget the variables of ``{% do … %}``, which prints no text and may change their values."""
        for name in node.find_all(nodes.Name):
            self._known.pop(name.name, None)

    def _templatedata(self, node: nodes.TemplateData) -> None:
        self._emit(node.data, node.lineno)

    def _output(self, node: nodes.Output) -> None:
        for part in node.nodes:
            if isinstance(part, nodes.TemplateData):
                self._emit(part.data, part.lineno)
            else:
                self._print(part)

    def _print(self, node: nodes.Node) -> None:
        if isinstance(node, nodes.CondExpr):
            branch = node.expr1 if self._holds(node.test) else node.expr2
            if branch is not None:
                self._print(branch)
            return
        if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name in self._macros:
            self._call(self._macros[node.node.name], node)
            return
        value = self._value(node)
        if value is UNKNOWN or not isinstance(value, str | int | float):
            self._emit(HOLE, node.lineno)
        else:
            self._emit(str(value), node.lineno)

    def _call(self, macro: nodes.Macro, call: nodes.Call) -> None:
        self._calls += 1
        if self._calls > _MAX_CALLS:
            self._emit(HOLE, call.lineno)
            return
        outer = dict(self._known)
        defaults = macro.defaults or []
        for index, argument in enumerate(macro.args):
            value = call.args[index] if index < len(call.args) else None
            value = next((keyword.value for keyword in call.kwargs if keyword.key == argument.name), value)
            if value is None and index >= len(macro.args) - len(defaults):
                value = defaults[index - len(macro.args) + len(defaults)]
            self._bind(argument.name, UNKNOWN if value is None else self._value(value))
        self._body(macro.body)
        self._known = outer

    def _if(self, node: nodes.If) -> None:
        for branch in [node, *node.elif_]:
            if self._holds(branch.test):
                self._body(branch.body)
                return
        self._body(node.else_)

    def _holds(self, test: nodes.Node) -> bool:
        value = self._value(test)
        if value is not UNKNOWN:
            return bool(value)
        negated = False
        while isinstance(test, nodes.Not):
            test, negated = test.node, not negated
        if isinstance(test, nodes.And | nodes.Or):
            known = [self._value(part) for part in (test.left, test.right)]
            for index, value in enumerate(known):
                if value is not UNKNOWN:
                    return self._holds(test.right if index == 0 else test.left) != negated
        condition = repr(test)
        is_true = self._conditions.setdefault(condition, not negated)
        self.choices.add((condition, is_true))
        return is_true != negated

    def _for(self, node: nodes.For) -> None:
        items = self._value(node.iter)
        if node.test is not None:
            items = UNKNOWN
        if items is UNKNOWN or not isinstance(items, list | tuple | dict | range | str):
            if node.else_ and not self._holds(node.iter):
                self._body(node.else_)
                return
            items = [UNKNOWN, UNKNOWN]
        items = list(items)[:_MAX_ROUNDS]
        if not items:
            self._body(node.else_)
        outer = dict(self._known)
        for index, item in enumerate(items):
            self._bind_target(node.target, item)
            self._known["loop"] = _loop(index, len(items))
            self._body(node.body)
        self._known = outer

    def _bind_target(self, target: nodes.Node, item: Any) -> None:
        if isinstance(target, nodes.Name):
            self._bind(target.name, item)
        elif isinstance(target, nodes.Tuple):
            parts = list(item) if isinstance(item, list | tuple) else []
            for index, element in enumerate(target.items):
                self._bind_target(element, parts[index] if index < len(parts) else UNKNOWN)

    def _bind(self, name: str, value: Any) -> None:
        if value is UNKNOWN:
            self._known.pop(name, None)
        else:
            self._known[name] = value

    def _assign(self, node: nodes.Assign) -> None:
        if isinstance(node.target, nodes.Name | nodes.Tuple):
            self._bind_target(node.target, self._value(node.node))

    def _assignblock(self, node: nodes.AssignBlock) -> None:
        parts, self._parts = self._parts, []
        self._body(node.body)
        text, self._parts = "".join(part for part, _ in self._parts), parts
        self._bind_target(node.target, UNKNOWN if node.filter else text)

    def _macro(self, node: nodes.Macro) -> None:
        self._macros[node.name] = node

    def _with(self, node: nodes.With) -> None:
        outer = dict(self._known)
        for target, value in zip(node.targets, node.values, strict=True):
            self._bind_target(target, self._value(value))
        self._body(node.body)
        self._known = outer

    def _block(self, node: nodes.Block) -> None:
        self._body(node.body)

    def _scope(self, node: nodes.Scope) -> None:
        self._body(node.body)

    def _filterblock(self, node: nodes.FilterBlock) -> None:
        self._body(node.body)

    def _value(self, node: nodes.Node) -> Any:
        return value_of(node, self._known, self._context)


class _Loop(dict[str, Any]):
    """The variable ``loop`` of a loop's body."""


def _loop(index: int, count: int) -> _Loop:
    return _Loop(
        index=index + 1,
        index0=index,
        first=index == 0,
        last=index == count - 1,
        length=count,
        revindex=count - index,
        revindex0=count - index - 1,
    )
