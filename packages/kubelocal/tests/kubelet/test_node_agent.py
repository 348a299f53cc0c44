"""Pods as real processes: their lives, streams and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from kubelet_node import Node, container, kubelet_of, state, status_of, waits_for

from deadlines import eventually, eventually_blocking, scaled
from kubelocal.owned_paths import Owner, claim_folder
from kubelocal.settings import LocalImage, LocalSettings

UNTIL_TERM = "trap 'exit 0' TERM; while true; do sleep 0.1; done"
SHARED: dict[str, Any] = {"volumes": [{"name": "shared", "emptyDir": {}}]}
MOUNT: dict[str, Any] = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}


def sidecar(name: str, script: str = UNTIL_TERM, **more: Any) -> dict[str, Any]:
    return container(script, name, restartPolicy="Always", **more)


@pytest.mark.parametrize("sandbox", ["auto", "user", "none"])
async def test_a_pod_runs_a_script_with_volumes_and_ends_with_its_code(sandbox: Any) -> None:
    async with kubelet_of(LocalSettings(sandbox=sandbox)) as node:
        init = container("echo from init > /shared/x", "init", **MOUNT)
        script = (
            "cat /shared/x; echo err >&2; echo last > /dev/termination-log; echo $HOSTNAME > /tmp/x; cat /tmp/x; exit 3"
        )
        node.pod("p", container(script, **MOUNT), initContainers=[init], **SHARED)
        pod = await node.ended("p")
        assert pod["status"]["phase"] == "Failed"
        assert state(pod)["terminated"]["exitCode"] == 3
        assert state(pod)["terminated"]["message"] == "last\n"
        assert sorted((await node.log(pod)).splitlines()) == ["err", "from init", "p"]
        assert not Path("/shared").exists()


@pytest.mark.parametrize("sandbox", ["auto", "none"])
async def test_nothing_is_left_when_the_kubelet_ends(sandbox: Any) -> None:
    before = set(psutil.Process().children(recursive=True))
    async with kubelet_of(LocalSettings(sandbox=sandbox)) as node:
        node.pod("p", container("trap '' TERM; (setsid sleep 1000 &) ; echo up; while true; do sleep 1; done"))
        await node.logged(await node.running("p"), "up")
        assert len(psutil.Process().children(recursive=True)) > len(before) + 2
        folder = node.kubelet.context.folder
    _, left = psutil.wait_procs(
        set(psutil.Process().children(recursive=True)) - before, timeout=scaled(5)
    )  # killed, not reaped
    assert not left
    assert not folder.exists()


CRASHING = """
import asyncio, sys
from kubelet_node import container, kubelet_of
from kubelocal.settings import LocalImage, LocalSettings

