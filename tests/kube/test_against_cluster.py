"""The client against a cluster: ``crosswind local``, or a real one by ``--cluster-context``."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from crosswind import errors
from crosswind.kube import requests
from crosswind.kube.client import Client, Patch
from crosswind.kube.informer import Informer, InformerEvent
from crosswind.kube.resources import CONFIG_MAPS, LEASES, PODS, RESOURCE_QUOTAS, SECRETS, Resource
from crosswind.kube.watch import version_of
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster, serve_in_thread
from crosswind.types import Manifest
from deadlines import scaled
from kubelocal.settings import LocalSettings

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

PATIENCE = scaled(30)  # seconds; a real cluster may have to pull an image


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as made:
        yield made


@pytest.fixture
def shell(cluster: Cluster, namespace: str) -> Callable[..., Manifest]:
    """Return a pod that runs a shell script."""

    def make(name: str, script: str, **spec: Any) -> Manifest:
        container = {
            "name": "base",
            "image": cluster.image,
            "imagePullPolicy": cluster.pull_policy,
            "command": ["sh", "-c", script],
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
            "spec": {
                "containers": [container],
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                **spec,
            },
        }

    return make


def config_map(name: str, namespace: str, **data: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"of": "kube-tests"}},
        "data": data,
    }


async def until(
    client: Client, manifest: Manifest, ready: Callable[[Manifest], bool], resource: Resource = PODS
) -> Manifest:
    """Watch an object until the condition holds."""
    name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    current = await client.get(resource, name, namespace=namespace)
    if ready(current):
        return current
    request = requests.watch(
        resource, namespace=namespace, fields=f"metadata.name={name}", version=version_of(current), timeout=PATIENCE
    )
    async with client.open_watch(request) as batches:
        async for events in batches:
            for event in events:
                if ready(event["object"]):
                    return event["object"]
    raise AssertionError(f"{name} did not get there")


def phase(*phases: str) -> Callable[[Manifest], bool]:
    return lambda pod: pod.get("status", {}).get("phase") in phases


async def test_version_has_the_release(client: Client) -> None:
    assert (await client.version())["gitVersion"].startswith("v1.")


async def test_an_object_from_its_creation_to_its_end(client: Client, namespace: str) -> None:
    made = await client.create(CONFIG_MAPS, config_map("a", namespace, key="1"), field_validation="Strict")
    assert made["metadata"]["uid"]
    with pytest.raises(errors.AlreadyExists):
        await client.create(CONFIG_MAPS, config_map("a", namespace))
    patched = await client.patch(CONFIG_MAPS, "a", {"data": {"key": "2"}}, namespace=namespace)
    assert patched["data"] == {"key": "2"}
    stale = {**made, "data": {"key": "3"}}
    with pytest.raises(errors.Conflict):
        await client.replace(CONFIG_MAPS, stale)
    replaced = await client.replace(CONFIG_MAPS, {**patched, "data": {"key": "4"}})
    assert (await client.get(CONFIG_MAPS, "a", namespace=namespace))["data"] == replaced["data"] == {"key": "4"}
    with pytest.raises(errors.Conflict):
        await client.delete(CONFIG_MAPS, "a", namespace=namespace, uid=str(uuid.uuid4()))
    await client.delete(CONFIG_MAPS, "a", namespace=namespace, uid=made["metadata"]["uid"])
    with pytest.raises(errors.NotFound):
        await client.get(CONFIG_MAPS, "a", namespace=namespace)


async def test_an_answer_is_cut_to_the_metadata_where_that_is_enough(
    client: Client, shell: Callable[..., Manifest], namespace: str
) -> None:
    created = await client.create(PODS, shell("cut", "sleep 60"), metadata_only=True)
    assert created["kind"] == "PartialObjectMetadata"
    assert created.keys() == {"kind", "apiVersion", "metadata"}
    deleted = await client.delete(PODS, "cut", namespace=namespace, uid=created["metadata"]["uid"], metadata_only=True)
    assert deleted["metadata"]["uid"] == created["metadata"]["uid"]


@pytest.mark.parametrize(
    ("how", "change", "labels"),
    [
        (Patch.MERGE, {"metadata": {"labels": {"of": None, "x": "y"}}}, {"x": "y"}),
        (Patch.STRATEGIC, {"metadata": {"labels": {"x": "y"}}}, {"of": "kube-tests", "x": "y"}),
        (Patch.JSON, [{"op": "replace", "path": "/metadata/labels", "value": {"z": "1"}}], {"z": "1"}),
    ],
)
async def test_each_kind_of_patch(client: Client, namespace: str, how: Patch, change: Any, labels: Any) -> None:
    await client.create(CONFIG_MAPS, config_map("a", namespace))
    patched = await client.patch(CONFIG_MAPS, "a", change, namespace=namespace, how=how)
    assert patched["metadata"]["labels"] == labels


async def test_dry_run_stores_nothing(client: Client, namespace: str) -> None:
    await client.create(CONFIG_MAPS, config_map("a", namespace), dry_run=True)
    assert (await client.list(CONFIG_MAPS, namespace=namespace, labels="of=kube-tests")).items == []


async def test_unknown_fields_and_wrong_values_name_the_field(
    client: Client, shell: Callable[..., Manifest], namespace: str
) -> None:
    with pytest.raises(errors.BadRequest, match=r'unknown field "spec\.restartPolizy"'):
        await client.create(PODS, shell("a", "true", restartPolizy="Never"), field_validation="Strict")
    wrong = config_map("a", namespace)
    wrong["metadata"]["labels"] = {"x": "y" * 64}
    with pytest.raises(errors.Invalid, match=r"metadata\.labels") as caught:
        await client.create(CONFIG_MAPS, wrong)
    assert caught.value.details["causes"][0]["field"] == "metadata.labels"


async def test_a_missing_namespace_is_named_with_the_fix(client: Client) -> None:
    name = f"none-{uuid.uuid4().hex[:8]}"
    with pytest.raises(errors.NotFound, match=f'namespaces "{name}" not found .*kubectl create namespace {name}'):
        await client.create(CONFIG_MAPS, config_map("a", name))


async def test_a_used_up_quota_differs_from_a_missing_permission(client: Client, namespace: str) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": namespace},
        "spec": {"hard": {"count/secrets": "0"}},
    }
    made = await client.create(RESOURCE_QUOTAS, quota)
    await until(client, made, lambda quota: bool(quota.get("status", {}).get("hard")), RESOURCE_QUOTAS)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": namespace}}
    with pytest.raises(errors.QuotaExceeded, match="exceeded quota: none"):
        await client.create(SECRETS, secret)


async def test_bad_credentials_are_unauthorized(cluster: Cluster, tmp_path: Path) -> None:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": "not-a-token"}
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    async with await Client.connect(KubeSettings(kubeconfig=str(tmp_path / "config"))) as client:
        with pytest.raises(errors.Unauthorized) as caught:
            await client.list(PODS, namespace="default")
    assert "not-a-token" not in str(caught.value)


async def test_access_reviews_allow_what_the_tests_do(client: Client, namespace: str) -> None:
    assert await client.allowed("create", PODS, namespace=namespace)
    assert await client.allowed("get", PODS, namespace=namespace, subresource="log")
    assert await client.allowed("update", LEASES, namespace=None)


async def test_lists_are_selected_and_paged(client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crosswind.kube.client._PAGE_SIZE", 2)
    for number in range(5):
        await client.create(CONFIG_MAPS, config_map(f"m{number}", namespace))
    listing = await client.list(CONFIG_MAPS, namespace=namespace, labels="of=kube-tests")
    assert [item["metadata"]["name"] for item in listing.items] == [f"m{number}" for number in range(5)]
    listing = await client.list(CONFIG_MAPS, namespace=namespace, fields="metadata.name=m3")
    assert [item["metadata"]["name"] for item in listing.items] == ["m3"]
    await client.delete_collection(CONFIG_MAPS, namespace=namespace, labels="of=kube-tests")
    assert (await client.list(CONFIG_MAPS, namespace=namespace, labels="of=kube-tests")).items == []


async def test_a_watch_yields_the_changes_after_a_version(client: Client, namespace: str) -> None:
    version = (await client.list(CONFIG_MAPS, namespace=namespace)).version
    await client.create(CONFIG_MAPS, config_map("a", namespace))
    await client.patch(CONFIG_MAPS, "a", {"data": {"k": "v"}}, namespace=namespace)
    await client.delete(CONFIG_MAPS, "a", namespace=namespace)
    watch = client.watch(CONFIG_MAPS, namespace=namespace, labels="of=kube-tests", version=version, timeout=2)
    seen = [event["type"] async for event in watch]
    assert [kind for kind in seen if kind != "BOOKMARK"] == ["ADDED", "MODIFIED", "DELETED"]


async def test_logs_whole_and_followed(client: Client, shell: Callable[..., Manifest], namespace: str) -> None:
    pod = await client.create(PODS, shell("talker", "for i in 1 2 3; do echo line $i; sleep 0.2; done"))
    await until(client, pod, phase("Running", "Succeeded"))
    async with asyncio.timeout(PATIENCE):
        followed = b"".join([chunk async for chunk in client.follow_log("talker", namespace=namespace)])
    assert followed == b"line 1\nline 2\nline 3\n"
    await until(client, pod, phase("Succeeded"))
    assert await client.log("talker", namespace=namespace, tail_lines=1) == b"line 3\n"
    assert await client.log("talker", namespace=namespace, limit_bytes=4) == b"line"
    with pytest.raises(errors.BadRequest):
        await client.log("talker", namespace=namespace, container="other")


async def test_exec_with_exit_code_stdin_and_errors(
    client: Client, shell: Callable[..., Manifest], namespace: str
) -> None:
    pod = await client.create(PODS, shell("host", "sleep 60"))
    await until(client, pod, phase("Running"))

    async def run(*command: str, **options: Any) -> Any:
        return await client.exec("host", command, namespace=namespace, timeout=PATIENCE, **options)

    result = await run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.exit_code, result.stdout, result.stderr) == (7, b"out\n", b"err\n")
    copied = await run("cat", stdin=b"x" * 200_000)
    assert (copied.exit_code, len(copied.stdout)) == (0, 200_000)
    with pytest.raises(errors.ServerError):
        await run("no-such-command")
    with pytest.raises(errors.BadRequest):
        await run("true", container="other")
    with pytest.raises(errors.NotFound, match='pods "nobody" not found'):
        await client.exec("nobody", ["true"], namespace=namespace, timeout=PATIENCE)
    await client.delete(PODS, "host", namespace=namespace, grace_period=0)


SERVES_HELLO = r"""
if command -v nc >/dev/null; then
  while :; do printf 'HTTP/1.0 200 OK\r\n\r\nhello' | nc -l -p 8099; done
