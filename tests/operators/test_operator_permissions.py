"""The Role in docs/guides/operator.md is enough, and what is missing of it costs what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.providers.common.compat.sdk import AirflowException

from crosswind.kube.client import Client
from crosswind.kube.resources import ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS, Resource

pytestmark = pytest.mark.cluster

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "operator.md"
STAYS = "trap 'exit 0' TERM; while :; do sleep 0.2 & wait $!; done"
WRITES = "echo 1 > /airflow/xcom/return.json"


def documented() -> dict[str, Any]:
    text = re.search(r"```yaml\n(apiVersion: rbac.*?)```", PAGE.read_text(), re.DOTALL)
    assert text is not None
    return dict(yaml.safe_load(text[1]))


@pytest.fixture
def restricted(runner: Any, tmp_path: Path) -> Any:
    """Make the runner's operators act as a service account with the documented Role, less some verbs and resources."""

    def restrict(without: tuple[str, ...] = ()) -> Any:
        role = documented()
        for rule in role["rules"]:
            rule["verbs"] = [verb for verb in rule["verbs"] if verb not in without]
            rule["resources"] = [resource for resource in rule["resources"] if resource not in without]
        role["rules"] = [rule for rule in role["rules"] if rule["verbs"] and rule["resources"]]
        path = tmp_path / "kubeconfig"
        path.write_text(runner.call_api(lambda client: _grant(client, runner, role)))
        runner.kubeconfig = str(path)
        return runner

    return restrict


async def _grant(client: Client, runner: Any, role: dict[str, Any]) -> str:
    named = {"metadata": {"name": "worker"}}
    subject = {"kind": "ServiceAccount", "name": "worker", "namespace": runner.namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["metadata"]["name"]}
    await client.create(SERVICE_ACCOUNTS, named, namespace=runner.namespace)
    await client.create(ROLES, role, namespace=runner.namespace)
    await client.create(
        ROLE_BINDINGS, named | {"roleRef": reference, "subjects": [subject]}, namespace=runner.namespace
    )
    tokens = Resource("", "v1", "serviceaccounts/worker/token", "TokenRequest")
    token_request = await client.create(tokens, {"spec": {}}, namespace=runner.namespace)
    config = yaml.safe_load(runner.cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token_request["status"]["token"]}
    return str(yaml.safe_dump(config))


@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
def test_the_documented_role_is_enough(restricted: Any, deferrable: bool) -> None:
    runner = restricted()
    options = {"deferrable": deferrable, "do_xcom_push": True, "full_pod_spec": runner.with_sidecar(STAYS)}
    assert runner.run(WRITES, on_finish_action="keep_pod", config_file=runner.kubeconfig, **options) == 1
    assert [pod["status"]["phase"] for pod in runner.pods()] == ["Succeeded"]
    assert runner.run(WRITES, config_file=runner.kubeconfig, task_id="other", **options) == 1


@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
def test_without_watch_and_events_pods_are_asked_for_now_and_then(restricted: Any, deferrable: bool) -> None:
    runner = restricted(without=("watch", "events", "pods/exec", "pods/portforward"))
    options = {"deferrable": deferrable, "do_xcom_push": True, "config_file": runner.kubeconfig}
    assert runner.run(f"sleep 0.5; {WRITES}", **options) == 1


@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
def test_without_list_earlier_pods_are_not_looked_for(restricted: Any, deferrable: bool) -> None:
    runner = restricted(without=("list",))
    options = {"config_file": runner.kubeconfig, "do_xcom_push": True, "deferrable": deferrable}
    with pytest.raises(AirflowException, match="grant list on pods, or set durable=False"):
        runner.run(WRITES, **options)
    assert runner.run(WRITES, durable=False, **options) == 1
    assert runner.pods() == []


def test_without_patch_the_sidecars_of_a_kept_pod_end_all_the_same(restricted: Any) -> None:
    runner = restricted(without=("patch",))
    pod = runner.with_sidecar(STAYS)
    runner.run("true", config_file=runner.kubeconfig, on_finish_action="keep_pod", full_pod_spec=pod)
    assert [pod["status"]["phase"] for pod in runner.pods()] == ["Succeeded"]


def test_without_patch_core_remembers_which_results_are_used(restricted: Any, printed: Any) -> None:
    runner = restricted(without=("patch",))
    context = runner.context | {"task_state_store": Store()}
    options = {"config_file": runner.kubeconfig, "on_finish_action": "keep_pod"}
    for number in (1, 2):
        runner.instance.try_number = number
        runner.operator(f"echo try {number}", **options).execute(context)
    assert printed.lines() == ["try 1", "try 2"]


class Store(dict[str, Any]):
    """Core's task state store of one task instance."""

    def set(self, key: str, value: Any, **_: Any) -> None:
        self[key] = value