async def main():
    async with kubelet_of(LocalSettings(sandbox=sys.argv[1])) as node:
        node.pod("p", container("(setsid sleep SECONDS &); echo up; sleep SECONDS".replace("SECONDS", sys.argv[2])))
        await node.logged(await node.running("p"), "up")
        print("up", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def sleepers(seconds: str) -> list[psutil.Process]:
    return [process for process in psutil.process_iter(["cmdline"]) if seconds in (process.info["cmdline"] or [])]


@pytest.mark.parametrize("sandbox", ["auto", "none"])
def test_no_process_survives_a_crash_of_the_kubelet(sandbox: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    seconds = f"4242.{os.getpid()}"  # no other run of the tests on this machine has processes that sleep so long
    command = [sys.executable, "-c", CRASHING, sandbox, seconds]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as kubelet:
        assert kubelet.stdout is not None
        assert kubelet.stdout.readline() == b"up\n"
        # "up" is printed before the shell starts the second sleep, and perhaps before setsid starts the first one
        eventually_blocking(lambda: len(sleepers(seconds)) >= 2)
        running = sleepers(seconds)
        kubelet.send_signal(signal.SIGKILL)
    assert psutil.wait_procs(running, timeout=scaled(5))[1] == []


async def test_a_container_sees_its_own_processes_and_files_alone(node: Node) -> None:
    node.pod("a", container("touch /made /tmp/made /usr/made; echo done; " + UNTIL_TERM))
    await node.logged(await node.running("a"), "done")
    node.pod(
        "b", container("echo $$$$; ls /made /tmp/made /usr/made 2>/dev/null; ls /proc | grep -c '^[0-9]'; env | sort")
    )
    pod = await node.ended("b")
    lines = (await node.log(pod)).splitlines()
    assert lines[0] == "1"
    assert int(lines[1]) < 5
    names = {line.split("=")[0] for line in lines[2:]}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {
        "HOME",
        "HOSTNAME",
        "PATH",
        "KUBERNETES_PORT",
        *(f"KUBERNETES_PORT_443_TCP{part}" for part in ("", "_ADDR", "_PORT", "_PROTO")),
        "KUBERNETES_SERVICE_HOST",
        "KUBERNETES_SERVICE_PORT",
        "KUBERNETES_SERVICE_PORT_HTTPS",
    }
    assert not Path("/made").exists()


async def test_a_start_takes_far_less_than_a_tenth_of_a_second_and_fifty_fit(node: Node) -> None:
    node.pod("first", container("exit 0"))
    await node.ended("first")
    begun = time.perf_counter()
    for number in range(50):
        node.pod(f"p{number}", container("exit 0"))
    pods = await asyncio.gather(*(node.ended(f"p{number}") for number in range(50)))
    assert {pod["status"]["phase"] for pod in pods} == {"Succeeded"}
    assert time.perf_counter() - begun < scaled(10)


async def test_lines_of_two_streams_are_whole_and_each_stream_is_in_order(node: Node) -> None:
    script = "i=0; while [ $i -lt 400 ]; do echo out $i; echo err $i >&2; i=$((i + 1)); done; printf rest"
    node.pod("p", container(script))
    lines = (await node.log(await node.ended("p"))).splitlines()
    for stream in ("out", "err"):
        assert [line for line in lines if line.startswith(stream)] == [f"{stream} {number}" for number in range(400)]
    assert len(lines) == 801
    assert "rest" in lines


async def test_a_container_starts_with_more_variables_than_one_message_holds(node: Node) -> None:
    env = [{"name": f"A{number}", "value": "x" * 50_000} for number in range(12)]
    node.pod("p", container("echo ${#A0} ${#A11}", env=env))
    assert await node.log(await node.ended("p")) == "50000 50000\n"


@pytest.mark.parametrize(
    ("linked", "message"), [(True, "tcp://10.9.8.7:5555 own 10.9.8.7"), (False, " own $(REDIS_SERVICE_HOST)")]
)
async def test_services_of_the_namespace_are_in_the_environment_unless_links_are_off(
    node: Node, linked: bool, message: str
) -> None:
    for name in ("flower", "redis"):
        spec = {"clusterIP": "10.9.8.7", "ports": [{"port": 5555}]}
        node.registry.create("Service", "default", {"metadata": {"name": name}, "spec": spec})
    env = [{"name": "REDIS_PORT", "value": "own"}, {"name": "AT", "value": "$(REDIS_SERVICE_HOST)"}]
    node.pod("p", container("echo $FLOWER_PORT $REDIS_PORT $AT", env=env), enableServiceLinks=linked)
    assert await node.log(await node.ended("p")) == f"{message.strip()}\n"


FROM_FIELD = {"name": "HOSTNAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}


@pytest.mark.parametrize(
    ("variables", "message"),
    [([], "$(PATH) $(HOME) $(HOSTNAME) $(HOME)/x p"), ([FROM_FIELD], "$(PATH) $(HOME) p $(HOME)/x p")],
)
async def test_only_what_the_pod_declares_is_expanded(
    node: Node, variables: list[dict[str, Any]], message: str
) -> None:
    script = ["sh", "-c", 'echo "$@" $BELOW $HOSTNAME', "sh", "$(PATH)", "$(HOME)", "$(HOSTNAME)"]
    env = [*variables, {"name": "BELOW", "value": "$(HOME)/x"}]
    node.pod("p", {"name": "base", "image": "busybox", "command": script, "env": env})
    assert await node.log(await node.ended("p")) == f"{message}\n"


async def test_a_sub_path_of_a_variable_that_the_pod_does_not_declare_holds_its_container(node: Node) -> None:
    mount = {"name": "shared", "mountPath": "/shared", "subPathExpr": "$(HOSTNAME)"}
    node.pod("p", container("true", volumeMounts=[mount]), **SHARED)
    pod = await node.until("p", waits_for("CreateContainerConfigError"))
    assert state(pod)["waiting"]["message"].endswith('missing value for "HOSTNAME"')


async def test_the_command_of_an_image_is_not_expanded() -> None:
    images = {"mine*": LocalImage(entrypoint=("printf", "%s %s"), command=("$$HOME", "$(HERE)"))}
    async with kubelet_of(LocalSettings(images=images)) as node:
        node.pod("p", {"name": "base", "image": "mine:1", "env": [{"name": "HERE", "value": "x"}]})
        assert await node.log(await node.ended("p")) == "$$HOME $(HERE)"


async def test_six_containers_keep_two_kibibytes_of_message_each(node: Node) -> None:
    script = "awk 'BEGIN { for (i = 0; i < 800; i++) printf \"%05d\", i }' > /dev/termination-log"
    node.pod("p", *(container(script, f"c{number}") for number in range(6)))
    pod = await node.ended("p")
    messages = {state(pod, f"c{number}")["terminated"]["message"] for number in range(6)}
    assert messages == {"".join(f"{number:05}" for number in range(800))[:2048]}


async def test_a_pod_waits_for_its_secret_and_starts_when_it_comes(node: Node) -> None:
    variable = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a"}}}
    node.pod("p", container("test $A = 1", env=[variable]))
    await node.until("p", waits_for("CreateContainerConfigError"))
    node.registry.create("Secret", "default", {"metadata": {"name": "s"}, "stringData": {"a": "1"}})
    assert (await node.ended("p"))["status"]["phase"] == "Succeeded"


async def test_a_pod_waits_for_its_volume_and_starts_when_it_comes(node: Node) -> None:
    mounting = container("exit 0", volumeMounts=[{"name": "s", "mountPath": "/s"}])
    node.pod("p", mounting, volumes=[{"name": "s", "configMap": {"name": "c"}}])
    assert (
        await node.event_message("p", "FailedMount")
        == 'MountVolume.SetUp failed for volume "s" : configmap "c" not found'
    )
    assert waits_for("ContainerCreating")(node.registry.get("Pod", "default", "p"))
    node.registry.create("ConfigMap", "default", {"metadata": {"name": "c"}})
    assert (await node.ended("p"))["status"]["phase"] == "Succeeded"


async def test_an_image_that_cannot_be_pulled_backs_off(node: Node) -> None:
    node.pod("p", {"name": "base", "image": "nosuch:1"})
    await node.until("p", waits_for("ErrImagePull"))
    pod = await node.until("p", waits_for("ImagePullBackOff"))
    assert state(pod)["waiting"]["message"].startswith('Back-off pulling image "nosuch:1": ErrImagePull: ')
    assert ("Failed", "Error: ImagePullBackOff") in node.events("p")


async def test_restarts_back_off_and_the_log_before_is_kept(node: Node) -> None:
    script = """echo run
        test -f /shared/two && exec sleep 100
        test -f /shared/one && touch /shared/two
        touch /shared/one
        exit 1"""
    node.pod("p", container(script, **MOUNT), restartPolicy="OnFailure", **SHARED)
    pod = await node.until("p", waits_for("CrashLoopBackOff"))
    assert status_of(pod)["restartCount"] == 1
    assert state(pod)["waiting"]["message"].startswith("back-off 0.3s restarting failed container=base pod=p_default(")
    pod = await node.until("p", lambda pod: status_of(pod).get("restartCount") == 2 and "running" in state(pod))
    assert status_of(pod)["lastState"]["terminated"]["exitCode"] == 1
    assert await node.log(pod, previous=True) == "run\n"


async def test_native_sidecars_end_in_reverse_after_the_last_container(node: Node) -> None:
    def side(name: str) -> dict[str, Any]:
        return sidecar(
            name, f"trap 'echo {name} >> /shared/ends; exit 7' TERM; while true; do sleep 0.1; done", **MOUNT
        )

    claim = {"volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": "c"}}]}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    node.registry.create("PersistentVolumeClaim", "default", {"metadata": {"name": "c"}, "spec": spec})
    node.pod(
        "p", container("sleep 0.3; echo base >> /shared/ends", **MOUNT), initContainers=[side("a"), side("b")], **claim
    )
    pod = await node.ended("p")
    assert pod["status"]["phase"] == "Succeeded"
    assert [state(pod, name)["terminated"]["exitCode"] for name in ("a", "b")] == [7, 7]
    assert node.registry.get("PersistentVolumeClaim", "default", "c")["status"]["phase"] == "Bound"
    node.pod("reader", container("cat /shared/ends", **MOUNT), **claim)
    assert await node.log(await node.ended("reader")) == "base\nb\na\n"


