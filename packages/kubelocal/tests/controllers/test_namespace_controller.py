from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from kubelocal.controllers.namespace_controller import NamespaceController
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.storage.store import Store


@pytest.fixture
async def registry() -> AsyncIterator[ClusterRegistry]:
    registry = ClusterRegistry(Store())
    running = asyncio.create_task(NamespaceController(registry).run())
    registry.create("Namespace", "", {"metadata": {"name": "n"}})
    yield registry
    running.cancel()
    await asyncio.wait((running,))


async def until_there(registry: ClusterRegistry, kind: str, namespace: str, name: str, *, there: bool = True) -> None:
    changes = aiter(registry.watch(kind))
    while (registry.store.get(kind, namespace, name) is not None) is not there:
        await anext(changes)


async def test_new_namespace_gets_its_account_and_the_root_certificate(registry: ClusterRegistry) -> None:
    await until_there(registry, "ServiceAccount", "n", "default")
    await until_there(registry, "ConfigMap", "n", "kube-root-ca.crt")


async def test_default_account_comes_back(registry: ClusterRegistry) -> None:
    await until_there(registry, "ServiceAccount", "n", "default")
    old = registry.get("ServiceAccount", "n", "default")["metadata"]["uid"]
    registry.delete("ServiceAccount", "n", "default")
    await until_there(registry, "ServiceAccount", "n", "default")
    assert registry.get("ServiceAccount", "n", "default")["metadata"]["uid"] != old


async def test_namespace_goes_when_its_last_object_is_gone(registry: ClusterRegistry) -> None:
    for name, finalizers in (("free", []), ("held", ["example.com/hold"])):
        registry.create("ConfigMap", "n", {"metadata": {"name": name, "finalizers": finalizers}})
    registry.delete("Namespace", "", "n")
    await until_there(registry, "ConfigMap", "n", "free", there=False)
    assert registry.get("Namespace", "", "n")["status"]["phase"] == "Terminating"
    registry.update("ConfigMap", "n", "held", lambda m: m["metadata"].pop("finalizers"))
    await until_there(registry, "Namespace", "", "n", there=False)
    assert registry.list("ConfigMap", "n") == []
