"""Each product of the table is played, and ends by the step and with the exit code that the table states."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from crosswind.kube.client import Client
from crosswind.kube.resources import EVENTS, PODS
from crosswind.pods.verdict import judge
from crosswind.settings import KubeSettings
from crosswind.sidecars.catalog import KNOWN
from crosswind.sidecars.detection import identify
from crosswind.sidecars.shutdown import ShutdownSettings, SidecarShutdown
from crosswind.sidecars.shutdown_plan import Permissions, plan_shutdown
from crosswind.testing import Cluster
from crosswind.types import Manifest
from deadlines import scaled

OWN = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
STAYS = "while :; do sleep 0.1 & wait $!; done"
VAULT = "vault.hashicorp.com/agent-"


@dataclass(frozen=True)
class Played:
    """A sidecar in a pod, declared or injected, the step that ends it, and its exit code then."""

    step: str
    code: int = 0
    container: Manifest = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


def declared(step: str, name: str, image: str, *args: str, code: int = 0, script: str = "", **env: str) -> Played:
    container: Manifest = {"name": name, "image": image, "args": list(args)}
    container["env"] = [OWN, *({"name": key, "value": value} for key, value in env.items())]
    if script:
        container["command"] = ["sh", "-c", script]
    return Played(step, code, container)


TERM = "send TERM by a shell"
SQL = "gcr.io/cloud-sql-connectors/cloud-sql-proxy:2.25"
PLAYED = {
    "istio": Played("ask POST :15020/quitquitquit", labels={"sidecar.istio.io/inject": "true"}),
    "linkerd": Played(
        "ask POST :4191/shutdown",
        annotations={"linkerd.io/inject": "enabled", "config.linkerd.io/proxy-admin-shutdown": "enabled"},
    ),
    "linkerd-debug": declared(TERM, "linkerd-debug", "cr.l5d.io/linkerd/debug:stable-2.14.0"),
    "vault": Played(
        "ask POST :8200/agent/v1/quit", annotations={f"{VAULT}inject": "true", f"{VAULT}enable-quit": "true"}
    ),
    "cloud-sql": declared("ask POST :9091/quitquitquit", "db", SQL, "--quitquitquit"),
    "cloud-sql, without its endpoint": declared(TERM, "db", f"{SQL}-alpine", code=143),
    "cloud-sql, 0 on TERM": declared(TERM, "db", f"{SQL}-alpine", "--exit-zero-on-sigterm"),
    "alloydb": declared(
        "ask POST :9091/quitquitquit", "db", "gcr.io/alloydb-connectors/alloydb-auth-proxy:1.14", "--quitquitquit"
    ),
    "alloydb, 0 on TERM": declared(
        TERM, "db", "gcr.io/alloydb-connectors/alloydb-auth-proxy:1.14-alpine", "--exit-zero-sigterm"
    ),
    "cloud-sql-v1": declared(TERM, "db", "gcr.io/cloudsql-docker/gce-proxy:1.33-alpine"),
    "gcs-fuse": Played("wait", annotations={"gke-gcsfuse/volumes": "true"}),
    "gcs-fuse-prefetch": declared(
        "swap busybox",
        "gke-gcsfuse-metadata-prefetch",
        "gke.gcr.io/gcs-fuse-csi-driver-metadata-prefetch:v1.8.9-gke.1",
    ),
    "consul": declared(
        "ask POST :20600/graceful_shutdown",
        "consul-dataplane",
        "hashicorp/consul-dataplane:1.6",
        "-shutdown-grace-period-seconds=1",
    ),
    "kuma": Played("wait", labels={"kuma.io/sidecar-injection": "enabled"}),
    "dapr": declared(
        "ask POST :3500/v1.0/shutdown",
        "daprd",
        "ghcr.io/dapr/daprd:1.15",
        "--dapr-graceful-shutdown-seconds",
        "1",
    ),
    "envoy": declared("ask POST :9901/quitquitquit", "front", "envoyproxy/envoy:v1.31.0"),
    "app-mesh": declared("ask POST :9901/quitquitquit", "envoy", "x.example/aws-appmesh-envoy:v1"),
    "osm": declared("ask POST :15000/quitquitquit", "envoy", "envoyproxy/envoy-distroless:v1.24"),
    "tailscale": declared(TERM, "ts", "ghcr.io/tailscale/tailscale:v1.90.0"),
    "azure-identity-proxy": declared(
        "swap busybox", "azwi-proxy", "mcr.microsoft.com/oss/azure/workload-identity/proxy:v1.5.0"
    ),
    "pgbouncer": declared("send INT by a shell", "pool", "edoburu/pgbouncer:v1.23.1-p2"),
    "datadog": declared(TERM, "datadog-agent-injected", "gcr.io/datadog/agent:7"),
    "fluent-bit": declared(TERM, "logs", "fluent/fluent-bit:3.2-debug"),
    "fluentd": declared(TERM, "logs", "fluent/fluentd:v1.17", code=143),
    "otel-collector": declared("swap busybox", "otc-container", "otel/opentelemetry-collector:0.110"),
    "otel-collector, built by AWS": declared(
        "swap busybox", "adot", "public.ecr.aws/aws-observability/aws-otel-collector:v0.43.3"
    ),
    "filebeat": declared(TERM, "logs", "docker.elastic.co/beats/filebeat:9.1.0"),
    "aws-xray": declared("swap busybox", "traces", "public.ecr.aws/xray/aws-xray-daemon:3.3.14"),
    "aws-cloudwatch": declared("swap busybox", "metrics", "public.ecr.aws/cloudwatch-agent/cloudwatch-agent:1.300055"),
    "airflow-xcom": declared(
        "send INT by a shell",
        "airflow-xcom-sidecar",
        "alpine",
        script='trap "exit 0" INT; while true; do sleep 1; done;',
    ),
    "git-sync": declared(TERM, "git-sync", "registry.k8s.io/git-sync/git-sync:v4.4.0"),
    "vector": declared(TERM, "vector", "timberio/vector:0.43.0-alpine"),
    "airflow-kerberos": declared(TERM, "worker-kerberos", "busybox", code=143, script=f"trap 'exit 143' TERM; {STAYS}"),
    "airflow-log-groomer": declared(
        TERM, "worker-log-groomer", "busybox", code=143, script=f"trap 'exit 143' TERM; {STAYS}"
    ),
}
BY_NAME = {
    "istio",
    "linkerd",
    "vault",
    "cloud-sql",
    "consul",
    "dapr",
    "envoy",
    "fluentd",
    "airflow-xcom",
    "airflow-kerberos",
}
BY_NAME |= {"airflow-log-groomer"}
"""Products whose every property is recognised without their image. The local cluster alone plays the others, and the
owners ("wait") act there alone."""

ROWS = [pytest.param(name, marks=[pytest.mark.cluster] if name in BY_NAME else []) for name in PLAYED]
IMPATIENT = tuple(replace(product, owner_wait=0.3) if product.name == "airflow-xcom" else product for product in KNOWN)


def test_the_whole_table_is_played() -> None:
    assert {name.partition(",")[0] for name in PLAYED} == {product.name for product in KNOWN}


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as made:
        yield made


async def base_over(client: Client, namespace: str, played: Played) -> Manifest:
    """Create a pod with the sidecar and return it once base has ended."""
    base = {"name": "base", "image": "busybox", "command": ["true"]}
    manifest = {
        "metadata": {"name": "etl", "annotations": played.annotations, "labels": played.labels},
        "spec": {
            "containers": [base, *([played.container] if played.container else [])],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
        },
    }
    version = (await client.create(PODS, manifest, namespace=namespace))["metadata"]["resourceVersion"]
    async for event in client.watch(PODS, namespace=namespace, version=version, timeout=scaled(25)):
        states = states_of(event["object"])
        if "terminated" in states.get("base", {}):
            return event["object"]
    raise AssertionError("base did not end")


def states_of(pod: Manifest) -> dict[str, Any]:
    return {status["name"]: status["state"] for status in pod.get("status", {}).get("containerStatuses", [])}


@pytest.mark.parametrize("name", ROWS)
async def test_a_known_sidecar_is_recognised_and_ends_in_its_own_way(client: Client, namespace: str, name: str) -> None:
    played, product = PLAYED[name], name.partition(",")[0]
    finished = await base_over(client, namespace, played)
    (target,) = plan_shutdown(finished, known=IMPATIENT, swap_image="busybox").targets
    assert target.product == product

    assert await SidecarShutdown(client, settings=ShutdownSettings(IMPATIENT, "busybox"), allowed=Permissions.C).end(
        finished
    )

    ended = await client.get(PODS, "etl", namespace=namespace)
    codes = {container: state["terminated"]["exitCode"] for container, state in states_of(ended).items()}
    assert codes == {"base": 0, target.container: played.code}
    assert ended["status"]["phase"] == ("Failed" if played.code else "Succeeded")
    assert judge(ended, "base").succeeded, "whatever the sidecar ended with"
    events = (await client.list(EVENTS, namespace=namespace)).items
    messages = [event["message"] for event in events if event["reason"] == "SidecarEnded"]
    assert messages == [f"{target.container} ended: {played.step}, exit code {played.code}"]
    step = next(candidate for candidate in target.taken if str(candidate) == played.step)
    assert step.exit_code in (None, played.code)


async def test_two_that_wait_for_each_other_end(client: Client, namespace: str) -> None:
    fuse, kuma = PLAYED["gcs-fuse"], PLAYED["kuma"]
    finished = await base_over(client, namespace, replace(fuse, labels=kuma.labels))
    assert await SidecarShutdown(client, allowed=Permissions.A).end(finished)
    events = (await client.list(EVENTS, namespace=namespace)).items
    assert {event["message"] for event in events if event["reason"] == "SidecarEnded"} == {
        "kuma-sidecar ended: ask POST :9901/quitquitquit, exit code 0",
        "gke-gcsfuse-sidecar ended: wait, exit code 0",
    }


MARKED = [(product.name, mark) for product in KNOWN for mark in product.marks]


@pytest.mark.parametrize(("product", "mark"), MARKED, ids=[mark for _, mark in MARKED])
@pytest.mark.parametrize("where", ["annotations", "labels"])
def test_a_mirrored_image_is_recognised_by_any_of_its_injector_s_marks(product: str, mark: str, where: str) -> None:
    row = next(row for row in KNOWN if row.name == product)
    for pattern in row.containers:
        container = {"name": pattern.replace("*", "x"), "image": "mirror.example/team/image:7"}
        assert identify({"metadata": {}}, container) is None
        identified = identify({"metadata": {where: {mark: "true"}}}, container)
        assert identified is row


@pytest.mark.parametrize("row", KNOWN, ids=lambda row: row.name)
def test_a_product_is_recognised_by_each_of_its_names_and_images(row: Any) -> None:
    for name in row.containers:
        for image in row.images:
            container = {"name": name.replace("*", "any"), "image": image.replace("*", "a.example:5000/b/c")}
            assert identify({"metadata": {}}, container) is row, container
