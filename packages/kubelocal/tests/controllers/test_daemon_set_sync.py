"""What a DaemonSet does for its nodes and pods."""

from __future__ import annotations

from typing import Any

from kubelocal.controllers.daemon_set_sync import decide_daemon_set
from kubelocal.controllers.replica_set_sync import WorkloadPlan, template_hash
from replicated import NOW, owner, pod


def daemons(**spec: Any) -> dict[str, Any]:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
    return owner("DaemonSet", **{"updateStrategy": strategy, **spec})


def node(name: str, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": spec, "status": {"allocatable": {}}}


def on(name: str, daemon_set: dict[str, Any], *, old: bool = False, **more: Any) -> dict[str, Any]:
    revision = "old" if old else template_hash(daemon_set["spec"]["template"])
    made = pod(f"web-{name}", labels={"controller-revision-hash": revision}, **more)
    return {**made, "spec": {"nodeName": name}}


def decide(daemon_set: dict[str, Any], pods: list[dict[str, Any]], *nodes: dict[str, Any]) -> WorkloadPlan:
    return decide_daemon_set(daemon_set, pods, NOW, nodes)


def test_each_node_gets_a_pod_of_its_own() -> None:
    plan = decide(daemons(), [], node("a"), node("b"))
    assert len(plan.create) == 2
    fields = [
        made["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        for made in plan.create
    ]
    assert [one["nodeSelectorTerms"][0]["matchFields"][0]["values"] for one in fields] == [["a"], ["b"]]
    [first, _] = plan.create
    assert first["metadata"]["generateName"] == "web-"
    assert first["metadata"]["labels"]["app"] == "web"
    assert first["metadata"]["ownerReferences"][0]["kind"] == "DaemonSet"
    tolerated = {one["key"]: one["effect"] for one in first["spec"]["tolerations"]}
    assert tolerated["node.kubernetes.io/unschedulable"] == "NoSchedule"
    assert plan.status["desiredNumberScheduled"] == plan.status["numberUnavailable"] == 2


def test_a_pod_that_waits_for_its_node_is_not_made_twice() -> None:
    [made] = decide(daemons(), [], node("a")).create
    waiting = {**made, "metadata": {**made["metadata"], "name": "web-x", "creationTimestamp": "2026-01-01T00:00:00Z"}}
    plan = decide(daemons(), [waiting], node("a"))
    assert (plan.create, plan.delete, plan.status["currentNumberScheduled"]) == ((), (), 1)


def test_a_pod_on_a_node_that_no_longer_suits_goes() -> None:
    picky = daemons(
        template={"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [], "nodeSelector": {"disk": "fast"}}}
    )
    fast = node("a", {"disk": "fast"})
    plan = decide(picky, [on("a", picky), on("b", picky)], fast, node("b"))
    assert (plan.create, plan.delete) == ((), ("web-b",))
    assert (plan.status["desiredNumberScheduled"], plan.status["numberMisscheduled"]) == (1, 1)
    tainted = node("c", taints=[{"key": "k", "effect": "NoSchedule"}])
    assert decide(daemons(), [], tainted).create == ()
    assert len(decide(daemons(), [], node("d", unschedulable=True)).create) == 1


def test_pods_that_ended_or_are_too_many_are_replaced() -> None:
    ended = {**on("a", daemons()), "status": {"phase": "Failed"}}
    assert decide(daemons(), [ended], node("a")).delete == ("web-a",)
    second = on("a", daemons(), ago=5)
    second["metadata"]["name"] = "web-second"
    assert decide(daemons(), [second, on("a", daemons())], node("a")).delete == ("web-second",)


def test_a_new_template_replaces_pods_a_few_at_a_time() -> None:
    nodes = [node(name) for name in "abc"]
    old = [on(name, daemons(), old=True) for name in "abc"]
    plan = decide(daemons(), old, *nodes)
    assert (plan.delete, plan.status["updatedNumberScheduled"]) == (("web-a",), 0)
    away = [on("a", daemons(), ready=None), *old[1:]]
    assert decide(daemons(), away, *nodes).delete == ()
    broken = [on("a", daemons(), old=True, ready=None), *old[1:]]
    assert decide(daemons(), broken, *nodes).delete == ("web-a",), "it is away already"
    half = daemons(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "50%"}})
    assert decide(half, old, *nodes).delete == ("web-a", "web-b")
    assert decide(daemons(updateStrategy={"type": "OnDelete"}), old, *nodes).delete == ()


def test_the_status_counts_what_is_available() -> None:
    wary = daemons(minReadySeconds=60)
    plan = decide(wary, [on("a", wary, ready=90), on("b", wary, ready=20)], node("a"), node("b"))
    assert plan.status == {
        "currentNumberScheduled": 2,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 2,
        "numberReady": 2,
        "observedGeneration": 3,
        "updatedNumberScheduled": 2,
        "numberAvailable": 1,
        "numberUnavailable": 1,
    }
    assert plan.wait == 40


def test_one_that_is_being_deleted_makes_nothing() -> None:
    going = daemons()
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert decide(going, [], node("a")).create == ()
