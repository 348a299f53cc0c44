"""Reads the text of a values file strictly: each problem is reported with file, line, and the nearest valid key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from difflib import get_close_matches
from types import UnionType
from typing import Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from crosswind.deploy.composed_pods import composed_problems
from crosswind.deploy.value_sections import FragmentError
from crosswind.deploy.values import Values
from crosswind.documents import Document, FieldPath, FieldProblem, dotted, parse_document
from crosswind.errors import ConfigError
from crosswind.pods.masking import is_sensitive
from crosswind.types import Json

__all__ = ["FIRST_LINE", "read_values", "shared_namespace"]

_DISCRIMINATORS = {"dags": "source", "logs": "to"}
"""Sections of which there are several kinds, and the key that chooses the kind."""

FIRST_LINE = "# One deployment of Airflow. All keys: docs/deploy.md. Then:"
"""The first line of the files that ``crosswind init`` wrote while workers shared the namespace of all other objects."""

_MAY_HOLD_SECRETS = frozenset({"annotations", "config", "env", "fabConfig"})
"""Keys below which no message repeats a value, beside those that are named like a secret."""

_MAX_SHOWN = 100
"""Characters of a value that a message repeats."""

_FIXES = {"dict_type": "write a mapping", "tuple_type": "write a list"}
_WANT_MAPPING = ("dict_type", "model_type", "model_attributes_type")


def read_values(text: str, where: str) -> Values:
    """Return the values of ``text``, one YAML document; ``where`` is the file's name, for messages.

    Workers are in a namespace of their own unless the file names others. In a file of an earlier ``crosswind init``
    they stay in the namespace of all other objects.

    Raises ``ConfigError``: ``FILE:LINE: KEY is wrong; how to fix it``, one line for each problem.
    """
    document = parse_document(text, where, "the values")
    if document.root is None:
        raise ConfigError(f"{where}: the file is empty; crosswind init writes one to begin with")
    if document.repeated_keys:
        raise ConfigError(document.describe(document.repeated_keys))
    try:
        values = Values.model_validate(document.content)
    except ValidationError as error:
        raise ConfigError("\n".join(_lines(error, document))) from None  # the cause has the values
    try:
        values = values.with_workers_apart(not text.startswith(FIRST_LINE))
    except ConfigError as error:
        line = document.line_of(("workers", "admissionPolicy"))
        raise ConfigError(f"{where}:{line}: {error}") from None
    if problems := composed_problems(values):
        raise ConfigError(document.describe(problems))
    return values


def shared_namespace(values: Values) -> str:
    """Return a warning with its fix if workers share the namespace of Airflow's own Secrets, else ""."""
    if values.namespace not in values.worker_namespaces:
        return ""
    return (
        f"Workers run in namespace {values.namespace}, where the author of a DAG can read Airflow's own Secrets by a"
        f" secretKeyRef. Add to the values file: workers: {{namespaces: [{values.separate_namespace}]}}"
    )


def _lines(error: ValidationError, document: Document) -> Iterator[str]:
    problems: dict[FieldPath, ErrorDetails] = {}
    for problem in error.errors(include_url=False):
        # A union of types has one problem for each type; the first one stands for all.
        problems.setdefault(_in_document(problem["loc"], document.content), problem)
    for path, problem in problems.items():
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, FragmentError):
            below = [replace(nested, path=(*path, *nested.path)) for nested in cause.problems]
            yield document.describe(_without_value(nested, document.content) for nested in below)
        else:
            yield f"{document.where}:{document.line_of(path)}: {_description(problem, path)}"


def _without_value(problem: FieldProblem, content: Json) -> FieldProblem:
    """Return the problem of a fragment without the text in the field, if that may be a secret."""
    for part in problem.path:
        fields: Mapping[str | int, Json] = content if isinstance(content, Mapping) else dict(enumerate(content))
        content = fields.get(part)
        if not isinstance(content, Mapping | list):
            break
    if not isinstance(content, str | bytes):
        return problem
    return replace(problem, description=problem.description.replace(repr(content), _shown(content, problem.path)))


def _in_document(loc: tuple[int | str, ...], content: Json) -> FieldPath:
    """Return pydantic's location as a path of the document, without the names of a union's branches."""
    if loc and loc[0] in _DISCRIMINATORS:
        loc = (loc[0], *loc[2:])
    path: list[str | int] = []
    for number, part in enumerate(loc):
        if part == "[key]":  # the location of an error in the key itself
            break
        here = content if isinstance(content, dict) else dict(enumerate(content)) if isinstance(content, list) else {}
        if part in here:
            content = here[part]
        elif number < len(loc) - 1 or not isinstance(content, dict):
            continue
        path.append(part)
    return tuple(path)


