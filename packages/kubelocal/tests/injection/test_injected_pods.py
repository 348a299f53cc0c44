"""Injected sidecars as processes beside a real base container, on the one-machine cluster."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from deadlines import scaled
from rest_client import CORE, RestClient, pods

VAULT = "vault.hashicorp.com/"


@pytest.fixture
async def meshed(client: RestClient, namespace: str) -> str:
    await client.patch(f"{CORE}/namespaces/{namespace}", {"metadata": {"labels": {"istio-injection": "enabled"}}})
    return namespace


async def start(client: RestClient, namespace: str, script: str = "true", **annotations: str) -> None:
    base = {"name": "base", "image": "busybox", "command": ["sh", "-c", script]}
    metadata = {"name": "p", "annotations": {name.replace("__", "/"): value for name, value in annotations.items()}}
    spec = {"containers": [base], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    await client.create(pods(namespace), {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


async def until(client: RestClient, namespace: str, holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    async with asyncio.timeout(scaled(20)):
        listing = await client.get(pods(namespace))
        if pod := next(filter(holds, listing["items"]), None):
            return pod
        watch = client.watch(pods(namespace), listing["metadata"]["resourceVersion"])
        async with contextlib.aclosing(watch):
            async for event in watch:
                if holds(event["object"]):
                    return event["object"]
    raise AssertionError("the watch ended")


def states(pod: dict[str, Any]) -> dict[str, Any]:
    status = pod["status"]
    both = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    return {one["name"]: one.get("state", {}) for one in both}


def exit_code(pod: dict[str, Any], container: str) -> int | None:
    code: int | None = states(pod).get(container, {}).get("terminated", {}).get("exitCode")
    return code


def is_ready(pod: dict[str, Any], container: str) -> bool:
    return any(one["name"] == container and one.get("ready") for one in pod["status"].get("containerStatuses", ()))


async def ask(client: RestClient, namespace: str, method: str, port: int, path: str) -> int:
    request = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    return int((await client.request_in_pod(pods(namespace, "p", "portforward"), port, request)).split()[1])


async def test_an_ordinary_proxy_keeps_its_pod_running_until_asked_to_quit(client: RestClient, meshed: str) -> None:
    await start(client, meshed)
    pod = await until(client, meshed, lambda pod: exit_code(pod, "base") == 0 and is_ready(pod, "istio-proxy"))
    assert pod["status"]["phase"] == "Running"
    assert await ask(client, meshed, "GET", 15020, "/quitquitquit") == 405
    assert await ask(client, meshed, "POST", 15020, "/quitquitquit") == 200
    pod = await until(client, meshed, lambda pod: pod["status"]["phase"] != "Running")
    assert (pod["status"]["phase"], exit_code(pod, "istio-proxy")) == ("Succeeded", 0)


async def test_the_sidecars_own_client_asks_it_to_quit_by_exec(client: RestClient, meshed: str) -> None:
    await start(client, meshed)
    await until(client, meshed, lambda pod: is_ready(pod, "istio-proxy"))
    command = ["pilot-agent", "request", "--debug-port=15020", "POST", "quitquitquit"]
    path = pods(meshed, "p", "exec")
    assert await client.exec(path, "istio-proxy", command) == ("Success", b"OK")
    await until(client, meshed, lambda pod: pod["status"]["phase"] == "Succeeded")


async def test_a_native_proxy_ends_with_base(client: RestClient, meshed: str) -> None:
    drain = {"proxy.istio.io__config": "terminationDrainDuration: 0s"}
    await start(client, meshed, **{"sidecar.istio.io__nativeSidecar": "true"}, **drain)
    pod = await until(client, meshed, lambda pod: pod["status"]["phase"] not in ("Pending", "Running"))
    assert (pod["status"]["phase"], exit_code(pod, "base"), exit_code(pod, "istio-proxy")) == ("Succeeded", 0, 0)


async def test_a_proxy_that_is_held_for_is_ready_before_base_starts(client: RestClient, meshed: str) -> None:
    await start(client, meshed, **{"proxy.istio.io__config": "holdApplicationUntilProxyStarts: true"})
    pod = await until(client, meshed, lambda pod: exit_code(pod, "base") == 0)
    assert list(states(pod)) == ["istio-init", "istio-proxy", "base"]
    assert "running" in states(pod)["istio-proxy"]


async def test_linkerd_refuses_to_quit_unless_that_is_enabled(client: RestClient, namespace: str) -> None:
    await start(client, namespace, **{"linkerd.io__inject": "enabled"})
    await until(client, namespace, lambda pod: exit_code(pod, "base") == 0)
    assert await ask(client, namespace, "POST", 4191, "/shutdown") == 404


async def test_vault_has_written_its_secrets_before_base_starts(client: RestClient, namespace: str) -> None:
    wanted = {"agent-inject": "true", "agent-pre-populate-only": "true", "agent-inject-secret-db": "secret/data/db"}
    await start(
        client, namespace, "cat /vault/secrets/db", **{f"{VAULT}{name}": value for name, value in wanted.items()}
    )
    pod = await until(client, namespace, lambda pod: pod["status"]["phase"] not in ("Pending", "Running"))
    assert pod["status"]["phase"] == "Succeeded"
    assert b"path: secret/data/db" in await client.call("GET", pods(namespace, "p", "log"), container="base")
