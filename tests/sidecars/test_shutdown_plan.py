from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.shells import SHELLS, needs

from crosswind.sidecars.catalog import KNOWN, KnownSidecar, Role
from crosswind.sidecars.shutdown_plan import (
    HANDLED_SIGNAL_SCRIPT,
    SIGNAL_SCRIPT,
    Permissions,
    ShutdownStep,
    ShutdownTarget,
    StepKind,
    plan_shutdown,
)
from crosswind.types import Manifest
from deadlines import scaled

ISTIO = {"name": "istio-proxy", "image": "istio/proxyv2:1.26.4"}
LINKERD = {"name": "linkerd-proxy", "image": "cr.l5d.io/linkerd/proxy:2.18"}
VAULT = {"name": "vault-agent", "image": "hashicorp/vault:1.20"}
FLUENT = {"name": "logs", "image": "fluent/fluent-bit:3.2-debug"}
FUSE = {"name": "gke-gcsfuse-sidecar", "image": "gke.gcr.io/gcs-fuse-csi-driver-sidecar-mounter:v1"}
UNKNOWN = {"name": "second", "image": "my/own:1"}


def pod(*sidecars: Manifest, annotations: dict[str, str] | None = None, **spec: Any) -> Manifest:
    base = {"name": "base", "image": "apache/airflow:3.3.2"}
    return {
        "metadata": {"name": "etl", "namespace": "airflow", "annotations": annotations or {}},
        "spec": {"containers": [base, *sidecars], "restartPolicy": "Never", **spec},
    }


def only_target(manifest: Manifest, **options: Any) -> ShutdownTarget:
    (target,) = plan_shutdown(manifest, **options).targets
    return target


def taken(manifest: Manifest, **options: Any) -> list[str]:
    return [step.way.value for step in only_target(manifest, **options).taken]


def first(manifest: Manifest, way: StepKind) -> ShutdownStep:
    return next(step for step in only_target(manifest).steps if step.way is way)


@pytest.mark.parametrize(
    ("sidecar", "ways"),
    [
        (ISTIO, ["ask", "ask", "client", "signal"]),
        (ISTIO | {"image": "istio/proxyv2:1.26.4-distroless"}, ["ask", "ask", "client"]),
        (LINKERD, ["ask", "client"]),
        (VAULT, ["ask", "signal"]),
        ({"name": "db", "image": "gcr.io/cloud-sql-connectors/cloud-sql-proxy:2.25"}, ["ask", "client"]),
        ({"name": "db", "image": "gcr.io/cloudsql-docker/gce-proxy:1.33-alpine"}, ["signal"]),
        (FUSE, ["wait"]),
        ({"name": "consul-dataplane", "image": "hashicorp/consul-dataplane:1.6"}, ["ask"]),
        ({"name": "kuma-sidecar", "image": "kumahq/kuma-dp:2.9"}, ["wait", "ask"]),
        ({"name": "daprd", "image": "ghcr.io/dapr/daprd:1.15"}, ["ask"]),
        ({"name": "envoy", "image": "x.amazonaws.com/aws-appmesh-envoy:v1"}, ["ask", "signal"]),
        ({"name": "envoy", "image": "envoyproxy/envoy-distroless:v1.24"}, ["ask"]),
        ({"name": "front", "image": "envoyproxy/envoy:v1.31.0"}, ["ask", "signal"]),
        ({"name": "datadog-agent-injected", "image": "gcr.io/datadoghq/agent:7"}, ["signal"]),
        (FLUENT, ["signal"]),
        ({"name": "logs", "image": "fluent/fluent-bit:3.2"}, []),
        ({"name": "otc-container", "image": "otel/opentelemetry-collector:0.110"}, []),
        ({"name": "airflow-xcom-sidecar", "image": "alpine"}, ["wait", "signal"]),
        (UNKNOWN, ["signal", "signal", "signal"]),  # TERM, then the signals that it may handle instead
    ],
    ids=lambda value: value["image"] if isinstance(value, dict) else "",
)
def test_each_product_ends_by_its_own_way(sidecar: Manifest, ways: list[str]) -> None:
    assert taken(pod(sidecar)) == ways


@pytest.mark.parametrize(
    ("permissions", "ways"),
    [
        (Permissions.NONE, []),
        (Permissions.A, ["ask", "ask"]),
        (Permissions.B, ["ask", "ask", "client", "signal"]),
        (Permissions.C, ["ask", "ask", "client", "signal", "swap"]),
    ],
)
def test_permissions_bound_the_plan_and_missing_ones_are_named(permissions: Permissions, ways: list[str]) -> None:
    plan = plan_shutdown(pod(ISTIO), permissions=permissions, swap_image="my/pause:1", delete=True)
    steps = [*plan.targets[0].steps, plan.last]
    assert [step.way.value for step in plan.targets[0].taken] == ways
    assert all(step.skip.startswith("needs ") for step in steps if step.skip)
    assert bool(plan.last.skip) == (Permissions.DELETE not in permissions)


