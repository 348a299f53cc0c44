from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from kubelocal.auth.certificates import issue
from kubelocal.cluster import LocalCluster
from kubelocal.errors import SettingError
from kubelocal.settings import LocalSettings
from processes import come, running
from rest_client import CORE, Refused, RestClient, pods

CONFIG_MAPS = f"{CORE}/namespaces/default/configmaps"


def pod(script: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "base", "image": "busybox", "command": ["sh", "-c", script]}
    return {"metadata": {"name": "box"}, "spec": {"restartPolicy": "Never", "containers": [container], **spec}}


async def test_cluster_answers_and_leaves_nothing_behind() -> None:
    async with LocalCluster() as cluster:
        async with RestClient(cluster.kubeconfig) as client:
            assert (await client.get("/version"))["major"] == "1"
        files = (cluster.kubeconfig, cluster.token_file, cluster.authority_file)
        assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600] * 3
        tasks = asyncio.all_tasks()
    assert not any(path.exists() for path in files)
    assert [task for task in tasks if not task.done()] == [asyncio.current_task()]


async def test_pods_end_with_the_cluster(tmp_path: Path) -> None:
    async with LocalCluster() as cluster:
        seconds = f"600.{os.getpid()}"  # as no other run's
        process = cluster.registry.create("Pod", "default", pod(f"sleep {seconds}", terminationGracePeriodSeconds=600))
        changes = aiter(cluster.registry.watch("Pod", "default"))
        while process["status"]["phase"] != "Running":
            process = (await anext(changes)).object
        sleeping = await come("sleep", seconds)
    assert not sleeping & running("sleep", seconds)


async def test_taken_port_is_said_at_the_start() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingError, match=f"cannot serve on 127.0.0.1:{port}: Address already in use"):
            await LocalCluster(LocalSettings(port=port)).__aenter__()


async def test_kubeconfig_of_others_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("apiVersion: v1\nkind: Config\ncontexts: [{name: work, context: {}}]\n")
    before = path.read_text()
    with pytest.raises(SettingError, match="was not written by kubelocal up"):
        await LocalCluster(LocalSettings(kubeconfig=path)).__aenter__()
    assert path.read_text() == before


async def test_state_file_carries_objects_over(tmp_path: Path) -> None:
    settings = LocalSettings(state_file=tmp_path / "state")
    async with LocalCluster(settings) as cluster, RestClient(cluster.kubeconfig) as client:
        manifest = {"metadata": {"name": "kept"}, "data": {"a": "1"}}
        old = await client.create(CONFIG_MAPS, manifest)
    async with LocalCluster(settings) as cluster, RestClient(cluster.kubeconfig) as client:
        kept = await client.get(f"{CONFIG_MAPS}/kept")
        root = await client.get(f"{CONFIG_MAPS}/kube-root-ca.crt")
        assert (kept["data"], kept["metadata"]["uid"]) == ({"a": "1"}, old["metadata"]["uid"])
        assert root["data"]["ca.crt"] == cluster.authority_file.read_text()


async def test_wrong_state_file_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("[]")
    with pytest.raises(SettingError, match="state"):
        await LocalCluster(LocalSettings(state_file=tmp_path / "state")).__aenter__()


async def test_default_namespace_asks_for_the_meshes_of_the_settings() -> None:
    async with LocalCluster(LocalSettings(inject=("istio", "linkerd"))) as cluster:
        metadata = cluster.registry.get("Namespace", "", "default")["metadata"]
    assert metadata["labels"]["istio-injection"] == "enabled"
    assert metadata["annotations"]["linkerd.io/inject"] == "enabled"


async def test_simulated_cluster_plays_a_pod_and_has_nothing_to_stream() -> None:
    settings = LocalSettings(simulate=2, simulated_start=0, simulated_run=0)
    async with LocalCluster(settings) as cluster, RestClient(cluster.kubeconfig) as client:
        await client.create(pods("default"), pod("exit 0"))
        changes = aiter(cluster.registry.watch("Pod", "default"))
        while (await anext(changes)).object["status"]["phase"] != "Succeeded":
            pass
        with pytest.raises(Refused, match="is terminated"):
            await client.call("GET", pods("default", "box", "log"))


async def test_part_that_fails_ends_the_cluster() -> None:
    async with LocalCluster(LocalSettings(simulate=1)) as cluster:
        waiting = asyncio.create_task(cluster.serve_until(asyncio.Event()))
        await asyncio.sleep(0)
        cluster._parts.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


def test_certificates_hold_the_address_asked_for() -> None:
    import ssl

    made = issue(["127.1.2.3"])
    context = ssl.create_default_context(cadata=made.authority)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    assert context.cert_store_stats()["x509_ca"] == 1
    assert "PRIVATE KEY" in made.key
