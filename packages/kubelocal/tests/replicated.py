"""Objects with replicas and their pods, as the plans see them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LABELS = {"app": "web"}


def stamp(seconds_ago: float = 0) -> str:
    return (NOW - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def template(image: str = "a") -> dict[str, Any]:
    return {"metadata": {"labels": dict(LABELS)}, "spec": {"containers": [{"name": "web", "image": image}]}}


def owner(kind: str, *, image: str = "a", status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    metadata = {"name": "web", "namespace": "n", "uid": "u", "generation": 3, "creationTimestamp": stamp(900)}
    given = {"replicas": 2, "selector": {"matchLabels": dict(LABELS)}, "template": template(image), **spec}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": given, "status": status or {}}


def pod(
    name: str, phase: str = "Running", *, ready: float | None = 60, ago: float = 100, **more: Any
) -> dict[str, Any]:
    """Make a pod; ``ready``: for how many seconds, None is not."""
    conditions = [] if ready is None else [{"type": "Ready", "status": "True", "lastTransitionTime": stamp(ready)}]
    metadata = {"name": name, "creationTimestamp": stamp(ago), **more}
    return {"metadata": metadata, "spec": {"nodeName": "n"}, "status": {"phase": phase, "conditions": conditions}}
