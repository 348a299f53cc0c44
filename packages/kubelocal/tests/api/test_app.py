from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from api_client import CONFIGS, MERGE, NO_STREAMS, TABLE, Client
from kubelocal.api.app import make_app
from kubelocal.api.request_parsing import read_headers
from kubelocal.auth.rbac import Authorizer
from kubelocal.auth.users import User

PODS = "/api/v1/namespaces/one/pods"
METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def config(name: str = "c", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}, "data": {"a": "1"}}


def pod(name: str = "p") -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "base", "image": "busybox:1"}]}}


async def test_an_object_lives_from_post_to_delete(client: Client) -> None:
    made = await client.call("POST", CONFIGS, config())
    assert (made.status, made.headers["content-type"]) == (201, "application/json")
    assert (await client.call("GET", f"{CONFIGS}/c")).json == made.json
    changed = await client.call("PUT", f"{CONFIGS}/c", {**made.json, "data": {"a": "2"}})
    patched = await client.call("PATCH", f"{CONFIGS}/c", {"data": {"b": "3"}}, headers={"content-type": MERGE})
    assert (changed.json["data"], patched.json["data"]) == ({"a": "2"}, {"a": "2", "b": "3"})
    listed = await client.call("GET", CONFIGS)
    assert listed.json["kind"] == "ConfigMapList"
    assert [item.keys() for item in listed.json["items"]] == [{"metadata", "data"}]
    gone = await client.call("DELETE", f"{CONFIGS}/c")
    assert gone.json["details"] == {"name": "c", "kind": "configmaps", "uid": made.json["metadata"]["uid"]}
    assert (await client.call("GET", f"{CONFIGS}/c")).json["message"] == 'configmaps "c" not found'


async def test_bodies_may_be_protobuf(client: Client) -> None:
    headers = {"content-type": "application/vnd.kubernetes.protobuf"}
    body = b"k8s\x00\n\x0f\n\x02v1\x12\tConfigMap\x12\x05\n\x03\n\x01c"
    assert (await client.call("POST", CONFIGS, body, headers=headers)).status == 201
    options = b'k8s\x00\n\x13\n\x02v1\x12\rDeleteOptions\x12\x06"\x04Fore'
    assert (await client.call("DELETE", f"{CONFIGS}/c", options, headers=headers)).status == 422
    assert (await client.call("DELETE", f"{CONFIGS}/c", b"k8s\x00\xff", headers=headers)).status == 400


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "code", "message"),
    [
        ("POST", CONFIGS, config(), {"content-type": "text/plain"}, 415, "the body of the request was in an unknown"),
        ("PATCH", f"{CONFIGS}/c", {}, {}, 415, "application/strategic-merge-patch+json"),
        ("POST", CONFIGS, b"{", {}, 400, "json parse error"),
        ("POST", CONFIGS, b"a: 1", {"content-type": "application/yaml"}, 415, "application/vnd.kubernetes.protobuf"),
        ("POST", CONFIGS, b" " * (3 << 20) + b"{}", {}, 413, "Request entity too large: limit is 3145728"),
        ("POST", f"{CONFIGS}/c", config(), {}, 405, "the server does not allow this method"),
        ("DELETE", "/api/v1/configmaps", None, {}, 405, "the server does not allow this method"),
        ("DELETE", "/api/v1/namespaces", None, {}, 405, "the server does not allow this method"),
        ("PUT", f"{PODS}/p/log", {}, {}, 405, "the server does not allow this method"),
        ("GET", "/api/v1/namespaces/one/nosuch", None, {}, 404, "the server could not find the requested resource"),
        ("GET", f"{PODS}/p/nosuch", None, {}, 404, "the server could not find the requested resource"),
        ("GET", "/api/v1/configmaps/c", None, {}, 404, "the server could not find the requested resource"),
        ("GET", "/api/v1/namespaces/one/nodes", None, {}, 404, "the server could not find the requested resource"),
        (
            "GET",
            CONFIGS,
            None,
            {"accept": "application/vnd.kubernetes.protobuf"},
            406,
            "only the following media types",
        ),
    ],
)
async def test_what_cannot_be_served_is_refused_by_a_status(
    client: Client, method: str, path: str, body: Any, headers: dict[str, str], code: int, message: str
) -> None:
    reply = await client.call(method, path, body, headers=headers)
    assert (reply.status, reply.json["kind"], reply.json["code"]) == (code, "Status", code)
    assert message in reply.json["message"]


