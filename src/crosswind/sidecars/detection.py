"""Recognises a container's product by name, image and injector's mark, and reads its settings from the pod."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from crosswind.pods.fields import annotations_of, labels_of, texts
from crosswind.sidecars import command_lines
from crosswind.sidecars.catalog import KNOWN, KnownSidecar, Setting
from crosswind.types import Container, Pod

__all__ = ["any_match", "identify", "is_injected", "is_marked", "is_on", "known_sidecar", "seconds", "setting_value"]

_DURATION = re.compile(r"([0-9.]+)(h|ms|us|µs|ns|m|s)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def known_sidecar(container: Container, known: Iterable[KnownSidecar] = KNOWN) -> KnownSidecar | None:
    """Return the product of a container of a spec or status; None for an unknown one.

    Name and image decide. Where an image is mirrored under another name, name and command line or variables decide.
    """
    name, image = str(container.get("name", "")), str(container.get("image", ""))
    candidates = [product for product in known if any_match(name, product.containers)]
    by_image = next((product for product in candidates if any_match(image, product.images)), None)
    return by_image or next((product for product in candidates if _runs(container, product)), None)


def _runs(container: Container, product: KnownSidecar) -> bool:
    """Return whether a container starts a product's program, or sets variables that only this product reads."""
    if any_match(command_lines.command_line(container), product.commands):
        return True
    return any(any_match(name, product.variables) for name in command_lines.variables(container))


def identify(pod: Pod, container: Container, known: Sequence[KnownSidecar] = KNOWN) -> KnownSidecar | None:
    """Return a container's product by name and image, else by name and mark: injectors may use mirrored images."""
    if product := known_sidecar(container, known):
        return product
    name = str(container.get("name", ""))
    candidates = (product for product in known if any_match(name, product.containers))
    return next((product for product in candidates if is_marked(pod, name, product)), None)


def is_marked(pod: Pod, name: str, product: KnownSidecar) -> bool:
    """Return whether the product's injector marked the pod and, where its mark lists containers, lists this one."""
    marks = {**annotations_of(pod), **labels_of(pod)}
    return any(mark in marks and _lists(str(marks[mark]), name) for mark in product.marks)


def is_injected(pod: Pod, container: Container, known: Sequence[KnownSidecar] = KNOWN) -> bool:
    """Return whether a container is certainly a product's sidecar and not one that the author wrote.

    True for a name that the product chooses itself, together with its image or mark. A name that users choose proves
    nothing.
    """
    product = identify(pod, container, known)
    if product is None or "*" in product.containers:
        return False
    return "*" not in product.images or is_marked(pod, str(container.get("name", "")), product)


def setting_value(setting: Setting, pod: Pod, container: Container, *, switch: bool = False) -> str:
    """Return a setting's value for a container, from the pod's annotations, the command line or the variables.

    ``switch``: its flags are on or off and take no value of their own.
    """
    annotations = annotations_of(pod)
    for name in setting.annotations:
        if name in annotations:
            return str(annotations[name])
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


def is_on(setting: Setting, pod: Pod, container: Container) -> bool | None:
    """Return whether a switch is on; None when neither the pod nor the default says."""
    value = setting_value(setting, pod, container, switch=True).lower()
    return value in ("true", "enabled", "1", "t", "yes", "on") if value else None


def seconds(text: str, default: float) -> float:
    """Return the seconds of ``30``, ``120s``, ``1m30s`` or ``100ms``; ``default`` for any other text."""
    try:
        return max(0.0, float(text))
    except ValueError:
        parts = _DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text or not parts:
        return default
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def any_match(text: str, patterns: Iterable[str]) -> bool:
    """Return whether any of the shell-style patterns matches."""
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _lists(mark: str, name: str) -> bool:
    """Return whether a mark lists a container, or lists none at all. Istio's mark is JSON with lists of names."""
    try:
        listed = json.loads(mark)
    except ValueError:
        return True
    if not isinstance(listed, dict) or "containers" not in listed:
        return True
    return name in [*texts(listed.get("containers")), *texts(listed.get("initContainers"))]


def _variable(variables: Mapping[str, str], name: str) -> str:
    """Return a variable's value; for ``NAME:key`` that of a key in the variable's JSON."""
    name, _, key = name.partition(":")
    value = variables.get(name, "")
    if not key:
        return value
    try:
        document = json.loads(value)
    except ValueError:
        return ""
    return str(document.get(key, "")) if isinstance(document, dict) else ""
