"""The reaper on the local cluster: Jobs with injected sidecars, fail-over and restarts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from crosswind.kube.client import Client, Patch
from crosswind.kube.resources import EVENTS, JOBS, NAMESPACES, PODS
from crosswind.settings import KubeSettings, ReapSettings
from crosswind.sidecars.reaper import Reaper
from crosswind.testing import Cluster
from crosswind.types import Manifest
from deadlines import scaled

pytestmark = pytest.mark.cluster

JOBS_PODS = "batch.kubernetes.io/job-name"
PROXY: Manifest = {
    "name": "istio-proxy",
    "image": "istio/proxyv2:1.26.4-distroless",
    "args": ["proxy", "sidecar"],
    "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
}


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as made:
        yield made


def shell(name: str, script: str) -> Manifest:
    return {"name": name, "image": "busybox", "command": ["sh", "-c", script]}


def pod(name: str, *containers: Manifest, policy: str = "Never", **metadata: Any) -> Manifest:
    spec = {"containers": list(containers), "restartPolicy": policy, "terminationGracePeriodSeconds": 1}
    labels = {"app": "job"} | metadata.pop("labels", {})
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels, **metadata}, "spec": spec}


def job(name: str, script: str) -> Manifest:
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [shell("work", script)]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"spec": spec}, "backoffLimit": 0},
    }


async def until(client: Client, resource: Any, namespace: str, holds: Callable[[Manifest], Any]) -> Manifest:
    """Return the first object for which the condition holds, as soon as there is one."""
    listing = await client.list(resource, namespace=namespace)
    if matching := next(filter(holds, listing.items), None):
        return matching
    watch = client.watch(resource, namespace=namespace, version=listing.version, timeout=scaled(25))
    async with contextlib.aclosing(watch):
        async for event in watch:
            if event["type"] != "BOOKMARK" and holds(event["object"]):
                return event["object"]
    raise AssertionError("it did not come so")


def is_over(name: str) -> Callable[[Manifest], bool]:
    """Return a condition: the container has ended and all others have started; until then the phase is Pending."""

    def over(pod: Manifest) -> bool:
        status = pod.get("status", {})
        statuses = status.get("containerStatuses", [])
        ended = any(item["name"] == name and "terminated" in item["state"] for item in statuses)
        return ended and status["phase"] != "Pending"

    return over


async def recorded_events(client: Client, namespace: str) -> list[tuple[str, str]]:
    """Return pod and reason of each Event of crosswind."""
    events = (await client.list(EVENTS, namespace=namespace)).items
    ours = [event for event in events if event.get("source", {}).get("component") == "crosswind"]
    ours.sort(key=lambda event: int(event["metadata"]["resourceVersion"]))
    return [(event["involvedObject"]["name"], event["reason"]) for event in ours]


@contextlib.asynccontextmanager
async def at_work(reaper: Reaper) -> AsyncIterator[Reaper]:
    task = asyncio.create_task(reaper.run())
    try:
        yield reaper
    finally:
        task.cancel()
        await asyncio.wait([task])


def reaper(client: Client, namespace: str, selector: str = JOBS_PODS, **settings: Any) -> Reaper:
    return Reaper(client, ReapSettings((namespace,), selector, rate=100.0, **settings))


async def test_a_meshed_job_completes_with_the_reaper_and_not_without(client: Client, namespace: str) -> None:
    await client.patch(NAMESPACES, namespace, {"metadata": {"labels": {"istio-injection": "enabled"}}})
    await client.create(JOBS, job("etl", "exit 0"), namespace=namespace)
    await until(client, PODS, namespace, is_over("work"))
    assert not (await client.get(JOBS, "etl", namespace=namespace))["status"].get("succeeded")
    async with at_work(reaper(client, namespace)):
        done = await until(client, JOBS, namespace, lambda job: job["status"].get("succeeded"))
    assert done["metadata"]["name"] == "etl"
    assert [reason for _, reason in await recorded_events(client, namespace)] == ["EndingSidecar", "SidecarEnded"]


def meshed(name: str, script: str = "exit 0", *more: Manifest, **metadata: Any) -> Manifest:
    return pod(name, shell("work", script), PROXY, *more, **metadata)


MAIN = {"crosswind/main-container": "work"}
OVER = is_over("work")
FOR_EVER = "trap 'exit 0' TERM; while :; do sleep 0.2; done"
TOUCHED = {
    "plain": meshed("plain"),
    "failed": meshed("failed", "exit 3"),
    "proxy-first": pod("proxy-first", PROXY, shell("work", "exit 0")),
    "on-failure": meshed("on-failure", policy="OnFailure"),
    "named": meshed("named", "exit 0", shell("second", "exit 0"), annotations=MAIN),
    "opted-in": meshed(
        "opted-in", "exit 0", shell("shipper", FOR_EVER), annotations={"crosswind/end-sidecars": "shipper"}
    ),
    "called-base": pod("called-base", shell("base", "exit 0"), PROXY),
}
LEFT_ALONE = {
    "not-selected": (meshed("not-selected", labels={"app": "other"}), None),
    "foreign-base": (
        pod("foreign-base", shell("base", "exit 0"), shell("work", FOR_EVER), PROXY),
        "containers base, work could be the main one",
    ),
    "deployed": (meshed("deployed", policy="Always"), "restartPolicy is Always"),
    "trying-again": (meshed("trying-again", "exit 1", policy="OnFailure"), "restartPolicy is OnFailure"),
    "mid-run": (meshed("mid-run", FOR_EVER), "container work is running"),
    "second-worker": (
        meshed("second-worker", "exit 0", shell("second", FOR_EVER), annotations=MAIN),
        "container second runs and may be a second worker",
    ),
    "in-name-only": (
        pod("in-name-only", shell("work", "exit 0"), shell("istio-proxy", FOR_EVER)),
        "containers work, istio-proxy could be the main one",
    ),
    "debugged": (meshed("debugged"), "debug container debugger runs"),
    "executors": (meshed("executors", labels={"kubernetes_executor": "True"}), "belongs to Airflow's executor"),
    "operators": (
        meshed("operators", labels={"kubernetes_pod_operator": "True"}),
        "belongs to Airflow's pod operator",
    ),
}


def proxy(pod: Manifest) -> Manifest:
    return next(status for status in pod["status"]["containerStatuses"] if status["name"] == "istio-proxy")


async def look_alikes(client: Client, namespace: str) -> None:
    """Create all those pods, and wait until those that end have ended."""
    for made in (*TOUCHED.values(), *(made for made, _ in LEFT_ALONE.values())):
        await client.create(PODS, made, namespace=namespace)
    debugger = {"spec": {"ephemeralContainers": [{**shell("debugger", FOR_EVER), "targetContainerName": "work"}]}}
    await client.patch(
        PODS, "debugged", debugger, namespace=namespace, how=Patch.STRATEGIC, subresource="ephemeralcontainers"
    )
    for name in (*TOUCHED, *LEFT_ALONE.keys() - {"deployed", "trying-again", "mid-run"}):
        main = is_over("base" if "base" in name else "work")
        await until(client, PODS, namespace, lambda pod, name=name, main=main: is_named(pod, name) and main(pod))
    await until(client, PODS, namespace, lambda pod: is_named(pod, "mid-run") and is_running(pod))
    await until(client, PODS, namespace, lambda pod: is_named(pod, "debugged") and is_debugged(pod))


def is_named(pod: Manifest, name: str) -> bool:
    return bool(pod["metadata"]["name"] == name)


def is_debugged(pod: Manifest) -> bool:
    return any("running" in status["state"] for status in pod["status"].get("ephemeralContainerStatuses", ()))


def is_running(pod: Manifest) -> bool:
    return bool(pod["status"].get("phase") == "Running")


def is_finished(pod: Manifest, name: str) -> bool:
    return is_named(pod, name) and pod["status"].get("phase") in ("Succeeded", "Failed")


@pytest.mark.timeout(60)
async def test_among_pods_that_look_alike_exactly_the_right_ones_are_touched(client: Client, namespace: str) -> None:
    await look_alikes(client, namespace)
    async with at_work(reaper(client, namespace, "app=job")) as working:
        for name in TOUCHED:
            await until(client, PODS, namespace, lambda pod, name=name: is_finished(pod, name))
        words = {uid: word for uid, (_, word) in working.states.items()}
    pods = {pod["metadata"]["name"]: pod for pod in (await client.list(PODS, namespace=namespace)).items}
    assert {name for name, _ in await recorded_events(client, namespace)} == TOUCHED.keys()
    assert {name: pods[name]["status"]["phase"] for name in TOUCHED} == {
        name: "Failed" if name == "failed" else "Succeeded" for name in TOUCHED
    }
    for name, (_, objection) in LEFT_ALONE.items():
        assert (objection or "") in words.get(pods[name]["metadata"]["uid"], ""), name
        assert ("running" in proxy(pods[name])["state"], proxy(pods[name])["restartCount"]) == (True, 0), name


async def test_a_dry_run_says_what_it_would_do_and_does_nothing(
    client: Client, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    await client.create(PODS, meshed("plain"), namespace=namespace)
    await client.create(PODS, meshed("mid-run", FOR_EVER), namespace=namespace)
    await until(client, PODS, namespace, is_over("work"))
    await until(client, PODS, namespace, lambda pod: is_named(pod, "mid-run") and is_running(pod))
    with caplog.at_level("INFO", "crosswind.sidecars.reaper"):
        assert await reaper(client, namespace, "app=job", dry_run=True).once()
    assert f"Pod {namespace}/plain: would end istio-proxy by: ask POST :15020/quitquitquit" in caplog.text
    assert f"Pod {namespace}/mid-run is not changed: container work is" in caplog.text
    assert await recorded_events(client, namespace) == []
    assert "running" in proxy(await client.get(PODS, "plain", namespace=namespace))["state"]


SLOW = {
    "name": "consul-dataplane",
    "image": "hashicorp/consul-dataplane:1.6",
    "args": ["-shutdown-grace-period-seconds=4"],
    "env": PROXY["env"],
}


async def test_a_reaper_that_starts_again_does_nothing_twice(client: Client, namespace: str) -> None:
    await client.create(PODS, pod("slow", shell("work", "exit 0"), SLOW), namespace=namespace)
    asked = lambda event: event["reason"] == "EndingSidecar"  # noqa: E731
    for _ in range(2):
        async with at_work(reaper(client, namespace, "app=job")):
            await until(client, EVENTS, namespace, asked)
    assert not is_finished(await client.get(PODS, "slow", namespace=namespace), "slow")
    async with at_work(reaper(client, namespace, "app=job")):
        await until(client, PODS, namespace, lambda pod: is_finished(pod, "slow"))
    assert await recorded_events(client, namespace) == [("slow", "EndingSidecar"), ("slow", "SidecarEnded")]


async def test_a_pod_whose_sidecar_stayed_rests_and_is_named(
    client: Client, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = await client.create(PODS, meshed("plain"), namespace=namespace)
    stays = {
        "metadata": {"generateName": "plain."},
        "involvedObject": {key: made["metadata"][key] for key in ("name", "namespace", "uid")},
        "source": {"component": "crosswind"},
        "reason": "SidecarStays",
        "lastTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    await client.create(EVENTS, stays, namespace=namespace)
    await until(client, PODS, namespace, is_over("work"))
    assert not await reaper(client, namespace, "app=job").once()
    assert f"Pod {namespace}/plain is not finished: istio-proxy still runs" in caplog.text
    assert [reason for _, reason in await recorded_events(client, namespace)] == ["SidecarStays"]
    assert await reaper(client, namespace, "app=job", retry=0.001).once()


async def test_pods_start_at_the_set_rate_at_most(client: Client, namespace: str) -> None:
    for number in range(3):
        await client.create(PODS, meshed(f"pod-{number}"), namespace=namespace)
    for number in range(3):
        await until(client, PODS, namespace, lambda pod, name=f"pod-{number}": is_named(pod, name) and OVER(pod))
    slow = Reaper(client, ReapSettings((namespace,), "app=job", dry_run=True, rate=2.0))
    began = asyncio.get_running_loop().time()
    assert await slow.once()
    assert slow.outcomes == {(namespace, "planned"): 3}
    assert asyncio.get_running_loop().time() - began >= 1.0, "the third begins a second after the first"


async def test_nothing_is_done_without_the_lease(client: Client, namespace: str) -> None:
    await client.create(PODS, meshed("plain"), namespace=namespace)
    await until(client, PODS, namespace, is_over("work"))
    idle = Reaper(client, ReapSettings((namespace,), "app=job"), leads=lambda: False)
    assert await idle.once()
    assert idle.outcomes == {(namespace, "left"): 1}
    assert await recorded_events(client, namespace) == []
