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

from crosswind.deploy.rbac import launcher_rules
from crosswind.kube.client import Client
from crosswind.kube.resources import ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS, Resource

pytestmark = pytest.mark.cluster

WRITES = "echo 1 > /airflow/xcom/return.json"
VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete", "PUT": "update"}
_PATH = re.compile(r"/api/v1/namespaces/[^/]+/(?P<resource>\w+)(/(?P<name>[^/]+))?(/(?P<part>\w+))?")


def granted() -> set[str]:
    return {f"{verb} {one}" for rule in launcher_rules() for one in rule["resources"] for verb in rule["verbs"]}


def use(method: str, target: str) -> str:
    """Return verb and resource of a call, "" for discovery and reviews, which everybody may."""
    address = urlsplit(target)
    if (found := _PATH.fullmatch(address.path)) is None:
        return ""
    read = "get" if found["name"] else "watch" if "watch" in parse_qs(address.query) else "list"
    return f"{VERBS.get(method, read)} {found['resource']}" + (f"/{found['part']}" if found["part"] else "")


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


def test_pods_are_launched_with_the_rendered_rules_and_use_each_of_them(stand: Any, tmp_path: Path) -> None:
    token = stand.ask(lambda client: _grant(client, stand.namespace))
    with Proxy(stand.cluster.kubeconfig, tmp_path) as proxy:
        config = yaml.safe_load(proxy.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        proxy.kubeconfig.write_text(yaml.safe_dump(config))
        for number, deferrable in enumerate((False, True)):
            given = {"deferrable": deferrable, "config_file": str(proxy.kubeconfig), "do_xcom_push": True}
            assert stand.run(WRITES, task_id=f"good-{number}", **given) == 1
            with pytest.raises(AirflowException):
                stand.run("exit 3", task_id=f"bad-{number}", **given)
        kept = {"config_file": str(proxy.kubeconfig), "on_finish_action": "keep_pod"}
        stand.run(task_id="kept", **kept)
        stand.close()
        called = {one for method, target in proxy.seen if (one := use(method, target))}
    assert len(stand.pods()) == 1
    assert called <= granted()
    ending = {"get pods/exec", "create pods/exec", "get pods/portforward", "create pods/portforward", "create events"}
    assert granted() - called == ending  # of the sidecars of a kept pod; this one has none
