"""What people do with kubectl, against a local cluster or the cluster of --cluster-context."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deadlines import scaled
from kubelocal.testing import Cluster

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl on PATH"),
]
WAIT = f"--timeout={scaled(60):.0f}s"
DRY = ("--dry-run=client", "--output=json")
Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(cluster: Cluster, tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "HOME": str(tmp_path)}


@pytest.fixture
def kubectl(environment: dict[str, str], namespace: str) -> Kubectl:
    def call(*arguments: str, code: int = 0, **more: Any) -> subprocess.CompletedProcess[str]:
        command = ["kubectl", "--namespace", namespace, *arguments]
        ran = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=scaled(90), check=False, **more
        )
        assert ran.returncode == code, f"{arguments}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran

    return call


@pytest.fixture
def run(kubectl: Kubectl, cluster: Cluster) -> Callable[..., str]:
    """Run a pod with a script; return its name once it is ready."""

    def start(script: str, name: str = "box") -> str:
        options = [f"--image={cluster.image}", f"--image-pull-policy={cluster.pull_policy}", "--restart=Never"]
        overrides = {"spec": {"terminationGracePeriodSeconds": 1}}
        options += [f"--overrides={json.dumps(overrides)}"]
        kubectl("run", name, *options, "--command", "--", "sh", "-c", script)
        kubectl("wait", f"pod/{name}", "--for=condition=Ready", WAIT)
        return name

    return start


UNTIL_TERM = "trap 'exit 0' TERM; while true; do sleep 0.2; done"


def manifest(**data: str) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": data})


def test_get_prints_a_table(kubectl: Kubectl, run: Callable[..., str]) -> None:
    run(UNTIL_TERM)
    header, row = kubectl("get", "pods").stdout.splitlines()
    assert header.split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row.split()[:4] == ["box", "1/1", "Running", "0"]


def test_apply_creates_changes_and_leaves_alone(kubectl: Kubectl) -> None:
    for data, output in (({"a": "1"}, "created"), ({"a": "2"}, "configured"), ({"a": "2"}, "unchanged")):
        assert kubectl("apply", "-f", "-", input=manifest(**data)).stdout == f"configmap/settings {output}\n"
    assert kubectl("get", "configmap", "settings", "-o", "jsonpath={.data.a}").stdout == "2"


def test_apply_refuses_what_is_no_field(kubectl: Kubectl) -> None:
    wrong = manifest().replace('"data"', '"dataa"')
    assert 'unknown field "dataa"' in kubectl("apply", "-f", "-", input=wrong, code=1).stderr


def test_explain_and_api_resources_know_the_kinds(kubectl: Kubectl) -> None:
    assert re.search(r"^pods\s+po\s+v1\s+true\s+Pod$", kubectl("api-resources").stdout, re.M)
    assert "restartPolicy" in kubectl("explain", "pod.spec.containers").stdout


def test_describe_tells_state_and_events(kubectl: Kubectl, run: Callable[..., str]) -> None:
    run(UNTIL_TERM)
    output = kubectl("describe", "pod", "box").stdout
    for line in (r"^Status: +Running$", r"^ +State: +Running$", r"^  Normal +Started .* Container started$"):
        assert re.search(line, output, re.M), output


def test_followed_log_ends_with_the_container(kubectl: Kubectl, run: Callable[..., str]) -> None:
    run("for i in 1 2 3; do echo line $i; sleep 0.5; done")
    assert kubectl("logs", "-f", "box").stdout == "line 1\nline 2\nline 3\n"
    assert kubectl("logs", "box", "--tail=1").stdout == "line 3\n"


def test_exec_passes_streams_and_exit_code(kubectl: Kubectl, run: Callable[..., str]) -> None:
    run(UNTIL_TERM)
    ran = kubectl("exec", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 3", code=3)
    assert (ran.stdout, ran.stderr.splitlines()[0]) == ("out\n", "err")
    text = "".join(f"line {n}\n" for n in range(20_000))
    assert kubectl("exec", "-i", "box", "--", "cat", input=text).stdout == text


def test_exec_loses_nothing_of_a_large_output(kubectl: Kubectl, run: Callable[..., str]) -> None:
    run(UNTIL_TERM)
    output = kubectl("exec", "box", "--", "sh", "-c", "yes 0123456789 | head -n 500000").stdout
    assert output == "0123456789\n" * 500_000


def test_exec_says_which_command_is_missing(kubectl: Kubectl, run: Callable[..., str]) -> None:
    run(UNTIL_TERM)
    assert "nosuch" in kubectl("exec", "box", "--", "nosuch", code=1).stderr


def test_exec_with_a_terminal(run: Callable[..., str], environment: dict[str, str], namespace: str) -> None:
    run(UNTIL_TERM)
    ours, theirs = pty.openpty()
    command = [
        "kubectl",
        "--namespace",
        namespace,
        "exec",
        "-it",
        "box",
        "--",
        "sh",
        "-c",
        "read word; tty; echo got $word",
    ]
    with subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, b"hello\n")
        seen = b""
        with contextlib.suppress(OSError):  # how a terminal says that its last user is gone
            while piece := os.read(ours, 4096):
                seen += piece
        os.close(ours)
    assert process.returncode == 0
    assert b"/dev/pts/" in seen
    assert b"got hello" in seen


def test_cp_copies_both_ways(kubectl: Kubectl, run: Callable[..., str], tmp_path: Path) -> None:
    run(UNTIL_TERM)
    content = os.urandom(1 << 20)
    (tmp_path / "there").write_bytes(content)
    kubectl("cp", "there", "box:/tmp/file", cwd=tmp_path)
    kubectl("cp", "box:/tmp/file", "back", cwd=tmp_path)
    assert (tmp_path / "back").read_bytes() == content


def test_attach_joins_the_output(kubectl: Kubectl, run: Callable[..., str]) -> None:
    run("for i in 1 2 3 4 5 6; do sleep 0.5; echo tick; done; echo last")
    assert kubectl("attach", "box").stdout.endswith("tick\nlast\n")


def test_run_rm_gives_input_and_leaves_nothing(kubectl: Kubectl, cluster: Cluster) -> None:
    options = [f"--image={cluster.image}", f"--image-pull-policy={cluster.pull_policy}", "--restart=Never"]
    ran = kubectl("run", "once", "--rm", "-i", "--quiet", *options, "--", "cat", input="through the pod\n")
    assert "through the pod" in ran.stdout
    kubectl("get", "pod", "once", code=1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_port_forward_carries_connections(
    run: Callable[..., str], environment: dict[str, str], namespace: str, cluster: Cluster
) -> None:
    port = free_port()
    echo = f"import socket as s; c = s.create_server(('', {port})).accept()[0]\nwhile b := c.recv(9999): c.sendall(b)"
    serve = f"for s in nc 'busybox nc'; do $s -l -p {port} -e cat && exit; done; python3 -c \"{echo}\" && exit"
    run(f"while true; do {serve}; done")
    command = ["kubectl", "--namespace", namespace, "port-forward", "pod/box", f":{port}"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ours = int(re.findall(r":(\d+) ->", process.stdout.readline())[0])
            content = os.urandom(300_000)
            with socket.create_connection(("127.0.0.1", ours), 10) as connection:
                connection.settimeout(20)
                connection.sendall(content)
                back = b""
                while len(back) < len(content) and (piece := connection.recv(1 << 16)):
                    back += piece
            assert back == content
        finally:
            process.terminate()


def test_job_runs_and_can_be_waited_for(kubectl: Kubectl, cluster: Cluster) -> None:
    made = kubectl("create", "job", "sums", f"--image={cluster.image}", *DRY, "--", "sh", "-c", "echo $((6 * 7))")
    job = json.loads(made.stdout)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container["imagePullPolicy"] = cluster.pull_policy  # for which kubectl create has no option
    kubectl("create", "-f", "-", input=json.dumps(job))
    kubectl("wait", "job/sums", "--for=condition=complete", WAIT)
    assert kubectl("logs", "job/sums").stdout == "42\n"
    assert kubectl("get", "job", "sums", "--no-headers").stdout.split()[:3] == ["sums", "Complete", "1/1"]
    kubectl("delete", "job", "sums")
    kubectl("wait", "pod", "--selector=job-name=sums", "--for=delete", WAIT)


def test_delete_waits_until_the_pod_is_gone(kubectl: Kubectl, run: Callable[..., str]) -> None:
    run(UNTIL_TERM)
    kubectl("delete", "pod", "box", WAIT)
    assert "NotFound" in kubectl("get", "pod", "box", code=1).stderr


IMAGE = "IMAGE"
"""Stands for the image that the cluster has."""

CREATED = {
    "clusterrole": ["--verb=get,list", "--resource=pods", "--resource-name=a"],
    "configmap": ["--from-literal=a=1"],
    "cronjob": [f"--image={IMAGE}", "--schedule=0 5 31 2 *", "--", "true"],
    "deployment": [f"--image={IMAGE}", "--replicas=0", "--port=80"],
    "ingress": ["--rule=example.org/*=web:80,tls=secret", "--class=none", "--annotation=a=b"],
    "job": [f"--image={IMAGE}", "--dry-run=server", "--", "true"],
    "poddisruptionbudget": ["--selector=app=web", "--min-available=50%"],
    "priorityclass": ["--value=0", "--description=d", "--preemption-policy=Never"],
    "quota": ["--hard=pods=5,requests.cpu=1500m", "--scopes=NotBestEffort"],
    "role": ["--verb=get", "--resource=pods,deployments.apps"],
    "rolebinding": ["--role=a", "--user=u", "--group=g", "--serviceaccount=default:default"],
    "secret generic": ["--from-literal=a=1"],
    "secret docker-registry": ["--docker-username=u", "--docker-password=p"],
    "service clusterip": ["--tcp=80:8080"],
    "service externalname": ["--external-name=example.org"],
    "service nodeport": ["--tcp=80"],
    "serviceaccount": [],
}


@pytest.mark.parametrize("what", CREATED)
def test_create_makes_an_object_of_each_kind(kubectl: Kubectl, cluster: Cluster, namespace: str, what: str) -> None:
    name = f"{namespace}-{what.split()[-1]}"  # some kinds are in no namespace
    options = [option.replace(IMAGE, cluster.image) for option in CREATED[what]]
    made = json.loads(kubectl("create", *what.split(), name, "-o", "json", *options).stdout)
    assert made["metadata"]["name"] == name
    kind = what.split()[0]
    if kind in ("clusterrole", "priorityclass"):
        kubectl("delete", kind, name)


def test_create_reads_zeros_and_shares_as_they_were_meant(kubectl: Kubectl, cluster: Cluster) -> None:
    options = (f"--image={cluster.image}", "--replicas=0")
    assert json.loads(kubectl("create", "deployment", "d", *options, "-o", "json").stdout)["spec"]["replicas"] == 0
    options = ("--selector=a=b", "--max-unavailable=0")
    assert json.loads(kubectl("create", "pdb", "p", *options, "-o", "json").stdout)["spec"]["maxUnavailable"] == 0
