"""The text of a values file, read strictly: each problem is told with file, line, and the nearest right key."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from crosswind.bounded_yaml import parse_with_nodes
from crosswind.deploy.values import Values
from crosswind.errors import ConfigError
from crosswind.pods.documents import doubled, line_of, told
from crosswind.pods.shape import Path, dotted
from crosswind.types import Json

__all__ = ["FIRST_LINE", "read_values", "shared_namespace"]

_TAGGED = {"dags": "source", "logs": "to"}
"""Parts that come in several kinds, and the key that says which."""


FIRST_LINE = "# One deployment of Airflow. All keys: docs/deploy.md. Then:"
"""How ``crosswind init`` began its files when workers were in the namespace of everything else."""


def read_values(text: str, where: str) -> Values:
    """Return the values that ``text`` (YAML, one document) gives; ``where`` is the file's name, for messages.

    Workers are in a namespace of their own unless the file names others. In a file of an earlier ``crosswind init``
    they stay in the namespace of everything else.

    Raises ``ConfigError``: ``FILE:LINE: KEY what is wrong; how to mend it``, one line for each problem.
    """
    root, content = parse_with_nodes(text, where, "the values")
    if root is None:
        raise ConfigError(f"{where}: the file is empty; crosswind init writes one to begin with")
    if twice := [*doubled(root, ())]:
        raise ConfigError("\n".join(told(problem, root, where) for problem in twice))
    try:
        values = Values.model_validate(content)
        return values.with_workers_apart(not text.startswith(FIRST_LINE))
    except ValidationError as error:
        raise ConfigError("\n".join(_lines(error, root, content, where))) from error


def shared_namespace(values: Values) -> str:
    """Return what to warn of and what to write, "" where workers are apart from Airflow's own Secrets."""
    if values.namespace not in values.worker_namespaces:
        return ""
    return (
        f"Workers run in namespace {values.namespace}, where the author of a DAG can read Airflow's own Secrets by a"
        f" secretKeyRef. Add to the values file: workers: {{namespaces: [{values.namespace}-workers]}}"
    )


def _lines(error: ValidationError, root: yaml.Node, content: Json, where: str) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        path = _in_document(problem["loc"], content)
        yield f"{where}:{line_of(path, root)}: {_told(problem, path)}"


def _in_document(loc: tuple[int | str, ...], content: Json) -> Path:
    """Return a place as the document has it: without the tags that pydantic puts in for the kinds of a union."""
    if loc and loc[0] in _TAGGED:
        loc = (loc[0], *loc[2:])
    path: list[str | int] = []
    for number, part in enumerate(loc):
        here = content if isinstance(content, dict) else dict(enumerate(content)) if isinstance(content, list) else {}
        if part in here:
            content = here[part]
        elif number < len(loc) - 1 or not isinstance(content, dict):
            continue
        path.append(part)
    return tuple(path)


def _told(problem: ErrorDetails, path: Path) -> str:
    name = dotted(path) if path else "the file"
    match problem["type"]:
        case "extra_forbidden":
            return f"{name} is no known key; {_nearest(str(path[-1]), [*_keys(Values, problem['loc'][:-1])])}"
        case "missing":
            return f"{name} is missing; write {path[-1]}: with a value"
        case "value_error":
            return f"{name} {problem['ctx']['error']}"
        case "union_tag_invalid" | "union_tag_not_found":
            tag = _TAGGED[str(problem["loc"][0])]
            return f"{name} has no {tag} that is known; there are {', '.join(_choices(str(problem['loc'][0]), tag))}"
    return f"{name} is {problem['input']!r}; {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _choices(key: str, tag: str) -> Iterator[str]:
    for model in _models(Values.model_fields[key].annotation):
        yield from get_args(model.model_fields[tag].annotation)


def _nearest(key: str, known: list[str]) -> str:
    folded = {name.lower(): name for name in known}
    close = get_close_matches(key.lower().replace("_", "").replace("-", ""), folded, n=1, cutoff=0.6)
    return f"write {folded[close[0]]}" if close else f"there are {', '.join(known) or 'none here'}"


def _keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> Iterator[str]:
    """Yield the keys that the model at a place knows."""
    candidates: list[type[BaseModel]] = [model]
    for part in loc:
        inner = [kind for one in candidates for kind in _inner(one, part)]
        tagged = [one for one in candidates if any(part in get_args(f.annotation) for f in one.model_fields.values())]
        candidates = inner or tagged or candidates
    for one in candidates:
        yield from (str(field.alias) for field in one.model_fields.values())


def _inner(model: type[BaseModel], key: int | str) -> Iterator[type[BaseModel]]:
    for field in model.model_fields.values():
        if field.alias == key:
            yield from _models(field.annotation)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType):
        for choice in get_args(annotation):
            yield from _models(choice)