@pytest.mark.parametrize("path", ["/nosuch", "/apis/nosuch.example/v1", "/apis/nosuch.example/v1/things", "/api/v2"])
async def test_an_unknown_group_or_path_is_a_plain_page(client: Client, path: str) -> None:
    reply = await client.call("GET", path)
    assert (reply.status, reply.body) == (404, b"404 page not found\n")


async def test_a_fault_of_the_server_is_a_500_and_logged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    def break_down(*_: Any) -> User:
        raise ZeroDivisionError("by zero")

    client.app = make_app(client.registry, NO_STREAMS, break_down, Authorizer(client.registry), None)  # type: ignore[arg-type]
    with caplog.at_level(logging.ERROR):
        reply = await client.call("GET", CONFIGS)
    assert (reply.status, reply.json["reason"]) == (500, "InternalError")
    assert "GET" in caplog.text
    assert "by zero" in caplog.text


# who


async def test_tokens_say_who_asks(client: Client) -> None:
    wrong = await client.call("GET", CONFIGS, token="wrong")
    assert (wrong.status, wrong.json["message"], wrong.headers["www-authenticate"]) == (401, "Unauthorized", "Bearer")
    none = await client.call("GET", CONFIGS, token=None)
    assert none.status == 403
    assert 'configmaps is forbidden: User "system:anonymous" cannot list resource "configmaps"' in none.json["message"]
    assert (await client.call("GET", "/version", token=None)).status == 200


async def test_a_service_account_has_the_rights_that_a_role_gives(client: Client) -> None:
    client.registry.create("ServiceAccount", "one", {"metadata": {"name": "worker"}})
    token_path = "/api/v1/namespaces/one/serviceaccounts/worker/token"
    issued = await client.call("POST", token_path, {"spec": {"expirationSeconds": 600}})
    assert issued.status == 201
    token = issued.json["status"]["token"]
    refused = await client.call("GET", f"{PODS}/p/log", token=token)
    assert refused.json["message"] == (
        'pods "p" is forbidden: User "system:serviceaccount:one:worker" cannot get resource "pods/log"'
        ' in API group "" in the namespace "one"'
    )
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
    client.registry.create("Role", "one", {"metadata": {"name": "r"}, "rules": rules})
    subjects = [{"kind": "ServiceAccount", "name": "worker", "namespace": "one"}]
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    client.registry.create(
        "RoleBinding", "one", {"metadata": {"name": "r"}, "roleRef": reference, "subjects": subjects}
    )
    assert (await client.call("GET", CONFIGS, token=token)).status == 200
    assert (await client.call("GET", CONFIGS, token=token, watch="1", timeoutSeconds="1")).status == 403
    allowed = {}
    for verb in ("list", "create"):
        asked = {"spec": {"resourceAttributes": {"namespace": "one", "verb": verb, "resource": "configmaps"}}}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        allowed[verb] = (await client.call("POST", path, asked, token=token)).json["status"]["allowed"]
    assert allowed == {"list": True, "create": False}
    me = await client.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, token=token)
    assert me.json["status"]["userInfo"]["username"] == "system:serviceaccount:one:worker"


async def test_a_subject_access_review_asks_for_another(client: Client) -> None:
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    attributes = {"nonResourceAttributes": {"path": "/version", "verb": "get"}}
    answers = [
        (await client.call("POST", path, {"spec": {**attributes, "groups": [group]}})).json["status"]["allowed"]
        for group in ("system:authenticated", "strangers")
    ]
    assert answers == [True, False]
    assert (await client.call("POST", path, {"spec": attributes})).status == 422
    assert (await client.call("POST", path, {"spec": {"user": "u"}})).status == 422


