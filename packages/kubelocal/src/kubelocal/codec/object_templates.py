"""Templates as data: YAML whose placeholders stand for values of a scope, compiled once to functions.

- ``$pod.spec.nodeName``: the value itself, of any type; ``$pod.metadata.annotations["a.b/c"]`` for keys with dots. A
  key or list item whose value is missing is left out. ``$path|text``: the text when it is missing.
- ``${pod.metadata.name}-0``: text with a value, "" when missing. ``$(NAME)`` stays: Kubernetes expands it.
- A mapping with ``$if: {path: expected, ...}`` is left out unless all conditions hold. ``expected``: ``true`` exists,
  ``false`` is missing, a list is one of, ``{not: ...}`` is none of, anything else is equal to (compared as text).
- A list item with ``$each: $path`` stands for one item per element, which is ``$item`` in it; with ``$do`` for what
  that says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from kubelocal.errors import SettingError
from kubelocal.types import Json

__all__ = ["Condition", "Render", "check_fields", "compile_condition", "compile_path", "compile_template"]

Scope = Mapping[str, Json]
Render = Callable[[Scope], Json]
Condition = Callable[[Scope], bool]

_STEP = re.compile(r'(?:^|\.)([A-Za-z_][\w-]*)|\[(\d+)\]|\["([^"]+)"\]')
_WHOLE = re.compile(r"\$([A-Za-z_][^|{}]*)(?:\|(.*))?", re.DOTALL)
_PART = re.compile(r"\$\{([^}|]+)(?:\|([^}]*))?\}")


def check_fields(entry: Json, known: Mapping[str, type], where: str) -> None:
    """Raise ``SettingError`` unless an entry of a user's file has known fields of these types; ``where`` names it."""
    if not isinstance(entry, dict):
        raise SettingError(f"{where}: a mapping is required, not {entry!r}")
    for field, value in entry.items():
        if field not in known:
            raise SettingError(f"{where}: unknown field {field!r}; there are {', '.join(known)}")
        if not isinstance(value, known[field]):
            raise SettingError(f"{where}.{field}: {value!r} is not a {known[field].__name__}")


class _Missing:
    """A missing value."""


MISSING = _Missing()


def compile_path(path: str) -> Render:
    """Return the function that reads a path, None for a missing value. Raises ``ValueError`` for a malformed path."""
    steps: list[str | int] = []
    end = 0
    for step in _STEP.finditer(path):
        if step.start() != end:
            break
        name, index, key = step.groups()
        steps.append(int(index) if index else name or key)
        end = step.end()
    if end != len(path) or not path:
        raise ValueError(f'{path!r} is not a path such as metadata.labels["app"]')
    return lambda scope: _follow(scope, steps)


def _follow(value: Json, steps: list[str | int]) -> Json:
    for step in steps:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def compile_condition(expected: Mapping[str, Json]) -> Condition:
    """Return the function that tests all conditions. Raises ``ValueError`` for a malformed path."""
    tests = [_compile_test(compile_path(path), value) for path, value in expected.items()]
    return lambda scope: all(test(scope) for test in tests)


def _compile_test(read: Render, expected: Json) -> Condition:
    if isinstance(expected, bool):
        return lambda scope: (read(scope) is not None) is expected
    if isinstance(expected, dict):
        holds = _compile_test(read, expected["not"])
        return lambda scope: not holds(scope)
    choices = frozenset(map(_text, expected if isinstance(expected, list) else [expected]))
    return lambda scope: _text(read(scope)) in choices


def _text(value: Json) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def compile_template(template: Json) -> Render:
    """Return the function that renders a template. Raises ``ValueError`` for a malformed placeholder."""
    if isinstance(template, str):
        return _compile_text(template)
    if isinstance(template, list):
        return _compile_list(template)
    if isinstance(template, dict):
        return _compile_dict(template)
    return lambda _: template


def _compile_text(text: str) -> Render:
    whole = _WHOLE.fullmatch(text)
    if whole:
        read, default = compile_path(whole[1]), whole[2]
        return lambda scope: _or_default(read(scope), MISSING if default is None else default)
    if not _PART.search(text):
        return lambda _: text
    pieces = _PART.split(text)
    reads = [(compile_path(path), default or "") for path, default in zip(pieces[1::3], pieces[2::3], strict=True)]
    literals = pieces[::3]

    def fill(scope: Scope) -> str:
        values = [*(_text(_or_default(read(scope), default)) for read, default in reads), ""]
        return "".join(part for pair in zip(literals, values, strict=True) for part in pair)

    return fill


def _or_default(value: Json, default: Json) -> Json:
    return default if value is None else value


def _compile_dict(template: Mapping[str, Json]) -> Render:
    allowed = compile_condition(template.get("$if", {}))
    whole = compile_template(template["$do"]) if "$do" in template else None
    fields = {key: value for key, value in template.items() if not key.startswith("$")}
    plain = {key: value if _is_plain(value) else None for key, value in fields.items()}
    renders = [(key, compile_template(value)) for key, value in fields.items() if not _is_plain(value)]

    def fill(scope: Scope) -> Json:
        if not allowed(scope):
            return MISSING
        if whole:
            return whole(scope)
        filled = dict(plain)
        for key, render in renders:
            filled[key] = value = render(scope)
            if value is MISSING:
                del filled[key]
        return filled

    return fill


def _is_plain(value: Json) -> bool:
    return not isinstance(value, (dict, list)) and not (isinstance(value, str) and "$" in value)


def _compile_list(template: list[Json]) -> Render:
    items = [_compile_item(item) for item in template]
    return lambda scope: [value for item in items for value in item(scope) if value is not MISSING]


def _compile_item(item: Json) -> Callable[[Scope], list[Json]]:
    render = compile_template(item)
    if not (isinstance(item, dict) and "$each" in item):
        return lambda scope: [render(scope)]
    elements = compile_path(item["$each"].removeprefix("$"))
    return lambda scope: [render({**scope, "item": element}) for element in elements(scope) or ()]
