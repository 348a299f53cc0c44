"""Sidecars that run as processes of the local cluster, each ended by its own way."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from crosswind.kube.client import Client
from crosswind.kube.resources import EVENTS, PODS
from crosswind.pods.stop_plans import Abilities
from crosswind.runs.ending import Ender
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster
from crosswind.types import Manifest

pytestmark = pytest.mark.cluster


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    if not cluster.local:
        pytest.skip("only the local cluster plays sidecars")
    async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as made:
        yield made


def pod(name: str, *sidecars: Manifest, base: str = "exit 0", annotations: dict[str, str] | None = None) -> Manifest:
    own = {"env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}
    main = {"name": "base", "image": "busybox", "command": ["sh", "-c", base]}
    named = [{**one, "env": [*own["env"], *one.get("env", [])]} for one in sidecars]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"containers": [main, *named], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1},
    }


async def base_over(client: Client, namespace: str, manifest: Manifest) -> Manifest:
    """Create a pod and return it once base has ended."""
    created = await client.create(PODS, manifest, namespace=namespace)
    version, name = created["metadata"]["resourceVersion"], created["metadata"]["name"]
    async for event in client.watch(PODS, namespace=namespace, version=version, timeout=25):
        found = event["object"]
        statuses = found.get("status", {}).get("containerStatuses", [])
        if found["metadata"].get("name") == name and any(
            one["name"] == "base" and "terminated" in one["state"] for one in statuses
        ):
            return found
    raise AssertionError("base did not end")


async def told(client: Client, namespace: str) -> list[tuple[str, str]]:
    events = (await client.list(EVENTS, namespace=namespace)).items
    ours = [one for one in events if one.get("source", {}).get("component") == "crosswind"]
    ours.sort(key=lambda one: int(one["metadata"]["resourceVersion"]))
    return [(one["reason"], one["message"]) for one in ours]


SQL = "gcr.io/cloud-sql-connectors/cloud-sql-proxy:2.25"
ROWS: dict[str, tuple[Manifest, str, int]] = {
    "istio": (
        {"name": "istio-proxy", "image": "istio/proxyv2:1.26.4-distroless", "args": ["proxy"]},
        "ask POST :15020",
        0,
    ),
    "linkerd": (
        {
            "name": "linkerd-proxy",
            "image": "cr.l5d.io/linkerd/proxy:2.18",
            "env": [{"name": "LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED", "value": "true"}],
        },
        "ask POST :4191/shutdown",
        0,
    ),
    "cloud-sql": ({"name": "db", "image": SQL, "args": ["--quitquitquit"]}, "ask POST :9091", 0),
    "cloud-sql without its endpoint": ({"name": "db", "image": f"{SQL}-alpine"}, "send TERM", 143),
    "cloud-sql v1": ({"name": "db", "image": "gcr.io/cloudsql-docker/gce-proxy:1.33-alpine"}, "send TERM", 0),
    "consul": (
        {
            "name": "consul-dataplane",
            "image": "hashicorp/consul-dataplane:1.6",
            "args": ["-shutdown-grace-period-seconds=1"],
        },
        "ask POST :20600/graceful_shutdown",
        0,
    ),
    "dapr": (
        {"name": "daprd", "image": "ghcr.io/dapr/daprd:1.15", "args": ["--dapr-graceful-shutdown-seconds", "1"]},
        "ask POST :3500/v1.0/shutdown",
        0,
    ),
    "app mesh": ({"name": "envoy", "image": "x.example/aws-appmesh-envoy:v1"}, "ask POST :9901", 0),
    "osm": ({"name": "envoy", "image": "envoyproxy/envoy-distroless:v1.24"}, "ask POST :15000", 0),
    "envoy": ({"name": "front", "image": "envoyproxy/envoy:v1.31.0"}, "ask POST :9901", 0),
    "fluent-bit": ({"name": "logs", "image": "fluent/fluent-bit:3.2-debug"}, "send TERM", 0),
    "fluentd": ({"name": "logs", "image": "fluent/fluentd:v1.17"}, "send TERM", 143),
    "datadog": ({"name": "datadog-agent-injected", "image": "gcr.io/datadog/agent:7"}, "send TERM", 0),
    "unknown with a shell": (
        {
            "name": "second",
            "image": "busybox",
            "command": ["sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done"],
        },
        "send TERM",
        3,
    ),
    "unknown under a shell": (
        {"name": "second", "image": "busybox", "command": ["sh", "-c", "sleep 600; exit 5"]},
        "send TERM",
        5,
    ),
}


@pytest.mark.parametrize("row", ROWS)
async def test_each_sidecar_ends_by_its_own_way(client: Client, namespace: str, row: str) -> None:
    sidecar, step, code = ROWS[row]
    found = await base_over(client, namespace, pod("etl", sidecar))
    assert await Ender(client, allowed=Abilities.B).end(found)
    events = await told(client, namespace)
    assert [reason for reason, _ in events] == ["EndingSidecar", "SidecarEnded"]
    assert step in events[-1][1]
    ended = await client.get(PODS, "etl", namespace=namespace)
    assert ended["status"]["phase"] == ("Failed" if code else "Succeeded")
    states = {one["name"]: one["state"]["terminated"]["exitCode"] for one in ended["status"]["containerStatuses"]}
    assert states == {"base": 0, sidecar["name"]: code}
