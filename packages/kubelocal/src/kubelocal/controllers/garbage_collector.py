"""The garbage collector: objects go with their owners, as ``metadata.ownerReferences`` say.

Background: the owner goes, its dependents follow. Foreground: the owner waits, held by the finalizer
``foregroundDeletion``, until those dependents are gone that block it. Orphan: the finalizer ``orphan`` holds the owner
until its dependents have forgotten it. Which of them a DELETE means is decided where it is answered.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from kubelocal.change_loop import follow
from kubelocal.codec.kinds import KINDS
from kubelocal.codec.status_errors import StatusError
from kubelocal.interfaces import Change, Registry
from kubelocal.types import Manifest

__all__ = ["FOREGROUND", "ORPHAN", "GarbageCollector"]

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
NAME = "garbage-collector"


class _Ref(NamedTuple):
    """Where an object lives and which one it is."""

    kind: str
    namespace: str
    name: str
    uid: str


class GarbageCollector:
    """Watches every kind and deletes objects whose owners are gone."""

    def __init__(self, registry: Registry, kinds: Iterable[str] | None = None) -> None:
        self._registry = registry
        self._kinds = tuple(kinds if kinds is not None else (k.kind for k in KINDS.values() if k.stored))
        self._dependents: dict[str, set[_Ref]] = defaultdict(set)
        self._owners: dict[str, tuple[_Ref, ...]] = {}

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for kind in self._kinds:
                group.create_task(follow(self._registry, kind, self._take, NAME))

    def _take(self, change: Change) -> None:
        metadata = change.object["metadata"]
        me = _Ref(change.object["kind"], metadata.get("namespace", ""), metadata["name"], metadata["uid"])
        if change.type == "DELETED":
            self._gone(me)
            return
        self._index(me, metadata.get("ownerReferences"))
        if "deletionTimestamp" in metadata:
            self._settle(me)

    def _index(self, me: _Ref, references: list[Manifest] | None) -> None:
        """Record an object's owners, and whether one of them is missing."""
        if not references and me.uid not in self._owners:
            return
        owners = tuple(_owner(reference, me.namespace) for reference in references or ())
        before = self._owners.get(me.uid, ())
        if owners == before:
            return
        for owner in before:
            self._dependents[owner.uid].discard(me)
        for owner in owners:
            self._dependents[owner.uid].add(me)
        self._owners[me.uid] = owners
        if any(self._missing(owner) for owner in owners):
            self._collect(me)

    def _gone(self, me: _Ref) -> None:
        for owner in self._owners.pop(me.uid, ()):
            self._dependents[owner.uid].discard(me)
            self._settle(owner)
        for dependent in self._dependents.pop(me.uid, set()):
            self._collect(dependent)

    def _collect(self, me: _Ref) -> None:
        """Delete an object whose owners are all gone; if one is left, drop the references to the others."""
        manifest = self._find(me)
        references = manifest["metadata"].get("ownerReferences") if manifest else None
        if manifest is None or not references:  # it may just have been orphaned
            return
        kept = [r for r in references if not self._missing(_owner(r, me.namespace))]
        if kept and len(kept) < len(references):
            self._update(me, lambda m: m["metadata"].__setitem__("ownerReferences", kept))
        elif not kept and "deletionTimestamp" not in manifest["metadata"]:
            self._delete(me)

    def _settle(self, me: _Ref) -> None:
        """Continue the deletion of an owner that its dependents block."""
        manifest = self._find(me)
        finalizers = manifest["metadata"].get("finalizers", ()) if manifest else ()
        if ORPHAN in finalizers:
            for dependent in tuple(self._dependents[me.uid]):
                self._update(dependent, lambda m: _forget(m, me.uid))
            self._update(me, lambda m: _drop_finalizer(m, ORPHAN))
        elif FOREGROUND in finalizers and not self._blocked(me):
            self._update(me, lambda m: _drop_finalizer(m, FOREGROUND))

    def _blocked(self, me: _Ref) -> bool:
        """Delete the dependents; return whether a blocking one remains."""
        blocked = False
        for dependent in tuple(self._dependents[me.uid]):
            manifest = self._find(dependent)
            if manifest is not None and "deletionTimestamp" not in manifest["metadata"]:
                self._delete(dependent)
                manifest = self._find(dependent)
            references = manifest["metadata"].get("ownerReferences", ()) if manifest else ()
            blocked |= any(r["uid"] == me.uid and r.get("blockOwnerDeletion") for r in references)
        return blocked

    def _missing(self, owner: _Ref) -> bool:
        """Whether an owner is known to be gone; of a kind that is not served nothing is known."""
        return owner.kind in KINDS and self._find(owner) is None

    def _find(self, ref: _Ref) -> Manifest | None:
        if ref.kind not in KINDS:
            return None
        try:
            manifest = self._registry.get(ref.kind, ref.namespace, ref.name)
        except StatusError:
            return None
        return manifest if manifest["metadata"]["uid"] == ref.uid else None

    def _delete(self, ref: _Ref) -> None:
        with suppress(StatusError):
            self._registry.delete(ref.kind, ref.namespace, ref.name, uid=ref.uid)

    def _update(self, ref: _Ref, change: Callable[[Manifest], None]) -> None:
        with suppress(StatusError):
            self._registry.update(ref.kind, ref.namespace, ref.name, change)


def _owner(reference: Manifest, namespace: str) -> _Ref:
    kind = KINDS.get(reference["kind"])
    served = kind is not None and kind.api_version == reference["apiVersion"]
    place = namespace if kind is None or kind.namespaced else ""
    # a kind that is not served keeps its own name, which matches no served kind
    return _Ref(reference["kind"] if served else f"?{reference['kind']}", place, reference["name"], reference["uid"])


def _forget(manifest: Manifest, uid: str) -> None:
    references = [r for r in manifest["metadata"].get("ownerReferences", ()) if r["uid"] != uid]
    manifest["metadata"].pop("ownerReferences", None)
    if references:
        manifest["metadata"]["ownerReferences"] = references


def _drop_finalizer(manifest: Manifest, name: str) -> None:
    left = [f for f in manifest["metadata"].get("finalizers", ()) if f != name]
    manifest["metadata"].pop("finalizers", None)
    if left:
        manifest["metadata"]["finalizers"] = left
