"""The stages of simulated objects as data: read from YAML, with a pure function for an object's next stage.

A stage, after kwok's idea::

    name: pod-started
    kind: Pod                                        # or Node
    when: {status.phase: Pending}                    # conditions on the object, see kubelocal.codec.object_templates
    delay: {seconds: 0.2, jitter: 0.1, annotation: example.com/seconds}
    status: {phase: Running}                         # merged into the status by top-level key
    event: {reason: Started, message: "${metadata.name} runs", warning: false}
    remove: true                                     # the object goes, instead

The first stage whose ``when`` holds is the object's next. ``delay``: seconds (a number or a placeholder; a missing
delay means never) plus up to ``jitter`` at random; an annotation of the object goes before ``seconds``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from kubelocal.codec.kinds import VERSION
from kubelocal.codec.object_templates import Condition, Render, check_fields, compile_condition, compile_template
from kubelocal.errors import SettingError
from kubelocal.types import Json, Manifest
from kubelocal.yaml_input import parse, read_text

__all__ = ["ANNOTATIONS", "Stage", "delay_of", "load_stages", "next_stage", "read_stages", "scope_of"]

ANNOTATIONS = "simulate.crosswind/"
FIELDS = {"name": str, "kind": str, "when": dict, "delay": dict, "status": dict, "event": dict, "remove": bool}
PARTS = {"delay": ("seconds", "jitter", "annotation"), "event": ("reason", "message", "warning")}
OOM_KILLED = 137


@dataclass(frozen=True, slots=True)
class Stage:
    """One step in the life of an object."""

    name: str
    kind: str
    matches: Condition
    seconds: Render
    jitter: Render
    annotation: str = ""
    status: Render | None = None
    event: Render | None = None
    remove: bool = False


def load_stages(path: Path | None) -> tuple[Stage, ...]:
    """Read stages, by default those of the package. ``SettingError``: the file cannot be read or a field is wrong."""
    if path is None:
        return read_stages(parse((files(__package__) / "default_stages.yaml").read_text(), "stages"), "stages")
    return read_stages(parse(read_text(path, what="stages file"), f"stages file {path}"), f"stages file {path}")


def read_stages(document: Json, where: str) -> tuple[Stage, ...]:
    """Read stages from parsed YAML; ``where`` begins the message of a ``SettingError``."""
    entries = document.get("stages") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise SettingError(f"{where}: write a mapping with the list `stages`")
    return tuple(_read_stage(entry, f"{where}: stages[{index}]") for index, entry in enumerate(entries))


def _read_stage(entry: Json, where: str) -> Stage:
    _check(entry, where)
    delay = entry.get("delay", {})
    try:
        return Stage(
            entry["name"],
            entry["kind"],
            compile_condition(entry.get("when", {})),
            compile_template(delay.get("seconds", 0)),
            compile_template(delay.get("jitter", 0)),
            delay.get("annotation", ""),
            compile_template(entry["status"]) if "status" in entry else None,
            compile_template(entry["event"]) if "event" in entry else None,
            entry.get("remove", False),
        )
    except ValueError as error:
        raise SettingError(f"{where}: {error}") from error


def _check(entry: Json, where: str) -> None:
    check_fields(entry, FIELDS, where)
    for field, names in PARTS.items():
        check_fields(entry.get(field, {}), dict.fromkeys(names, object), f"{where}.{field}")
    if entry.get("kind") not in ("Pod", "Node") or not entry.get("name"):
        raise SettingError(f"{where}: a name and the kind Pod or Node are needed")
    if not entry.keys() & {"status", "remove", "event"}:
        raise SettingError(
            f"{where}: status, event or remove is required, because the stage would otherwise repeat forever"
        )


def scope_of(thing: Manifest, settings: Mapping[str, Any], *, now: str = "", address: str = "") -> dict[str, Any]:
    """Return what conditions and placeholders see of an object; ``settings`` are those of the cluster, by name."""
    scope: dict[str, Any] = {**thing, "settings": settings, "version": VERSION, "now": now, "address": address}
    if thing.get("kind") == "Pod":
        containers = thing["spec"]["containers"]
        base = next((container for container in containers if container["name"] == "base"), containers[0])
        scope["base"] = [base]
        scope["others"] = [container for container in containers if container is not base]
        scope["exitCode"], scope["reason"] = _outcome(thing["metadata"].get("annotations") or {})
    return scope


def _outcome(annotations: Mapping[str, str]) -> tuple[int, str]:
    """Return the exit code of the annotations and its reason; an invalid one counts as 1."""
    if annotations.get(f"{ANNOTATIONS}oom") == "true":
        return OOM_KILLED, "OOMKilled"
    text = annotations.get(f"{ANNOTATIONS}exit-code", "0")
    code = int(text) if text.isdecimal() and int(text) < 256 else 1
    return code, "Error" if code else "Completed"


def next_stage(stages: Sequence[Stage], kind: str, scope: Mapping[str, Any]) -> Stage | None:
    """Return the stage that an object goes to next, or None if it has arrived."""
    return next((stage for stage in stages if stage.kind == kind and stage.matches(scope)), None)


def delay_of(stage: Stage, scope: Mapping[str, Any], random: Callable[[], float]) -> float | None:
    """Return the seconds until a stage applies, or None for never; ``random`` gives numbers from 0 to 1.

    ``ValueError``: the annotation or setting is not a number of seconds.
    """
    text = (scope["metadata"].get("annotations") or {}).get(stage.annotation) if stage.annotation else None
    seconds = stage.seconds(scope) if text is None else text
    if isinstance(seconds, (int, float, str)):
        jitter = stage.jitter(scope) if text is None else 0
        delay = float(seconds) + float(jitter) * random()
        if not 0 <= delay < float("inf"):
            raise ValueError(f"{seconds!r} is not a number of seconds")
        return delay
    return None
