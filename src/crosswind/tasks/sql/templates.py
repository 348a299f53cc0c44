"""Jinja in a query: every branch is read, loops are run, and what only a run can know becomes a name for it.

A condition that cannot be told from the text is taken both ways, each in a reading of its own; the same condition is
taken the same way throughout one reading. Loops over a list in the text run over it; other loops run twice, so that
``loop.first`` and ``loop.last`` each hold once. Variables that the template sets to plain values are filled in.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, TemplateError, nodes
from jinja2.nodes import Impossible

from crosswind.tasks.sql.names import HOLE

__all__ = ["Reading", "TemplateProblem", "is_template", "readings"]

MAX_READINGS = 32
_MAX_LENGTH = 2 * 1024 * 1024
_MAX_ROUNDS = 200
_MAX_CALLS = 20
_UNKNOWN = object()

Choice = tuple[str, bool]
"""A condition, as its syntax tree prints it, and how it is taken."""


class TemplateProblem(ValueError):
    """The template cannot be read; ``line`` is counted from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line, self.message = line, message


@dataclass(slots=True)
class Reading:
    """The text that comes of one way through the template."""

    text: str
    lines: list[int]
    """The template's line of each line of ``text``."""
    choices: set[Choice] = field(default_factory=set)
    whole: bool = True
    """Whether nothing but values is missing from the text."""

    def line(self, number: int) -> int:
        """Return the template's line for a line of ``text``; 0 stays 0."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else number


def is_template(sql: str) -> bool:
    """Whether there is any Jinja in the text."""
    return "{{" in sql or "{%" in sql or "{#" in sql


def readings(sql: str) -> Iterator[Reading]:
    """Yield a reading for each branch; raises ``TemplateProblem`` where Jinja would."""
    # Nothing is rendered for a browser, and nothing but the parser is used.
    environment = Environment(extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"], keep_trailing_newline=True)  # noqa: S701
    try:
        template = environment.parse(sql)
    except TemplateError as error:
        raise TemplateProblem(getattr(error, "lineno", 0) or 0, error.message or "not readable as Jinja") from None
    except RecursionError:
        raise TemplateProblem(0, "nested too deeply") from None
    todo: list[dict[str, bool]] = [{}]
    tried: set[Choice] = set()
    count = 0
    while todo and count < MAX_READINGS:
        given = todo.pop(0)
        rendering = _Rendering(environment, given)
        reading = rendering.run(template)
        count += 1
        yield reading
        tried |= reading.choices
        for condition, taken in sorted(reading.choices):
            other = (condition, not taken)
            if other not in tried:
                tried.add(other)
                todo.append({**given, condition: not taken})


class _Rendering:
    """One way through the template. ``given``: how conditions are taken; others hold."""

    def __init__(self, environment: Environment, given: Mapping[str, bool]) -> None:
        self._environment = environment
        self._taken = dict(given)
        self._parts: list[tuple[str, int]] = []
        self._length = self._calls = 0
        self._macros: dict[str, nodes.Macro] = {}
        self._known: dict[str, Any] = {}
        self.choices: set[Choice] = set()
        self.whole = True

    def run(self, template: nodes.Template) -> Reading:
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
        return Reading("".join(text), lines, self.choices, self.whole)

    def _emit(self, text: str, line: int) -> None:
        self._length += len(text)
        if self._length > _MAX_LENGTH:
            raise TemplateProblem(line, "its loops give more text than can be read")
        if text:
            self._parts.append((text, line))

    def _body(self, body: Iterable[nodes.Node]) -> None:
        for node in body:
            getattr(self, f"_{type(node).__name__.lower()}", self._other)(node)

    def _other(self, node: nodes.Node) -> None:
        """Include, import and the like: text that is not here."""
        if isinstance(node, nodes.Include | nodes.Extends | nodes.CallBlock):
            self.whole = False
            self._emit(f" {HOLE} ", node.lineno)

    def _exprstmt(self, node: nodes.ExprStmt) -> None:
        """``{% do … %}`` prints nothing, and may change what a variable holds."""
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
        if value is _UNKNOWN or not isinstance(value, str | int | float):
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
            given = call.args[index] if index < len(call.args) else None
            given = next((one.value for one in call.kwargs if one.key == argument.name), given)
            if given is None and index >= len(macro.args) - len(defaults):
                given = defaults[index - len(macro.args) + len(defaults)]
            self._bind(argument.name, _UNKNOWN if given is None else self._value(given))
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
        if value is not _UNKNOWN:
            return bool(value)
        negated = False
        while isinstance(test, nodes.Not):
            test, negated = test.node, not negated
        if isinstance(test, nodes.And | nodes.Or):
            known = [self._value(part) for part in (test.left, test.right)]
            for index, value in enumerate(known):
                if value is not _UNKNOWN:
                    return self._holds(test.right if index == 0 else test.left) != negated
        condition = repr(test)
        taken = self._taken.setdefault(condition, not negated)
        self.choices.add((condition, taken))
        return taken != negated

    def _for(self, node: nodes.For) -> None:
        items = self._value(node.iter)
        if node.test is not None:
            items = _UNKNOWN
        if items is _UNKNOWN or not isinstance(items, list | tuple | dict | range | str):
            if node.else_ and not self._holds(node.iter):
                self._body(node.else_)
                return
            items = [_UNKNOWN, _UNKNOWN]
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
            for index, one in enumerate(target.items):
                self._bind_target(one, parts[index] if index < len(parts) else _UNKNOWN)

    def _bind(self, name: str, value: Any) -> None:
        if value is _UNKNOWN:
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
        self._bind_target(node.target, _UNKNOWN if node.filter else text)

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
        """Return what an expression gives if the text alone tells it, else ``_UNKNOWN``."""
        names = {name.name for name in node.find_all(nodes.Name)}
        if isinstance(node, nodes.Name):
            names.add(node.name)
        if names - self._known.keys() or any(True for _ in node.find_all(nodes.Call)):
            return _UNKNOWN
        try:
            return _filled(node, self._known).as_const(nodes.EvalContext(self._environment))
        except (Impossible, TemplateError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError):
            return _UNKNOWN


class _Loop(dict[str, Any]):
    """``loop`` inside of a loop."""


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


def _filled(node: nodes.Node, known: Mapping[str, Any]) -> Any:
    """Return a copy of an expression with the known names replaced by their values."""
    if isinstance(node, nodes.Name):
        return nodes.Const(known[node.name])
    made = copy.copy(node)
    for name, value in node.iter_fields():
        if isinstance(value, nodes.Node):
            setattr(made, name, _filled(value, known))
        elif isinstance(value, list):
            setattr(made, name, [_filled(one, known) if isinstance(one, nodes.Node) else one for one in value])
    return made