@pytest.mark.parametrize(
    ("sidecar", "annotations", "request_line"),
    [
        (ISTIO, {}, "POST :15020/quitquitquit"),
        (ISTIO, {"status.sidecar.istio.io/port": "15555"}, "POST :15555/quitquitquit"),
        (ISTIO | {"env": [{"name": "PROXY_CONFIG", "value": '{"statusPort": 16000}'}]}, {}, "POST :16000/quitquitquit"),
        (ISTIO, {"status.sidecar.istio.io/port": "none"}, "POST :15020/quitquitquit"),
        (
            LINKERD | {"env": [{"name": "LINKERD2_PROXY_ADMIN_LISTEN_ADDR", "value": "0.0.0.0:5191"}]},
            {},
            "POST :5191/shutdown",
        ),
        (VAULT, {"vault.hashicorp.com/agent-cache-listener-port": "8300"}, "POST :8300/agent/v1/quit"),
    ],
)
def test_the_port_is_read_from_the_pod(sidecar: Manifest, annotations: dict[str, str], request_line: str) -> None:
    assert str(first(pod(sidecar, annotations=annotations), StepKind.ASK).request) == request_line


def test_the_second_of_several_consul_proxies_has_the_next_port() -> None:
    proxies = [{"name": f"consul-dataplane-{name}", "image": "hashicorp/consul-dataplane:1"} for name in ("a", "b")]
    plan = plan_shutdown(pod(*proxies))
    assert [str(target.taken[0].request) for target in plan.targets] == [
        "GET :20600/graceful_shutdown".replace("GET", "POST"),
        "POST :20601/graceful_shutdown",
    ]


def test_shippers_end_before_helpers_before_the_mesh_before_those_that_leave_last() -> None:
    plan = plan_shutdown(pod(FUSE, ISTIO, VAULT, FLUENT, UNKNOWN))
    names = [[target.container for target in group] for group in plan.groups]
    assert names == [["logs"], ["vault-agent", "second"], ["istio-proxy"], ["gke-gcsfuse-sidecar"]]


def test_at_most_one_sidecar_is_left_to_its_owner() -> None:
    kuma = {"name": "kuma-sidecar", "image": "kumahq/kuma-dp:2.9"}
    plan = plan_shutdown(pod(FUSE, kuma, ISTIO))
    ways = [[(target.container, target.taken[0].way.value) for target in group] for group in plan.groups]
    assert ways == [[("istio-proxy", "ask")], [("kuma-sidecar", "ask")], [("gke-gcsfuse-sidecar", "wait")]]
    (kuma_target,) = plan.groups[1]
    assert kuma_target.steps[0].skip == "gke-gcsfuse-sidecar waits as well, and each for the other"
    alone = plan_shutdown(pod(FUSE, kuma), permissions=Permissions.NONE)  # only the wait for the owner is left
    assert [[step.way for step in target.taken] for target in alone.targets] == [[StepKind.WAIT], [StepKind.WAIT]]


def test_datadog_is_left_to_itself_in_jobs_only() -> None:
    agent = {"name": "datadog-agent-injected", "image": "gcr.io/datadoghq/agent:7"}
    in_job = pod(agent)
    in_job["metadata"]["ownerReferences"] = [{"kind": "Job", "name": "nightly"}]
    assert [only_target(manifest).role for manifest in (pod(agent), in_job)] == [Role.SHIPPER, Role.LAST]
    assert [taken(manifest)[0] for manifest in (pod(agent), in_job)] == ["signal", "wait"]


def test_native_sidecars_and_containers_that_ended_need_nothing() -> None:
    manifest = pod(VAULT, initContainers=[ISTIO | {"restartPolicy": "Always"}, {"name": "migrate", "image": "a"}])
    manifest["status"] = {"containerStatuses": [{"name": "vault-agent", "state": {"terminated": {"exitCode": 0}}}]}
    plan = plan_shutdown(manifest)
    assert plan.targets == ()
    assert [name for name, _ in plan.untouched] == ["istio-proxy", "vault-agent"]


@pytest.mark.parametrize(
    ("sidecar", "annotations", "deadline"),
    [
        (LINKERD, {}, 123),
        (LINKERD, {"config.linkerd.io/shutdown-grace-period": "1m"}, 63),
        (ISTIO, {}, 10),
        (ISTIO | {"env": [{"name": "PROXY_CONFIG", "value": '{"terminationDrainDuration": "30s"}'}]}, {}, 33),
    ],
)
def test_a_step_waits_as_long_as_the_product_may_take(
    sidecar: Manifest, annotations: dict[str, str], deadline: float
) -> None:
    assert first(pod(sidecar, annotations=annotations), StepKind.ASK).deadline == deadline


def test_an_unknown_sidecar_has_the_pods_own_grace_period() -> None:
    assert first(pod(UNKNOWN, terminationGracePeriodSeconds=2), StepKind.SIGNAL).deadline == 10
    assert first(pod(UNKNOWN), StepKind.SIGNAL).deadline == 38


