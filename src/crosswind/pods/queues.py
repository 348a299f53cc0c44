"""What a task's ``queue`` says about its pod: template, namespace, priority class and labels. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from crosswind.pods.naming import bad_label
from crosswind.pods.workers import PLACEHOLDERS
from crosswind.types import Json, Manifest

__all__ = ["QUEUE_KEYS", "Queue", "apply_queue", "parse_queues"]

QUEUE_KEYS = ("pod_template_file", "namespace", "priority_class", "labels")
"""What a queue may say."""

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_CLASS = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue; what is empty is as for all pods."""

    template: str = ""
    """Path of its pod template, in place of the global one."""
    namespace: str = ""
    priority_class: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def parse_queues(given: Mapping[str, Json]) -> tuple[dict[str, Queue], list[str]]:
    """Return the queues by name, and what is wrong: each problem with queue, key and mend."""
    problems = [problem for name, queue in given.items() for problem in _problems(name, queue)]
    if problems:
        return {}, problems
    return {name: _queue(queue) for name, queue in given.items()}, []


def apply_queue(template: Manifest, queue: Queue, *, chosen: bool) -> Manifest:
    """Return ``template`` with what its queue says.

    ``chosen``: the task itself chose the template, which then wins over the queue; else the queue wins over it.
    """
    metadata, spec = template["metadata"], template["spec"]
    own = metadata.get("namespace")
    namespace = _winner(None if own in PLACEHOLDERS else own, queue.namespace, chosen)
    priority = _winner(spec.get("priorityClassName"), queue.priority_class, chosen)
    if namespace:
        metadata = {**metadata, "namespace": namespace}
    if queue.labels:
        given = metadata.get("labels") or {}
        metadata = {**metadata, "labels": {**queue.labels, **given} if chosen else {**given, **queue.labels}}
    if priority:
        spec = {**spec, "priorityClassName": priority}
    return {**template, "metadata": metadata, "spec": spec}


def _winner(template: Json, queue: str, chosen: bool) -> Json:
    return (template or queue) if chosen else (queue or template)


def _queue(given: Mapping[str, Json]) -> Queue:
    return Queue(
        template=given.get("pod_template_file", ""),
        namespace=given.get("namespace", ""),
        priority_class=given.get("priority_class", ""),
        labels=given.get("labels", {}),
    )


def _problems(name: str, queue: Json) -> Iterator[str]:
    if not isinstance(queue, Mapping):
        yield f"{name}: must be a JSON object with some of {', '.join(QUEUE_KEYS)}, is {queue!r}"
        return
    for key, value in queue.items():
        where = f"{name}.{key}"
        if key not in QUEUE_KEYS:
            yield f"{where}: is not known; a queue has {', '.join(QUEUE_KEYS)}"
        elif key == "labels":
            yield from _label_problems(where, value)
        elif not isinstance(value, str) or not value:
            yield f"{where}: must be text, is {value!r}; leave it out to change nothing"
        elif key == "namespace" and not _NAMESPACE.fullmatch(value):
            yield f"{where}: {value!r} is no namespace; use small letters, digits and '-', at most 63"
        elif key == "priority_class" and not _CLASS.fullmatch(value):
            yield f"{where}: {value!r} is no name of a PriorityClass; use small letters, digits, '-' and '.'"


def _label_problems(where: str, labels: Json) -> Iterator[str]:
    if not isinstance(labels, Mapping):
        yield f"{where}: must be a JSON object of texts, is {labels!r}"
        return
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            yield f"{where}: {key!r} is no label's name; use letters, digits, '-', '_' and '.', after a domain and '/'"
        elif value is None or bad_label({key: value}):
            yield f"{where}.{key}: {value!r} is no label's value; use at most 63 letters, digits, '-', '_' and '.'"
