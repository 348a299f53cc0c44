"""When the content of volumes follows what it was made of."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
from kubelet_node import Node, container, kubelet_of

from kubelocal.settings import LocalSettings

ITEMS = [{"path": "claim", "fieldRef": {"fieldPath": "metadata.annotations['claim']"}}]
WORD = "until grep -q new /v/word; do sleep 0.05; done; echo changed"


def mounted(script: str) -> dict[str, Any]:
    return container(script, volumeMounts=[{"name": "v", "mountPath": "/v"}])


def put(node: Node, kind: str, word: str) -> None:
    data = {"word": base64.b64encode(word.encode()).decode() if kind == "Secret" else word}
    if word == "old":
        node.registry.create(kind, "default", {"metadata": {"name": "s"}, "data": data})
    else:
        node.registry.update(kind, "default", "s", lambda thing: thing.update(data=data))


def annotate(node: Node, **annotations: str) -> float:
    """Change the pod's annotations; return when."""

    def change(pod: dict[str, Any]) -> None:
        pod["metadata"].setdefault("annotations", {}).update(annotations)

    node.registry.update("Pod", "default", "p", change)
    return time.time()


SOURCES = {"Secret": {"secret": {"secretName": "s"}}, "ConfigMap": {"configMap": {"name": "s"}}}


async def test_a_changed_annotation_reaches_its_downward_api_volume_within_moments(node: Node) -> None:
    script = "echo up; until grep -q new /v/claim; do sleep 0.01; done; echo seen"
    node.pod("p", mounted(script), volumes=[{"name": "v", "downwardAPI": {"items": ITEMS}}])
    await node.logged(await node.running("p"), "up")
    patched = annotate(node, claim="new")
    assert await node.stamp(await node.ended("p")) - patched < 2  # some 10 ms on a quiet machine


async def test_changes_of_a_pod_that_follow_each_other_reach_its_volume_up_to_a_second_late(node: Node) -> None:
    script = "for n in $(seq 8); do until grep -qx $n /v/claim; do sleep 0.01; done; echo $n; done"
    node.pod("p", mounted(script), volumes=[{"name": "v", "downwardAPI": {"items": ITEMS}}])
    uid, late = await node.running("p"), []
    for number in range(1, 9):
        patched = annotate(node, claim=str(number))
        await node.logged(uid, str(number))
        late.append(time.time() - patched)
    assert max(late) > 0.3, late  # of eight between 0.05 and 1 s
    assert (await node.ended("p"))["status"]["phase"] == "Succeeded"


@pytest.mark.parametrize("kind", SOURCES)
async def test_a_touched_pod_has_its_secrets_and_config_maps_renewed_at_once(node: Node, kind: str) -> None:
    put(node, kind, "old")
    node.pod("p", mounted(f"cat /v/word; echo; {WORD}"), volumes=[{"name": "v", **SOURCES[kind]}])
    await node.logged(await node.running("p"), "old")
    put(node, kind, "new")
    annotate(node, touched="1")
    assert await node.log(await node.ended("p")) == "old\nchanged\n"


async def test_an_optional_secret_that_comes_later_is_there_once_the_pod_is_touched(node: Node) -> None:
    source = {"secret": {"secretName": "s", "optional": True}}
    node.pod("p", mounted(f"echo up; {WORD}"), volumes=[{"name": "v", **source}])
    await node.logged(await node.running("p"), "up")
    node.registry.create("Secret", "default", {"metadata": {"name": "s"}, "stringData": {"word": "new"}})
    annotate(node, touched="1")
    assert "changed" in await node.log(await node.ended("p"))


@pytest.mark.parametrize("kind", SOURCES)
async def test_without_a_change_of_the_pod_content_waits_for_the_next_sync(kind: str) -> None:
    async with kubelet_of(LocalSettings(sync_frequency=2)) as node:
        put(node, kind, "old")
        node.pod("p", mounted(f"cat /v/word; echo; {WORD}"), volumes=[{"name": "v", **SOURCES[kind]}])
        await node.logged(await node.running("p"), "old")
        put(node, kind, "new")
        changed = (await node.log(await node.ended("p"))).split()
        assert changed[:2] == ["old", "changed"]


async def test_by_default_a_changed_secret_alone_is_not_seen_at_once(node: Node) -> None:
    put(node, "Secret", "old")
    script = "echo up; i=0; while [ $i -lt 10 ]; do sleep 0.1; i=$((i + 1)); done; cat /v/word"
    node.pod("p", mounted(script), volumes=[{"name": "v", **SOURCES["Secret"]}])
    await node.logged(await node.running("p"), "up")
    put(node, "Secret", "new")
    assert (await node.log(await node.ended("p"))).split() == ["up", "old"]


async def test_a_secret_that_goes_leaves_its_content_and_a_warning(node: Node) -> None:
    put(node, "Secret", "old")
    script = "echo up; until [ -e /go/now ]; do sleep 0.05; done; cat /v/word"
    both = [{"name": "v", "mountPath": "/v"}, {"name": "go", "mountPath": "/go"}]
    volumes = [{"name": "v", **SOURCES["Secret"]}, {"name": "go", "configMap": {"name": "go", "optional": True}}]
    node.pod("p", container(script, volumeMounts=both), volumes=volumes)
    await node.logged(await node.running("p"), "up")
    node.registry.delete("Secret", "default", "s")
    node.registry.create("ConfigMap", "default", {"metadata": {"name": "go"}, "data": {"now": "1"}})
    annotate(node, touched="1")
    assert 'secret "s" not found' in await node.event_message("p", "FailedMount")
    assert (await node.log(await node.ended("p"))).split() == ["up", "old"]


async def test_a_volume_that_no_container_mounts_holds_up_nothing(node: Node) -> None:
    node.pod("p", container("exit 0"), volumes=[{"name": "v", "secret": {"secretName": "nosuch"}}])
    assert (await node.ended("p"))["status"]["phase"] == "Succeeded"