async def test_who_may_impersonate_acts_as_another(client: Client) -> None:
    path, body = "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}
    account = await client.call("POST", path, body, headers={"impersonate-user": "system:serviceaccount:one:worker"})
    assert account.json["status"]["userInfo"] == {
        "username": "system:serviceaccount:one:worker",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:one", "system:authenticated"],
    }
    bob = {"impersonate-user": "bob", "impersonate-group": "devs"}
    reply = await client.call("GET", CONFIGS, headers=bob)
    assert (reply.status, 'User "bob" cannot list resource "configmaps"' in reply.json["message"]) == (403, True)
    client.registry.create("ServiceAccount", "one", {"metadata": {"name": "worker"}})
    issued = await client.call("POST", "/api/v1/namespaces/one/serviceaccounts/worker/token", {"spec": {}})
    refused = await client.call("POST", path, body, token=issued.json["status"]["token"], headers=bob)
    assert (refused.status, 'cannot impersonate resource "users"' in refused.json["message"]) == (403, True)


def test_repeated_headers_keep_all_their_values() -> None:
    groups = [(b"impersonate-group", b"devs, all"), (b"impersonate-group", b"ops")]
    assert read_headers({"headers": [*groups, (b"accept", b"a/b"), (b"accept", b"c/d")]}) == {
        "impersonate-group": "devs, all\nops",
        "accept": "a/b,c/d",
    }


async def test_an_impersonated_user_has_the_groups_uid_and_extra_of_the_request(client: Client) -> None:
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    headers = {
        "impersonate-user": "bob",
        "impersonate-group": "devs, all\nops",  # one group has a comma
        "impersonate-uid": "u1",
        "impersonate-extra-example.com%2fscope": "read",
    }
    assert (await client.call("POST", path, {}, headers=headers)).json["status"]["userInfo"] == {
        "username": "bob",
        "groups": ["devs, all", "ops", "system:authenticated"],
        "uid": "u1",
        "extra": {"example.com/scope": ["read"]},
    }


@pytest.mark.parametrize(
    "header", [{"impersonate-group": "devs"}, {"impersonate-uid": "u1"}, {"impersonate-extra-scope": "read"}]
)
async def test_impersonation_without_a_user_is_refused(client: Client, header: dict[str, str]) -> None:
    reply = await client.call("GET", CONFIGS, headers=header)
    assert (reply.status, "without impersonating a user" in reply.json["message"]) == (400, True)


@pytest.mark.parametrize(
    ("header", "refusal"),
    [
        ({}, ""),
        ({"impersonate-group": "devs"}, 'groups "devs" is forbidden: User "system:serviceaccount:one:worker" cannot'),
        ({"impersonate-uid": "u1"}, 'resource "uids" in API group "authentication.k8s.io" at the cluster scope'),
        ({"impersonate-uid": "u2"}, ""),
        ({"impersonate-extra-scope": "read"}, 'userextras.authentication.k8s.io "read" is forbidden'),
        ({"impersonate-extra-scope": "read"}, 'resource "userextras/scope" in API group "authentication.k8s.io"'),
        ({"impersonate-extra-other": "write"}, ""),
    ],
)
async def test_each_impersonated_attribute_needs_the_right_to_it(
    client: Client, header: dict[str, str], refusal: str
) -> None:
    rules = [
        {"apiGroups": [""], "resources": ["users"], "resourceNames": ["bob"], "verbs": ["impersonate"]},
        {
            "apiGroups": ["authentication.k8s.io"],
            "resources": ["uids", "userextras/other"],
            "resourceNames": ["u2", "write"],
            "verbs": ["impersonate"],
        },
    ]
    token = await allow(client, *rules)
    headers = {"impersonate-user": "bob", **header}
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    reply = await client.call("POST", path, {}, token=token, headers=headers)
    assert (reply.status, refusal in reply.json.get("message", "")) == (403 if refusal else 201, True)