@pytest.mark.parametrize(("arguments", "code"), [([], 143), (["--exit-zero-on-sigterm"], 0)])
def test_the_plan_says_when_a_signal_turns_the_pod_red(arguments: list[str], code: int) -> None:
    proxy = {"name": "db", "image": "gcr.io/cloud-sql-connectors/cloud-sql-proxy:2-alpine", "args": arguments}
    step = first(pod(proxy), StepKind.SIGNAL)
    assert (step.exit_code, "makes the pod Failed" in step.reason) == (code, code != 0)


def test_a_swapped_container_with_a_command_is_expected_to_fail() -> None:
    plain, commanded = (
        plan_shutdown(pod(UNKNOWN | extra), swap_image="my/pause:1").targets[0].taken[-1]
        for extra in ({}, {"command": ["/serve"]})
    )
    assert (plain.exit_code, commanded.exit_code) == (0, 128)
    assert "/serve" in commanded.reason


@pytest.mark.parametrize(
    ("sidecar", "version", "hint"),
    [
        (ISTIO, (1, 34), "sidecar.istio.io/nativeSidecar"),
        (ISTIO, (1, 28), None),
        (LINKERD, (1, 28), "proxy-admin-shutdown"),
        (VAULT, (1, 34), "agent-pre-populate-only"),
        (UNKNOWN, (1, 34), "restartPolicy: Always"),
    ],
)
def test_hints_name_the_change_that_makes_the_end_easier(
    sidecar: Manifest, version: tuple[int, int], hint: str | None
) -> None:
    hints = " ".join(only_target(pod(sidecar), version=version).hints)
    assert hint in hints if hint else not hints


def test_users_own_sidecars_come_first() -> None:
    own = KnownSidecar("ours", ("istio-proxy",), ("*",), signal="")
    assert taken(pod(ISTIO), known=(own, *KNOWN)) == []


@pytest.mark.parametrize("junk", [None, [], {"spec": 3}, {"spec": {"containers": [3, {"name": 4}]}}, {"metadata": []}])
def test_any_json_gives_a_plan(junk: Any) -> None:
    assert plan_shutdown(junk).last.skip


def test_every_row_has_sources_and_a_note() -> None:
    assert all(known.sources and known.note and known.containers and known.images for known in KNOWN)
    assert len({known.name for known in KNOWN}) == len(KNOWN)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_signal_script_does_nothing_on_a_machine_that_is_not_a_container(shell: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(SIGNAL_SCRIPT)
    environment = os.environ | {"HOSTNAME": "another-pod"}
    done = subprocess.run(
        [*shell.split(), str(script), "TERM"], env=environment, capture_output=True, timeout=scaled(10)
    )
    assert (done.returncode, done.stderr) == (3, b"")


@needs("dash")  # dash handles only the signals for which it has a trap
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("handled", "code"), [(True, 9), (False, 4)])
def test_a_signal_without_a_handler_is_not_sent_to_process_1(
    tmp_path: Path, shell: str, handled: bool, code: int
) -> None:
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*namespace, "true"], capture_output=True, timeout=scaled(10)).returncode:
        pytest.skip("process namespaces cannot be made here")
    (tmp_path / "signal").write_text(HANDLED_SIGNAL_SCRIPT)
    trap = "trap 'exit 9' QUIT" if handled else ":"
    (tmp_path / "main").write_text(f"{trap}\n{shell} ./signal QUIT 3\nexit $?\n")
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [*namespace, "dash", "main"], cwd=tmp_path, env=environment, capture_output=True, timeout=scaled(20)
    )
    assert done.returncode == code


WORKER = "sh -c 'trap \"echo signalled >>log; exit\" TERM; while :; do sleep 0.05; done' &"
FIRST = {
    "a shell passes nothing on: all are signalled": (
        "trap 'wait; exit 7' TERM; while :; do sleep 0.05; done",
        7,
        "signalled\n",
    ),
    "a shared namespace: all of this container": ("exec ./pause 1", 0, "signalled\n"),
    "a program: it alone": ("exec ./agent 1", 0, ""),
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("first", FIRST)
def test_the_signal_script_finds_the_containers_program(tmp_path: Path, shell: str, first: str) -> None:
    """In a process namespace of its own, whose process 1 is a shell, ``pause`` or a program without a handler."""
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*namespace, "true"], capture_output=True, timeout=scaled(10)).returncode:
        pytest.skip("process namespaces cannot be made here")
    ending, code, expected = FIRST[first]
    for name in ("pause", "agent"):
        (tmp_path / name).write_bytes(Path("/bin/sleep").read_bytes())
        (tmp_path / name).chmod(0o755)
    (tmp_path / "log").touch()
    (tmp_path / "signal").write_text(SIGNAL_SCRIPT)
    (tmp_path / "main").write_text(f"{WORKER}\n{{ sleep 0.4; exec {shell} ./signal TERM; }} &\n{ending}\n")
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [*namespace, "sh", "main"], cwd=tmp_path, env=environment, capture_output=True, timeout=scaled(20)
    )
    assert done.returncode == code
    assert set(done.stderr.split()) <= {b"Terminated"}, "the script complains"
    assert (tmp_path / "log").read_text() == expected