fi
exec python3 -c '
import socket
listener = socket.create_server(("0.0.0.0", 8099))
while True:
    connection, _ = listener.accept()
    connection.recv(1000)
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")
    connection.close()
'
"""
"""The local cluster's busybox is this machine's own programs, and nc may not be among them."""


async def test_a_port_inside_a_pod(client: Client, shell: Callable[..., Manifest], namespace: str) -> None:
    pod = await client.create(PODS, shell("server", SERVES_HELLO))
    await until(client, pod, phase("Running"))
    got = b""
    async with asyncio.timeout(PATIENCE):
        while not got:
            with contextlib.suppress(errors.Unreachable):  # it does not listen yet
                async with client.port_forward("server", 8099, namespace=namespace) as stream:
                    await stream.send(b"GET / HTTP/1.0\r\n\r\n")
                    while data := await stream.receive():
                        got += data
    assert got.endswith(b"hello")
    await client.delete(PODS, "server", namespace=namespace, grace_period=0)


@contextlib.asynccontextmanager
async def following(informer: Informer) -> AsyncIterator[Callable[[str, str], Any]]:
    """Run an informer; yield a function that waits for a change of an object."""
    news: asyncio.Queue[InformerEvent] = asyncio.Queue()
    running = asyncio.create_task(informer.run(news.put_nowait))

    async def seen(kind: str, name: str) -> InformerEvent:
        async with asyncio.timeout(PATIENCE):
            while True:
                event = await news.get()
                if (event.type, event.object["metadata"]["name"]) == (kind, name):
                    return event

    try:
        yield seen
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_an_informer_keeps_up_with_a_pods_life(
    client: Client, shell: Callable[..., Manifest], namespace: str
) -> None:
    informer = Informer(client, PODS, namespace=namespace, labels="app=short")
    async with following(informer) as seen:
        await client.create(PODS, shell("short", "exit 3"))
        assert (await seen("ADDED", "short")).object["spec"]["containers"][0]["name"] == "base"
        while not phase("Failed")((await seen("MODIFIED", "short")).object):
            pass
        assert len(informer.objects) == 1
        await client.delete(PODS, "short", namespace=namespace)
        gone = await seen("DELETED", "short")
        assert gone.object["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
        assert dict(informer.objects) == {}


async def test_an_informer_misses_nothing_when_the_server_forgets(tmp_path: Path) -> None:
    """The server keeps a history of a few changes: without a watch, the informer's version is compacted."""
    with serve_in_thread(LocalSettings(history_length=10)) as small:
        settings = KubeSettings(kubeconfig=str(small.kubeconfig))
        async with await Client.connect(settings) as client:
            await client.create(CONFIG_MAPS, config_map("old", "default"))
            informer = Informer(client, CONFIG_MAPS, namespace="default", labels="of=kube-tests")
            async with following(informer) as seen:
                await seen("ADDED", "old")
            await client.delete(CONFIG_MAPS, "old", namespace="default")
            for number in range(30):
                await client.create(CONFIG_MAPS, config_map(f"new{number}", "default"))
            with pytest.raises(errors.Gone):
                await anext(client.watch(CONFIG_MAPS, namespace="default", version=informer.version, timeout=5))
            async with following(informer) as seen:
                assert (await seen("DELETED", "old")).reason == "list"
                assert (await seen("ADDED", "new29")).reason == "list"
            assert len(informer.objects) == 30


async def test_a_document_is_no_object(client: Client) -> None:
    assert await client.text("/readyz") == "ok"
