"""Settings of queues: the template, namespace, priority class and labels of their pods, and how many may be in flight.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from crosswind.engine.losses import LOSS_KEYS, LossChoice, loss_choice, loss_problems
from crosswind.engine.worker_pod import BASE, PLACEHOLDERS
from crosswind.pods.naming import bad_label
from crosswind.types import Json, Manifest

__all__ = ["QUEUE_KEYS", "QueueSettings", "apply_queue", "join_coordinators", "parse_queues"]

QUEUE_KEYS = ("pod_template_file", "namespace", "priority_class", "labels", "max_pods", *LOSS_KEYS)
"""The keys of a queue in ``[crosswind] queues``."""

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_CLASS = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """One queue; an empty setting leaves the pod as the global settings have it."""

    template: str = ""
    """Path of a pod template that replaces the global one."""
    namespace: str = ""
    priority_class: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    max_pods: int = 0
    """Pods that one executor may have in flight, from launch to the end of base; 0 is any number."""
    losses: LossChoice = field(default_factory=LossChoice)
    image: str = ""
    """Image of base, from the coordinator of Airflow's Task SDK that the queue belongs to."""


def parse_queues(settings_by_queue: Mapping[str, Json]) -> tuple[dict[str, QueueSettings], list[str]]:
    """Return the queues by name, and the problems, each with queue, key and fix."""
    problems = [problem for name, queue in settings_by_queue.items() for problem in _problems(name, queue)]
    if problems:
        return {}, problems
    return {name: _queue(queue) for name, queue in settings_by_queue.items()}, []


def apply_queue(template: Manifest, queue: QueueSettings, *, chosen: bool) -> Manifest:
    """Return ``template`` with the settings of its queue.

    ``chosen``: the task itself has chosen the template, which then wins over the queue; else the queue wins.
    """
    metadata, spec = template["metadata"], template["spec"]
    own = metadata.get("namespace")
    namespace = _winner(None if own in PLACEHOLDERS else own, queue.namespace, chosen)
    priority = _winner(spec.get("priorityClassName"), queue.priority_class, chosen)
    if namespace:
        metadata = {**metadata, "namespace": namespace}
    if queue.labels:
        labels = metadata.get("labels") or {}
        metadata = {**metadata, "labels": {**queue.labels, **labels} if chosen else {**labels, **queue.labels}}
    if priority:
        spec = {**spec, "priorityClassName": priority}
    if queue.image:
        spec = {**spec, "containers": [_with_image(container, queue.image, chosen) for container in spec["containers"]]}
    return {**template, "metadata": metadata, "spec": spec}


def join_coordinators(
    queues: Mapping[str, QueueSettings], coordinators: Mapping[str, Json], routes: Mapping[str, Json]
) -> tuple[dict[str, QueueSettings], list[str]]:
    """Return ``queues`` with the settings of their coordinators, and the problems.

    ``coordinators``, ``routes``: ``[sdk] coordinators`` and ``queue_to_coordinator``. A coordinator's ``extra`` may
    have ``pod_template_file``, and ``worker_container_repository`` with ``worker_container_tag``. The queue's own
    settings win.
    """
    joined, problems = dict(queues), []
    for name, key in routes.items():
        coordinator = coordinators.get(key) if isinstance(key, str) else None
        extra = coordinator.get("extra") if isinstance(coordinator, Mapping) else None
        if not isinstance(coordinator, Mapping) or not isinstance(extra, Mapping | None):
            problems.append(f"queue_to_coordinator: {name}: coordinators has no {key!r} with an object as its extra")
        elif extra:
            own = joined.get(name, QueueSettings())
            template = own.template or extra.get("pod_template_file") or ""
            joined[name] = replace(own, template=template, image=_image(extra))
    return joined, problems


def _image(extra: Mapping[str, Json]) -> str:
    repository, tag = extra.get("worker_container_repository"), extra.get("worker_container_tag")
    return f"{repository}:{tag}" if repository and tag else ""


def _with_image(container: Manifest, image: str, chosen: bool) -> Manifest:
    own = container.get("image")
    if container.get("name") != BASE:
        return container
    return {**container, "image": _winner(None if own in PLACEHOLDERS else own, image, chosen)}


def _winner(template: Json, queue: str, chosen: bool) -> Json:
    return (template or queue) if chosen else (queue or template)


def _queue(settings: Mapping[str, Json]) -> QueueSettings:
    return QueueSettings(
        template=settings.get("pod_template_file", ""),
        namespace=settings.get("namespace", ""),
        priority_class=settings.get("priority_class", ""),
        labels=settings.get("labels", {}),
        max_pods=settings.get("max_pods", 0),
        losses=loss_choice(settings),
    )


def _problems(name: str, queue: Json) -> Iterator[str]:
    if not isinstance(queue, Mapping):
        yield f"{name}: must be a JSON object with some of {', '.join(QUEUE_KEYS)}, not {queue!r}"
        return
    for key, value in queue.items():
        where = f"{name}.{key}"
        if key not in QUEUE_KEYS:
            yield f"{where}: is not known; a queue has {', '.join(QUEUE_KEYS)}"
        elif key == "labels":
            yield from _label_problems(where, value)
        elif key in LOSS_KEYS:
            yield from loss_problems(where, key, value)
        elif key == "max_pods":
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                yield f"{where}: must be a whole number of at least 1, not {value!r}; omit it for no limit"
        elif not isinstance(value, str) or not value:
            yield f"{where}: must be text, not {value!r}; omit it to keep the default"
        elif key == "namespace" and not _NAMESPACE.fullmatch(value):
            yield f"{where}: {value!r} is not a valid namespace; use at most 63 lower-case letters, digits and '-'"
        elif key == "priority_class" and not _CLASS.fullmatch(value):
            yield f"{where}: {value!r} is not a valid PriorityClass name; use lower-case letters, digits, '-' and '.'"


def _label_problems(where: str, labels: Json) -> Iterator[str]:
    if not isinstance(labels, Mapping):
        yield f"{where}: must be a JSON object of texts, not {labels!r}"
        return
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            yield f"{where}: {key!r} is not a valid label name; use letters, digits and '-_.', after a domain and '/'"
        elif value is None or bad_label({key: value}):
            yield f"{where}.{key}: {value!r} is not a valid label value; use at most 63 letters, digits and '-_.'"