async def test_deletion_gives_the_last_state_before_the_pod_goes(node: Node) -> None:
    node.pod("p", container("trap 'exit 6' TERM; echo up; while true; do sleep 0.1; done"))
    await node.logged(await node.running("p"), "up")
    gone = asyncio.ensure_future(node.gone("p"))
    last = asyncio.ensure_future(node.ended("p"))
    await asyncio.sleep(0)
    node.registry.delete("Pod", "default", "p")
    pod = await gone
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 0
    assert (pod["status"]["phase"], state(pod)["terminated"]["exitCode"]) == ("Failed", 6)
    assert state(await last)["terminated"]["exitCode"] == 6


async def test_a_shorter_grace_kills_sooner(node: Node) -> None:
    node.pod(
        "p", container("trap '' TERM; echo up; while true; do sleep 0.1; done"), terminationGracePeriodSeconds=3600
    )
    await node.logged(await node.running("p"), "up")
    gone = asyncio.ensure_future(node.gone("p"))
    node.registry.delete("Pod", "default", "p")
    await asyncio.sleep(0)
    node.registry.delete("Pod", "default", "p", grace_period=1)
    assert state(await gone)["terminated"]["exitCode"] == 137


DEAF = {
    "ignores TERM": ["sh", "-c", "trap '' TERM; while true; do sleep 0.1; done"],
    "has no handler": ["sleep", "1000"],
}


