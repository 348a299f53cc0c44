from __future__ import annotations

from typing import Any

import orjson
import pytest

from crosswind.kube import requests
from crosswind.kube.requests import Patch, Request
from crosswind.kube.resources import JOBS, NAMESPACES, PODS

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}}


@pytest.mark.parametrize(
    ("request_", "method", "target"),
    [
        (requests.version(), "GET", "/version"),
        (requests.create(PODS, POD), "POST", "/api/v1/namespaces/n/pods"),
        (requests.create(PODS, POD, namespace="m"), "POST", "/api/v1/namespaces/m/pods"),
        (
            requests.create(PODS, POD, dry_run=True, field_validation="Strict"),
            "POST",
            "/api/v1/namespaces/n/pods?dryRun=All&fieldValidation=Strict",
        ),
        (requests.get(PODS, "p", namespace="n"), "GET", "/api/v1/namespaces/n/pods/p"),
        (requests.get(NAMESPACES, "n"), "GET", "/api/v1/namespaces/n"),
        (
            requests.list_page(PODS, labels="a=b,c in (d,e)", fields="status.phase=Running", limit=500, version="0"),
            "GET",
            "/api/v1/pods?labelSelector=a%3Db%2Cc+in+%28d%2Ce%29&fieldSelector=status.phase%3DRunning"
            "&limit=500&resourceVersion=0",
        ),
        (
            requests.list_page(PODS, limit=5, version="7", continue_from="abc=="),
            "GET",
            "/api/v1/pods?limit=5&continue=abc%3D%3D",
        ),
        (
            requests.watch(PODS, namespace="n", version="5", timeout=59.6),
            "GET",
            "/api/v1/namespaces/n/pods?watch=true&resourceVersion=5&timeoutSeconds=60&allowWatchBookmarks=true",
        ),
        (requests.patch(PODS, "p", {}, namespace="n"), "PATCH", "/api/v1/namespaces/n/pods/p"),
        (requests.replace(PODS, POD, subresource="status"), "PUT", "/api/v1/namespaces/n/pods/p/status"),
        (requests.delete(PODS, "p", namespace="n"), "DELETE", "/api/v1/namespaces/n/pods/p"),
        (
            requests.delete_collection(PODS, namespace="n", labels="a=b"),
            "DELETE",
            "/api/v1/namespaces/n/pods?labelSelector=a%3Db",
        ),
        (
            requests.log("p", namespace="n", container="c", tail_lines=0, previous=True),
            "GET",
            "/api/v1/namespaces/n/pods/p/log?container=c&tailLines=0&previous=true",
        ),
        (
            requests.exec_in("p", ["sh", "-c", "a b"], namespace="n", container=None, stdin=True),
            "GET",
            "/api/v1/namespaces/n/pods/p/exec?stdin=true&stdout=true&stderr=true&command=sh&command=-c&command=a+b",
        ),
        (
            requests.port_forward("p", 8080, namespace="n"),
            "GET",
            "/api/v1/namespaces/n/pods/p/portforward?ports=8080",
        ),
    ],
)
def test_method_and_target(request_: Request, method: str, target: str) -> None:
    assert (request_.method, request_.target) == (method, target)


@pytest.mark.parametrize(
    ("options", "body"),
    [
        ({}, None),
        ({"grace_period": 0}, {"gracePeriodSeconds": 0}),
        ({"uid": "u", "propagation": "Orphan"}, {"propagationPolicy": "Orphan", "preconditions": {"uid": "u"}}),
    ],
)
def test_delete_sends_only_the_options_given(options: dict[str, Any], body: dict[str, Any] | None) -> None:
    sent = requests.delete(PODS, "p", namespace="n", **options).body
    expected = body and {"apiVersion": "v1", "kind": "DeleteOptions", **body}
    assert (sent and orjson.loads(sent)) == expected


@pytest.mark.parametrize("how", list(Patch))
def test_patch_names_its_kind_by_content_type(how: Patch) -> None:
    assert requests.patch(PODS, "p", {"a": None}, namespace="n", how=how).content_type == how.value


def test_access_review_omits_empty_attributes() -> None:
    sent = orjson.loads(requests.access_review("create", JOBS, namespace=None).body or b"")
    assert sent["spec"] == {"resourceAttributes": {"verb": "create", "group": "batch", "resource": "jobs"}}


@pytest.mark.parametrize(
    "build",
    [
        lambda: requests.create(PODS, {"metadata": {"name": "p"}}),
        lambda: requests.get(PODS, "", namespace="n"),
        lambda: requests.delete(PODS, "", namespace="n"),
        lambda: requests.replace(PODS, {"metadata": {"namespace": "n"}}),
        lambda: requests.delete_collection(PODS, namespace=None),
    ],
)
def test_a_missing_name_or_namespace_is_refused_before_it_means_everything(build: Any) -> None:
    with pytest.raises(ValueError, match="name"):
        build()
