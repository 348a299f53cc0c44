"""Which product a container is, by its name, its image and its injector's mark, and what its pod says of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from crosswind.pods import command_lines
from crosswind.pods.known_sidecars import KNOWN, KnownSidecar, Setting
from crosswind.types import Json

__all__ = ["any_match", "is_injected", "is_on", "known_sidecar", "marked", "recognise", "said", "seconds"]

_DURATION = re.compile(r"([0-9.]+)(h|ms|us|µs|ns|m|s)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def known_sidecar(container: Mapping[str, Json], known: Iterable[KnownSidecar] = KNOWN) -> KnownSidecar | None:
    """Return the product that a container of a spec or status belongs to; None for an unknown one.

    By its name and image; where an image is mirrored under another name, by its name and command line or variables.
    """
    name, image = str(container.get("name", "")), str(container.get("image", ""))
    named = [product for product in known if any_match(name, product.containers)]
    by_image = next((product for product in named if any_match(image, product.images)), None)
    return by_image or next((product for product in named if _runs(container, product)), None)


def _runs(container: Mapping[str, Json], product: KnownSidecar) -> bool:
    """Whether a container starts a product's program, or has variables that only this product reads."""
    if any_match(command_lines.command_line(container), product.commands):
        return True
    return any(any_match(name, product.variables) for name in command_lines.variables(container))


def recognise(
    pod: Mapping[str, Json], container: Mapping[str, Json], known: Sequence[KnownSidecar] = KNOWN
) -> KnownSidecar | None:
    """Return a container's product by name and image, else by name and mark: injectors may use mirrored images."""
    found = known_sidecar(container, known)
    name = str(container.get("name", ""))
    return found or next((one for one in known if any_match(name, one.containers) and marked(pod, name, one)), None)


def marked(pod: Mapping[str, Json], name: str, product: KnownSidecar) -> bool:
    """Tell whether the product's injector says that it changed the pod and, where it lists names, put this one in."""
    said_by = _texts(pod, "annotations") | _texts(pod, "labels")
    return any(mark in said_by and _lists(said_by[mark], name) for mark in product.marks)


def is_injected(pod: Mapping[str, Json], container: Mapping[str, Json], known: Sequence[KnownSidecar] = KNOWN) -> bool:
    """Tell whether a container surely is a product's sidecar and not the author's own.

    True for a name that is the product's own with its image or mark; a name that users choose proves nothing.
    """
    found = recognise(pod, container, known)
    if found is None or "*" in found.containers:
        return False
    return "*" not in found.images or marked(pod, str(container.get("name", "")), found)


def said(setting: Setting, pod: Mapping[str, Json], container: Mapping[str, Json], *, switch: bool = False) -> str:
    """Return a setting's value for a container, from its pod's annotations, command line or variables.

    ``switch``: its flags are on or off and take no further word.
    """
    annotations = _texts(pod, "annotations")
    for name in setting.annotations:
        if name in annotations:
            return annotations[name]
    if setting.flags:
        words, read = command_lines.words(container), command_lines.switch if switch else command_lines.flag
        for name in setting.flags:
            if (value := read(words, name)) is not None:
                return value
    variables = command_lines.variables(container) if setting.env else {}
    for name in setting.env:
        if value := _variable(variables, name):
            return value
    return setting.default


def is_on(setting: Setting, pod: Mapping[str, Json], container: Mapping[str, Json]) -> bool | None:
    """Tell whether a switch is on; None when neither the pod nor the default says."""
    value = said(setting, pod, container, switch=True).lower()
    return value in ("true", "enabled", "1", "t", "yes", "on") if value else None


def seconds(text: str, default: float) -> float:
    """Read ``30``, ``120s``, ``1m30s``, ``100ms``; ``default`` for what is neither."""
    try:
        return max(0.0, float(text))
    except ValueError:
        parts = _DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text or not parts:
        return default
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def any_match(text: str, patterns: Iterable[str]) -> bool:
    """Tell whether a shell-style pattern matches."""
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _texts(pod: Mapping[str, Json], field: str) -> dict[str, str]:
    return {str(key): str(value) for key, value in ((pod.get("metadata") or {}).get(field) or {}).items()}


def _lists(mark: str, name: str) -> bool:
    """Whether a mark names a container, if it names any (Istio's is JSON with lists of names)."""
    try:
        listed = json.loads(mark)
    except ValueError:
        return True
    if not isinstance(listed, dict) or "containers" not in listed:
        return True
    return name in [*(listed.get("containers") or ()), *(listed.get("initContainers") or ())]


def _variable(variables: Mapping[Any, Any], name: str) -> str:
    name, _, key = name.partition(":")
    value = variables.get(name)
    if not isinstance(value, str) or not key:
        return value if isinstance(value, str) else ""
    try:
        found = json.loads(value)
    except ValueError:
        return ""
    return str(found.get(key, "")) if isinstance(found, dict) else ""