async def allow(client: Client, *rules: dict[str, Any]) -> str:
    """Give a new service account these rules in all namespaces; return its token."""
    registry = client.registry
    registry.create("ServiceAccount", "one", {"metadata": {"name": "worker"}})
    registry.create("ClusterRole", "", {"metadata": {"name": "granted"}, "rules": list(rules)})
    subject = {"kind": "ServiceAccount", "name": "worker", "namespace": "one"}
    reference = {"kind": "ClusterRole", "name": "granted"}
    binding = {"metadata": {"name": "granted"}, "roleRef": reference, "subjects": [subject]}
    registry.create("ClusterRoleBinding", "", binding)
    issued = await client.call("POST", "/api/v1/namespaces/one/serviceaccounts/worker/token", {"spec": {}})
    token: str = issued.json["status"]["token"]
    return token


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"resourceVersionMatch": "Exact"}, "forbidden for watch unless sendInitialEvents is provided"),
        ({"resourceVersionMatch": "bogus", "sendInitialEvents": "true"}, 'supported values: "NotOlderThan"'),
        ({"sendInitialEvents": "true"}, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
    ],
)
async def test_a_watch_with_a_wrong_match_is_refused(client: Client, query: dict[str, str], words: str) -> None:
    reply = await client.call("GET", CONFIGS, watch="1", timeoutSeconds="1", **query)
    assert (reply.status, words in reply.json["message"]) == (422, True)


@pytest.mark.parametrize(
    ("method", "query", "status"),
    [
        ("GET", {"fieldSelector": "metadata.name=c0"}, 200),
        ("GET", {"fieldSelector": "metadata.name==c0,metadata.namespace=one"}, 200),
        ("GET", {"fieldSelector": "metadata.name=c0", "watch": "1", "timeoutSeconds": "1"}, 200),
        ("GET", {"fieldSelector": "metadata.name=c1"}, 403),
        ("GET", {"fieldSelector": "metadata.name!=c0"}, 403),
        ("GET", {"fieldSelector": "bogus"}, 403),
        ("GET", {}, 403),
        ("DELETE", {"fieldSelector": "metadata.name=c0"}, 403),
    ],
)
async def test_a_right_to_one_name_is_one_to_lists_and_watches_of_that_name(
    client: Client, method: str, query: dict[str, str], status: int
) -> None:
    verbs = ["list", "watch", "deletecollection"]
    token = await allow(
        client, {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["c0"], "verbs": verbs}
    )
    assert (await client.call(method, CONFIGS, token=token, **query)).status == status


# forms


async def test_answers_come_in_the_form_that_is_accepted(client: Client) -> None:
    await client.call("POST", CONFIGS, config(labels={"a": "b"}))
    forms = {
        "": "ConfigMapList",
        "*/*": "ConfigMapList",
        "application/vnd.kubernetes.protobuf,application/json": "ConfigMapList",
        "text/weird, application/json": "ConfigMapList",
        f"{TABLE},application/json": "Table",
        METADATA.replace("Metadata;", "MetadataList;"): "PartialObjectMetadataList",
    }
    seen = {accept: (await client.call("GET", CONFIGS, headers={"accept": accept})).json["kind"] for accept in forms}
    assert seen == forms
    one = await client.call("GET", f"{CONFIGS}/c", headers={"accept": METADATA})
    assert (one.json["kind"], one.json["metadata"]["labels"], "data" in one.json) == (
        "PartialObjectMetadata",
        {"a": "b"},
        False,
    )