@pytest.mark.parametrize("sandbox", ["auto", "user", "none"])
@pytest.mark.parametrize("command", DEAF.values(), ids=DEAF)
async def test_a_deaf_container_takes_its_whole_grace_and_its_pod_is_there_meanwhile(
    sandbox: Any, command: list[str]
) -> None:
    async with kubelet_of(LocalSettings(sandbox=sandbox)) as node:
        node.pod("p", {"name": "base", "image": "busybox", "command": command}, terminationGracePeriodSeconds=3)
        await node.running("p")
        begun = time.monotonic()
        node.registry.delete("Pod", "default", "p")
        pod = node.registry.get("Pod", "default", "p")
        assert "deletionTimestamp" in pod["metadata"]
        assert (pod["status"]["phase"], "running" in state(pod)) == ("Running", True)
        assert state(await node.gone("p"))["terminated"]["exitCode"] == 137
        assert 2.9 <= time.monotonic() - begun < scaled(10)


async def test_pre_stop_runs_before_term_and_within_the_grace(node: Node) -> None:
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook > /proc/1/fd/1"]}}}
    node.pod("p", container("trap 'echo term; exit 0' TERM; echo up; while true; do sleep 0.1; done", lifecycle=hook))
    pod = await node.running("p")
    await node.logged(pod, "up")
    following = asyncio.ensure_future(node.log(pod, follow=True))
    await asyncio.sleep(0)
    node.registry.delete("Pod", "default", "p")
    assert await following == "up\nhook\nterm\n"


