"""What ``workers.launchPods`` gives to workers and triggerers is what a pod operator was seen to call under RBAC."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from airflow.exceptions import AirflowException
from benchmarks.chaos.proxying import Proxy

from crosswind.deploy.rbac_objects import launcher_rules
from crosswind.kube.client import Client
from crosswind.kube.resources import ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS, Resource

pytestmark = pytest.mark.cluster

WRITES = "echo 1 > /airflow/xcom/return.json"
VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete", "PUT": "update"}
_PATH = re.compile(r"/api/v1/namespaces/[^/]+/(?P<resource>\w+)(/(?P<name>[^/]+))?(/(?P<part>\w+))?")


def granted() -> set[str]:
    return {
        f"{verb} {resource}" for rule in launcher_rules() for resource in rule["resources"] for verb in rule["verbs"]
    }


def use(method: str, target: str) -> str:
    """Return verb and resource of a call, "" for discovery and reviews, which everybody may."""
    address = urlsplit(target)
    if (match := _PATH.fullmatch(address.path)) is None:
        return ""
    read = "get" if match["name"] else "watch" if "watch" in parse_qs(address.query) else "list"
    return f"{VERBS.get(method, read)} {match['resource']}" + (f"/{match['part']}" if match["part"] else "")


async def _grant(client: Client, namespace: str) -> str:
    """Make an account with the rendered rules; return its token."""
    named = {"metadata": {"name": "worker"}}
    subject = {"kind": "ServiceAccount", "name": "worker", "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "worker"}
    await client.create(SERVICE_ACCOUNTS, named, namespace=namespace)
    await client.create(ROLES, named | {"rules": launcher_rules()}, namespace=namespace)
    await client.create(ROLE_BINDINGS, named | {"roleRef": reference, "subjects": [subject]}, namespace=namespace)
    tokens = Resource("", "v1", "serviceaccounts/worker/token", "TokenRequest")
    return str((await client.create(tokens, {"spec": {}}, namespace=namespace))["status"]["token"])


def test_pods_are_launched_with_the_rendered_rules_and_use_each_of_them(runner: Any, tmp_path: Path) -> None:
    token = runner.call_api(lambda client: _grant(client, runner.namespace))
    with Proxy(runner.cluster.kubeconfig, tmp_path) as proxy:
        config = yaml.safe_load(proxy.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        proxy.kubeconfig.write_text(yaml.safe_dump(config))
        for number, deferrable in enumerate((False, True)):
            options = {"deferrable": deferrable, "config_file": str(proxy.kubeconfig), "do_xcom_push": True}
            assert runner.run(WRITES, task_id=f"good-{number}", **options) == 1
            with pytest.raises(AirflowException):
                runner.run("exit 3", task_id=f"bad-{number}", **options)
        kept = {"config_file": str(proxy.kubeconfig), "on_finish_action": "keep_pod"}
        runner.run(task_id="kept", **kept)
        runner.close()
        called = {verb_and_resource for method, target in proxy.seen if (verb_and_resource := use(method, target))}
    assert len(runner.pods()) == 1
    assert called <= granted()
    ending = {"get pods/exec", "create pods/exec", "get pods/portforward", "create pods/portforward", "create events"}
    assert granted() - called == ending  # of the sidecars of a kept pod; this one has none