@pytest.mark.parametrize(("include", "kind"), [("", "PartialObjectMetadata"), ("Object", "ConfigMap"), ("None", None)])
async def test_a_tables_rows_hold_what_is_asked_for(client: Client, include: str, kind: str | None) -> None:
    await client.call("POST", CONFIGS, config())
    table = (await client.call("GET", CONFIGS, headers={"accept": TABLE}, includeObject=include)).json
    assert (table["rows"][0]["object"] or {}).get("kind") == kind


async def test_warnings_come_as_headers(client: Client) -> None:
    made = await client.call("POST", CONFIGS, {**config(), "nosuch": 1})
    assert made.headers["warning"] == '299 - "unknown field \\"nosuch\\""'
    strict = await client.call("POST", CONFIGS, {**config("d"), "nosuch": 1}, fieldValidation="Strict")
    assert (strict.status, "strict decoding error" in strict.json["message"]) == (400, True)
    assert (await client.call("POST", CONFIGS, config("d"), fieldValidation="Loose")).status == 422


async def test_health_version_and_discovery(client: Client) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        assert (await client.call("GET", path)).body == b"ok"
    kinds = {
        "/version": None,
        "/api": "APIVersions",
        "/apis": "APIGroupList",
        "/apis/batch": "APIGroup",
        "/api/v1": "APIResourceList",
        "/apis/batch/v1": "APIResourceList",
    }
    seen = {path: (await client.call("GET", path)).json.get("kind") for path in kinds}
    assert seen == kinds
    found = await client.call("GET", "/apis", headers={"accept": f"{AGGREGATED},application/json"})
    assert found.json["kind"] == "APIGroupList", "kubectl's first wish is for another form"
    assert (await client.call("POST", "/version", {})).status == 405


async def test_every_schema_in_the_openapi_index_is_served(client: Client) -> None:
    paths = (await client.call("GET", "/openapi/v3")).json["paths"]
    for path in paths.values():
        assert (await client.call("GET", path["serverRelativeURL"].partition("?")[0])).status == 200


# verbs on parts and collections


async def test_a_pod_is_bound_and_evicted_by_its_subresources(client: Client) -> None:
    await client.call("POST", PODS, pod())
    target = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}
    bound = await client.call("POST", f"{PODS}/p/binding", target)
    assert (bound.status, bound.json["status"]) == (201, "Success")
    assert (await client.call("POST", f"{PODS}/p/binding", target)).status == 409
    other = {"metadata": {"name": "q"}}
    assert (await client.call("POST", f"{PODS}/p/eviction", other)).status == 400
    dry = {"metadata": {"name": "p"}, "deleteOptions": {"dryRun": ["All"]}}
    assert (await client.call("POST", f"{PODS}/p/eviction", dry)).status == 201
    assert "deletionTimestamp" not in client.registry.get("Pod", "one", "p")["metadata"]
    assert (await client.call("POST", f"{PODS}/p/eviction", {"metadata": {"name": "p"}})).status == 201
    assert "deletionTimestamp" in client.registry.get("Pod", "one", "p")["metadata"]


async def test_collections_are_deleted_by_selector(client: Client) -> None:
    for name in "ab":
        await client.call("POST", CONFIGS, config(name, labels={"name": name}))
    deleted = await client.call("DELETE", CONFIGS, labelSelector="name=a")
    assert [item["metadata"]["name"] for item in deleted.json["items"]] == ["a"]
    assert [one["metadata"]["name"] for one in client.registry.list("ConfigMap")] == ["b"]


async def test_a_dry_run_of_a_deletion_deletes_nothing(client: Client) -> None:
    await client.call("POST", CONFIGS, config())
    assert (await client.call("DELETE", f"{CONFIGS}/c", dryRun="All")).json["status"] == "Success"
    assert (await client.call("DELETE", f"{CONFIGS}/c", {"dryRun": ["All"]})).json["status"] == "Success"
    assert (await client.call("DELETE", f"{CONFIGS}/c", dryRun="Maybe")).status == 422
    assert (await client.call("GET", f"{CONFIGS}/c")).status == 200


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"propagationPolicy": "Loose"}, 422, 'supported values: "Foreground", "Background", "Orphan"'),
        ({"propagationPolicy": "Orphan", "orphanDependents": True}, 422, "cannot be both set"),
        ({"gracePeriodSeconds": "soon"}, 400, "invalid syntax"),
    ],
)
async def test_wrong_options_of_a_deletion_are_refused(
    client: Client, options: dict[str, Any], code: int, words: str
) -> None:
    reply = await client.call("DELETE", f"{CONFIGS}/c", options)
    assert (reply.status, words in reply.json["message"]) == (code, True)