def _description(problem: ErrorDetails, path: FieldPath) -> str:
    name = dotted(path) if path else "the file"
    match problem["type"]:
        case "extra_forbidden":
            valid_keys = [*_valid_keys(Values, problem["loc"][:-1])]
            return f"{name} is no known key; {_nearest(str(path[-1]), valid_keys)}"
        case "missing":
            return f"{name} is missing; write {path[-1]}: with a value"
        case "value_error":
            return f"{name} {problem['ctx']['error']}"
        case "union_tag_invalid" | "union_tag_not_found":
            section = str(problem["loc"][0])
            tag = _DISCRIMINATORS[section]
            return f"{name} has no known {tag}; there are {', '.join(_choices(section, tag))}"
    if problem["type"] == "invalid_key" or problem["loc"][-1:] == ("[key]",):
        return f"{name} is a key that is not text; put it into quotes"
    # Text in place of a mapping may be the secret that the mapping should refer to.
    shown = "text" if problem["type"] in _WANT_MAPPING and isinstance(problem["input"], str) else None
    return f"{name} is {shown or _shown(problem['input'], path)}; {_fix(problem)}"


def _fix(problem: ErrorDetails) -> str:
    kind, loc, value = problem["type"], problem["loc"], problem["input"]
    if value is None and not _is_required(loc):
        return "leave it out"
    if loc[-1:] == ("str",):  # the first branch of a union
        return "write text, a number, true or false"
    if kind in ("model_type", "model_attributes_type"):
        return f"write a mapping with {_keys_to_write(loc)}"
    if kind == "string_type":
        return "write text" if value is None or isinstance(value, Mapping | list) else "put it into quotes"
    message = problem["msg"]
    return _FIXES.get(kind, f"{message[0].lower()}{message[1:]}")


def _shown(value: Json, path: FieldPath) -> str:
    """Return a value for a message. Lists, mappings, and text that may be a secret are only named."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | str):
        text, kind = repr(value), "text" if isinstance(value, str) else "a number"
        hidden = any(str(part) in _MAY_HOLD_SECRETS or is_sensitive(str(part)) for part in path)
        return kind if hidden or "@" in text or len(text) > _MAX_SHOWN else text
    kinds = {date: "a date", bytes: "binary data", set: "a set", Mapping: "a mapping", type(None): "empty"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), "a list")


def _choices(section: str, tag: str) -> Iterator[str]:
    for model in _models(Values.model_fields[section].annotation):
        yield from get_args(model.model_fields[tag].annotation)


def _nearest(key: str, valid_keys: list[str]) -> str:
    folded = {name.lower(): name for name in valid_keys}
    close = get_close_matches(key.lower().replace("_", "").replace("-", ""), folded, n=1, cutoff=0.6)
    return f"write {folded[close[0]]}" if close else f"there are {', '.join(valid_keys) or 'none here'}"


def _valid_keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> Iterator[str]:
    """Yield the keys of the model at pydantic's location ``loc`` below ``model``."""
    for candidate in _models_at(model, loc):
        yield from (str(field.alias) for field in candidate.model_fields.values())


def _keys_to_write(loc: tuple[int | str, ...]) -> str:
    if len(loc) == 1 and loc[0] in _DISCRIMINATORS:
        return _DISCRIMINATORS[str(loc[0])]
    fields = [field for model in _models_at(Values, loc) for field in model.model_fields.values()]
    required = [str(field.alias) for field in fields if field.is_required()]
    return ", ".join(required) or f"keys such as {', '.join(str(field.alias) for field in fields[:3])}"


def _is_required(loc: tuple[int | str, ...]) -> bool:
    fields = [field for model in _models_at(Values, loc[:-1]) for field in model.model_fields.values()]
    return any(field.alias == loc[-1] and field.is_required() for field in fields)


def _models_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """Return the models that may be at a location: several if a union's branch is not chosen."""
    candidates: list[type[BaseModel]] = [model]
    for part in loc:
        inner = [inner_model for candidate in candidates for inner_model in _inner_models(candidate, part)]
        branches = [candidate for candidate in candidates if _is_branch(candidate, part)]
        candidates = inner or branches or candidates
    return candidates


def _is_branch(model: type[BaseModel], tag: int | str) -> bool:
    """Return whether a model is the branch of a union that has ``tag`` as its discriminator's value."""
    return any(tag in get_args(field.annotation) for field in model.model_fields.values())


def _inner_models(model: type[BaseModel], key: int | str) -> Iterator[type[BaseModel]]:
    for field in model.model_fields.values():
        if field.alias == key:
            yield from _models(field.annotation)


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType):
        for choice in get_args(annotation):
            yield from _models(choice)