async def test_an_eviction_fails_the_pod_with_its_reason(node: Node) -> None:
    node.pod("p", container("sleep 1000"))
    await node.running("p")
    node.kubelet.evict("default", "p", "The node was low on resource: memory.")
    status = (await node.ended("p"))["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
    assert any(one["type"] == "DisruptionTarget" for one in status["conditions"])


async def test_a_pod_whose_volume_outgrows_its_limit_is_evicted() -> None:
    async with kubelet_of(LocalSettings(sync_frequency=0.2)) as node:
        volumes = [{"name": "shared", "emptyDir": {"sizeLimit": "1Mi"}}]
        small = "dd if=/dev/zero of=/shared/x bs=1024 count=100"
        node.pod("small", container(f"{small}; sleep 1", **MOUNT), volumes=volumes)
        node.pod("big", container(f"{small}00; sleep 100", **MOUNT), volumes=volumes)
        pod = await node.ended("big")
        assert (pod["status"]["phase"], pod["status"]["reason"]) == ("Failed", "Evicted")
        assert pod["status"]["message"] == 'Usage of EmptyDir volume "shared" exceeds the limit "1Mi". '
        assert (await node.ended("small"))["status"]["phase"] == "Succeeded"


async def test_a_lost_node_stops_reporting_until_it_is_back(node: Node) -> None:
    node.pod("p", container("sleep 1000"))
    await node.running("p")
    node.kubelet.lose(dead=False)
    node.registry.delete("Pod", "default", "p", grace_period=1)
    with pytest.raises(ConnectionError, match="timeout"):
        await node.log(node.registry.get("Pod", "default", "p"))
    node.kubelet.find()
    await node.gone("p")


async def test_the_processes_of_a_dead_node_have_ended_and_nothing_says_so_until_it_is_back(node: Node) -> None:
    seconds = f"4343.{os.getpid()}"
    node.pod("p", container(f"sleep {seconds}"))
    await node.running("p")
    await asyncio.to_thread(eventually_blocking, lambda: sleepers(seconds))
    node.kubelet.lose(dead=True)
    await asyncio.to_thread(eventually_blocking, lambda: not sleepers(seconds))
    assert state(node.registry.get("Pod", "default", "p")).keys() == {"running"}
    node.kubelet.find()
    terminated = state(await node.ended("p"))["terminated"]
    # Nobody saw the end: containerd reports so of a container that ran when its machine stopped.
    assert (terminated["exitCode"], terminated["reason"]) == (255, "Unknown")


async def test_a_graceful_shutdown_ends_pods_with_their_condition_first_and_rejects_new_ones(node: Node) -> None:
    node.pod("p", container("trap 'exit 7' TERM; echo up; while true; do sleep 0.1; done"))
    await node.logged(await node.running("p"), "up")
    node.kubelet.shut_down(30)
    marked = await node.until("p", lambda pod: disruption(pod) == "TerminationByKubelet")
    pod = await node.ended("p")
    assert marked["status"]["phase"] == "Running"
    assert (pod["status"]["phase"], pod["status"]["reason"]) == ("Failed", "Terminated")
    assert (state(pod)["terminated"]["exitCode"], disruption(pod)) == (7, "TerminationByKubelet")
    node.pod("late", container("exit 0"))
    late = await node.ended("late")
    assert (late["status"]["reason"], disruption(late)) == ("NodeShutdown", "")


def disruption(pod: dict[str, Any]) -> str:
    conditions = pod["status"].get("conditions") or ()
    return next((str(one["reason"]) for one in conditions if one["type"] == "DisruptionTarget"), "")


async def test_a_pod_that_is_bound_to_a_node_without_room_or_labels_for_it_is_rejected(node: Node) -> None:
    status = {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "3"}}
    node.registry.create("Node", "", {"metadata": {"name": node.settings.node_name}, "status": status})
    one = {"resources": {"requests": {"cpu": "1500m"}}}
    node.pod("first", container("echo up; exec sleep 100", **one))
    await node.running("first")
    node.pod("second", container("true", **one))
    node.pod("other", container("true"), nodeSelector={"no": "node"})
    second, other = await node.ended("second"), await node.ended("other")
    why = "Node didn't have enough resource: cpu, requested: 1500, used: 1500, capacity: 2000"
    assert (second["status"]["reason"], second["status"]["message"]) == ("OutOfcpu", f"Pod was rejected: {why}")
    assert ("OutOfcpu", why) in node.events("second")
    assert other["status"]["reason"] == "NodeAffinity"
    assert "running" in state(node.registry.get("Pod", "default", "first"))
    node.registry.delete("Pod", "default", "first", grace_period=0)
    node.pod("third", container("true", **one))
    assert (await node.ended("third"))["status"]["phase"] == "Succeeded"


