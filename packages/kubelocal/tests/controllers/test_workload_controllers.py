"""Deployments, StatefulSets and Services on the cluster, by kubectl."""

from __future__ import annotations

import os
import shutil
import subprocess
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from deadlines import scaled
from kubelocal.settings import LocalSettings
from kubelocal.testing import Cluster, serve_in_thread

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl on this machine")

WEB = """
import http.server, socket
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(socket.gethostname().encode())
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("", 18931), Handler).serve_forever()
"""


# a Service learns which pods are ready a moment after kubectl does
ASK = """
import sys, time, urllib.request
end = time.monotonic() + SECONDS
while True:
    try:
        print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
        break
    except OSError:
        if time.monotonic() > end:
            raise
        time.sleep(0.2)
"""


class Kubectl:
    def __init__(self, cluster: Cluster) -> None:
        self._environment = os.environ | {"KUBECONFIG": str(cluster.kubeconfig)}

    def __call__(self, *arguments: str, text: str | None = None) -> str:
        command = ["kubectl", *arguments]
        ran = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=scaled(28), env=self._environment, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()

    def apply(self, *manifests: dict[str, Any]) -> None:
        self("apply", "-f", "-", text=yaml.safe_dump_all(manifests))


@pytest.fixture(scope="module", params=["isolated", "shared"])
def kubectl(request: pytest.FixtureRequest) -> Iterator[Kubectl]:
    with serve_in_thread(LocalSettings(network=request.param, node_cpu="8")) as cluster:
        yield Kubectl(cluster)


def workload(kind: str, name: str, *command: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "python:3.12", "args": list(command)}
    if kind == "Deployment":
        container["readinessProbe"] = {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1}
        container["ports"] = [{"name": "http", "containerPort": 18931}]
    pod = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    template = {"metadata": {"labels": {"app": name}}, "spec": pod}
    given = {"selector": {"matchLabels": {"app": name}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": given}


def service(name: str, port: int = 80, **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": port, "targetPort": "http"}]
    given = {"selector": {"app": name}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": given}


def test_a_deployment_comes_up_changes_and_goes(kubectl: Kubectl) -> None:
    # one pod: on the machine's own network two cannot listen on one port
    recreate = {"type": "Recreate"}
    kubectl.apply(workload("Deployment", "web", "python", "-c", WEB, strategy=recreate), service("web"))
    status = kubectl("rollout", "status", "deployment/web", f"--timeout={scaled(25):.0f}s")
    assert status.endswith("successfully rolled out")
    client = workload("StatefulSet", "client", "sleep", "600", serviceName="client", replicas=2)
    kubectl.apply(client, service("client", clusterIP="None"))
    kubectl("rollout", "status", "statefulset/client", f"--timeout={scaled(25):.0f}s")

    ask = ("exec", "client-1", "--", "python", "-c", ASK.replace("SECONDS", str(scaled(15))))
    first = kubectl(*ask, "http://web.default.svc.cluster.local")
    assert kubectl("get", "pods", "-l", "app=web", "-o", "name") == f"pod/{first}"

    kubectl("rollout", "restart", "deployment/web")
    kubectl("rollout", "status", "deployment/web", f"--timeout={scaled(25):.0f}s")
    second = _changed(lambda: kubectl(*ask, "http://web"), first)
    assert kubectl("get", "pods", "-l", "app=web", "-o", "name") == f"pod/{second}"

    name = "import socket; print(socket.getfqdn(), socket.gethostbyname('client-0.client.default.svc.cluster.local'))"
    address = kubectl("get", "pod", "client-0", "-o", "jsonpath={.status.podIP}")
    answer = kubectl("exec", "client-1", "--", "python", "-c", textwrap.dedent(name))
    assert answer == f"client-1.client.default.svc.cluster.local {address}"

    kubectl("delete", "deployment/web", "statefulset/client", "service/web", "service/client", "--cascade=foreground")
    assert kubectl("get", "deploy,rs,sts,pods,endpointslices", "-o", "name") == ""


def _changed(look: Any, old: str) -> str:
    """Ask until another pod answers: pods learn a name a moment after the rollout."""
    end = time.monotonic() + scaled(15)
    while (found := look()) == old:
        assert time.monotonic() < end
    return str(found)


def test_selector_that_does_not_match_the_template_is_refused(kubectl: Kubectl) -> None:
    wrong = workload("Deployment", "wrong", "sleep", "1", selector={"matchLabels": {"app": "other"}})
    with pytest.raises(AssertionError, match="`selector` does not match template `labels`"):
        kubectl.apply(wrong)


def test_counts_of_zero_are_absent_from_a_status(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "none", "--image=busybox", "--replicas=0", "--", "sleep", "60")
    kubectl("wait", "deployment/none", "--for=condition=Progressing", f"--timeout={scaled(20):.0f}s")
    counts = yaml.safe_load(kubectl("get", "deployment", "none", "-o", "yaml"))["status"]
    assert not [field for field in counts if field.endswith("Replicas") or field == "replicas"]
    [replica_set] = yaml.safe_load(kubectl("get", "replicaset", "-l", "app=none", "-o", "yaml"))["items"]
    assert replica_set["status"].keys() == {"replicas", "observedGeneration", "terminatingReplicas"}
    kubectl("delete", "deployment", "none")


def test_a_daemon_set_runs_a_pod_on_the_node_and_takes_a_new_template(kubectl: Kubectl) -> None:
    labels = {"app": "daemon"}
    container = {"name": "main", "image": "busybox", "command": ["sleep", "600"]}
    template = {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    kubectl.apply({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "daemon"}, "spec": spec})
    kubectl("rollout", "status", "daemonset/daemon", f"--timeout={scaled(25):.0f}s")
    header, row = kubectl("get", "daemonset", "daemon").splitlines()
    assert header.split()[:6] == ["NAME", "DESIRED", "CURRENT", "READY", "UP-TO-DATE", "AVAILABLE"]
    assert row.split()[:6] == ["daemon", "1", "1", "1", "1", "1"]
    [before] = kubectl("get", "pods", "-l", "app=daemon", "-o", "name").splitlines()
    kubectl("rollout", "restart", "daemonset/daemon")
    kubectl("rollout", "status", "daemonset/daemon", f"--timeout={scaled(25):.0f}s")
    kubectl("wait", before, "--for=delete", f"--timeout={scaled(20):.0f}s")
    kubectl("delete", "daemonset", "daemon", "--wait=true")


@pytest.mark.timeout(150)
def test_a_cron_job_makes_a_job_each_minute(kubectl: Kubectl) -> None:
    kubectl("create", "cronjob", "tick", "--image=busybox", "--schedule=* * * * *", "--", "true")
    deadline = time.monotonic() + scaled(90)
    while not (found := kubectl("get", "jobs", "-o", "name")) and time.monotonic() < deadline:
        time.sleep(1)
    assert found.startswith("job.batch/tick-")
    kubectl("wait", found.splitlines()[0], "--for=condition=complete", f"--timeout={scaled(25):.0f}s")
    status = yaml.safe_load(kubectl("get", "cronjob", "tick", "-o", "yaml"))["status"]
    assert status["lastScheduleTime"].endswith(":00Z")
    assert "Created job tick-" in kubectl("get", "events")
    kubectl("delete", "cronjob", "tick")
