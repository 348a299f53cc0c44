"""Reads a task's ``executor_config`` and converts models of the ``kubernetes`` package to JSON and back. Pure.

It has some of ``"pod_template_file"`` (a path), ``"pod_override"`` (a ``V1Pod``) and ``"crosswind"`` (options of
``engine.losses``). Other keys belong to other executors.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crosswind.engine.losses import LOSS_KEYS, LossChoice, loss_choice, loss_problems
from crosswind.errors import OverrideError
from crosswind.types import Json, Manifest

__all__ = ["PodChoice", "read_executor_config", "read_loss_choice", "to_json", "to_pod"]

_PLAIN: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
    "datetime": (datetime.datetime, datetime.date, str),
}


@dataclass(frozen=True, slots=True)
class PodChoice:
    """What a task has chosen for its pod."""

    template: str | None = None
    override: Manifest | None = None
    losses: LossChoice = field(default_factory=LossChoice)


def read_executor_config(config: object) -> PodChoice:
    """Read an ``executor_config``; raises ``OverrideError`` with the field, the value's type and the fix."""
    if not config:
        return PodChoice()
    if not isinstance(config, Mapping):
        raise OverrideError(f"executor_config must be a dict, not {type(config).__name__}")
    if "KubernetesExecutor" in config:
        raise OverrideError('executor_config["KubernetesExecutor"] is of Airflow 1; use "pod_override" with a V1Pod')
    template = config.get("pod_template_file")
    if template is not None and not (isinstance(template, str) and template):
        raise OverrideError(f'executor_config["pod_template_file"] must be a path, not {template!r}')
    override = config.get("pod_override")
    return PodChoice(template, None if override is None else _override(override), read_loss_choice(config))


def read_loss_choice(config: object) -> LossChoice:
    """Read what an ``executor_config`` says about losses, and nothing else of it; raises ``OverrideError``."""
    if not isinstance(config, Mapping) or "crosswind" not in config:
        return LossChoice()
    where, choice = 'executor_config["crosswind"]', config["crosswind"]
    if not isinstance(choice, Mapping):
        raise OverrideError(f"{where} must be a dict with some of {', '.join(LOSS_KEYS)}, not {type(choice).__name__}")
    if unknown := sorted(str(key) for key in choice if key not in LOSS_KEYS):
        raise OverrideError(f"{where} has {', '.join(unknown)}; it takes {', '.join(LOSS_KEYS)}")
    options = dict(choice)
    if isinstance(patches := options.get("after_losses"), Mapping):
        named = f"{where}.after_losses"
        options["after_losses"] = {number: _patch(patch, f"{named}.{number}") for number, patch in patches.items()}
    problems = [problem for key, value in options.items() for problem in loss_problems(f"{where}.{key}", key, value)]
    if problems:
        raise OverrideError("\n".join(problems))
    return loss_choice(options)


def _patch(value: object, where: str) -> Json:
    """Return a patch as JSON; a task may give a ``V1Pod``, as for ``pod_override``."""
    return to_json(value, "V1Pod", where) if hasattr(value, "openapi_types") else value


def _override(value: object) -> Manifest:
    kind = type(value).__name__
    if kind != "V1Pod" or not hasattr(value, "openapi_types"):
        raise OverrideError(
            f'executor_config["pod_override"] must be a kubernetes.client.models.V1Pod, not {kind}: {_short(value)}'
        )
    converted = to_json(value, "V1Pod", "pod_override")
    assert isinstance(converted, dict)
    return converted


def to_json(value: Any, kind: str, where: str) -> Json:
    """Turn a model of the ``kubernetes`` package into JSON with Kubernetes' field names.

    Leaves out None alone: ``False``, 0, "" and empty lists stay. ``kind`` is the type that the package's model
    declares, ``where`` the field's path for messages. A dict in the place of a model counts as JSON already. Raises
    ``OverrideError`` for a value of another type than declared.
    """
    if value is None or kind == "object" or (isinstance(value, dict) and not kind.startswith(("dict", "list"))):
        return value
    if match := re.fullmatch(r"list\[(.+)\]", kind):
        _expect(isinstance(value, list | tuple), value, f"a list of {match[1]}", where)
        return [to_json(item, match[1], f"{where}[{index}]") for index, item in enumerate(value)]
    if match := re.fullmatch(r"dict\[str, (.+)\]", kind):
        _expect(isinstance(value, dict), value, "a dict", where)
        return {key: to_json(item, match[1], f"{where}[{key!r}]") for key, item in value.items()}
    if kind in _PLAIN:
        return _plain(value, kind, where)
    _expect(hasattr(value, "openapi_types"), value, f"a {kind}", where)
    return _fields(value, where)


def _fields(model: Any, where: str) -> Manifest:
    fields = {}
    for attribute, kind in model.openapi_types.items():
        value = getattr(model, attribute)
        if value is not None:
            name = model.attribute_map[attribute]
            fields[name] = to_json(value, kind, f"{where}.{name}")
    return fields


def _plain(value: Any, kind: str, where: str) -> Json:
    fits = isinstance(value, _PLAIN[kind]) and (kind == "bool" or not isinstance(value, bool))
    _expect(fits, value, kind, where)
    return value.isoformat() if isinstance(value, datetime.date) else value


def _expect(fits: bool, value: object, expected: str, where: str) -> None:
    if not fits:
        raise OverrideError(f"{where} must be {expected}, not {type(value).__name__}: {_short(value)}")


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else text[:117] + "..."


def to_pod(manifest: Mapping[str, object]) -> Any:
    """Turn a manifest into a ``V1Pod``, which a ``pod_mutation_hook`` expects."""
    import json
    from types import SimpleNamespace

    from kubernetes.client import ApiClient, Configuration

    return ApiClient(configuration=Configuration()).deserialize(SimpleNamespace(data=json.dumps(manifest)), "V1Pod")
