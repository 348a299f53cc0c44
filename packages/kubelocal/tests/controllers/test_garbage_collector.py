from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kubelocal.codec.kinds import KINDS
from kubelocal.controllers.garbage_collector import GarbageCollector
from kubelocal.registry.deletion import DeleteOptions
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.storage.store import Store


@pytest.fixture
async def registry() -> AsyncIterator[ClusterRegistry]:
    registry = ClusterRegistry(Store())
    registry.create("Namespace", "", {"metadata": {"name": "n"}})
    running = asyncio.create_task(GarbageCollector(registry).run())
    yield registry
    running.cancel()
    await asyncio.wait((running,))


def config(registry: ClusterRegistry, name: str, *owners: dict[str, Any], **more: Any) -> dict[str, Any]:
    references = [
        {"apiVersion": o["apiVersion"], "kind": o["kind"], "name": o["metadata"]["name"], "uid": o["metadata"]["uid"]}
        | {"blockOwnerDeletion": True}
        for o in owners
    ]
    metadata = {"name": name, **({"ownerReferences": references} if references else {}), **more}
    return registry.create("ConfigMap", "n", {"metadata": metadata})


def names(registry: ClusterRegistry) -> set[str]:
    return {o["metadata"]["name"] for o in registry.list("ConfigMap", "n")}


async def until(registry: ClusterRegistry, wanted: set[str]) -> None:
    """Wait until these are left; the test's own timeout is the limit."""
    changes = aiter(registry.watch("ConfigMap"))
    while names(registry) != wanted:
        await anext(changes)


async def idle() -> None:
    """Let the collector see all that happened."""
    for _ in range(50):
        await asyncio.sleep(0)


def erase(registry: ClusterRegistry, name: str, propagation: str) -> None:
    registry.erase(KINDS["ConfigMap"], "n", name, DeleteOptions(propagation=propagation))


async def test_dependents_follow_their_owner(registry: ClusterRegistry) -> None:
    owner = config(registry, "owner")
    child = config(registry, "child", owner)
    config(registry, "grandchild", child)
    config(registry, "stranger")
    await idle()
    registry.delete("ConfigMap", "n", "owner")
    await until(registry, {"stranger"})


async def test_dependent_of_two_owners_goes_with_the_last(registry: ClusterRegistry) -> None:
    one, two = config(registry, "one"), config(registry, "two")
    config(registry, "child", one, two)
    await idle()
    registry.delete("ConfigMap", "n", "one")
    await idle()
    assert names(registry) == {"two", "child"}
    assert [r["name"] for r in registry.get("ConfigMap", "n", "child")["metadata"]["ownerReferences"]] == ["two"]
    registry.delete("ConfigMap", "n", "two")
    await until(registry, set())


async def test_object_of_an_owner_that_is_gone_goes_too(registry: ClusterRegistry) -> None:
    owner = config(registry, "owner")
    registry.delete("ConfigMap", "n", "owner")
    config(registry, "late", owner)
    config(registry, "owner")  # the same name, but another object
    await until(registry, {"owner"})


async def test_owner_of_a_kind_that_is_not_served_keeps_its_objects(registry: ClusterRegistry) -> None:
    foreign = {"apiVersion": "example.com/v1", "kind": "Workflow", "metadata": {"name": "w", "uid": "x"}}
    config(registry, "kept", foreign)
    await idle()
    assert names(registry) == {"kept"}


async def test_foreground_deletion_keeps_the_owner_until_its_dependents_are_gone(registry: ClusterRegistry) -> None:
    owner = config(registry, "owner")
    config(registry, "child", owner, finalizers=["example.com/hold"])
    await idle()
    erase(registry, "owner", "Foreground")
    await idle()
    assert names(registry) == {"owner", "child"}
    assert "deletionTimestamp" in registry.get("ConfigMap", "n", "child")["metadata"]
    registry.update("ConfigMap", "n", "child", lambda m: m["metadata"].pop("finalizers"))
    await until(registry, set())


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
async def test_orphaned_dependents_forget_their_owner(registry: ClusterRegistry, kind: str) -> None:
    owner = registry.create(kind, "n", {"metadata": {"name": "owner"}})
    config(registry, "child", owner)
    await idle()
    registry.erase(KINDS[kind], "n", "owner", DeleteOptions(propagation="Orphan"))
    await idle()
    assert registry.list(kind, "n") == ([registry.get("ConfigMap", "n", "child")] if kind == "ConfigMap" else [])
    assert "ownerReferences" not in registry.get("ConfigMap", "n", "child")["metadata"]
