"""Security contexts in real containers, in each way that this machine has of setting them apart."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubelet_node import Node, container, kubelet_of, state, waits_for

from kubelocal.kubelet.security_context import CAPABILITIES
from kubelocal.settings import LocalSettings

WHO = {"runAsUser": 1234, "runAsGroup": 2345, "supplementalGroups": [4567], "fsGroup": 3456}
EMPTY: dict[str, Any] = {"volumes": [{"name": "v", "emptyDir": {}}]}
MOUNT: dict[str, Any] = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}


async def mode_of(node: Node) -> str:
    """Return how containers are set apart, which is known once one has run."""
    node.pod("first", container("exit 0"))
    await node.ended("first")
    return node.kubelet.context.mode


@pytest.fixture(params=["auto", "user"])
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    async with kubelet_of(LocalSettings(sandbox=request.param)) as node:
        if await mode_of(node) == "none":
            pytest.skip("this machine lets nobody make namespaces")
        yield node


async def said(node: Node, script: str, *, own: dict[str, Any] | None = None, **spec: Any) -> list[str]:
    node.pod("p", container(script, securityContext=own or {}, **(MOUNT if "volumes" in spec else {})), **spec)
    return (await node.log(await node.ended("p"))).splitlines()


async def test_a_container_runs_as_the_user_and_group_that_it_asks_for(node: Node) -> None:
    lines = await said(node, "id -u; id -g; grep CapEff /proc/self/status", securityContext=WHO)
    assert lines == ["1234", "2345", "CapEff:\t0000000000000000"]


async def test_the_containers_own_user_comes_before_the_pods(node: Node) -> None:
    assert await said(node, "id -u; id -g", own={"runAsUser": 77}, securityContext=WHO) == ["77", "2345"]


@pytest.mark.parametrize("security", [{"runAsNonRoot": True}, {"runAsNonRoot": True, "runAsUser": 0}])
@pytest.mark.parametrize("sandbox", ["auto", "user", "none"])
async def test_root_is_refused_where_it_is_ruled_out(security: dict[str, Any], sandbox: Any) -> None:
    async with kubelet_of(LocalSettings(sandbox=sandbox)) as node:
        node.pod("p", container("exit 0", securityContext=security))
        pod = await node.until("p", waits_for("CreateContainerConfigError"))
        assert (
            "non-root policy" in state(pod)["waiting"]["message"] or "runAsNonRoot" in state(pod)["waiting"]["message"]
        )
        assert (await node.event_message("p", "Failed")).startswith("Error: container")


async def test_a_read_only_root_leaves_only_volumes_to_write_to(node: Node) -> None:
    folders = "/ /tmp /run /etc /opt /var /var/tmp /usr/local /home /root /v"
    script = f"for d in {folders}; do touch $d/x 2>/dev/null && echo $d; done"
    lines = await said(node, f"{script}; pwd", own={"readOnlyRootFilesystem": True}, **EMPTY)
    assert lines == ["/v", "/"]


async def test_a_volume_at_tmp_can_be_written_to_on_a_read_only_root(node: Node) -> None:
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/tmp"}, {"name": "v", "mountPath": "/run/deep/er"}]}
    script = "touch /tmp/x /run/deep/er/y && ls -d /tmp/[xy]; touch /run/z 2>/dev/null || echo refused"
    node.pod(
        "p",
        container(script, workingDir="/made/here", securityContext={"readOnlyRootFilesystem": True}, **mount),
        **EMPTY,
    )
    assert (await node.log(await node.ended("p"))).splitlines() == ["/tmp/x", "/tmp/y", "refused"]


@pytest.mark.parametrize(
    ("own", "names"),
    [
        ({"capabilities": {"drop": ["ALL"]}}, []),
        ({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}, ["NET_BIND_SERVICE"]),
    ],
)
async def test_dropped_capabilities_are_gone(node: Node, own: dict[str, Any], names: list[str]) -> None:
    lines = await said(node, "grep -E 'CapEff|CapBnd' /proc/self/status", own=own)
    mask = sum(1 << CAPABILITIES.index(name) for name in names)
    assert [int(line.split()[1], 16) for line in lines] == [mask, mask]


async def test_no_new_privileges_are_gained_where_that_is_ruled_out(node: Node) -> None:
    lines = await said(node, "grep NoNewPrivs /proc/self/status", own={"allowPrivilegeEscalation": False})
    assert lines == ["NoNewPrivs:\t1"]


async def test_commands_beside_the_container_run_as_its_user(node: Node) -> None:
    node.pod("p", container("echo up; sleep 100"), securityContext=WHO)
    await node.logged(await node.running("p"), "up")
    run = node.kubelet._running(node.registry.get("Pod", "default", "p"), "base")
    script = "id -u; id -g; kill -0 1 && tr '\\0' ' ' < /proc/1/environ | grep -c HOSTNAME"
    assert await run.run_command(["sh", "-c", script]) == (0, "1234\n2345\n1\n")


async def test_a_user_may_open_its_standard_output_anew(node: Node) -> None:
    lines = await said(node, "echo out > /dev/stdout; echo err > /dev/stderr", securityContext=WHO)
    assert sorted(lines) == ["err", "out"]


async def test_a_user_has_a_home_and_can_run_the_python_environment(node: Node) -> None:
    script = "import os, kubelocal; print(os.getuid(), os.environ['HOME'])"
    base = {"name": "base", "image": "python:3", "command": ["python", "-c", script]}
    node.pod("p", base, securityContext={"runAsUser": 1234})
    pod = await node.ended("p")
    assert await node.log(pod) == "1234 /\n"


async def test_a_container_of_another_user_ends_with_the_kubelet_and_on_term(node: Node) -> None:
    script = "trap 'echo term; exit 3' TERM; echo up; while true; do sleep 0.1; done"
    node.pod("p", container(script), securityContext=WHO)
    await node.logged(await node.running("p"), "up")
    node.registry.delete("Pod", "default", "p")
    assert state(await node.gone("p"))["terminated"]["exitCode"] == 3


async def test_what_is_not_applied_is_told_by_an_event() -> None:
    async with kubelet_of(LocalSettings(sandbox="none")) as node:
        own = {"runAsUser": os.getuid() + 1, "readOnlyRootFilesystem": True}
        node.pod("p", container("id -u", securityContext=own))
        message = await node.event_message("p", "SecurityContextNotApplied")
        assert "readOnlyRootFilesystem" in message
        assert "no namespaces here" in message
        applied = (await node.log(await node.ended("p"))) == f"{os.getuid() + 1}\n"
        assert applied != (f"runAsUser {os.getuid() + 1}" in message)
