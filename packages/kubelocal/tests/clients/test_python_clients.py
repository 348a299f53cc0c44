"""The two Python clients, against a local cluster or the cluster of --cluster-context."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import kubernetes
import kubernetes_asyncio
import pytest
from kubernetes.stream import stream
from kubernetes_asyncio.stream import WsApiClient

from deadlines import scaled
from kubelocal.testing import Cluster

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(120),
    # of the clients' own making
    pytest.mark.filterwarnings("ignore::DeprecationWarning:kubernetes"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def pod(cluster: Cluster, script: str) -> dict[str, Any]:
    container = {"name": "base", "image": cluster.image, "command": ["sh", "-c", script]}
    container["imagePullPolicy"] = cluster.pull_policy
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "box", "labels": {"app": "box"}}, "spec": spec}


@pytest.fixture
def core(cluster: Cluster) -> Iterator[Any]:
    with kubernetes.config.new_client_from_config(str(cluster.kubeconfig)) as client:
        yield kubernetes.client.CoreV1Api(client)
        client.rest_client.pool_manager.clear()  # it leaves its connections open


def phases(core: Any, namespace: str, *wanted: str) -> list[str]:
    """Follow the pod until it has one of these phases."""
    seen: list[str] = []
    watch = kubernetes.watch.Watch()
    for event in watch.stream(core.list_namespaced_pod, namespace, label_selector="app=box", timeout_seconds=60):
        seen.append(event["object"].status.phase)
        if seen[-1] in wanted:
            watch.stop()
    return list(dict.fromkeys(seen))


def test_pod_is_created_followed_read_and_deleted(core: Any, cluster: Cluster, namespace: str) -> None:
    core.create_namespaced_pod(namespace, pod(cluster, "echo hello; sleep 1"))
    assert phases(core, namespace, "Succeeded", "Failed")[-2:] == ["Running", "Succeeded"]
    assert core.read_namespaced_pod_log("box", namespace, _preload_content=False).data == b"hello\n"
    assert core.list_namespaced_pod(namespace, field_selector="status.phase=Succeeded").items[0].metadata.name == "box"
    core.delete_namespaced_pod("box", namespace, grace_period_seconds=0)
    with pytest.raises(kubernetes.client.ApiException) as gone:
        core.read_namespaced_pod("box", namespace)
    assert gone.value.status == 404


def test_exec_gives_output_and_exit_code(core: Any, cluster: Cluster, namespace: str) -> None:
    core.create_namespaced_pod(namespace, pod(cluster, "sleep 600"))
    phases(core, namespace, "Running")
    command = ["sh", "-c", "read word; echo got $word; echo err >&2; exit 3"]
    streams = {"stdin": True, "stdout": True, "stderr": True, "tty": False, "_preload_content": False}
    ran = stream(core.connect_get_namespaced_pod_exec, "box", namespace, command=command, **streams)
    ran.write_stdin("hello\n")
    ran.run_forever(timeout=scaled(20))
    ran.sock.shutdown()  # the client lets it be once the server has said goodbye
    assert (ran.read_stdout(), ran.read_stderr(), ran.returncode) == ("got hello\n", "err\n", 3)


async def test_asyncio_client_lists_watches_and_execs(cluster: Cluster, namespace: str) -> None:
    configuration = kubernetes_asyncio.client.Configuration()
    await kubernetes_asyncio.config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
    async with kubernetes_asyncio.client.ApiClient(configuration) as client:
        core = kubernetes_asyncio.client.CoreV1Api(client)
        await core.create_namespaced_pod(namespace, pod(cluster, "sleep 600"))
        async with kubernetes_asyncio.watch.Watch() as watch:
            async for event in watch.stream(core.list_namespaced_pod, namespace, timeout_seconds=60):
                if event["object"].status.phase == "Running":
                    break
    async with WsApiClient(configuration) as client:
        core = kubernetes_asyncio.client.CoreV1Api(client)
        streams = {"stdin": False, "stdout": True, "stderr": True, "tty": False}
        output = await core.connect_get_namespaced_pod_exec("box", namespace, command=["echo", "hi"], **streams)
    assert output == "hi\n"
