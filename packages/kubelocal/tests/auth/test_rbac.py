import pytest

from kubelocal.auth.bootstrap_roles import BOOTSTRAP
from kubelocal.auth.rbac import Authorizer
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


def bind(registry, role, namespace="ns"):
    reference = {"kind": "ClusterRole", "name": role}
    binding = {"metadata": {"name": f"to-{role}"}, "roleRef": reference, "subjects": [BY_NAME]}
    registry.create("RoleBinding", namespace, binding)


@pytest.mark.parametrize("role", ["edit", "admin"])
@pytest.mark.parametrize(
    ("group", "resource"),
    [
        ("apps", "deployments"),
        ("apps", "statefulsets"),
        ("apps", "replicasets"),
        ("apps", "daemonsets"),
        ("batch", "cronjobs"),
        ("networking.k8s.io", "ingresses"),
        ("networking.k8s.io", "networkpolicies"),
        ("policy", "poddisruptionbudgets"),
    ],
)
def test_edit_and_admin_write_workloads_and_view_reads_them(registry, role, group, resource):
    bind(registry, role)
    assert may(registry, "create", resource, group=group)
    assert may(registry, "list", resource, group=group)
    for binding in registry.list("RoleBinding", "ns"):
        registry.delete("RoleBinding", "ns", binding["metadata"]["name"])
    bind(registry, "view")
    assert may(registry, "list", resource, group=group)
    assert not may(registry, "create", resource, group=group)


@pytest.mark.parametrize(
    ("role", "verb", "resource", "group", "allowed"),
    [
        ("view", "list", "endpointslices", "discovery.k8s.io", True),
        ("view", "get", "secrets", "", False),
        ("edit", "update", "deployments/scale", "apps", True),
        ("edit", "update", "deployments/status", "apps", False),
        ("edit", "get", "secrets", "", True),
        ("edit", "create", "rolebindings", "rbac.authorization.k8s.io", False),
        ("admin", "create", "rolebindings", "rbac.authorization.k8s.io", True),
        ("admin", "update", "resourcequotas", "", False),
    ],
)
def test_view_edit_and_admin_may_what_they_may_in_kubernetes(registry, role, verb, resource, group, allowed):
    bind(registry, role)
    assert may(registry, verb, resource, group=group) is allowed


def part(name, *rules, **labels):
    return {"metadata": {"name": name, "labels": labels}, "rules": list(rules)}


@pytest.mark.parametrize(("role", "allowed"), [("edit", True), ("admin", True), ("view", False)])
def test_a_labelled_role_adds_its_rules_to_edit_and_so_to_admin(registry, role, allowed):
    labels = {"rbac.authorization.k8s.io/aggregate-to-edit": "true"}
    registry.create("ClusterRole", "", part("more", rule(["widgets"], ["create"], ["example.com"]), **labels))
    bind(registry, role)
    assert may(registry, "create", "widgets", group="example.com") is allowed


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ({"key": "to", "operator": "In", "values": ["whole"]}, True),
        ({"key": "to", "operator": "NotIn", "values": ["whole"]}, False),
        ({"key": "never", "operator": "Exists"}, False),
    ],
)
def test_the_expressions_of_an_aggregation_count(registry, expression, allowed):
    for role in registry.list("ClusterRole"):
        registry.delete("ClusterRole", "", role["metadata"]["name"])
    registry.create("ClusterRole", "", part("part", rule(["pods"], ["get"]), to="whole"))
    whole = {"metadata": {"name": "whole"}, "aggregationRule": {"clusterRoleSelectors": [expression_of(expression)]}}
    registry.create("ClusterRole", "", whole)
    bind(registry, "whole")
    assert may(registry, "get", "pods", name="x") is allowed


def expression_of(expression):
    return {"matchExpressions": [expression]}


def test_an_aggregation_by_expressions_alone_does_not_select_cluster_admin(registry):
    selectors = [expression_of({"key": "example.com/team", "operator": "Exists"})]
    whole = {"metadata": {"name": "whole"}, "aggregationRule": {"clusterRoleSelectors": selectors}}
    registry.create("ClusterRole", "", whole)
    bind(registry, "whole")
    assert not may(registry, "delete", "secrets", name="x")


def test_roles_that_select_each_other_end(registry):
    for name, other in (("a", "b"), ("b", "a")):
        selectors = [{"matchLabels": {"in": name}}]
        manifest = {"metadata": {"name": name, "labels": {"in": other}}}
        registry.create("ClusterRole", "", manifest | {"aggregationRule": {"clusterRoleSelectors": selectors}})
    registry.create("ClusterRole", "", part("leaf", rule(["pods"], ["get"]), **{"in": "b"}))
    bind(registry, "a")
    assert may(registry, "get", "pods", name="x")