async def test_deleting_a_job_without_a_policy_warns(client: Client) -> None:
    spec = {"template": {"spec": {"restartPolicy": "Never", **pod()["spec"]}}}
    client.registry.create("Job", "one", {"metadata": {"name": "j"}, "spec": spec})
    reply = await client.call("DELETE", "/apis/batch/v1/namespaces/one/jobs/j")
    assert "child pods are preserved by default when jobs are deleted" in reply.headers["warning"]


# watches


async def test_a_watch_tells_changes_as_lines_until_its_timeout(client: Client) -> None:
    def change() -> None:
        client.registry.create("ConfigMap", "one", config("d"))
        client.registry.delete("ConfigMap", "one", "d")

    await client.call("POST", CONFIGS, config())
    reply = await client.call(
        "GET", CONFIGS, watch="true", timeoutSeconds="1", allowWatchBookmarks="true", during=change
    )
    answer = [(line["type"], line["object"]["metadata"].get("name")) for line in reply.lines]
    assert answer == [("ADDED", "c"), ("ADDED", "d"), ("DELETED", "d"), ("BOOKMARK", None)]
    assert reply.lines[0]["object"]["kind"] == "ConfigMap"
    assert reply.lines[-1]["object"]["metadata"]["resourceVersion"] == str(client.registry.store.version)


async def test_a_watch_comes_as_tables_or_metadata_if_accepted(client: Client) -> None:
    await client.call("POST", CONFIGS, config())
    for accept, kind in ((TABLE, "Table"), (METADATA, "PartialObjectMetadata")):
        query = {"watch": "1", "timeoutSeconds": "1", "allowWatchBookmarks": "1"}
        reply = await client.call("GET", CONFIGS, headers={"accept": accept}, **query)
        assert [line["object"]["kind"] for line in reply.lines] == [kind, kind]


async def test_initial_events_end_with_a_marked_bookmark(client: Client) -> None:
    await client.call("POST", CONFIGS, config())
    query = {"watch": "1", "timeoutSeconds": "1", "sendInitialEvents": "true", "allowWatchBookmarks": "true"}
    reply = await client.call("GET", CONFIGS, resourceVersionMatch="NotOlderThan", **query)
    assert [line["type"] for line in reply.lines] == ["ADDED", "BOOKMARK", "BOOKMARK"]
    assert reply.lines[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert (await client.call("GET", CONFIGS, **query)).status == 422


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"resourceVersion": "1"}, 200, 410),
        ({"resourceVersion": "x"}, 400, 400),
        ({"resourceVersion": "999999999"}, 504, 504),
        ({"labelSelector": "a b"}, 400, 400),
        ({"timeoutSeconds": "soon"}, 400, 400),
    ],
)
async def test_a_watch_that_cannot_begin_says_why(
    client: Client, query: dict[str, str], status: int, code: int
) -> None:
    reply = await client.call("GET", CONFIGS, watch="1", **query)
    answer = reply.json["object"] if reply.json.get("type") == "ERROR" else reply.json
    assert (reply.status, answer["kind"], answer["code"]) == (status, "Status", code)


async def test_closing_the_app_ends_its_watches(client: Client) -> None:
    watch = asyncio.create_task(client.call("GET", CONFIGS, watch="1", during=lambda: closing.set()))
    closing = asyncio.Event()
    await closing.wait()
    client.app.close()
    assert (await watch).lines == []