@pytest.mark.parametrize("kind", ["readiness", "liveness", "startup"])
async def test_failing_probes_are_told_and_acted_on(node: Node, kind: str) -> None:
    probe = {"exec": {"command": ["sh", "-c", "echo sick; exit 1"]}, "periodSeconds": 1, "failureThreshold": 1}
    node.pod("p", container("trap 'exit 5' TERM; while true; do sleep 0.1; done", **{f"{kind}Probe": probe}))
    if kind == "readiness":
        assert not status_of(await node.running("p"))["ready"]
    else:
        assert state(await node.ended("p"))["terminated"]["exitCode"] == 5
        assert ("Killing", f"Container base failed {kind} probe") in node.events("p")
    assert await node.event_message("p", "Unhealthy") == f"{kind.capitalize()} probe failed: sick\n"


async def test_probes_that_run_at_the_same_time_keep_their_outputs_apart(node: Node) -> None:
    # Each has begun to write before the other ends.
    script = "printf begin-{0}-; touch /shared/{0}; until test -f /shared/{1}; do sleep 0.05; done; printf {0}; exit 1"
    kinds = {"liveness": "readiness", "readiness": "liveness"}
    probes = {
        f"{kind}Probe": {
            "exec": {"command": ["sh", "-c", script.format(kind, other)]},
            "timeoutSeconds": 60,
            "failureThreshold": 100,
        }
        for kind, other in kinds.items()
    }
    node.pod("p", container(UNTIL_TERM, **probes, **MOUNT), **SHARED)
    texts = {f"{kind.capitalize()} probe failed: begin-{kind}-{kind}" for kind in kinds}
    found = await eventually(
        lambda: len(said := [text for kind, text in node.events("p") if kind == "Unhealthy"]) > 1 and said
    )
    assert set(found) == texts


@pytest.mark.parametrize(("action", "ready"), [("httpGet", True), ("tcpSocket", True), ("tcpSocket", False)])
async def test_probes_reach_the_pods_own_address(node: Node, action: str, ready: bool) -> None:
    port = 18080 if ready else 18081
    probe = {action: {"port": "web" if ready else port}, "periodSeconds": 1, "failureThreshold": 1}
    serve = "python3 -m http.server 18080 --bind $IP"
    variables = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    ports = [{"name": "web", "containerPort": port}]
    node.pod("p", container(serve, image="python:3", readinessProbe=probe, env=variables, ports=ports))
    if ready:
        await node.until("p", lambda pod: status_of(pod).get("ready"))
        reader, writer = await node.kubelet.dial(node.registry.get("Pod", "default", "p"), 18080)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.0 200")
        writer.close()
    else:
        assert (await node.event_message("p", "Unhealthy")).endswith(":18081: connect: connection refused")


