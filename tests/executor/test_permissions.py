"""The roles that ``crosswind render`` writes grant exactly the permissions in use, recorded with RBAC enforced."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from benchmarks.chaos.proxying import Proxy
from kubernetes.client import models as k8s
from tests.executor.test_adoption import scheduler
from tests.executor.test_warm_on_cluster import ready, waiting

from crosswind.deploy.objects import RenderedObject
from crosswind.deploy.rbac_objects import executor_rules, log_rules, rbac
from crosswind.deploy.values import Values
from crosswind.engine.preflight import needed_permissions
from crosswind.kube.resources import ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS
from crosswind.settings import EngineSettings
from crosswind.testing import Cluster
from deadlines import scaled

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl on this machine"),
]

KEPT = {"kubernetes_executor": {"delete_worker_pods": False}}
SIDECAR = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.2; done"]
_RESOURCES = {one.kind: one for one in (ROLES, ROLE_BINDINGS, SERVICE_ACCOUNTS)}
_PATH = re.compile(r"/api/v1/namespaces/[^/]+/(?P<resource>\w+)(/(?P<name>[^/]+))?(/(?P<part>\w+))?")


@pytest.fixture
def restricted(running: Any, cluster: Cluster, tmp_path: Path) -> Iterator[Any]:
    """A bench whose executor has the rendered identity, and whose requests are recorded."""
    with Proxy(cluster.kubeconfig, tmp_path) as proxy:
        running.proxy = proxy
        running.grant = lambda account, **values: _grant(running, cluster, proxy, account, values)
        yield running
        running.end()


def test_the_executors_role_is_what_it_uses(restricted: Any) -> None:
    restricted.grant("scheduler")
    restricted.start()
    done, failing = restricted.queue("done"), restricted.queue("failing")
    restricted.state(done, "success")
    restricted.failure(failing)
    restricted.until(restricted.is_empty)
    unused = granted(executor_rules(restricted.values)) - called(restricted)
    assert called(restricted) <= granted(executor_rules(restricted.values))
    # asked for after a lost answer, an adoption, when a token is renewed, and when a pod waits long
    rare = {"get pods", "patch pods", "list secrets", "patch secrets", "list events"}
    # to end the sidecars of a failed task's pod, which is kept; this one has none
    ending = {"get pods/exec", "create pods/exec", "get pods/portforward", "create pods/portforward", "create events"}
    assert unused == rare | ending


def test_the_executors_role_suffices_for_waiting_pods(restricted: Any) -> None:
    restricted.grant("scheduler")
    restricted.script(waiting("exit 0"))
    restricted.set("crosswind", warm='{"min": 1}')
    scheduler(restricted, 31)
    restricted.until(ready(restricted))
    claimed = restricted.queue("claimed")
    restricted.state(claimed, "success")
    restricted.until(lambda: not restricted.executor.running)
    restricted.until(ready(restricted))
    before = restricted.pods()
    restricted.script(waiting("exit 1"))  # drains the pool
    restricted.until(lambda: not {uid_of(pod) for pod in before} & {uid_of(pod) for pod in restricted.pods()})
    assert called(restricted) <= granted(executor_rules(restricted.values))


def uid_of(pod: Any) -> str:
    return str(pod["metadata"]["uid"])


def test_an_executor_that_keeps_pods_may_shut_their_sidecars_down(restricted: Any) -> None:
    restricted.grant("scheduler", config=KEPT)
    restricted.set("kubernetes_executor", delete_worker_pods="False")
    restricted.start()
    containers = [
        k8s.V1Container(name="base"),
        k8s.V1Container(name="istio-proxy", image=restricted.image, command=SIDECAR),
    ]
    override = k8s.V1Pod(spec=k8s.V1PodSpec(containers=containers))
    restricted.state(restricted.queue(config={"pod_override": override}), "success")
    restricted.beat()
    restricted.until(lambda: [pod["status"]["phase"] for pod in restricted.pods()] == ["Succeeded"])
    assert called(restricted) <= granted(executor_rules(restricted.values))
    assert "create pods/exec" in called(restricted)


def test_the_api_servers_role_is_what_it_uses(restricted: Any) -> None:
    restricted.grant("api-server")
    from crosswind.executor import KubernetesExecutor

    ti = SimpleNamespace(
        dag_id="dag",
        task_id="task",
        run_id="run",
        map_index=-1,
        external_executor_id=None,
        executor_config=None,
        queue="default",
    )
    messages, _ = KubernetesExecutor(parallelism=1).get_task_log(ti, 1)  # type: ignore[arg-type]
    assert "No pod of this task exists" in messages[-1], messages
    assert called(restricted) <= granted(log_rules())


def test_the_permissions_of_the_preflight_are_granted() -> None:
    values = Values.model_validate({"image": "x"})
    needed = {
        f"{verb} {resource.plural}" for verb, resource, _ in needed_permissions(EngineSettings("1", namespaces=("a",)))
    }
    assert needed <= granted(executor_rules(values))


def called(bench: Any) -> set[str]:
    """Return verb and resource of each request."""
    return {use for method, target in bench.proxy.seen if (use := _use(method, target))}


def _use(method: str, target: str) -> str:
    address = urlsplit(target)
    found = _PATH.fullmatch(address.path)
    if found is None:  # discovery, and reviews of one's own permissions, which everybody may
        return ""
    verbs = {"POST": "create", "PATCH": "patch", "DELETE": "delete", "PUT": "update"}
    verb = verbs.get(method, "get" if found["name"] else "watch" if "watch" in parse_qs(address.query) else "list")
    if found["part"] in ("exec", "portforward"):
        verb = "create"  # both verbs are asked for, depending on the server's version
    return f"{verb} {found['resource']}" + (f"/{found['part']}" if found["part"] else "")


def granted(rules: list[dict[str, Any]]) -> set[str]:
    return {f"{verb} {resource}" for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}


def _grant(bench: Any, cluster: Cluster, proxy: Proxy, account: str, given: dict[str, Any]) -> None:
    """Apply the rendered roles, and become one of the accounts."""
    bench.values = Values.model_validate({"image": "x", "namespace": bench.namespace[:30].rstrip("-"), **given})
    objects = [_moved(one, bench.namespace) for one in rbac(bench.values)]

    async def apply(client: Any) -> None:
        for manifest in objects:
            await client.create(_RESOURCES[manifest["kind"]], manifest)

    bench.ask(apply)
    command = ["kubectl", "--kubeconfig", cluster.kubeconfig, "-n", bench.namespace, "create", "token"]
    ran = subprocess.run(
        [*command, f"airflow-{account}"], capture_output=True, text=True, check=True, timeout=scaled(20)
    )
    config = yaml.safe_load(proxy.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": ran.stdout.strip()}
    proxy.kubeconfig.write_text(yaml.safe_dump(config))
    bench.set("kubernetes_executor", config_file=str(proxy.kubeconfig))


def _moved(rendered: RenderedObject, namespace: str) -> dict[str, Any]:
    """Put an object into the test's namespace, whose name is longer than one of a deployment may be."""
    manifest = rendered.manifest
    manifest["metadata"]["namespace"] = namespace
    for subject in manifest.get("subjects", ()):
        subject["namespace"] = namespace
    return manifest
