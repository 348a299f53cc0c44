import asyncio
import contextlib

import pytest

from deadlines import scaled
from kubelocal.admission import resource_quota
from kubelocal.codec.kinds import KINDS
from kubelocal.codec.status_errors import StatusError
from kubelocal.controllers.quota_controller import QuotaController
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.storage.store import Store


@pytest.fixture
def registry():
    registry = ClusterRegistry(Store(), admitters=[resource_quota.admit])
    for name in ("ns", "other"):
        registry.create("Namespace", "", {"metadata": {"name": name}})
    return registry


def limit(registry, name="q", **spec):
    return registry.create("ResourceQuota", "ns", {"metadata": {"name": name}, "spec": spec})


def pod(name="p", requests=None, limits=None, **spec):
    resources = {key: value for key, value in (("requests", requests), ("limits", limits)) if value}
    containers = [{"name": "base", "image": "a", "resources": resources}]
    return {"metadata": {"name": name}, "spec": {"containers": containers, **spec}}


def refusal(registry, manifest, kind="Pod"):
    with pytest.raises(StatusError) as refused:
        registry.create(kind, "ns", manifest)
    assert (refused.value.code, refused.value.reason) == (403, "Forbidden")
    return refused.value.status["message"]


def used(registry, name="q"):
    return resource_quota.used(registry, registry.get("ResourceQuota", "ns", name))


def test_a_pod_too_many_is_refused_with_what_is_asked_used_and_limited(registry):
    limit(registry, "few", hard={"pods": "1"})
    registry.create("Pod", "ns", pod("a"))
    message = 'pods "b" is forbidden: exceeded quota: few, requested: pods=1, used: pods=1, limited: pods=1'
    assert refusal(registry, pod("b")) == message
    registry.create("Pod", "other", pod("b"))


def test_an_ended_pod_counts_no_more_but_as_an_object(registry):
    limit(registry, hard={"pods": "1", "count/pods": "2"})
    registry.create("Pod", "ns", pod("a"))
    registry.update("Pod", "ns", "a", lambda one: one["status"].update(phase="Succeeded"), subresource="status")
    assert used(registry) == {"pods": "0", "count/pods": "1"}
    registry.create("Pod", "ns", pod("b"))
    message = (
        "exceeded quota: q, requested: count/pods=1,pods=1, used: count/pods=2,pods=1, limited: count/pods=2,pods=1"
    )
    assert message in refusal(registry, pod("c"))


@pytest.mark.parametrize(
    ("hard", "manifest", "message"),
    [
        (
            {"requests.memory": "1Gi"},
            pod(requests={"memory": "2Gi"}),
            "exceeded quota: q, requested: requests.memory=2Gi, used: requests.memory=0, limited: requests.memory=1Gi",
        ),
        ({"requests.memory": "1Gi"}, pod(), "failed quota: q: must specify requests.memory for: base"),
        ({"memory": "1Gi"}, pod(), "failed quota: q: must specify memory for: base"),
        (
            {"limits.cpu": "1", "requests.memory": "1Gi"},
            pod(requests={"cpu": "1"}),
            "failed quota: q: must specify limits.cpu for: base; requests.memory for: base",
        ),
        (
            {"requests.cpu": "1", "limits.cpu": "1500m"},
            pod(requests={"cpu": "1100m"}, limits={"cpu": "2"}),
            "exceeded quota: q, requested: limits.cpu=2,requests.cpu=1100m, used: limits.cpu=0,requests.cpu=0, "
            "limited: limits.cpu=1500m,requests.cpu=1",
        ),
        (
            {"requests.nvidia.com/gpu": "1"},
            pod(limits={"nvidia.com/gpu": "2"}),
            "requested: requests.nvidia.com/gpu=2, used: requests.nvidia.com/gpu=0, limited: requests.nvidia.com/gpu=1",
        ),
    ],
)
def test_what_pods_ask_for_is_limited(registry, hard, manifest, message):
    limit(registry, hard=hard)
    assert refusal(registry, manifest).endswith(message)


def test_init_containers_count_by_their_peak_and_native_sidecars_add_up(registry):
    limit(registry, hard={"requests.cpu": "10"})
    inits = [
        {"name": "side", "image": "a", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
        {"name": "init", "image": "a", "resources": {"requests": {"cpu": "4"}}},
    ]
    registry.create("Pod", "ns", pod("a", requests={"cpu": "500m"}, initContainers=inits))
    assert used(registry) == {"requests.cpu": "5"}
    registry.create("Pod", "ns", pod("b", requests={"cpu": "1500m"}))
    assert used(registry) == {"requests.cpu": "6500m"}


def test_other_kinds_are_counted_too(registry):
    limit(registry, hard={"count/jobs.batch": "0", "secrets": "1", "requests.memory": "1Gi"})
    template = {"spec": {"containers": [{"name": "base", "image": "a"}], "restartPolicy": "Never"}}
    assert 'jobs.batch "j" is forbidden: exceeded quota' in refusal(
        registry, {"metadata": {"name": "j"}, "spec": {"template": template}}, "Job"
    )
    registry.create("Secret", "ns", {"metadata": {"name": "s"}})
    assert used(registry) == {"count/jobs.batch": "0", "secrets": "1", "requests.memory": "0"}
    registry.create("ConfigMap", "ns", {"metadata": {"name": "c"}})


def claim(name="c", storage="2Gi", **spec):
    resources = {"requests": {"storage": storage}}
    return {"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": resources, **spec}}


