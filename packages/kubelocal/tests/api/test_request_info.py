from __future__ import annotations

import pytest

from kubelocal.api.request_info import check_verb, parse_path, request_verb
from kubelocal.codec.status_errors import StatusError


@pytest.mark.parametrize(
    ("path", "kind", "namespace", "name", "part"),
    [
        ("/api/v1/pods", "Pod", None, "", ""),
        ("/api/v1/namespaces/one/pods", "Pod", "one", "", ""),
        ("/api/v1/namespaces/one/pods/", "Pod", "one", "", ""),
        ("/api/v1/namespaces/one/pods/p", "Pod", "one", "p", ""),
        ("/api/v1/namespaces/one/pods/p/log", "Pod", "one", "p", "log"),
        ("/api/v1/namespaces", "Namespace", None, "", ""),
        ("/api/v1/namespaces/one", "Namespace", None, "one", ""),
        ("/api/v1/namespaces/one/status", "Namespace", None, "one", "status"),
        ("/api/v1/namespaces/one/finalize", "Namespace", None, "one", "finalize"),
        ("/api/v1/nodes/n", "Node", None, "n", ""),
        ("/apis/batch/v1/namespaces/one/jobs/j/status", "Job", "one", "j", "status"),
        ("/apis/batch/v1/jobs", "Job", None, "", ""),
    ],
)
def test_a_path_names_a_kind_and_a_place(path: str, kind: str, namespace: str | None, name: str, part: str) -> None:
    address = parse_path(path)
    assert address
    assert (address.kind.kind, address.namespace, address.name, address.subresource) == (kind, namespace, name, part)


@pytest.mark.parametrize(
    "path",
    ["/", "/api", "/api/v1", "/apis/batch/v1", "/api/v2/pods", "/apis/no/v1/pods", "/version", "/a/b/c/d/e/f/g/h"],
)
def test_what_is_no_resource_of_a_served_group_is_left_to_others(path: str) -> None:
    assert parse_path(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/things",
        "/api/v1/pods/p",
        "/api/v1/namespaces/one/nodes",
        "/api/v1/namespaces/one/pods/p/nosuch",
        "/apis/batch/v1/pods",
    ],
)
def test_an_unknown_resource_of_a_served_group_is_404(path: str) -> None:
    with pytest.raises(StatusError, match="could not find the requested resource"):
        parse_path(path)


def served(method: str, path: str, *, watch: bool = False) -> str:
    address = parse_path(path)
    assert address
    verb = request_verb(method, address, watch=watch)
    check_verb(address, verb)
    return verb


@pytest.mark.parametrize(
    ("method", "path", "watch", "verb"),
    [
        ("GET", "/api/v1/pods", False, "list"),
        ("GET", "/api/v1/pods", True, "watch"),
        ("GET", "/api/v1/namespaces/one/pods/p", True, "get"),
        ("POST", "/api/v1/namespaces/one/pods", False, "create"),
        ("POST", "/api/v1/namespaces", False, "create"),
        ("DELETE", "/api/v1/nodes", False, "deletecollection"),
        ("DELETE", "/api/v1/namespaces/one/pods", False, "deletecollection"),
        ("PUT", "/api/v1/namespaces/one/pods/p/status", False, "update"),
        ("POST", "/api/v1/namespaces/one/pods/p/eviction", False, "create"),
        ("GET", "/api/v1/namespaces/one/pods/p/exec", False, "get"),
    ],
)
def test_a_method_means_a_verb(method: str, path: str, watch: bool, verb: str) -> None:
    assert served(method, path, watch=watch) == verb


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/api/v1/namespaces/one/pods"),
        ("POST", "/api/v1/pods"),
        ("DELETE", "/api/v1/namespaces"),
        ("POST", "/api/v1/namespaces/one/pods/p"),
        ("DELETE", "/api/v1/namespaces/one/pods/p/status"),
        ("GET", "/api/v1/namespaces/one/pods/p/binding"),
        ("GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
        ("BREW", "/api/v1/pods"),
    ],
)
def test_other_methods_are_405(method: str, path: str) -> None:
    with pytest.raises(StatusError) as refusal:
        served(method, path)
    assert refusal.value.code == 405
