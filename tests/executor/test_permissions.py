"""The role that the documentation gives is enough, and what is missing is told."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client as k8s
from kubernetes import config as k8s_config

from crosswind.kube.resources import ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS
from crosswind.testing import Cluster

pytestmark = pytest.mark.cluster

DOCS = Path(__file__).parents[2] / "docs" / "executor.md"


def documented_role() -> dict[str, Any]:
    text = DOCS.read_text().partition("## Permissions of the scheduler")[2]
    role: dict[str, Any] = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    return role


@pytest.fixture
def limited(running: Any, cluster: Cluster, tmp_path: Path) -> Any:
    """A bench whose executor is a service account that has the documented role, less what a test takes away."""

    def become(*, without: str = "") -> None:
        role = documented_role()
        role["rules"] = [rule for rule in role["rules"] if without not in rule["resources"]]
        name, namespace = role["metadata"]["name"], running.namespace
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }

        async def make(client: Any) -> None:
            for resource, manifest in ((SERVICE_ACCOUNTS, account), (ROLES, role), (ROLE_BINDINGS, binding)):
                await client.create(resource, manifest, namespace=namespace)

        running.ask(make)
        with k8s_config.new_client_from_config(str(cluster.kubeconfig)) as api:
            request = k8s.AuthenticationV1TokenRequest(spec=k8s.V1TokenRequestSpec(audiences=[]))
            token = k8s.CoreV1Api(api).create_namespaced_service_account_token(name, namespace, request).status.token
        found = yaml.safe_load(cluster.kubeconfig.read_text())
        found["users"] = [{"name": user["name"], "user": {"token": token}} for user in found["users"]]
        path = tmp_path / "limited-kubeconfig"
        path.write_text(yaml.safe_dump(found))
        running.set("kubernetes_executor", config_file=str(path))

    running.become = become
    return running


def test_the_documented_role_is_enough(limited: Any, caplog: pytest.LogCaptureFixture) -> None:
    limited.become()
    limited.start()
    for number in range(2):
        limited.state(limited.queue(f"task{number}"), "success")
    limited.beat()
    limited.until(lambda: not limited.executor.running)
    limited.until(limited.is_empty)
    assert limited.events == {}
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_what_is_missing_is_told_at_start_and_by_the_task(limited: Any, caplog: pytest.LogCaptureFixture) -> None:
    limited.become(without="secrets")
    limited.start()
    reason = limited.failure(limited.queue())
    assert "secrets" in reason
    assert "workload_delivery = args" in reason
    limited.until(lambda: any("may not create secrets" in message for message in caplog.messages))
