"""Containers that begin later than their neighbours, and sidecars that are not ready for a while."""

from __future__ import annotations

from typing import Any

from kubelet_node import Node, container, state, status_of, waits_for

from deadlines import scaled

STARTED = "echo started"


def with_annotations(node: Node, name: str, annotations: dict[str, str], *containers: dict[str, Any]) -> None:
    spec = {"nodeName": node.settings.node_name, "restartPolicy": "Never", "containers": list(containers)}
    node.registry.create("Pod", "default", {"metadata": {"name": name, "annotations": annotations}, "spec": spec})


async def test_a_container_with_a_start_delay_begins_so_much_later_than_the_one_before_it(node: Node) -> None:
    late = {"start-delay.local.crosswind/late": "1.5"}
    with_annotations(node, "p", late, container(STARTED, "first"), container(STARTED, "late"))
    pod = await node.ended("p")
    first, second = [await node.stamp(pod, name) for name in ("first", "late")]
    assert 1.5 <= second - first < scaled(6)
    assert ("Pulling", 'Pulling image "busybox:1"') in node.events("p")
    pulled = [message for reason, message in node.events("p") if reason == "Pulled"]
    assert pulled[0] == 'Container image "busybox:1" already present on machine and can be accessed by the pod'
    assert pulled[1].startswith('Successfully pulled image "busybox:1" in 1.5s')


async def test_a_start_delay_that_is_no_number_holds_the_container_and_names_the_annotation(node: Node) -> None:
    with_annotations(node, "p", {"start-delay.local.crosswind/base": "soon"}, container("true"))
    pod = await node.until("p", waits_for("CreateContainerConfigError"))
    assert "start-delay.local.crosswind/base: 'soon'" in state(pod)["waiting"]["message"]


async def test_a_played_sidecar_is_not_ready_before_its_ready_delay_is_over(node: Node) -> None:
    probe = {"httpGet": {"path": "/healthz/ready", "port": 15021}, "periodSeconds": 1}
    proxy = {"name": "istio-proxy", "image": "istio/proxyv2:1.26.4", "startupProbe": {**probe, "failureThreshold": 60}}
    proxy["env"] = [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    with_annotations(node, "p", {"ready-delay.local.crosswind/istio-proxy": "2"}, proxy)
    pod = await node.until("p", lambda pod: status_of(pod, "istio-proxy").get("ready"))
    assert "running" in state(pod, "istio-proxy")
    assert any("503" in message for reason, message in node.events("p") if reason == "Unhealthy")
