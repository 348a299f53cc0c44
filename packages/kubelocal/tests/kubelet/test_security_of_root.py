"""What only a kubelet that runs as root can give: groups, owners of volumes, users of images."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
from kubelet_node import Node, container, kubelet_of
from test_security_of_processes import EMPTY, MOUNT, WHO, mode_of, said

from kubelocal.settings import LocalSettings

AIRFLOW = {"runAsNonRoot": True}


@pytest.fixture
async def rootful() -> AsyncIterator[Node]:
    async with kubelet_of(LocalSettings()) as node:
        if await mode_of(node) != "root":
            pytest.skip("needs root")
        yield node


async def test_further_groups_and_the_group_of_volumes_are_given_by_root(rootful: Node) -> None:
    script = "id -G; stat -c %g:%a /v; touch /v/x; stat -c %u:%g /v/x"
    lines = await said(rootful, script, securityContext=WHO, **EMPTY)
    assert sorted(lines[0].split()) == ["2345", "3456", "4567"]
    assert lines[1:] == ["3456:2777", "1234:3456"]


async def test_a_user_may_read_content_that_is_closed_to_others_by_the_group_of_volumes(rootful: Node) -> None:
    rootful.registry.create("Secret", "default", {"metadata": {"name": "s"}, "stringData": {"key": "value\n"}})
    volumes = [{"name": "v", "secret": {"secretName": "s", "defaultMode": 0o400}}]
    script = "cat /v/key; stat -L -c %g:%a /v/key"
    assert await said(rootful, script, securityContext=WHO, volumes=volumes) == ["value", "3456:440"]


async def test_without_a_group_content_of_mode_0400_is_the_kubelets_alone(rootful: Node) -> None:
    rootful.registry.create("Secret", "default", {"metadata": {"name": "s"}, "stringData": {"key": "value\n"}})
    volumes = [{"name": "v", "secret": {"secretName": "s", "defaultMode": 0o400}}]
    script = "cat /v/key 2>/dev/null || echo refused"
    assert await said(rootful, script, securityContext={"runAsUser": 1234}, volumes=volumes) == ["refused"]


async def test_a_claim_that_others_wrote_to_is_handed_to_the_group(rootful: Node) -> None:
    claim = {"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {}}}
    rootful.registry.create("PersistentVolumeClaim", "default", claim)
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
    rootful.pod("writer", container("umask 077; mkdir /v/d; echo kept > /v/d/f", **MOUNT), volumes=volumes)
    await rootful.ended("writer")
    assert await said(rootful, "cat /v/d/f; stat -c %g /v/d/f", securityContext=WHO, volumes=volumes) == [
        "kept",
        "3456",
    ]


async def test_airflows_image_is_no_root_where_root_is_ruled_out(rootful: Node) -> None:
    script = "import os; print(os.getuid(), os.environ['HOME'])"
    node = rootful
    base = {"name": "base", "image": "apache/airflow:3.3.2", "command": ["python", "-c", script]}
    node.pod("p", base, securityContext={"runAsNonRoot": True})
    assert await node.log(await node.ended("p")) == "50000 /home/airflow\n"


async def test_a_kubelet_that_keeps_its_files_to_itself_lets_other_users_read_what_is_theirs() -> None:
    before = os.umask(0o077)
    try:
        async with kubelet_of(LocalSettings()) as node:
            if await mode_of(node) != "root":
                pytest.skip("needs root")
            node.registry.create("ConfigMap", "default", {"metadata": {"name": "c"}, "data": {"key": "value"}})
            volumes = [{"name": "v", "configMap": {"name": "c", "items": [{"key": "key", "path": "deep/er/key"}]}}]
            files = "/etc/hosts /etc/hostname /v/deep/er/key"
            script = f"id -un; cat {files} > /dev/null && touch /tmp/x /dev/shm/x && echo read"
            node.pod("p", container(script, image="apache/airflow", **MOUNT), securityContext=AIRFLOW, volumes=volumes)
            assert (await node.log(await node.ended("p"))).splitlines() == ["airflow", "read"]
            node.pod("q", container(script, **MOUNT), securityContext={"runAsUser": 50000}, volumes=volumes)
            assert (await node.log(await node.ended("q"))).splitlines()[-1] == "read"
    finally:
        os.umask(before)
