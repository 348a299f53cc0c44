import pytest

from kubelocal.auth.rbac import BOOTSTRAP, Authorizer
from kubelocal.auth.users import ANONYMOUS, User
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.storage.store import Store

ACCOUNT = User(
    "system:serviceaccount:ns:worker",
    ("system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"),
)
ADMIN = User("admin", ("system:masters",))
BY_NAME = {"kind": "ServiceAccount", "name": "worker", "namespace": "ns"}


@pytest.fixture
def registry():
    registry = ClusterRegistry(Store())
    for name in ("ns", "other"):
        registry.create("Namespace", "", {"metadata": {"name": name}})
    for manifest in BOOTSTRAP:
        registry.create(manifest["kind"], "", manifest)
    return registry


def grant(registry, *rules, subject=BY_NAME, namespace="ns", cluster=False):
    kinds = ("ClusterRole", "ClusterRoleBinding") if cluster else ("Role", "RoleBinding")
    where = "" if cluster else namespace
    registry.create(kinds[0], where, {"metadata": {"name": "r"}, "rules": list(rules)})
    binding = {"metadata": {"name": "b"}, "roleRef": {"kind": kinds[0], "name": "r"}, "subjects": [subject]}
    registry.create(kinds[1], where, binding)


def rule(resources, verbs, groups=("",), **more):
    return {"apiGroups": list(groups), "resources": list(resources), "verbs": list(verbs), **more}


def may(registry, verb, resource, *, user=ACCOUNT, group="", namespace="ns", name=""):
    plural, _, subresource = resource.partition("/")
    return Authorizer(registry).allowed(user, verb, group, plural, subresource, namespace, name)


def test_nothing_is_allowed_without_a_role_except_to_masters(registry):
    assert not may(registry, "list", "pods")
    assert not may(registry, "list", "pods", user=ANONYMOUS)
    assert may(registry, "delete", "nodes", user=ADMIN, namespace="")


@pytest.mark.parametrize(
    ("rules", "verb", "resource", "group", "name", "wanted"),
    [
        (rule(["pods"], ["get"]), "get", "pods", "", "x", True),
        (rule(["pods"], ["get"]), "list", "pods", "", "", False),
        (rule(["pods"], ["get"]), "get", "pods/log", "", "x", False),
        (rule(["pods/log"], ["get"]), "get", "pods/log", "", "x", True),
        (rule(["pods/log"], ["get"]), "get", "pods", "", "x", False),
        (rule(["*/log"], ["get"]), "get", "pods/log", "", "x", True),
        (rule(["*"], ["*"], ["*"]), "delete", "jobs/status", "batch", "x", True),
        (rule(["jobs"], ["get"]), "get", "jobs", "batch", "x", False),
        (rule(["jobs"], ["get"], ["batch"]), "get", "jobs", "batch", "x", True),
        (rule(["secrets"], ["get"], resourceNames=["a"]), "get", "secrets", "", "a", True),
        (rule(["secrets"], ["get"], resourceNames=["a"]), "get", "secrets", "", "b", False),
        (rule(["secrets"], ["list"], resourceNames=["a"]), "list", "secrets", "", "", False),
    ],
)
def test_a_rule_covers_its_verbs_groups_resources_and_names(registry, rules, verb, resource, group, name, wanted):
    grant(registry, rules)
    assert may(registry, verb, resource, group=group, name=name) is wanted


@pytest.mark.parametrize(
    ("subject", "wanted"),
    [
        (BY_NAME, True),
        ({"kind": "ServiceAccount", "name": "worker", "namespace": "other"}, False),
        ({"kind": "Group", "name": "system:serviceaccounts:ns"}, True),
        ({"kind": "Group", "name": "system:serviceaccounts:other"}, False),
        ({"kind": "Group", "name": "system:authenticated"}, True),
        ({"kind": "User", "name": "system:serviceaccount:ns:worker"}, True),
    ],
)
def test_a_binding_names_accounts_users_and_groups(registry, subject, wanted):
    grant(registry, rule(["pods"], ["get"]), subject=subject)
    assert may(registry, "get", "pods", name="x") is wanted


def test_a_role_holds_in_its_namespace_and_a_cluster_role_everywhere(registry):
    grant(registry, rule(["pods"], ["list"]))
    assert [may(registry, "list", "pods", namespace=where) for where in ("ns", "other", "")] == [True, False, False]
    grant(registry, rule(["pods"], ["list"]), cluster=True)
    assert [may(registry, "list", "pods", namespace=where) for where in ("ns", "other", "")] == [True, True, True]


def test_a_role_binding_may_give_a_cluster_role_in_its_namespace(registry):
    reference = {"kind": "ClusterRole", "name": "edit"}
    binding = {"metadata": {"name": "b"}, "roleRef": reference, "subjects": [BY_NAME]}
    registry.create("RoleBinding", "ns", binding)
    assert may(registry, "create", "pods/exec", name="x")
    assert not may(registry, "create", "roles", group="rbac.authorization.k8s.io")
    assert not may(registry, "get", "pods", namespace="other", name="x")


def test_a_binding_to_a_missing_role_gives_nothing(registry):
    reference = {"kind": "Role", "name": "missing"}
    registry.create("RoleBinding", "ns", {"metadata": {"name": "b"}, "roleRef": reference, "subjects": [BY_NAME]})
    assert not may(registry, "get", "pods", name="x")


def test_everyone_who_is_known_may_ask_what_they_may_do_and_what_is_served(registry):
    authorizer = Authorizer(registry)
    group = "authorization.k8s.io"
    assert may(registry, "create", "selfsubjectaccessreviews", group=group, namespace="")
    assert not may(registry, "create", "selfsubjectaccessreviews", group=group, namespace="", user=ANONYMOUS)
    for user, path, wanted in (
        (ACCOUNT, "/apis/batch/v1", True),
        (ACCOUNT, "/metrics", False),
        (ANONYMOUS, "/version", True),
        (ANONYMOUS, "/api", False),
    ):
        assert authorizer.allowed_path(user, "get", path) is wanted


def test_the_rules_of_a_user_are_those_of_its_roles(registry):
    grant(registry, rule(["pods"], ["list"]))
    authorizer = Authorizer(registry)
    assert rule(["pods"], ["list"]) in list(authorizer.rules(ACCOUNT, "ns"))
    assert rule(["pods"], ["list"]) not in list(authorizer.rules(ACCOUNT, "other"))
    assert rule(["*"], ["*"], ["*"]) in list(authorizer.rules(ADMIN, "other"))


def test_an_aggregated_role_has_the_rules_of_the_roles_that_it_selects(registry):
    part = {"metadata": {"name": "part", "labels": {"to": "whole"}}, "rules": [rule(["pods"], ["get"])]}
    registry.create("ClusterRole", "", part)
    selectors = [{"matchLabels": {"to": "whole"}}]
    whole = {"metadata": {"name": "r"}, "aggregationRule": {"clusterRoleSelectors": selectors}}
    registry.create("ClusterRole", "", whole)
    reference = {"kind": "ClusterRole", "name": "r"}
    registry.create("ClusterRoleBinding", "", {"metadata": {"name": "b"}, "roleRef": reference, "subjects": [BY_NAME]})
    assert may(registry, "get", "pods", name="x")
