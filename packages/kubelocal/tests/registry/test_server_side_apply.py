"""Server-side apply over the API: merging, owners, conflicts, and what is removed."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_client import CONFIGS, MERGE, Client, Reply
from example_objects import EXAMPLES
from kubelocal.codec.schema import type_of
from kubelocal.registry.managed_fields import field_set, merge, read_fields, remove, write_fields

HEADERS = {"content-type": "application/apply-patch+yaml"}
DEPLOYMENTS = "/apis/apps/v1/namespaces/one/deployments"


def config(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, **({"data": data} if data else {})}


async def applied(client: Client, body: Any, manager: str = "one", path: str = f"{CONFIGS}/c", **query: str) -> Reply:
    return await client.call("PATCH", path, body, headers=HEADERS, fieldManager=manager, **query)


def owners(reply: Reply) -> dict[str, Any]:
    return {
        f"{entry['manager']} {entry['operation']}": entry.get("fieldsV1")
        for entry in reply.json["metadata"].get("managedFields", ())
    }


async def test_an_apply_creates_and_names_its_owner(client: Client) -> None:
    made = await applied(client, config(a="1", b="1"))
    assert (made.status, made.json["data"]) == (201, {"a": "1", "b": "1"})
    [owner] = made.json["metadata"]["managedFields"]
    assert owner.pop("time")
    assert owner == {
        "manager": "one",
        "operation": "Apply",
        "apiVersion": "v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:a": {}, "f:b": {}}},
    }
    again = await applied(client, config(a="1", b="1"))
    assert (again.status, again.json) == (200, made.json)


async def test_an_apply_without_fields_has_no_owner_and_can_be_repeated(client: Client) -> None:
    path = "/api/v1/namespaces/one/serviceaccounts/a"
    bare = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}}
    made = await applied(client, bare, path=path)
    assert (made.status, "managedFields" in made.json["metadata"]) == (201, False)
    again = await applied(client, bare, path=path)
    assert (again.status, again.json) == (200, made.json)
    other = await applied(client, {**bare, "automountServiceAccountToken": False}, "two", path)
    assert owners(other) == {"two Apply": {"f:automountServiceAccountToken": {}}}


async def test_the_last_owner_can_release_all_its_fields(client: Client) -> None:
    await applied(client, config(a="1"))
    for _ in range(2):
        released = await applied(client, config())
        assert (released.status, "data" in released.json, owners(released)) == (200, False, {})


async def test_what_its_owner_leaves_out_is_gone_and_another_ones_stays(client: Client) -> None:
    await applied(client, config(a="1", b="1"))
    other = await applied(client, config(c="1"), "two")
    assert owners(other) == {"one Apply": {"f:data": {"f:a": {}, "f:b": {}}}, "two Apply": {"f:data": {"f:c": {}}}}
    shared = await applied(client, config(a="1", c="1"), "two")
    assert shared.status == 200, "the same value is no conflict"
    less = await applied(client, config())
    assert less.json["data"] == {"a": "1", "c": "1"}
    assert owners(less) == {"two Apply": {"f:data": {"f:a": {}, "f:c": {}}}}


async def test_a_conflict_names_owner_and_field_and_force_wins(client: Client) -> None:
    await applied(client, config(a="1", b="1"))
    one = await applied(client, config(a="2"), "two")
    assert (one.status, one.json["reason"]) == (409, "Conflict")
    assert one.json["message"] == 'Apply failed with 1 conflict: conflict with "one": .data.a'
    [cause] = one.json["details"]["causes"]
    assert cause == {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.a"}
    both = await applied(client, config(a="2", b="2"), "two")
    assert both.json["message"] == 'Apply failed with 2 conflicts: conflicts with "one":\n- .data.a\n- .data.b'
    won = await applied(client, config(a="2"), "two", force="true")
    assert (won.status, won.json["data"]) == (200, {"a": "2", "b": "1"})
    assert owners(won) == {"one Apply": {"f:data": {"f:b": {}}}, "two Apply": {"f:data": {"f:a": {}}}}


async def test_who_creates_and_changes_without_apply_owns_too(client: Client) -> None:
    agent = {"user-agent": "kubectl/v1.36 (linux)"}
    await client.call("POST", CONFIGS, config(a="1", b="1"), headers=agent)
    conflict = await applied(client, config(a="2"))
    assert 'conflict with "kubectl" using v1 at 20' in conflict.json["message"]
    assert (await applied(client, config(a="2"), force="true")).status == 200
    patch = {"data": {"a": "3", "d": "1"}}
    edited = await client.call("PATCH", f"{CONFIGS}/c", patch, headers={"content-type": MERGE}, fieldManager="editor")
    assert owners(edited) == {
        "kubectl Update": {"f:data": {"f:b": {}}},
        "editor Update": {"f:data": {"f:a": {}, "f:d": {}}},
    }
    conflict = await applied(client, config(a="2"))
    assert (conflict.status, '"editor" using v1 at' in conflict.json["message"]) == (409, True)
    put = {**edited.json, "data": {"b": "1"}}
    replaced = await client.call("PUT", f"{CONFIGS}/c", put, headers=agent)
    assert owners(replaced) == {"kubectl Update": {"f:data": {"f:b": {}}}}


async def test_owners_can_be_forgotten_and_are_not_taken_from_a_body(client: Client) -> None:
    await applied(client, config(a="1"))
    merge_type = {"content-type": MERGE}
    fake = {"metadata": {"managedFields": [{"manager": "fake", "operation": "Apply"}]}}
    kept = await client.call("PATCH", f"{CONFIGS}/c", fake, headers=merge_type)
    assert list(owners(kept)) == ["one Apply"]
    gone = await client.call("PATCH", f"{CONFIGS}/c", {"metadata": {"managedFields": [{}]}}, headers=merge_type)
    assert owners(gone) == {}
    assert 'conflict with "before-first-apply" using v1' in (await applied(client, config(a="2"))).json["message"]


def deployment(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": list(containers)}}
    given = {"selector": {"matchLabels": {"app": "d"}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": given}


async def test_lists_with_keys_are_merged_item_by_item(client: Client) -> None:
    path = f"{DEPLOYMENTS}/d"
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]
    main = {"name": "main", "image": "x:1", "env": env, "ports": [{"containerPort": 80}]}
    first = await applied(client, deployment(main, replicas=2), path=path)
    assert first.status == 201, first.json
    fields = first.json["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]
    item = fields['k:{"name":"main"}']
    assert item["f:ports"] == {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}}
    assert item["f:env"]['k:{"name":"A"}'] == {".": {}, "f:name": {}, "f:value": {}}
    proxy = deployment({"name": "proxy", "image": "p:1"})
    del proxy["spec"]["selector"], proxy["spec"]["template"]["metadata"]
    both = await applied(client, proxy, "mesh", path=path)
    assert [one["name"] for one in both.json["spec"]["template"]["spec"]["containers"]] == ["main", "proxy"]
    scaled = await client.call("PATCH", f"{path}/scale", {"spec": {"replicas": 5}}, headers={"content-type": MERGE})
    assert scaled.status == 200
    less = deployment({**main, "env": env[:1]})
    last = await applied(client, less, path=path)
    assert last.status == 200, last.json
    containers = last.json["spec"]["template"]["spec"]["containers"]
    assert [(one["name"], one.get("env")) for one in containers] == [("main", env[:1]), ("proxy", None)]
    assert last.json["spec"]["replicas"] == 5, "somebody else's by now"
    assert (await applied(client, deployment({**main, "env": env[:1]}, replicas=2), path=path)).status == 409


@pytest.mark.parametrize(
    ("body", "query", "code", "message"),
    [
        (config(a="1"), {"fieldManager": ""}, 422, "fieldManager: Required value: is required for apply patch"),
        (config(a="1"), {"fieldManager": "x" * 129}, 422, "fieldManager: Too long"),
        ({**config(), "spec": {}}, {}, 400, "one/c; v1, Kind=ConfigMap): .spec: field not declared in schema"),
        (config() | {"metadata": {"name": "other"}}, {}, 400, "the name of the object (other) does not match"),
        (config() | {"metadata": {"name": "c", "managedFields": [{"manager": "a"}]}}, {}, 400, "must be nil"),
        (b"a: [", {}, 400, "error decoding YAML"),
        (b"a: &x [1]\nb: *x", {}, 400, "aliases are not read"),
        (b"[" * 3000, {}, 400, "error decoding YAML"),
        (b"data: 5", {}, 400, "cannot unmarshal number"),
    ],
)
async def test_what_cannot_be_applied_is_refused(
    client: Client, body: Any, query: dict[str, str], code: int, message: str
) -> None:
    given = {"fieldManager": "one", **query}
    reply = await client.call("PATCH", f"{CONFIGS}/c", body, headers=HEADERS, **given)
    assert (reply.status, message in reply.json["message"]) == (code, True), reply.json
    assert client.registry.list("ConfigMap") == []


async def test_yaml_is_read_as_json_would_be(client: Client) -> None:
    body = b"apiVersion: v1\nkind: ConfigMap\ndata:\n  when: 2030-01-02\n  '1': 'yes'\n"
    refused = await applied(client, body)
    assert refused.status == 201, refused.json
    assert refused.json["data"] == {"when": "2030-01-02", "1": "yes"}


async def test_a_dry_run_applies_nothing_and_a_missing_object_has_no_status(client: Client) -> None:
    assert (await applied(client, config(a="1"), dryRun="All")).status == 201
    assert client.registry.list("ConfigMap") == []
    missing = await applied(client, deployment(), path=f"{DEPLOYMENTS}/d/status")
    assert missing.status == 404


# sets of fields

KINDS_HELD = ["ConfigMap", "Deployment", "Job", "Pod", "Service", "VirtualService"]


@pytest.mark.parametrize("kind", KINDS_HELD)
def test_a_set_is_written_and_read_again(kind: str) -> None:
    wanted, made = type_of(kind), EXAMPLES[kind]
    paths = field_set(wanted, made)
    assert read_fields(orjson.loads(orjson.dumps(write_fields(paths)))) == paths
    assert merge(wanted, made, made) == made
    assert remove(wanted, made, frozenset()) == made
    assert not remove(wanted, made, paths)


@pytest.mark.parametrize("kind", KINDS_HELD)
@given(data=st.data())
def test_what_is_removed_leaves_the_rest(kind: str, data: st.DataObject) -> None:
    wanted, made = type_of(kind), EXAMPLES[kind]
    paths = field_set(wanted, made)
    gone = frozenset(data.draw(st.sets(st.sampled_from(sorted(paths)))))
    left = field_set(wanted, remove(wanted, made, gone))
    assert left <= paths
    below_items = {path for path in gone if any(path[:length] in gone for length in range(1, len(path)))}
    leaves = {path for path in gone - below_items if not path[-1].startswith("k:")}
    keys = {path for path in leaves if path[:-1] and path[-2].startswith("k:")}
    assert not (leaves - keys) & left