async def test_a_grpc_probe_fails_with_the_reason(node: Node) -> None:
    probe = {"grpc": {"port": 18084}, "periodSeconds": 1}
    node.pod("p", container(UNTIL_TERM, readinessProbe=probe))
    message = await node.event_message("p", "Unhealthy")
    assert message == ("Readiness probe failed: kubelocal does not support gRPC probes; use exec, httpGet or tcpSocket")


UNCARRIED: dict[str, dict[str, Any]] = {
    "header": {"httpGet": {"port": 18083, "httpHeaders": [{"name": "X-A", "value": "two\nlines\n"}]}},
    "label": {"tcpSocket": {"port": 18083, "host": "a" * 64 + ".example.com"}},
    "get label": {"httpGet": {"port": 18083, "host": "a" * 64 + ".example.com"}},
}
"""Actions that pass validation and that nothing can carry out."""


@pytest.mark.parametrize("action", UNCARRIED)
async def test_a_probe_that_cannot_be_carried_out_counts_as_failed(node: Node, action: str) -> None:
    probe = {**UNCARRIED[action], "periodSeconds": 1, "failureThreshold": 1}
    node.pod("p", container(UNTIL_TERM, livenessProbe=probe), restartPolicy="Always")
    assert (await node.event_message("p", "Unhealthy")).startswith("Liveness probe failed: ")
    await node.until("p", lambda pod: status_of(pod).get("restartCount"))


@pytest.mark.parametrize("action", UNCARRIED)
async def test_a_hook_that_cannot_be_carried_out_fails(node: Node, action: str) -> None:
    node.pod("p", container(UNTIL_TERM, lifecycle={"postStart": UNCARRIED[action]}))
    assert (await node.event_message("p", "FailedPostStartHook")).startswith("PostStartHook failed: ")
    await node.ended("p")


async def test_a_pod_on_which_the_kubelet_gives_up_fails_with_an_event(node: Node) -> None:
    # The registry takes from the cluster's own parts what no client may send: here a host that is a number.
    probe = {"tcpSocket": {"port": 18083, "host": 5}}
    node.pod("p", container(UNTIL_TERM, livenessProbe=probe))
    pod = await node.ended("p")
    assert (pod["status"]["phase"], pod["status"]["reason"]) == ("Failed", "FailedSync")
    assert state(pod)["terminated"]["reason"] == "ContainerStatusUnknown"
    assert "TypeError" in await node.event_message("p", "FailedSync")


async def test_two_pods_may_listen_on_the_same_port_of_their_localhost(node: Node) -> None:
    for name in ("a", "b"):
        serve = f"mkdir /www; echo {name} > /www/x; python3 -m http.server 18082 --bind localhost --directory /www"
        node.pod(
            name, container(serve, image="python:3", readinessProbe={"tcpSocket": {"port": 18082}, "periodSeconds": 1})
        )
    for name in ("a", "b"):
        pod = await node.until(name, lambda pod: status_of(pod).get("ready"))
        reader, writer = await node.kubelet.dial(pod, 18082)
        writer.write(b"GET /x HTTP/1.0\r\n\r\n")
        assert (await reader.read()).endswith(f"{name}\n".encode())
        writer.close()


