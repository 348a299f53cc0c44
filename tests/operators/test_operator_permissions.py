"""The Role in docs/operator.md is enough, and what is missing of it costs what the page says."""

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

PAGE = Path(__file__).parents[2] / "docs" / "operator.md"
STAYS = "trap 'exit 0' TERM; while :; do sleep 0.2 & wait $!; done"
WRITES = "echo 1 > /airflow/xcom/return.json"


def documented() -> dict[str, Any]:
    text = re.search(r"```yaml\n(apiVersion: rbac.*?)```", PAGE.read_text(), re.DOTALL)
    assert text is not None
    return dict(yaml.safe_load(text[1]))


@pytest.fixture
def restricted(stand: Any, tmp_path: Path) -> Any:
    """Make the stand's operators act as a service account with the documented Role, less some verbs and resources."""

    def restrict(without: tuple[str, ...] = ()) -> Any:
        role = documented()
        for rule in role["rules"]:
            rule["verbs"] = [verb for verb in rule["verbs"] if verb not in without]
            rule["resources"] = [one for one in rule["resources"] if one not in without]
        role["rules"] = [rule for rule in role["rules"] if rule["verbs"] and rule["resources"]]
        path = tmp_path / "kubeconfig"
        path.write_text(stand.ask(lambda client: _grant(client, stand, role)))
        stand.kubeconfig = str(path)
        return stand

    return restrict


async def _grant(client: Client, stand: Any, role: dict[str, Any]) -> str:
    named = {"metadata": {"name": "worker"}}
    subject = {"kind": "ServiceAccount", "name": "worker", "namespace": stand.namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["metadata"]["name"]}
    await client.create(SERVICE_ACCOUNTS, named, namespace=stand.namespace)
    await client.create(ROLES, role, namespace=stand.namespace)
    await client.create(ROLE_BINDINGS, named | {"roleRef": reference, "subjects": [subject]}, namespace=stand.namespace)
    tokens = Resource("", "v1", "serviceaccounts/worker/token", "TokenRequest")
    made = await client.create(tokens, {"spec": {}}, namespace=stand.namespace)
    config = yaml.safe_load(stand.cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": made["status"]["token"]}
    return str(yaml.safe_dump(config))


@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
def test_the_documented_role_is_enough(restricted: Any, deferrable: bool) -> None:
    stand = restricted()
    given = {"deferrable": deferrable, "do_xcom_push": True, "full_pod_spec": stand.beside(STAYS)}
    assert stand.run(WRITES, on_finish_action="keep_pod", config_file=stand.kubeconfig, **given) == 1
    assert [pod["status"]["phase"] for pod in stand.pods()] == ["Succeeded"]
    assert stand.run(WRITES, config_file=stand.kubeconfig, task_id="other", **given) == 1


@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
def test_without_watch_and_events_pods_are_asked_for_now_and_then(restricted: Any, deferrable: bool) -> None:
    stand = restricted(without=("watch", "events", "pods/exec", "pods/portforward"))
    given = {"deferrable": deferrable, "do_xcom_push": True, "config_file": stand.kubeconfig}
    assert stand.run(f"sleep 0.5; {WRITES}", **given) == 1


@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
def test_without_list_earlier_pods_are_not_looked_for(restricted: Any, deferrable: bool) -> None:
    stand = restricted(without=("list",))
    given = {"config_file": stand.kubeconfig, "do_xcom_push": True, "deferrable": deferrable}
    with pytest.raises(AirflowException, match="grant list on pods, or set durable=False"):
        stand.run(WRITES, **given)
    assert stand.run(WRITES, durable=False, **given) == 1
    assert stand.pods() == []


def test_without_patch_the_sidecars_of_a_kept_pod_end_all_the_same(restricted: Any) -> None:
    stand = restricted(without=("patch",))
    pod = stand.beside(STAYS)
    stand.run("true", config_file=stand.kubeconfig, on_finish_action="keep_pod", full_pod_spec=pod)
    assert [pod["status"]["phase"] for pod in stand.pods()] == ["Succeeded"]


def test_without_patch_core_remembers_which_results_are_used(restricted: Any, printed: Any) -> None:
    stand = restricted(without=("patch",))
    context = stand.context | {"task_state_store": Store()}
    given = {"config_file": stand.kubeconfig, "on_finish_action": "keep_pod"}
    for number in (1, 2):
        stand.instance.try_number = number
        stand.operator(f"echo try {number}", **given).execute(context)
    assert printed.lines() == ["try 1", "try 2"]


class Store(dict[str, Any]):
    """Core's task state store of one task instance."""

    def set(self, key: str, value: Any, **_: Any) -> None:
        self[key] = value
