"""A kubelet beside a registry, and what tests ask of its pods."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

from deadlines import scaled
from kubelocal.interfaces import PodLogOptions
from kubelocal.kubelet import Kubelet, Network
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.settings import LocalSettings
from kubelocal.storage.store import Store


class Node:
    """Pods of the namespace ``default`` on one kubelet."""

    def __init__(self, settings: LocalSettings, network: Network | None = None) -> None:
        self.settings = settings
        self.registry = ClusterRegistry(Store(history_length=10_000))
        for name in ("default", "kube-system"):
            self.registry.create("Namespace", "", {"metadata": {"name": name}})
        self.kubelet = Kubelet(self.registry, settings, network=network)

    def pod(self, name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
        whole = {
            "nodeName": self.settings.node_name,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            **spec,
        }
        manifest = {"metadata": {"name": name}, "spec": {**whole, "containers": list(containers)}}
        return self.registry.create("Pod", "default", manifest)

    async def until(self, name: str, true: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Return the pod's first state for which something holds."""
        async with asyncio.timeout(scaled(15)):
            with contextlib.closing(self.registry.watch("Pod", "default")) as changes:
                async for change in changes:
                    if change.object["metadata"]["name"] == name and true(change.object):
                        return change.object
        raise AssertionError("the watch ended")

    async def ended(self, name: str) -> dict[str, Any]:
        return await self.until(name, lambda pod: pod["status"].get("phase") in ("Succeeded", "Failed"))

    async def running(self, name: str, container: str = "base") -> dict[str, Any]:
        return await self.until(name, lambda pod: "running" in state(pod, container))

    async def log(self, pod: dict[str, Any], container: str = "base", **options: Any) -> str:
        chunks = self.kubelet.log(pod, container, PodLogOptions(**options))
        return b"".join([chunk async for chunk in chunks]).decode()

    async def stamp(self, pod: dict[str, Any], container: str = "base") -> float:
        """Return when a container wrote its last line, in seconds since 1970."""
        last = (await self.log(pod, container, timestamps=True)).splitlines()[-1]
        whole, _, fraction = last.split()[0].rstrip("Z").partition(".")
        return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction}")

    async def logged(self, pod: dict[str, Any], text: str, container: str = "base") -> None:
        """Follow the log until it holds a text."""
        seen = ""
        async with asyncio.timeout(scaled(15)):
            async for chunk in self.kubelet.log(pod, container, PodLogOptions(follow=True)):
                seen += chunk.decode()
                if text in seen:
                    return

    async def gone(self, name: str) -> dict[str, Any]:
        """Return the last state of a pod that goes."""
        async with asyncio.timeout(scaled(15)):
            with contextlib.closing(self.registry.watch("Pod", "default")) as changes:
                async for change in changes:
                    if change.type == "DELETED" and change.object["metadata"]["name"] == name:
                        return change.object
        raise AssertionError("the watch ended")

    async def event_message(self, name: str, reason: str) -> str:
        """Return the message of the first event with a reason."""
        async with asyncio.timeout(scaled(15)):
            with contextlib.closing(self.registry.watch("Event", "default")) as changes:
                async for change in changes:
                    if (change.object["involvedObject"]["name"], change.object["reason"]) == (name, reason):
                        return str(change.object["message"])
        raise AssertionError("the watch ended")

    def events(self, name: str) -> list[tuple[str, str]]:
        every = self.registry.list("Event", "default")
        return [(one["reason"], one["message"]) for one in every if one["involvedObject"]["name"] == name]


def container(script: str, name: str = "base", **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "busybox:1", "command": ["sh", "-c", script], **more}


def status_of(pod: dict[str, Any], name: str = "base") -> dict[str, Any]:
    kinds = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    return next((one for kind in kinds for one in pod["status"].get(kind) or () if one["name"] == name), {})


def state(pod: dict[str, Any], name: str = "base") -> dict[str, Any]:
    return status_of(pod, name).get("state", {})


def waits_for(reason: str, name: str = "base") -> Callable[[dict[str, Any]], bool]:
    return lambda pod: state(pod, name).get("waiting", {}).get("reason") == reason


@contextlib.asynccontextmanager
async def kubelet_of(settings: LocalSettings, network: Network | None = None) -> AsyncIterator[Node]:
    node = Node(settings, network)
    task = asyncio.create_task(node.kubelet.run())
    try:
        yield node
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()
