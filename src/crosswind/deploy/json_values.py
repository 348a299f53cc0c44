"""Values that JSON can hold, which is all that Kubernetes and Airflow's options read. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from datetime import date

from crosswind.documents import FieldPath, FieldProblem
from crosswind.types import Json

__all__ = ["json_problems", "parse_json"]


def parse_json(text: str) -> Json:
    """Return the content of a JSON text. Raises ``ValueError``, also for one that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply; use fewer levels") from None


def json_problems(value: Json, path: FieldPath = ()) -> Iterator[FieldProblem]:
    """Yield the values that YAML has and JSON has not: dates, binary data, sets, keys that are not text."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if isinstance(name, str):
                yield from json_problems(item, (*path, name))
            else:
                yield FieldProblem(path, f"has the field {name!r}, which is not text", "put it into quotes")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from json_problems(item, (*path, index))
    elif isinstance(value, float) and not math.isfinite(value):
        yield FieldProblem(path, f"is {value}, which JSON cannot represent", "write a number")
    elif isinstance(value, date):
        yield FieldProblem(path, f"is {value.isoformat()}", "put it into quotes")
    elif value is not None and not isinstance(value, str | int | float):
        yield FieldProblem(path, f"is {'binary data' if isinstance(value, bytes) else 'a set'}", "write text or a list")
