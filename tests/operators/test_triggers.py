from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from benchmarks.chaos.proxying import Proxy
from benchmarks.operator_cells import first_event as execute_trigger

from crosswind.kube.client import Client
from crosswind.kube.resources import PODS
from crosswind.podrun.follow import pod_states
from crosswind.podrun.shared_watch import shared_informers
from crosswind.settings import KubeSettings
from crosswind.triggers import PodTrigger, kube_settings
from deadlines import scaled

LABELS = {"kubernetes_pod_operator": "True"}


def pod(name: str, script: str, image: str = "busybox", labels: Any = LABELS) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "base", "image": image, "command": ["sh", "-c", script]}],
        },
    }


def trigger(runner: Any, name: str, **options: Any) -> PodTrigger:
    options = {"config_file": str(runner.cluster.kubeconfig), **options}
    return PodTrigger(pod_name=name, pod_namespace=runner.namespace, **options)


async def first(pod_trigger: PodTrigger) -> dict[str, Any]:
    async for event in pod_trigger.run():
        return dict(event.payload)
    raise AssertionError("no event")


@contextlib.asynccontextmanager
async def client_of(runner: Any) -> Any:
    async with await Client.connect(KubeSettings(kubeconfig=str(runner.cluster.kubeconfig))) as client:
        yield client
    await shared_informers().close()


@pytest.mark.cluster
async def test_many_deferred_pods_share_one_watch(runner: Any) -> None:
    async with client_of(runner) as client:
        names = [f"pod-{number}" for number in range(10)]
        for name in names:
            await client.create(PODS, pod(name, "sleep 1", runner.cluster.image), namespace=runner.namespace)
        waits = [asyncio.create_task(first(trigger(runner, name))) for name in names]
        await asyncio.sleep(0)
        events = await asyncio.gather(*waits)
        assert {event["status"] for event in events} == {"success"}
        assert len(shared_informers()) == 1


@pytest.mark.cluster
async def test_an_end_is_noticed_within_a_fifth_of_a_second(runner: Any) -> None:
    async with client_of(runner) as client:
        await client.create(PODS, pod("pod", "sleep 1", runner.cluster.image), namespace=runner.namespace)

        async def watch() -> float:
            version = (await client.get(PODS, "pod", namespace=runner.namespace))["metadata"]["resourceVersion"]
            async for event in client.watch(PODS, namespace=runner.namespace, version=version, timeout=scaled(20)):
                if "terminated" in str(event["object"].get("status")):
                    break
            return time.monotonic()

        seen = asyncio.create_task(watch())
        await first(trigger(runner, "pod"))
        noticed = time.monotonic()
        assert abs(noticed - await seen) < scaled(0.2)  # a poll would take seconds


@pytest.mark.cluster
@pytest.mark.parametrize("labels", [LABELS, {}], ids=["labelled", "without-stock-s-label"])
async def test_an_end_before_the_first_look_and_a_removal_are_reported(runner: Any, labels: Any) -> None:
    async with client_of(runner) as client:
        await client.create(PODS, pod("quick", "exit 3", runner.cluster.image, labels), namespace=runner.namespace)
        failed = await first(trigger(runner, "quick"))
        assert (failed["status"], failed["deleted"]) == ("failed", False)
        assert (await first(trigger(runner, "quick")))["status"] == "failed"
        await client.create(PODS, pod("taken", "sleep 20", runner.cluster.image, labels), namespace=runner.namespace)
        waiting = asyncio.create_task(first(trigger(runner, "taken")))
        async for state, _ in pod_states(client, "taken", runner.namespace):
            if state and state["status"].get("phase") == "Running":
                break
        await client.delete(PODS, "taken", namespace=runner.namespace, grace_period=0)
        gone = await waiting
        assert (gone["status"], gone["deleted"]) == ("failed", True)
        assert "pod" not in await first(trigger(runner, "never-there"))
        assert "pod" not in await first(trigger(runner, "quick", pod_uid="of-an-earlier-pod"))


@pytest.mark.cluster
async def test_a_trigger_begins_anew_in_another_triggerer(runner: Any) -> None:
    async with client_of(runner) as client:
        await client.create(PODS, pod("pod", "sleep 2; exit 3", runner.cluster.image), namespace=runner.namespace)
        pod_trigger = trigger(runner, "pod", schedule_timeout=scaled(20), startup_timeout=scaled(20))
        waiting = asyncio.create_task(first(pod_trigger))
        async for state, _ in pod_states(client, "pod", runner.namespace):
            if state and state["status"].get("phase") == "Running":
                break
        waiting.cancel()  # the triggerer is ended
        await asyncio.wait([waiting])
        await shared_informers().close()
        _, arguments = pod_trigger.serialize()
        event = await first(PodTrigger(**json.loads(json.dumps(arguments))))
        assert (event["status"], event["deleted"]) == ("failed", False)
        assert '"exitCode": 3' in json.dumps(event["pod"]["status"])


@pytest.mark.cluster
async def test_the_deadline_ends_the_wait(runner: Any) -> None:
    async with client_of(runner) as client:
        await client.create(PODS, pod("long", "sleep 20", runner.cluster.image), namespace=runner.namespace)
        event = await first(trigger(runner, "long", deadline=time.time() + 1))
        assert (event["status"], "execution_timeout" in event["message"]) == ("timeout", True)


