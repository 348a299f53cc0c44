"""Resource quotas: what a namespace may hold, what it holds, and the refusal of what is too much.

What is used is always counted anew from the objects themselves, so that it cannot drift; ``QuotaController`` writes it
into the quotas' status. Source: ``pkg/quota/v1`` and the ResourceQuota admission of Kubernetes 1.36.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from math import ceil

from crosswind.local.kinds import KINDS
from crosswind.local.quantities import BINARY, DECIMAL, amount, written
from crosswind.local.seams import Change, Registry
from crosswind.local.statuses import StatusError, forbidden
from crosswind.types import Manifest

__all__ = ["QuotaController", "admit", "pod_needs", "used"]

COMPUTED = ("cpu", "memory", "ephemeral-storage")
PLAIN_COUNTS = {kind.plural: kind for kind in KINDS.values() if kind.stored and kind.namespaced and not kind.group}
COUNTS = {f"count/{kind.qualified}": kind for kind in KINDS.values() if kind.stored and kind.namespaced}
TERMINAL = ("Succeeded", "Failed")


def admit(manifest: Manifest, registry: Registry, old: Manifest | None = None) -> Sequence[str]:
    """Refuse (403) a new object that would exceed a quota of its namespace, or names no request that a quota limits."""
    namespace = manifest["metadata"].get("namespace", "")
    if not namespace or old is not None:
        return ()
    kind, name = manifest["kind"], manifest["metadata"].get("name", "")
    for quota in registry.list("ResourceQuota", namespace):
        hard = quota["spec"].get("hard", {})
        if not _in_scope(quota["spec"], manifest):
            continue
        if kind == "Pod" and (lacking := _unspecified(manifest, hard)):
            why = "; ".join(f"{key} for: {','.join(names)}" for key, names in lacking.items())
            raise forbidden(kind, name, f"failed quota: {quota['metadata']['name']}: must specify {why}")
        asked = {key: value for key, value in _usage(manifest, hard).items() if value}
        if asked:
            _check(quota, asked, _total(registry, quota), kind, name)
    return ()


def used(registry: Registry, quota: Manifest) -> dict[str, str]:
    """Count what is used of everything that a quota limits."""
    hard = quota["spec"].get("hard", {})
    return {key: _write(key, value) for key, value in _total(registry, quota).items() if key in hard}


def _check(quota: Manifest, asked: Mapping[str, Fraction], total: Mapping[str, Fraction], kind: str, name: str) -> None:
    hard = quota["spec"]["hard"]
    over = sorted(key for key, value in asked.items() if total[key] + value > amount(hard[key]))
    if over:
        columns = {
            "requested": {key: _write(key, asked[key]) for key in over},
            "used": {key: _write(key, total[key]) for key in over},
            "limited": {key: hard[key] for key in over},
        }
        told = ", ".join(
            f"{title}: {','.join(f'{key}={value}' for key, value in column.items())}"
            for title, column in columns.items()
        )
        raise forbidden(kind, name, f"exceeded quota: {quota['metadata']['name']}, {told}")


def _total(registry: Registry, quota: Manifest) -> dict[str, Fraction]:
    spec, namespace = quota["spec"], quota["metadata"]["namespace"]
    hard = spec.get("hard", {})
    total = dict.fromkeys(hard, Fraction())
    for kind in sorted(_limited_kinds(hard)):
        for one in registry.list(kind, namespace):
            if _in_scope(spec, one):
                for key, value in _usage(one, hard).items():
                    total[key] += value
    return total


def _limited_kinds(hard: Iterable[str]) -> set[str]:
    """Return the kinds of objects of which a quota limits something."""
    kinds = {(PLAIN_COUNTS.get(key) or COUNTS[key]).kind for key in hard if key in PLAIN_COUNTS or key in COUNTS}
    if any(_resource(key) for key in hard):
        kinds.add("Pod")
    return kinds


def _usage(manifest: Manifest, hard: Iterable[str]) -> dict[str, Fraction]:
    """Return what one object uses of each limited thing."""
    kind = manifest["kind"]
    ended = kind == "Pod" and manifest.get("status", {}).get("phase") in TERMINAL
    usage: dict[str, Fraction] = {}
    for key in hard:
        if key in COUNTS:
            usage[key] = Fraction(COUNTS[key].kind == kind)
        elif key in PLAIN_COUNTS:
            usage[key] = Fraction(PLAIN_COUNTS[key].kind == kind and not ended)
        elif kind == "Pod" and not ended and (resource := _resource(key)):
            usage[key] = pod_needs(manifest["spec"], *resource)
    return usage


def _resource(key: str) -> tuple[str, str] | None:
    """Read ``requests.cpu``, ``limits.memory`` or ``cpu`` as the field and name of a resource."""
    field, dot, name = key.partition(".")
    if dot and field in ("requests", "limits") and name != "storage":
        return field, name
    return ("requests", key) if key in COMPUTED else None


def pod_needs(spec: Manifest, field: str, name: str) -> Fraction:
    """Return what a pod needs at most at one time (KEP-753): containers and native sidecars, or an init container."""

    def of(container: Manifest) -> Fraction:
        return amount(container.get("resources", {}).get(field, {}).get(name, "0"))

    regular = sum((of(container) for container in spec.get("containers", ())), Fraction())
    sidecars = peak = Fraction()
    for container in spec.get("initContainers", ()):
        if container.get("restartPolicy") == "Always":
            sidecars += of(container)
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + of(container))
    return max(peak, regular + sidecars) + amount(spec.get("overhead", {}).get(name, "0"))


def _unspecified(pod: Manifest, hard: Iterable[str]) -> dict[str, list[str]]:
    """Return which containers lack a request or limit of cpu or memory that a quota limits."""
    lacking: dict[str, list[str]] = {}
    containers = [*pod["spec"].get("containers", ()), *pod["spec"].get("initContainers", ())]
    for key in sorted(hard):
        field, name = _resource(key) or ("", "")
        if name in ("cpu", "memory"):
            names = [one["name"] for one in containers if name not in one.get("resources", {}).get(field, {})]
            lacking |= {key: names} if names else {}
    return lacking


SCOPES: dict[str, Callable[[Manifest], bool]] = {
    "Terminating": lambda spec: "activeDeadlineSeconds" in spec,
    "NotTerminating": lambda spec: "activeDeadlineSeconds" not in spec,
    "PriorityClass": lambda spec: bool(spec.get("priorityClassName")),
}


def _in_scope(spec: Manifest, manifest: Manifest) -> bool:
    """Whether a quota looks at an object: scopes are about pods alone."""
    if manifest["kind"] != "Pod":
        return True
    wanted = [(scope, "Exists", ()) for scope in spec.get("scopes", ())]
    wanted += [
        (one["scopeName"], one["operator"], one.get("values", ()))
        for one in spec.get("scopeSelector", {}).get("matchExpressions", ())
    ]
    return all(_has_scope(manifest, *one) for one in wanted)


def _has_scope(pod: Manifest, scope: str, operator: str, values: Iterable[str]) -> bool:
    if scope in ("BestEffort", "NotBestEffort"):
        return (pod.get("status", {}).get("qosClass") == "BestEffort") is (scope == "BestEffort")
    if operator in ("In", "NotIn"):
        return (pod["spec"].get("priorityClassName") in values) is (operator == "In")
    has = scope in SCOPES and SCOPES[scope](pod["spec"])
    return not has if operator == "DoesNotExist" else has


def _write(key: str, value: Fraction) -> str:
    """Write an amount in the family of suffixes that suits it: memory in ``Gi``, the rest in decimal ones."""
    binary = key.endswith(("memory", "storage"))
    return written(Fraction(ceil(value)) if binary else value, BINARY if binary else DECIMAL)


class QuotaController:
    """Keeps the status of all quotas true. Nothing but quotas is watched until there is one that limits it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._watched: set[str] = set()
        self._changed: set[str] = set()  # namespaces that await a count
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._count())
            async for change in _following(self._registry, "ResourceQuota"):
                self._note(change)
                for kind in _limited_kinds(change.object["spec"].get("hard", {})) - self._watched:
                    self._watched.add(kind)
                    tasks.create_task(self._follow(kind))

    async def _follow(self, kind: str) -> None:
        async for change in _following(self._registry, kind):
            self._note(change)

    def _note(self, change: Change) -> None:
        self._changed.add(change.object["metadata"]["namespace"])
        self._wake.set()

    async def _count(self) -> None:
        """Count once for all changes that came together."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            namespaces, self._changed = self._changed, set()
            for namespace in namespaces:
                for quota in self._registry.list("ResourceQuota", namespace):
                    self._write_status(quota)

    def _write_status(self, quota: Manifest) -> None:
        status = {"hard": quota["spec"].get("hard", {}), "used": used(self._registry, quota)}
        metadata = quota["metadata"]
        if quota.get("status") != status:
            with suppress(StatusError):  # it may be gone by now
                self._registry.update(
                    "ResourceQuota",
                    metadata["namespace"],
                    metadata["name"],
                    lambda fresh: fresh.update(status=status),
                    subresource="status",
                )


async def _following(registry: Registry, kind: str) -> AsyncIterator[Change]:
    changes = registry.watch(kind)
    try:
        async for change in changes:
            yield change
    finally:
        changes.close()