async def test_a_terminal_runs_a_shell_and_has_the_size_that_is_told(node: Node) -> None:
    node.pod("p", container(UNTIL_TERM))
    process = await node.kubelet.exec(await node.running("p"), "base", ["sh"], stdin=True, tty=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.resize(123, 45)
    process.stdin.write(b"stty size; exit 9\n")
    seen = await process.stdout.read()
    assert b"45 123" in seen
    assert await process.wait() == 9
    process.close()


async def test_an_exec_that_is_closed_is_ended(node: Node) -> None:
    node.pod("p", container(UNTIL_TERM))
    process = await node.kubelet.exec(await node.running("p"), "base", ["sleep", "1000"], stdin=False, tty=False)
    process.close()
    assert await asyncio.wait_for(process.wait(), scaled(5)) == 137


@pytest.mark.parametrize(
    ("command", "problem"), [("nosuch", "executable file not found"), ("/etc/hosts", "permission denied")]
)
async def test_a_command_that_cannot_run_is_an_error(node: Node, command: str, problem: str) -> None:
    node.pod("p", container(UNTIL_TERM))
    with pytest.raises(OSError, match=problem):
        await node.kubelet.exec(await node.running("p"), "base", [command], stdin=False, tty=False)


async def test_streams_of_what_has_ended_are_lookup_errors(node: Node) -> None:
    node.pod("p", container("exit 0"))
    pod = await node.ended("p")
    with pytest.raises(LookupError):
        await node.kubelet.exec(pod, "base", ["true"], stdin=False, tty=False)
    with pytest.raises(LookupError):
        await node.kubelet.attach(pod, "base", stdin=False)


async def test_attach_gives_standard_input_to_the_container(node: Node) -> None:
    node.pod("p", container("while read line; do echo got $line; done; echo over", stdin=True, stdinOnce=True))
    process = await node.kubelet.attach(await node.running("p"), "base", stdin=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"one\n")
    assert await process.stdout.readline() == b"got one\n"
    process.close()
    assert await node.log(await node.ended("p")) == "got one\nover\n"


async def test_memory_beyond_the_limit_is_an_oom_kill(node: Node) -> None:
    eat = "x = bytearray(200 << 20); import time; time.sleep(100)"
    limits = {"limits": {"memory": "64Mi"}}
    node.pod("p", {"name": "base", "image": "python:3", "command": ["python3", "-c", eat], "resources": limits})
    ended = state(await node.ended("p"))["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


async def test_containers_of_an_earlier_kubelet_are_lost(settings: LocalSettings) -> None:
    async with kubelet_of(settings) as first:
        first.pod("p", container("sleep 1000"))
        pod = await first.running("p")
    second = Node(settings)
    second.registry = first.registry
    second.kubelet = type(first.kubelet)(first.registry, settings)
    task = asyncio.create_task(second.kubelet.run())
    assert pod["status"]["phase"] == "Running"
    assert state(await second.ended("p"))["terminated"]["reason"] == "ContainerStatusUnknown"
    task.cancel()
    await asyncio.wait({task})


async def test_folders_of_a_crashed_kubelet_are_removed_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    crashed, alive, theirs = (tmp_path / f"crosswind-pods-4194399-{name}" for name in ("crashed", "alive", "theirs"))
    claim_folder(crashed, "kubelocal up", Owner(4194399, 1))
    claim_folder(alive, "kubelocal up", Owner.this_process())
    (theirs / "pods").mkdir(parents=True)
    async with kubelet_of(LocalSettings(sandbox="none")) as node:
        node.pod("p", container("exit 0"))
        await node.ended("p")
    assert (crashed.exists(), alive.exists(), theirs.exists()) == (False, True, True)


async def test_without_namespaces_what_is_mounted_below_the_images_folder_is_found_there(tmp_path: Path) -> None:
    image = LocalImage(folder="/opt/tool", environment={"TOOL_HOME": "/opt/tool"})
    settings = LocalSettings(sandbox="none", images={"tool": image})
    script = "cat $TOOL_HOME/conf/a; cat conf/a; echo new > $TOOL_HOME/out/deep/b; cat /opt/tool/out/deep/b; cat /out/b"
    mounts = [
        {"name": "conf", "mountPath": "/opt/tool/conf"},
        {"name": "out", "mountPath": "/opt/tool/out/deep"},
        {"name": "out", "mountPath": "/out"},
    ]
    volumes = [{"name": "conf", "configMap": {"name": "conf"}}, {"name": "out", "emptyDir": {}}]
    async with kubelet_of(settings) as node:
        node.registry.create("ConfigMap", "default", {"metadata": {"name": "conf"}, "data": {"a": "set\n"}})
        node.pod("p", container(script, image="tool", volumeMounts=mounts), volumes=volumes)
        pod = await node.ended("p")
        assert await node.log(pod) == "set\nset\nnew\nnew\n"
        assert state(pod)["terminated"]["exitCode"] == 0