@pytest.mark.cluster
async def test_the_deadline_is_one_of_the_api_server_s_clock(runner: Any, tmp_path: Path) -> None:
    with Proxy(runner.cluster.kubeconfig, tmp_path) as proxy:
        proxy.clock_offset = -3600.0
        async with await Client.connect(KubeSettings(kubeconfig=str(proxy.kubeconfig))) as client:
            await client.create(PODS, pod("short", "sleep 1", runner.cluster.image), namespace=runner.namespace)
            deadline = await client.now() + 30
            assert deadline < time.time()
        waiting = trigger(runner, "short", config_file=str(proxy.kubeconfig), deadline=deadline)
        assert (await first(waiting))["status"] == "success"
        await shared_informers().close()


SAYS = "echo '::group::Load'; echo 'ERROR: row 7'; echo 'WARNING: slow'; echo plain; echo '::endgroup::'"


def shout(container: str, text: str) -> str:
    """Format a line, as a ``log_formatter`` at the top of a module does."""
    return f"{container}! {text}"


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("style", "lines"),
    [
        ({}, ["[base] ERROR: row 7", "[base] WARNING: slow", "[base] plain"]),
        ({"container_name_log_prefix_enabled": False}, ["ERROR: row 7", "WARNING: slow", "plain"]),
        ({"log_formatter": shout}, ["base! ERROR: row 7", "base! WARNING: slow", "base! plain"]),
    ],
)
def test_the_triggerer_prints_as_a_worker_does(runner: Any, capsys: Any, style: Any, lines: list[str]) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        runner.operator(SAYS, deferrable=True, logging_interval=1, **style).execute(runner.context)
    capsys.readouterr()
    asyncio.run(execute_trigger(*deferred.value.trigger.serialize()))
    printed = capsys.readouterr().out
    assert re.findall(r"^::\w+::.*$", printed, re.MULTILINE) == ["::group::Load", "::endgroup::"]
    matches = re.findall(r"^\S+Z \[(\w+) *\] (.*?) *\[", printed.replace("[base]", "<base>"), re.MULTILINE)
    texts = [(level, text.replace("<base>", "[base]")) for level, text in matches]
    assert [message for message in texts if message[1] in lines] == list(
        zip(["error", "warning", "info"], lines, strict=True)
    )


@pytest.mark.cluster
def test_a_formatter_that_cannot_travel_leaves_the_log_to_the_worker(runner: Any, printed: Any) -> None:
    options = {"deferrable": True, "logging_interval": 1, "log_formatter": lambda container, text: f"[base] <{text}>"}
    runner.run("echo one; sleep 0.3; echo two", **options)
    assert printed.lines() == ["<one>", "<two>"]


@pytest.mark.cluster
@pytest.mark.parametrize(("action", "left"), [("delete_pod", 0), ("keep_pod", 1)])
async def test_killing_a_deferred_task_deletes_its_pod_unless_it_is_kept(runner: Any, action: str, left: int) -> None:
    async with client_of(runner) as client:
        await client.create(PODS, pod("pod", "sleep 20", runner.cluster.image), namespace=runner.namespace)
        pod_trigger = trigger(runner, "pod", on_kill_action=action)
        waiting = asyncio.create_task(first(pod_trigger))
        await asyncio.sleep(0.5)
        waiting.cancel()
        await asyncio.wait([waiting])
        await pod_trigger.on_kill()
        pods = (await client.list(PODS, namespace=runner.namespace)).items
        assert len([pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]) == left


@pytest.mark.cluster
async def test_a_cluster_out_of_reach_is_an_event_and_no_endless_wait(tmp_path: Path) -> None:
    pod_trigger = PodTrigger(pod_name="pod", pod_namespace="default", config_file=str(tmp_path / "none"))
    event = await first(pod_trigger)
    assert (event["status"], "there is no kubeconfig" in event["message"]) == ("error", True)


def test_the_row_holds_no_credentials_and_creates_the_same_trigger(runner: Any) -> None:
    operator = runner.operator("true", deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(runner.context)
    path, arguments = deferred.value.trigger.serialize()
    assert path == "crosswind.triggers.PodTrigger"
    assert "token" not in json.dumps(arguments)
    assert PodTrigger(**arguments).serialize() == (path, arguments)


@pytest.mark.parametrize(
    ("arguments", "extras", "expected"),
    [
        ({}, {"kube_config_path": "/a"}, KubeSettings(kubeconfig="/a")),
        ({"config_file": "/b"}, {"kube_config_path": "/a"}, KubeSettings(kubeconfig="/b")),
        ({}, {"extra__kubernetes__in_cluster": True}, KubeSettings(in_cluster=True)),
        ({}, {"in_cluster": "true", "disable_verify_ssl": True}, KubeSettings(in_cluster=True, verify_ssl=False)),
        ({"cluster_context": "x"}, {"kube_config": {"a": 1}}, KubeSettings(kubeconfig_text='{"a":1}', context="x")),
        ({"in_cluster": False}, {"in_cluster": True}, KubeSettings()),
    ],
)
def test_arguments_count_before_the_connection(arguments: Any, extras: Any, expected: KubeSettings) -> None:
    none = dict.fromkeys(("config_file", "in_cluster", "cluster_context"))
    assert kube_settings(none | arguments, extras) == expected


def test_importing_the_operator_loads_nothing_but_stock_s_and_what_it_runs_on() -> None:
    code = (
        "import sys; from airflow.providers.cncf.kubernetes.operators import pod; from airflow.providers.common.compat"
        " import connection; import airflow.triggers.base; before = set(sys.modules); import crosswind.operators;"
        " print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}));"
        " print(*sorted(name for name in sys.modules if name.startswith('kubelocal')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=scaled(60), check=True)
    foreign, local = done.stdout.splitlines()[-2:]
    allowed = {"crosswind", "orjson", "aiohttp", "queue", "concurrent"}
    assert set(foreign.split()) <= allowed | set(sys.stdlib_module_names), foreign
    assert local == ""
