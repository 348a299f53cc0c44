"""Sidecars run as processes of the local cluster, and each ends by its own step."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from crosswind.errors import (
    CredentialsError,
    CrosswindError,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from crosswind.kube.client import Client
from crosswind.kube.credentials import load
from crosswind.kube.requests import Request
from crosswind.kube.resources import EVENTS, PODS, ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS, Resource
from crosswind.kube.transport import HttpTransport, Reply, Transport
from crosswind.settings import KubeSettings
from crosswind.sidecars.catalog import KNOWN
from crosswind.sidecars.shutdown import ShutdownSettings, SidecarShutdown, granted_permissions
from crosswind.sidecars.shutdown_plan import Permissions
from crosswind.testing import Cluster
from crosswind.types import Manifest
from deadlines import scaled

on_any_cluster = pytest.mark.cluster
"""Not for tests of sidecars that differ only in their images: the local cluster alone plays these."""


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as made:
        yield made


def pod(name: str, *sidecars: Manifest, base: str = "exit 0", annotations: dict[str, str] | None = None) -> Manifest:
    own = {"env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}
    main = {"name": "base", "image": "busybox", "command": ["sh", "-c", base]}
    named = [{**sidecar, "env": [*own["env"], *sidecar.get("env", [])]} for sidecar in sidecars]
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
    async for event in client.watch(PODS, namespace=namespace, version=version, timeout=scaled(25)):
        current = event["object"]
        statuses = current.get("status", {}).get("containerStatuses", [])
        if current["metadata"].get("name") == name and any(
            status["name"] == "base" and "terminated" in status["state"] for status in statuses
        ):
            return current
    raise AssertionError("base did not end")


async def recorded_events(client: Client, namespace: str) -> list[tuple[str, str]]:
    events = (await client.list(EVENTS, namespace=namespace)).items
    ours = [event for event in events if event.get("source", {}).get("component") == "crosswind"]
    ours.sort(key=lambda event: int(event["metadata"]["resourceVersion"]))
    return [(event["reason"], event["message"]) for event in ours]


VAULT = {"vault.hashicorp.com/agent-inject": "true", "vault.hashicorp.com/agent-enable-quit": "true"}
ROWS: dict[str, tuple[Manifest, int]] = {
    "unknown with a shell": (
        {
            "name": "second",
            "image": "busybox",
            "command": ["sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done"],
        },
        3,
    ),
    "unknown under a shell": (
        {"name": "second", "image": "busybox", "command": ["sh", "-c", "sleep 600; exit 5"]},
        5,
    ),
}


@pytest.mark.parametrize("row", ROWS)
@on_any_cluster
async def test_an_unknown_sidecar_is_sent_term(
    client: Client, namespace: str, row: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "crosswind")
    sidecar, code = ROWS[row]
    finished = await base_over(client, namespace, pod("etl", sidecar))
    assert await SidecarShutdown(client, allowed=Permissions.B).end(finished)
    assert (await recorded_events(client, namespace))[-1] == (
        "SidecarEnded",
        f"second ended: send TERM by a shell, exit code {code}",
    )
    ended = await client.get(PODS, "etl", namespace=namespace)
    assert ended["status"]["phase"] == "Failed"
    states = {
        status["name"]: status["state"]["terminated"]["exitCode"] for status in ended["status"]["containerStatuses"]
    }
    assert states == {"base": 0, "second": code}
    assert "did not work" not in caplog.text, "a command that ends its container is judged by that"


async def test_an_unknown_sidecar_that_ignores_term_gets_a_signal_that_it_handles(
    client: Client, namespace: str
) -> None:
    script = "trap '' TERM INT; trap 'exit 6' QUIT; while :; do sleep 0.1; done"
    sidecar = {"name": "second", "image": "busybox", "command": ["sh", "-c", script]}
    finished = await base_over(client, namespace, pod("etl", sidecar))
    assert await SidecarShutdown(client, allowed=Permissions.B).end(finished)
    ended = ("SidecarEnded", "second ended: send QUIT by a shell, exit code 6")
    assert (await recorded_events(client, namespace))[-1] == ended


ISTIO = {"name": "istio-proxy", "image": "istio/proxyv2:1.26.4-distroless", "args": ["proxy", "sidecar"]}
LOGS = {"name": "logs", "image": "fluent/fluent-bit:3.2-debug"}
DEAF = "trap '' TERM INT QUIT; while :; do sleep 0.1; done"
STUBBORN = {"name": "second", "image": "busybox", "command": ["sh", "-c", DEAF]}


async def test_shippers_end_first_and_the_mesh_last(client: Client, namespace: str) -> None:
    finished = await base_over(client, namespace, pod("etl", ISTIO, LOGS, annotations=VAULT))
    assert await SidecarShutdown(client).end(finished)
    ended = [
        message.split()[0] for reason, message in await recorded_events(client, namespace) if reason == "SidecarEnded"
    ]
    assert ended == ["logs", "vault-agent", "istio-proxy"]


IMPATIENT = tuple(replace(product, owner_wait=0.3) if product.owner else product for product in KNOWN)
XCOM = {
    "name": "airflow-xcom-sidecar",
    "image": "alpine",
    "command": ["sh", "-c", 'trap "exit 0" INT; while true; do sleep 1; done;'],
}


@pytest.mark.parametrize(
    ("sidecar", "step"),
    [
        ({"name": "kuma-sidecar", "image": "kumahq/kuma-dp:2.9"}, "ask POST :9901/quitquitquit"),
        (XCOM, "send INT by a shell"),
    ],
    ids=["kuma", "xcom"],
)
@on_any_cluster
async def test_a_sidecar_with_an_owner_is_waited_for_then_ended(
    client: Client, namespace: str, sidecar: Manifest, step: str
) -> None:
    finished = await base_over(client, namespace, pod("etl", sidecar))
    assert await SidecarShutdown(client, settings=ShutdownSettings(IMPATIENT)).end(finished)
    assert f"{sidecar['name']} ended: {step}, exit code 0" in (await recorded_events(client, namespace))[-1][1]


@on_any_cluster
async def test_a_sidecar_that_ignores_term_stays_and_is_reported(client: Client, namespace: str) -> None:
    finished = await base_over(client, namespace, pod("etl", STUBBORN))
    shutdown = SidecarShutdown(client, allowed=Permissions.B)
    assert not await shutdown.end(finished)
    assert [reason for reason, _ in await recorded_events(client, namespace)] == ["EndingSidecar", "SidecarStays"]


@on_any_cluster
async def test_a_signal_that_comes_before_its_handler_is_sent_again(client: Client, namespace: str) -> None:
    script = "sleep 1; trap 'exit 0' TERM; while :; do sleep 0.1; done"
    late = {"name": "second", "image": "busybox", "command": ["sh", "-c", f"trap '' TERM; {script}"]}
    finished = await base_over(client, namespace, pod("etl", late))
    assert await SidecarShutdown(client, allowed=Permissions.B).end(finished)
    assert (await recorded_events(client, namespace))[-1][1].startswith(
        "second ended: send TERM by a shell, exit code 0"
    )


@on_any_cluster
async def test_deletion_is_the_last_resort(client: Client, namespace: str) -> None:
    finished = await base_over(client, namespace, pod("etl", STUBBORN))
    assert await SidecarShutdown(client, allowed=Permissions.DELETE).end(finished, delete=True)
    assert (await client.list(PODS, namespace=namespace)).items == []
    assert [reason for reason, _ in await recorded_events(client, namespace)] == ["SidecarStays", "DeletingPod"]


@on_any_cluster
async def test_its_own_client_ends_it_where_only_exec_is_allowed(client: Client, namespace: str) -> None:
    finished = await base_over(client, namespace, pod("etl", ISTIO))
    assert await SidecarShutdown(client, allowed=Permissions.EXEC).end(finished)
    assert "client pilot-agent request --debug-port=15020" in (await recorded_events(client, namespace))[-1][1]


@pytest.mark.parametrize("ability", [Permissions.EXEC, Permissions.FORWARD])
@on_any_cluster
async def test_a_request_to_a_sidecar_that_does_not_listen_yet_is_repeated(
    client: Client, namespace: str, ability: Permissions
) -> None:
    late: Manifest = {"name": "istio-proxy", "image": "istio/proxyv2:1.26.4"}
    late["command"] = ["sh", "-c", "sleep 2; exec pilot-agent proxy"]
    finished = await base_over(client, namespace, pod("etl", late))
    assert await SidecarShutdown(client, allowed=ability).end(finished)
    assert [reason for reason, _ in await recorded_events(client, namespace)] == ["EndingSidecar", "SidecarEnded"]


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("otc-container", "otel/opentelemetry-collector:0.110"),
        ("gke-gcsfuse-sidecar", "gke.gcr.io/gcs-fuse-csi-driver-sidecar-mounter:v1"),
        ("logs", "fluent/fluent-bit:3.2"),
        ("linkerd-proxy", "cr.l5d.io/linkerd/proxy:2.18"),
    ],
)
async def test_a_swapped_image_ends_a_sidecar_without_another_step(
    client: Client, namespace: str, name: str, image: str
) -> None:
    settings = ShutdownSettings(IMPATIENT, swap_image="busybox")
    finished = await base_over(client, namespace, pod("etl", {"name": name, "image": image}))
    assert await SidecarShutdown(client, settings=settings, allowed=Permissions.FORWARD | Permissions.PATCH).end(
        finished
    )
    assert "swap busybox" in (await recorded_events(client, namespace))[-1][1]
    assert (await client.get(PODS, "etl", namespace=namespace))["status"]["phase"] == "Succeeded"


@on_any_cluster
async def test_a_failed_base_stays_a_failure(client: Client, namespace: str) -> None:
    finished = await base_over(client, namespace, pod("etl", ISTIO, base="exit 3"))
    assert await SidecarShutdown(client).end(finished)
    assert (await client.get(PODS, "etl", namespace=namespace))["status"]["phase"] == "Failed"


@on_any_cluster
async def test_nothing_is_done_while_base_runs(client: Client, namespace: str) -> None:
    finished = await client.create(PODS, pod("etl", ISTIO, base="sleep 60"), namespace=namespace)
    async with asyncio.timeout(scaled(20)):
        while finished["status"].get("phase") != "Running":
            await asyncio.sleep(0.05)
            finished = await client.get(PODS, "etl", namespace=namespace)
    assert not await SidecarShutdown(client).end(finished)
    assert await recorded_events(client, namespace) == []


@on_any_cluster
async def test_a_pod_of_the_same_name_is_another_pod(client: Client, namespace: str) -> None:
    finished = await base_over(client, namespace, pod("etl", ISTIO))
    finished["metadata"]["uid"] = "of-an-earlier-pod"
    assert await SidecarShutdown(client).end(finished, delete=True)
    now = await client.get(PODS, "etl", namespace=namespace)
    assert now["status"]["phase"] == "Running"
    assert await recorded_events(client, namespace) == []


@on_any_cluster
async def test_a_native_sidecar_needs_nothing(client: Client, namespace: str) -> None:
    manifest = pod("etl", annotations={"sidecar.istio.io/nativeSidecar": "true"})
    manifest["metadata"]["labels"] = {"sidecar.istio.io/inject": "true"}
    finished = await base_over(client, namespace, manifest)
    assert await SidecarShutdown(client).end(finished)
    assert await recorded_events(client, namespace) == []


# Permissions


EXEC = {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get", "create"]}
READ = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}


async def granted(
    client: Client, cluster: Cluster, namespace: str, rules: list[Manifest], folder: Path
) -> KubeSettings:
    """Return settings of a service account with these rules."""
    group, meta = "rbac.authorization.k8s.io", {"name": "ender"}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}
    await client.create(SERVICE_ACCOUNTS, account, namespace=namespace)
    role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": meta, "rules": rules}
    await client.create(ROLES, role, namespace=namespace)
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": meta,
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "ender"},
        "subjects": [{"kind": "ServiceAccount", "name": "ender", "namespace": namespace}],
    }
    await client.create(ROLE_BINDINGS, binding, namespace=namespace)
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    tokens = Resource("", "v1", "serviceaccounts/ender/token", "TokenRequest")
    made = await client.create(tokens, {"spec": {}}, namespace=namespace)
    config["users"][0]["user"] = {"token": made["status"]["token"]}
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return KubeSettings(kubeconfig=str(file))


PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "sidecars.md").read_text()
SETS = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(apiVersion: rbac.*?)^```", PAGE, re.M | re.S)]


@pytest.mark.parametrize(
    ("number", "expected"), [(0, Permissions.A), (1, Permissions.B), (2, Permissions.C)], ids="ABC"
)
@on_any_cluster
async def test_the_roles_of_the_documentation_grant_its_permission_sets(
    client: Client, cluster: Cluster, namespace: str, tmp_path: Path, number: int, expected: Permissions
) -> None:
    settings = await granted(client, cluster, namespace, SETS[number]["rules"], tmp_path)
    async with await Client.connect(settings) as limited:
        assert await granted_permissions(limited, namespace) == expected
        finished = await base_over(client, namespace, pod("etl", ISTIO))
        assert await SidecarShutdown(limited).end(finished)
        assert (await recorded_events(client, namespace))[-1][0] == "SidecarEnded"


@on_any_cluster
async def test_a_missing_permission_is_logged_once_and_the_next_step_is_taken(
    client: Client, cluster: Cluster, namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "crosswind")
    manifests = [await base_over(client, namespace, pod(name, ISTIO)) for name in ("one", "two")]
    async with await Client.connect(await granted(client, cluster, namespace, [READ, EXEC], tmp_path)) as limited:
        shutdown = SidecarShutdown(limited)
        assert [await shutdown.end(manifest) for manifest in manifests] == [True, True]
    warnings = [record.getMessage() for record in caplog.records if record.name == "crosswind.sidecars.shutdown"]
    assert len([warning for warning in warnings if "without forward" in warning]) == 1
    assert len([warning for warning in warnings if "No Events" in warning]) == 1


@on_any_cluster
async def test_where_a_pod_may_not_be_watched_it_is_read(
    client: Client, cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    rules = [READ | {"verbs": ["get"]}, EXEC]
    finished = await base_over(client, namespace, pod("etl", ISTIO))
    async with await Client.connect(await granted(client, cluster, namespace, rules, tmp_path)) as limited:
        async with asyncio.timeout(scaled(8)):
            assert await SidecarShutdown(limited, allowed=Permissions.EXEC).end(finished)


BUSY = TooManyRequests("busy", status=429, retry_after=0.05)


class Busy:
    """Forwards requests, but fails the first ones that are ``meant``, by the end of their path or their method."""

    def __init__(self, inner: Transport, meant: str, error: CrosswindError = BUSY) -> None:
        self._inner, self._meant, self._error, self.refusals = inner, meant, error, 3

    async def open(self, request: Request, authorization: str | None) -> Reply:
        if (request.path.endswith(self._meant) or request.method == self._meant) and self.refusals:
            self.refusals -= 1
            raise self._error
        return await self._inner.open(request, authorization)


@pytest.mark.parametrize(
    "error",
    [
        BUSY,
        ServerError("etcd leader changed", status=503),
        Unauthorized("expired", status=401),
        CredentialsError("the exec plug-in failed"),
        Unreachable("refused"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_pod_whose_deletion_fails_for_now_is_deleted_all_the_same(
    client: Client, cluster: Cluster, namespace: str, error: CrosswindError
) -> None:
    finished = await base_over(client, namespace, pod("etl", STUBBORN))
    server, credentials = await load(KubeSettings(kubeconfig=str(cluster.kubeconfig)))
    transport = HttpTransport(server)
    busy = Busy(transport, "DELETE", error)
    assert await SidecarShutdown(Client(busy, credentials), allowed=Permissions.DELETE).end(finished, delete=True)
    await transport.close()
    assert busy.refusals == 0


@pytest.mark.parametrize("error", [BUSY, CredentialsError("the exec plug-in failed")], ids=["busy", "credentials"])
@pytest.mark.parametrize(
    ("subresource", "step"), [("/portforward", "ask POST :15020"), ("/exec", "client pilot-agent")]
)
@on_any_cluster
async def test_a_busy_api_server_is_no_reason_for_a_harsher_step(
    client: Client, cluster: Cluster, namespace: str, subresource: str, step: str, error: CrosswindError
) -> None:
    finished = await base_over(client, namespace, pod("etl", ISTIO))
    server, credentials = await load(KubeSettings(kubeconfig=str(cluster.kubeconfig)))
    transport = HttpTransport(server)
    busy = Busy(transport, subresource, error)
    allowed = Permissions.FORWARD if subresource == "/portforward" else Permissions.EXEC
    assert await SidecarShutdown(Client(busy, credentials), allowed=allowed).end(finished)
    await transport.close()
    assert busy.refusals == 0
    assert step in (await recorded_events(client, namespace))[-1][1]


@on_any_cluster
async def test_an_unreachable_api_server_is_the_callers_error(client: Client, cluster: Cluster, namespace: str) -> None:
    finished = await base_over(client, namespace, pod("etl", ISTIO))
    limited = await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig)))
    await limited.close()
    with pytest.raises(Unreachable):
        await SidecarShutdown(limited).end(finished)
