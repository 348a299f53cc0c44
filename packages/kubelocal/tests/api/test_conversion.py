"""Objects in other forms than the stored one, over the API: Scale, Events of events.k8s.io, Tables of a watch."""

from __future__ import annotations

from typing import Any

import pytest

from api_client import MERGE, TABLE, Client

DEPLOYMENTS = "/apis/apps/v1/namespaces/one/deployments"
CORE_EVENTS = "/api/v1/namespaces/one/events"
EVENTS = "/apis/events.k8s.io/v1/namespaces/one/events"
PATCH = {"content-type": MERGE}


async def deployed(client: Client, replicas: int = 2) -> dict[str, Any]:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "x"}]}}
    expressions = [{"key": "app", "operator": "In", "values": ["web", "old"]}]
    selector = {"matchLabels": labels, "matchExpressions": expressions}
    spec = {"replicas": replicas, "selector": selector, "template": template}
    made = await client.call("POST", DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": spec})
    assert made.status == 201
    found: dict[str, Any] = made.json
    return found


async def test_a_scale_is_read_put_and_patched(client: Client) -> None:
    made = await deployed(client)
    read = await client.call("GET", f"{DEPLOYMENTS}/d/scale")
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    assert read.json == {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {field: made["metadata"][field] for field in kept},
        "spec": {"replicas": 2},
        "status": {"replicas": 0, "selector": "app=web,app in (web,old)"},
    }
    patched = await client.call("PATCH", f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": 3}}, headers=PATCH)
    assert (patched.status, patched.json["spec"]) == (200, {"replicas": 3})
    assert client.registry.get("Deployment", "one", "d")["metadata"]["generation"] == 2
    stale = await client.call("PUT", f"{DEPLOYMENTS}/d/scale", {**read.json, "spec": {"replicas": 9}})
    assert (stale.status, stale.json["reason"]) == (409, "Conflict")
    put = await client.call("PUT", f"{DEPLOYMENTS}/d/scale", {**patched.json, "spec": {}})
    assert (put.status, put.json["spec"]) == (200, {})
    assert client.registry.get("Deployment", "one", "d")["spec"]["replicas"] == 0


@pytest.mark.parametrize(
    ("patch", "code", "message"),
    [
        (
            {"spec": {"replicas": -1}},
            422,
            'Scale.autoscaling "d" is invalid: spec.replicas: Invalid value: -1: must be',
        ),
        ({"spec": {"replicas": "many"}}, 422, "cannot unmarshal string into Go struct field ScaleSpec"),
        ({"metadata": {"name": "other"}}, 400, "the name of the object (other) does not match the name on the URL (d)"),
    ],
)
async def test_a_wrong_scale_is_refused(client: Client, patch: dict[str, Any], code: int, message: str) -> None:
    await deployed(client)
    reply = await client.call("PATCH", f"{DEPLOYMENTS}/d/scale", patch, headers=PATCH)
    assert (reply.status, message in reply.json["message"]) == (code, True), reply.json
    assert client.registry.get("Deployment", "one", "d")["spec"]["replicas"] == 2


def event(**fields: Any) -> dict[str, Any]:
    given = {
        "metadata": {"name": "e"},
        "eventTime": "2030-01-02T03:04:05.000000Z",
        "reportingController": "example.com/c",
        "reportingInstance": "c-1",
        "action": "Starting",
        "reason": "Started",
        "type": "Normal",
        "note": "it runs",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "one"},
    }
    return {key: value for key, value in (given | fields).items() if value is not None}


async def test_an_event_is_one_object_in_both_groups(client: Client) -> None:
    made = await client.call("POST", EVENTS, event())
    assert (made.status, made.json["apiVersion"], made.json["note"]) == (201, "events.k8s.io/v1", "it runs")
    core = (await client.call("GET", f"{CORE_EVENTS}/e")).json
    assert (core["apiVersion"], core["message"], core["involvedObject"]["name"]) == ("v1", "it runs", "p")
    assert (core["reportingComponent"], core["reportingInstance"]) == ("example.com/c", "c-1")
    patched = await client.call("PATCH", f"{EVENTS}/e", {"note": "it ran"}, headers=PATCH)
    assert (patched.status, patched.json["note"]) == (200, "it ran")
    put = await client.call("PUT", f"{EVENTS}/e", {**patched.json, "reason": "Ended"})
    assert put.status == 200, put.json
    core = (await client.call("GET", f"{CORE_EVENTS}/e")).json
    assert (core["message"], core["reason"]) == ("it ran", "Ended")
    assert (await client.call("DELETE", f"{EVENTS}/e")).status == 200
    assert (await client.call("GET", f"{CORE_EVENTS}/e")).status == 404


async def test_events_that_the_cluster_records_have_the_other_groups_names(client: Client) -> None:
    about = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "one", "uid": "u"}}
    client.registry.record(about, "Pulled", "image is here")
    for query, count in (("regarding.name=p", 1), ("regarding.name=q", 0), ("reportingController=kubelet", 1)):
        listed = await client.call("GET", EVENTS, fieldSelector=query)
        assert (listed.json["kind"], len(listed.json["items"])) == ("EventList", count), query
    [found] = (await client.call("GET", EVENTS)).json["items"]
    assert (found["note"], found["deprecatedCount"]) == ("image is here", 1)
    assert (found["regarding"]["uid"], found["deprecatedSource"]) == ("u", {"component": "kubelet"})
    watched = await client.call("GET", EVENTS, watch="1", timeoutSeconds="1")
    assert watched.lines[0]["object"]["note"] == "image is here"
    table = await client.call("GET", EVENTS, headers={"accept": TABLE})
    assert table.json["rows"][0]["cells"][-1] == "image is here" or "image is here" in table.json["rows"][0]["cells"]
    wrong = await client.call("GET", EVENTS, fieldSelector="note=x")
    assert wrong.status == 400


@pytest.mark.parametrize(
    "wrong",
    [
        {"eventTime": None},
        {"action": None},
        {"reportingController": ""},
        {"type": "Odd"},
        {"note": "x" * 1025},
        {"reportingInstance": "x" * 129},
        {"deprecatedCount": 2},
    ],
)
async def test_a_new_event_must_be_complete(client: Client, wrong: dict[str, Any]) -> None:
    reply = await client.call("POST", EVENTS, event(**wrong))
    assert (reply.status, reply.json["details"]["causes"][0]["field"]) == (422, next(iter(wrong)))


async def test_a_watch_defines_the_columns_of_a_table_once(client: Client) -> None:
    for name in ("a", "b", "c"):
        await client.call("POST", "/api/v1/namespaces/one/configmaps", {"metadata": {"name": name}})
    query = {"watch": "1", "timeoutSeconds": "1", "allowWatchBookmarks": "1"}
    watched = await client.call("GET", "/api/v1/namespaces/one/configmaps", headers={"accept": TABLE}, **query)
    tables = [line["object"] for line in watched.lines if line["type"] == "ADDED"]
    assert [bool(table["columnDefinitions"]) for table in tables] == [True, False, False]
    assert [table["rows"][0]["cells"][0] for table in tables] == ["a", "b", "c"]