def service(name="s", type_="ClusterIP", ports=1, **spec):
    numbered = [{"name": f"p{number}", "port": 80 + number} for number in range(ports)]
    return {"metadata": {"name": name}, "spec": {"type": type_, "ports": numbered, **spec}}


FAST = "fast.storageclass.storage.k8s.io"


@pytest.mark.parametrize(
    ("hard", "kind", "manifest", "requested"),
    [
        ({"requests.storage": "1Gi"}, "PersistentVolumeClaim", claim(), "requests.storage=2Gi"),
        (
            {f"{FAST}/requests.storage": "1Gi"},
            "PersistentVolumeClaim",
            claim(storageClassName="fast"),
            f"{FAST}/requests.storage=2Gi",
        ),
        (
            {f"{FAST}/persistentvolumeclaims": "0"},
            "PersistentVolumeClaim",
            claim(storageClassName="fast"),
            f"{FAST}/persistentvolumeclaims=1",
        ),
        ({"services.loadbalancers": "0"}, "Service", service(type_="LoadBalancer"), "services.loadbalancers=1"),
        ({"services.nodeports": "1"}, "Service", service(type_="LoadBalancer", ports=2), "services.nodeports=2"),
        ({"services.nodeports": "1"}, "Service", service(type_="NodePort", ports=2), "services.nodeports=2"),
    ],
)
def test_storage_and_types_of_services_are_limited(registry, hard, kind, manifest, requested):
    limit(registry, "s", hard=hard)
    (key, allowed), *_ = hard.items()
    shortage = f"exceeded quota: s, requested: {requested}, used: {key}=0, limited: {key}={allowed}"
    assert refusal(registry, manifest, kind).endswith(shortage)


@pytest.mark.parametrize(
    ("kind", "manifest"),
    [
        ("PersistentVolumeClaim", claim(storageClassName="slow")),
        ("Service", service()),
        ("Service", service(type_="LoadBalancer", allocateLoadBalancerNodePorts=False)),
        ("Pod", pod()),
    ],
)
def test_storage_of_other_classes_and_services_of_other_types_count_nothing(registry, kind, manifest):
    hard = {f"{FAST}/requests.storage": "0", f"{FAST}/persistentvolumeclaims": "0", "services.nodeports": "0"}
    limit(registry, hard=hard)
    registry.create(kind, "ns", manifest)
    assert used(registry) == dict.fromkeys(hard, "0")


def test_the_usage_of_storage_and_services_is_counted(registry):
    limit(registry, hard={"requests.storage": "9Gi", "services.loadbalancers": "2", "services.nodeports": "5"})
    registry.create("PersistentVolumeClaim", "ns", claim("a"))
    registry.create("PersistentVolumeClaim", "ns", claim("b", "500Mi"))
    registry.create("Service", "ns", service("a", "LoadBalancer"))
    registry.create("Service", "ns", service("b", "NodePort", 2))
    assert used(registry) == {
        "requests.storage": "2548Mi",
        "services.loadbalancers": "1",
        "services.nodeports": "3",
    }


def test_of_a_larger_claim_and_another_type_of_service_the_difference_counts(registry):
    limit(registry, "s", hard={"requests.storage": "3Gi", "services.nodeports": "0"})
    registry.create("PersistentVolumeClaim", "ns", claim())
    registry.create("Service", "ns", service())

    def revise(kind, name, new):
        return registry.revise(KINDS[kind], "ns", name, lambda old: {**old, "spec": {**old["spec"], **new["spec"]}})

    revise("PersistentVolumeClaim", "c", claim(storage="3Gi"))
    with pytest.raises(StatusError, match=r"requests\.storage=1Gi, used: requests\.storage=3Gi, limited: "):
        revise("PersistentVolumeClaim", "c", claim(storage="4Gi"))
    with pytest.raises(StatusError, match=r"requested: services\.nodeports=1"):
        revise("Service", "s", service(type_="NodePort"))


@pytest.mark.parametrize(
    ("scope", "manifest", "counts"),
    [
        ({"scopes": ["Terminating"]}, pod(activeDeadlineSeconds=9), True),
        ({"scopes": ["Terminating"]}, pod(), False),
        ({"scopes": ["NotTerminating"]}, pod(), True),
        ({"scopes": ["BestEffort"]}, pod(), True),
        ({"scopes": ["NotBestEffort"]}, pod(), False),
        ({"scopes": ["NotBestEffort"]}, pod(requests={"cpu": "1"}), True),
        (
            {
                "scopeSelector": {
                    "matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]
                }
            },
            pod(priorityClassName="high"),
            True,
        ),
        (
            {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]}},
            pod(),
            False,
        ),
    ],
)
def test_a_scope_says_which_pods_count(registry, scope, manifest, counts):
    limit(registry, hard={"pods": "5"}, **scope)
    registry.create("Pod", "ns", manifest)
    assert used(registry) == {"pods": str(int(counts))}


async def test_the_status_follows_the_objects(registry):
    seen = registry.watch("ResourceQuota", "ns")

    async def until(pods):
        async for change in seen:
            if change.object.get("status", {}).get("used") == {"pods": pods}:
                return

    limit(registry, hard={"pods": "5"})
    controller = asyncio.create_task(QuotaController(registry).run())
    try:
        async with asyncio.timeout(scaled(5)):
            await until("0")
            registry.create("Pod", "ns", pod("a"))
            registry.create("Pod", "ns", pod("b"))
            await until("2")
            registry.delete("Pod", "ns", "a", grace_period=0)
            await until("1")
    finally:
        seen.close()
        controller.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await controller
    assert registry.get("ResourceQuota", "ns", "q")["status"]["hard"] == {"pods": "5"}
