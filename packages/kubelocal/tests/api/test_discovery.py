import pytest

from kubelocal.api import discovery
from kubelocal.codec.kinds import KINDS


def listed(group):
    return {entry["name"]: entry for entry in discovery.resources(group, "v1")["resources"]}


def test_the_groups_are_those_of_the_kinds_and_one_more_for_events():
    names = [group["name"] for group in discovery.api_groups()["groups"]]
    assert {kind.group for kind in KINDS.values() if kind.group} | {"events.k8s.io"} == set(names)
    assert all(listed(name) for name in names), "kubectl refuses a group without resources"
    assert listed("events.k8s.io") == {"events": listed("")["events"]}
    assert discovery.api_group("batch")["preferredVersion"] == {"groupVersion": "batch/v1", "version": "v1"}
    assert discovery.api_group("nosuch") is None
    assert discovery.api_versions("127.0.0.1:1")["versions"] == ["v1"]


def test_pods_are_listed_with_verbs_short_name_and_subresources():
    core = listed("")
    assert core["pods"] == {
        "name": "pods",
        "singularName": "pod",
        "namespaced": True,
        "kind": "Pod",
        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        "shortNames": ["po"],
        "categories": ["all"],
    }
    parts = {name for name in core if name.startswith("pods/")}
    wanted = ("attach", "binding", "ephemeralcontainers", "eviction", "exec", "log", "portforward", "status")
    assert parts >= {f"pods/{part}" for part in wanted}
    assert core["pods/eviction"] | {"group": "policy", "version": "v1", "kind": "Eviction"} == core["pods/eviction"]
    assert core["pods/log"]["kind"] == "Pod"
    assert core["nodes"]["namespaced"] is False


@pytest.mark.parametrize(("group", "version"), [("nosuch", "v1"), ("batch", "v2"), ("", "v2")])
def test_what_is_not_served_has_no_document(group, version):
    assert discovery.resources(group, version) is None
