"""Reads ``[crosswind] warm``: how many pods wait for tasks, for all queues and for each. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from crosswind.settings import WarmOptions
from crosswind.types import Json

__all__ = ["WARM_KEYS", "parse_warm"]

WARM_KEYS = tuple(field.name for field in fields(WarmOptions))
"""The keys for all queues; each queue in ``queues`` may have the same ones."""

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_MAX_PODS = 1000


def parse_warm(settings: Json) -> tuple[WarmOptions | None, dict[str, WarmOptions], list[str]]:
    """Return the options for all queues, those of each queue, and the problems, each with key, value and fix.

    None: no pod waits, because nothing is configured or something is wrong.
    """
    problems = list(_problems("", settings, top=True))
    if problems or not settings:
        return None, {}, problems
    everywhere = _options(WarmOptions(), settings)
    queues = {name: _options(everywhere, queue) for name, queue in (settings.get("queues") or {}).items()}
    problems += _bounds("", everywhere)
    problems += [problem for name, queue in queues.items() for problem in _bounds(f"queues.{name}.", queue)]
    return (None, {}, problems) if problems else (everywhere, queues, [])


def _options(base: WarmOptions, settings: Mapping[str, Json]) -> WarmOptions:
    changed: dict[str, Any] = {name: settings[name] for name in WARM_KEYS if name in settings}
    if "preload" in changed:
        changed["preload"] = tuple(changed["preload"])
    return replace(base, **changed)


def _bounds(where: str, options: WarmOptions) -> Iterator[str]:
    if options.min > options.max:
        yield f"{where}min: {options.min} is more than max, which is {options.max}; raise max or lower min"


def _problems(where: str, settings: Json, *, top: bool = False) -> Iterator[str]:
    known = (*WARM_KEYS, "queues") if top else WARM_KEYS
    if not isinstance(settings, Mapping):
        yield f"{where or 'it'}: must be a JSON object with some of {', '.join(known)}, not {settings!r}"
        return
    for key, value in settings.items():
        if key not in known:
            yield f"{where}{key}: is not known; use {', '.join(known)}"
        elif key == "queues":
            yield from _queue_problems(value)
        else:
            fits, expected = _CHECKS[key]
            if not fits(value):
                yield f"{where}{key}: must be {expected}, not {value!r}"


def _queue_problems(queues: Json) -> Iterator[str]:
    if not isinstance(queues, Mapping):
        yield f"queues: must be a JSON object of queues, not {queues!r}"
        return
    for name, queue in queues.items():
        yield from _problems(f"queues.{name}.", queue)


def _is_count(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_PODS


def _is_seconds(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= 86_400


def _are_modules(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and _MODULE.fullmatch(name) for name in value)


_CHECKS: Mapping[str, tuple[Callable[[Json], bool], str]] = {
    "min": (_is_count, f"a whole number of pods from 0 to {_MAX_PODS}"),
    "max": (_is_count, f"a whole number of pods from 0 to {_MAX_PODS}"),
    "idle_seconds": (_is_seconds, "a number of seconds from 1 to 86400"),
    "max_age": (_is_seconds, "a number of seconds from 1 to 86400"),
    "preload": (_are_modules, 'a list of the names of Python modules, such as ["pandas"]'),
}
