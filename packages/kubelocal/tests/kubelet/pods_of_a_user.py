"""Tests of containers in a user namespace, where only the user's own files belong to anyone.

Not collected by itself: ``test_ordinary_users.py`` runs this file as an ordinary user.
"""

from __future__ import annotations

import os

import pytest
from kubelet_node import Node, container, state

DEEP = [
    "/var/lib/made/for/it",
    "/usr/share/made",
    "/usr/lib/made/here",
    "/etc/ssl/made/certs",
    "/root/.made",
    "/made/it",
]


async def test_these_containers_have_a_user_namespace(node: Node) -> None:
    node.pod("p", container("cat /proc/self/uid_map"))
    assert (await node.log(await node.ended("p"))).split() == ["0", str(os.getuid()), "1"]


def with_volumes(node: Node, script: str, *paths: str, **more: object) -> None:
    volumes = [{"name": f"v{number}", "emptyDir": {}} for number in range(len(paths))]
    mounts = [{"name": f"v{number}", "mountPath": path} for number, path in enumerate(paths)]
    node.pod("p", container(script, volumeMounts=mounts, **more), volumes=volumes)


@pytest.mark.parametrize("path", DEEP)
async def test_a_volume_may_be_mounted_in_a_folder_that_does_not_exist(node: Node, path: str) -> None:
    with_volumes(node, f"echo kept > {path}/file && cat {path}/file", path)
    pod = await node.ended("p")
    assert state(pod)["terminated"]["exitCode"] == 0
    assert await node.log(pod) == "kept\n"


async def test_many_such_volumes_stand_side_by_side_and_hide_nothing(node: Node) -> None:
    script = " && ".join(f"touch {path}/mine" for path in DEEP) + "; ls /usr/share /etc/ssl /var/lib"
    with_volumes(node, script, *DEEP)
    pod = await node.ended("p")
    assert state(pod)["terminated"]["exitCode"] == 0
    listed = set((await node.log(pod)).split())
    assert {*os.listdir("/usr/share"), *os.listdir("/etc/ssl"), *os.listdir("/var/lib")} <= listed


async def test_one_file_of_a_config_map_may_lie_beside_those_of_the_machine(node: Node) -> None:
    node.registry.create("ConfigMap", "default", {"metadata": {"name": "c"}, "data": {"ca": "our CA"}})
    target = "/usr/share/ca-certificates-of-ours/ca.crt"
    mounts = [{"name": "c", "mountPath": target, "subPath": "ca"}]
    volumes = [{"name": "c", "configMap": {"name": "c"}}]
    node.pod("p", container(f"cat {target}", volumeMounts=mounts), volumes=volumes)
    assert await node.log(await node.ended("p")) == "our CA"


async def test_a_working_directory_is_made_wherever_it_lies(node: Node) -> None:
    node.pod("p", container("touch here; pwd", workingDir="/usr/lib/made/deep"))
    pod = await node.ended("p")
    assert await node.log(pod) == "/usr/lib/made/deep\n"
    assert state(pod)["terminated"]["exitCode"] == 0


@pytest.mark.parametrize(
    "folder", ["/", "/etc", "/opt", "/root", "/srv", "/usr/local/bin", "/var/cache", "/var/lib", "/var/log", "/var/tmp"]
)
async def test_programs_write_where_they_do_as_root(node: Node, folder: str) -> None:
    node.pod("p", container(f"cd {folder} && mkdir made-here && touch made-here/file"))
    pod = await node.ended("p")
    assert state(pod)["terminated"]["exitCode"] == 0, await node.log(pod)
    assert not os.path.exists(os.path.join(folder, "made-here"))


async def test_home_is_a_folder_of_the_containers_own(node: Node) -> None:
    node.pod("p", container("mkdir -p ~/.cache/tool && echo set > ~/.toolrc && cat $HOME/.toolrc"))
    assert await node.log(await node.ended("p")) == "set\n"
