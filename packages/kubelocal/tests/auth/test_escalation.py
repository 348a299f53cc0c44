"""Roles and bindings grant nothing that their author does not hold."""

from __future__ import annotations

from typing import Any

import pytest

from api_client import MERGE, Client, client

__all__ = ["client"]

RBAC = "rbac.authorization.k8s.io"
CLUSTER = f"/apis/{RBAC}/v1"
WITHIN = f"{CLUSTER}/namespaces/one"
ROLES, BINDINGS = f"{WITHIN}/roles", f"{WITHIN}/rolebindings"
WORKER = "system:serviceaccount:one:worker"
SUBJECT = {"kind": "ServiceAccount", "name": "worker", "namespace": "one"}
EVERYTHING = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
PODS = {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]}
APPLY = "application/apply-patch+yaml"


def role(*rules: dict[str, Any], name: str = "r", **more: Any) -> dict[str, Any]:
    return {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": {"name": name, **more}, "rules": list(rules)}


def binding(target: str, name: str = "b", kind: str = "ClusterRole") -> dict[str, Any]:
    reference = {"apiGroup": RBAC, "kind": kind, "name": target}
    return {"metadata": {"name": name}, "roleRef": reference, "subjects": [SUBJECT]}


@pytest.fixture
def admin(client: Client) -> Client:
    """A client of which the service account ``worker`` is the admin of the namespace ``one``."""
    client.registry.create("RoleBinding", "one", binding("admin", "worker-is-admin"))
    return client


async def as_worker(client: Client, method: str, path: str, body: Any, media: str = "application/json") -> Any:
    query = {"fieldManager": "worker", "force": "true"} if media == APPLY else {}
    headers = {"impersonate-user": WORKER, "content-type": media}
    return await client.call(method, path, body, headers=headers, **query)


async def test_an_admin_grants_what_it_holds(admin: Client) -> None:
    assert (await as_worker(admin, "POST", ROLES, role(PODS))).status == 201
    assert (await as_worker(admin, "POST", BINDINGS, binding("r", kind="Role"))).status == 201
    assert (await as_worker(admin, "POST", BINDINGS, binding("edit", "e"))).status == 201


async def test_a_role_with_more_is_refused_with_what_is_lacking(admin: Client) -> None:
    nodes = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list"]}
    refused = await as_worker(
        admin, "POST", ROLES, role(PODS, nodes, {"nonResourceURLs": ["/metrics"], "verbs": ["get"]})
    )
    assert (refused.status, refused.json["reason"]) == (403, "Forbidden")
    groups = '["system:serviceaccounts" "system:serviceaccounts:one" "system:authenticated"]'
    assert refused.json["message"] == (
        f'roles.{RBAC} "r" is forbidden: user "{WORKER}" (groups={groups})'
        " is attempting to grant RBAC permissions not currently held:\n"
        '{APIGroups:[""], Resources:["nodes"], Verbs:["get" "list"]}\n'
        '{NonResourceURLs:["/metrics"], Verbs:["get"]}'
    )


@pytest.mark.parametrize(
    ("method", "path", "body", "media"),
    [
        ("POST", ROLES, role(EVERYTHING), "application/json"),
        ("PUT", f"{ROLES}/new", role(EVERYTHING, name="new"), "application/json"),
        ("PUT", f"{ROLES}/old", role(EVERYTHING, name="old"), "application/json"),
        ("PATCH", f"{ROLES}/old", {"rules": [EVERYTHING]}, MERGE),
        ("PATCH", f"{ROLES}/old", role(EVERYTHING, name="old"), APPLY),
        ("PATCH", f"{ROLES}/new", role(EVERYTHING, name="new"), APPLY),
        ("POST", BINDINGS, binding("cluster-admin"), "application/json"),
        ("PUT", f"{BINDINGS}/new", binding("cluster-admin", "new"), "application/json"),
        ("PATCH", f"{BINDINGS}/masters", {"subjects": [SUBJECT]}, MERGE),
    ],
)
async def test_no_verb_grants_more_than_its_user_holds(
    admin: Client, method: str, path: str, body: Any, media: str
) -> None:
    admin.registry.create("Role", "one", role(PODS, name="old"))
    admin.registry.create("RoleBinding", "one", {**binding("cluster-admin", "masters"), "subjects": []})
    kind = "Role" if path.startswith(ROLES) else "RoleBinding"
    before = admin.registry.list(kind, "one")
    refused = await as_worker(admin, method, path, body, media)
    assert (refused.status, "attempting to grant RBAC permissions" in refused.json["message"]) == (403, True)
    assert admin.registry.list(kind, "one") == before


async def test_rules_that_stay_may_be_more_than_its_user_holds(admin: Client) -> None:
    admin.registry.create("Role", "one", role(EVERYTHING, name="old"))
    labelled = await as_worker(admin, "PATCH", f"{ROLES}/old", {"metadata": {"labels": {"a": "b"}}}, MERGE)
    assert labelled.status == 200


async def test_who_may_escalate_and_bind_grants_anything(admin: Client) -> None:
    rules = [
        {"apiGroups": [RBAC], "resources": ["roles"], "verbs": ["escalate"]},
        {"apiGroups": [RBAC], "resources": ["clusterroles"], "verbs": ["bind"], "resourceNames": ["cluster-admin"]},
    ]
    admin.registry.create("Role", "one", role(*rules, name="free"))
    admin.registry.create("RoleBinding", "one", binding("free", "worker-is-free", "Role"))
    assert (await as_worker(admin, "POST", ROLES, role(EVERYTHING))).status == 201
    admin.registry.create("ClusterRole", "", role(EVERYTHING, name="other"))
    assert (await as_worker(admin, "POST", BINDINGS, binding("other", "o"))).status == 403
    assert (await as_worker(admin, "POST", BINDINGS, binding("cluster-admin"))).status == 201


async def test_masters_grant_anything(client: Client) -> None:
    assert (await client.call("POST", ROLES, role(EVERYTHING))).status == 201
    assert (await client.call("POST", f"{CLUSTER}/clusterrolebindings", binding("cluster-admin"))).status == 201


async def test_a_binding_to_a_missing_role_is_refused_to_those_who_may_not_bind_it(admin: Client) -> None:
    refused = await as_worker(admin, "POST", BINDINGS, binding("missing"))
    assert (refused.status, refused.json["message"]) == (404, f'clusterroles.{RBAC} "missing" not found')


@pytest.fixture
def roles_writer(client: Client) -> Client:
    """A client of which ``worker`` may write ClusterRoles and read pods everywhere."""
    writes = {"apiGroups": [RBAC], "resources": ["clusterroles"], "verbs": ["create", "patch"]}
    client.registry.create("ClusterRole", "", {"metadata": {"name": "writer"}, "rules": [writes, PODS]})
    client.registry.create("ClusterRoleBinding", "", binding("writer"))
    return client


async def test_an_aggregation_needs_every_right(roles_writer: Client) -> None:
    rule = {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}
    body = {"metadata": {"name": "all"}, "aggregationRule": rule}
    refused = await as_worker(roles_writer, "POST", f"{CLUSTER}/clusterroles", body)
    assert refused.status == 403
    assert refused.json["message"].endswith("must have cluster-admin privileges to use the aggregationRule")


async def test_a_label_that_aggregates_a_role_counts_as_a_grant(roles_writer: Client) -> None:
    path, labels = f"{CLUSTER}/clusterroles/cluster-admin", {f"{RBAC}/aggregate-to-view": "true"}
    refused = await as_worker(roles_writer, "PATCH", path, {"metadata": {"labels": labels}}, MERGE)
    assert refused.status == 403
