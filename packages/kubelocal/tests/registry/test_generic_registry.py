from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kubelocal.codec.kinds import KINDS
from kubelocal.codec.status_errors import StatusError, forbidden
from kubelocal.interfaces import Registry
from kubelocal.registry.deletion import DeleteOptions
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.storage.selectors import EVERYTHING, select
from kubelocal.storage.store import Entry, Store
from kubelocal.types import Manifest

NOW = 1_800_000_000.0
POD, CONFIG = KINDS["Pod"], KINDS["ConfigMap"]


@pytest.fixture
def registry() -> ClusterRegistry:
    made = ClusterRegistry(Store(), clock=lambda: NOW)
    made.create("Namespace", "", {"metadata": {"name": "one"}})
    return made


def pod(name: str = "p", **spec: Any) -> Manifest:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "base", "image": "busybox:1"}], **spec}}


def config(name: str = "c", **metadata: Any) -> Manifest:
    return {"metadata": {"name": name, **metadata}, "data": {"a": "1"}}


def refusal(code: int, words: str, call: Callable[[], object]) -> StatusError:
    with pytest.raises(StatusError) as refused:
        call()
    assert refused.value.code == code
    assert words in refused.value.status["message"]
    return refused.value


def put(registry: ClusterRegistry, manifest: Manifest, subresource: str = "", kind: str = "ConfigMap") -> Entry:
    name = manifest["metadata"]["name"]
    return registry.replace(KINDS[kind], "one", name, manifest, subresource=subresource)[0]


def bound(registry: ClusterRegistry, name: str = "p", **spec: Any) -> Manifest:
    registry.create("Pod", "one", pod(name, **spec))
    registry.bind("one", name, {"target": {"kind": "Node", "name": "n"}})
    return registry.get("Pod", "one", name)


def types(registry: ClusterRegistry, kind: str, since: int = 1000) -> list[str]:
    return [event.type for event in registry.store.since(kind, since)]


# creating


def test_a_new_object_gets_what_the_system_decides_and_nothing_of_that_from_its_maker(
    registry: ClusterRegistry,
) -> None:
    given = pod()
    given["metadata"] |= {"uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z", "generation": 7}
    given["status"] = {"phase": "Succeeded"}
    made = registry.create("Pod", "one", given)
    metadata = made["metadata"]
    assert list(made)[:2] == ["kind", "apiVersion"]
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", metadata["uid"])
    assert (metadata["creationTimestamp"], metadata["generation"]) == ("2027-01-15T08:00:00Z", 1)
    assert made["status"]["phase"] == "Pending"
    assert given["status"] == {"phase": "Succeeded"}


def test_names_are_generated_and_cut_to_63_characters(registry: ClusterRegistry) -> None:
    names = {
        registry.create("ConfigMap", "one", {"metadata": {"generateName": "x" * 70}})["metadata"]["name"]
        for _ in range(20)
    }
    assert len(names) == 20
    assert all(re.fullmatch("x{58}[bcdfghjklmnpqrstvwxz2456789]{5}", name) for name in names)


@pytest.mark.parametrize(
    ("namespace", "manifest", "code", "words"),
    [
        ("one", {"metadata": {}}, 422, "name or generateName is required"),
        ("one", config(namespace="two"), 400, "the namespace of the provided object does not match"),
        ("two", config(), 404, 'namespaces "two" not found'),
        ("one", config(resourceVersion="5"), 400, "resourceVersion should not be set on objects to be created"),
        ("one", config("Upper"), 422, "metadata.name"),
    ],
)
def test_wrong_creations_are_refused(
    registry: ClusterRegistry, namespace: str, manifest: Manifest, code: int, words: str
) -> None:
    refusal(code, words, lambda: registry.create("ConfigMap", namespace, manifest))


def test_a_name_is_taken_once(registry: ClusterRegistry) -> None:
    registry.create("ConfigMap", "one", config())
    refusal(409, 'configmaps "c" already exists', lambda: registry.create("ConfigMap", "one", config()))


def test_a_terminating_namespace_takes_nothing_new(registry: ClusterRegistry) -> None:
    registry.delete("Namespace", "", "one")
    refused = refusal(403, "because it is being terminated", lambda: registry.create("ConfigMap", "one", config()))
    assert refused.status["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    assert registry.get("Namespace", "", "one")["status"]["phase"] == "Terminating"
    refusal(409, "automatically be purged", lambda: registry.delete("Namespace", "", "one"))


def test_mutators_change_pods_before_validation_and_admitters_refuse_any_object() -> None:
    def name_account(manifest: Manifest, registry: Registry) -> Manifest:
        return {**manifest, "spec": {**manifest["spec"], "containers": manifest["spec"]["containers"] * 2}}

    def full(manifest: Manifest, registry: Registry, old: Manifest | None) -> Sequence[str]:
        if manifest["kind"] == "ConfigMap":
            raise forbidden("ConfigMap", manifest["metadata"]["name"], "exceeded quota")
        return ()

    registry = ClusterRegistry(Store(), [name_account], [full])
    registry.create("Namespace", "", {"metadata": {"name": "one"}})
    refusal(422, "Duplicate value", lambda: registry.create("Pod", "one", pod()))
    refusal(403, "exceeded quota", lambda: registry.create("ConfigMap", "one", config()))
    assert registry.list("ConfigMap") == []


def test_admitters_see_changes_and_may_warn() -> None:
    def wary(manifest: Manifest, registry: Registry, old: Manifest | None) -> Sequence[str]:
        return [f"{(old or {}).get('data')} to {manifest['data']}"] if manifest["kind"] == "ConfigMap" else ()

    registry, said = ClusterRegistry(Store(), admitters=[wary]), list[str]()
    registry.create("Namespace", "", {"metadata": {"name": "one"}})
    registry.add(CONFIG, "one", config(), warnings=said)
    registry.revise(CONFIG, "one", "c", lambda old: {**old, "data": {"a": "2"}}, warnings=said)
    assert said == ["None to {'a': '1'}", "{'a': '1'} to {'a': '2'}"]


def test_a_dry_run_answers_and_keeps_nothing(registry: ClusterRegistry) -> None:
    version = registry.store.version
    made = registry.add(CONFIG, "one", config(), dry_run=True).object
    assert made["metadata"]["uid"]
    refusal(404, 'configmaps "c" not found', lambda: registry.get("ConfigMap", "one", "c"))
    registry.create("ConfigMap", "one", config())
    changed = registry.revise(CONFIG, "one", "c", lambda old: {**old, "data": {"a": "2"}}, dry_run=True)
    assert changed.object["data"] == {"a": "2"}
    assert registry.get("ConfigMap", "one", "c")["data"] == {"a": "1"}
    assert registry.erase(CONFIG, "one", "c", DeleteOptions(dry_run=True))[1]
    assert registry.store.version == version + 1


# changing


def test_a_put_replaces_and_the_version_tells_whether_it_may(registry: ClusterRegistry) -> None:
    first = registry.create("ConfigMap", "one", config())
    second = put(registry, {**first, "data": {"b": "2"}}).object
    assert second["data"] == {"b": "2"}
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    refusal(409, "the object has been modified", lambda: put(registry, {**first, "data": {}}))
    assert put(registry, config()).object["data"] == {"a": "1"}


def test_a_put_that_changes_nothing_keeps_the_version(registry: ClusterRegistry) -> None:
    first = registry.create("ConfigMap", "one", config())
    assert put(registry, config()).object is first
    assert types(registry, "ConfigMap") == ["ADDED"]


@pytest.mark.parametrize(
    ("metadata", "code", "words"),
    [
        ({"name": "d"}, 400, "the name of the object (d) does not match the name on the URL (c)"),
        ({"name": "c", "namespace": "two"}, 400, "the namespace of the object (two) does not match"),
        ({"name": "c", "uid": "other"}, 409, "Precondition failed: UID in precondition: other, UID in object meta"),
        ({}, 400, "name must be provided"),
    ],
)
def test_a_body_must_speak_of_the_object_at_its_address(
    registry: ClusterRegistry, metadata: Manifest, code: int, words: str
) -> None:
    registry.create("ConfigMap", "one", config())
    refusal(code, words, lambda: registry.replace(CONFIG, "one", "c", {"metadata": metadata}))


def test_some_kinds_are_created_by_put_and_others_not(registry: ClusterRegistry) -> None:
    refusal(404, 'configmaps "c" not found', lambda: put(registry, config()))
    entry, new = registry.replace(KINDS["Lease"], "one", "l", {"metadata": {"name": "l"}, "spec": {}})
    assert new
    refusal(422, "must be specified for an update", lambda: put(registry, {"metadata": {"name": "l"}}, kind="Lease"))
    assert registry.get("Lease", "one", "l") is entry.object


def test_status_and_spec_change_at_their_own_addresses_alone(registry: ClusterRegistry) -> None:
    first = registry.create("Pod", "one", pod())
    changed = {
        **first,
        "metadata": {**first["metadata"], "labels": {"a": "b"}},
        "spec": {**first["spec"], "activeDeadlineSeconds": 5},
        "status": {"phase": "Failed"},
    }
    second = put(registry, changed, kind="Pod").object
    assert (second["spec"]["activeDeadlineSeconds"], second["status"]["phase"]) == (5, "Pending")
    assert second["metadata"]["generation"] == 2
    changed["metadata"] = second["metadata"]
    third = put(registry, {**changed, "spec": first["spec"]}, "status", kind="Pod").object
    assert (third["spec"], third["status"]["phase"]) == (second["spec"], "Failed")
    assert third["metadata"]["generation"] == 2


def test_system_fields_cannot_be_changed_by_a_client(registry: ClusterRegistry) -> None:
    first = registry.create("ConfigMap", "one", config())
    forged = {"creationTimestamp": "2001-01-01T00:00:00Z", "deletionTimestamp": "2001-01-01T00:00:00Z"}
    second = put(registry, {**config(), "metadata": {"name": "c", **forged}, "data": {"x": "y"}}).object
    assert second["metadata"] == {**first["metadata"], "resourceVersion": second["metadata"]["resourceVersion"]}


def test_parts_of_the_cluster_update_by_changing_a_copy(registry: ClusterRegistry) -> None:
    first = registry.create("Pod", "one", pod())

    def run(copy: Manifest) -> None:
        copy["status"]["phase"] = "Running"
        copy["spec"]["nodeName"] = "n"

    second = registry.update("Pod", "one", "p", run, subresource="status")
    assert (second["status"]["phase"], "nodeName" in second["spec"]) == ("Running", False)
    assert first["status"]["phase"] == "Pending"
    assert registry.update("Pod", "one", "p", lambda copy: None) is second
    assert registry.update("Pod", "one", "p", run)["spec"]["nodeName"] == "n"


# nodes and evictions


def test_a_pod_is_bound_once(registry: ClusterRegistry) -> None:
    made = bound(registry)
    assert made["spec"]["nodeName"] == "n"
    assert made["status"]["conditions"][0]["type"] == "PodScheduled"
    again = {"target": {"name": "m"}}
    refused = refusal(409, 'pod p is already assigned to node "n"', lambda: registry.bind("one", "p", again))
    assert refused.status["message"].startswith('Operation cannot be fulfilled on pods/binding "p": ')
    refusal(422, "target.name: Required value", lambda: registry.bind("one", "p", {}))
    refusal(404, 'pods "q" not found', lambda: registry.bind("one", "q", again))


@pytest.mark.parametrize("phase", ["Pending", "Running"])
def test_an_evicted_pod_says_why_and_goes(registry: ClusterRegistry, phase: str) -> None:
    bound(registry)
    registry.update("Pod", "one", "p", lambda one: one["status"].update(phase=phase), subresource="status")
    assert registry.get("Pod", "one", "p")["status"]["phase"] == phase
    refusal(409, "does not match the UID", lambda: registry.evict("one", "p", DeleteOptions(uid="other")))
    registry.evict("one", "p", DeleteOptions())
    evicted = registry.get("Pod", "one", "p")
    condition = next(one for one in evicted["status"]["conditions"] if one["type"] == "DisruptionTarget")
    assert condition["reason"] == "EvictionByEvictionAPI"
    assert evicted["metadata"]["deletionTimestamp"] == "2027-01-15T08:00:30Z"


def test_a_dry_run_of_an_eviction_leaves_the_pod_unmarked(registry: ClusterRegistry) -> None:
    made = bound(registry)
    registry.evict("one", "p", DeleteOptions(dry_run=True))
    assert registry.get("Pod", "one", "p") == made


# deleting


def test_a_running_pod_is_marked_and_goes_with_the_kubelets_word(registry: ClusterRegistry) -> None:
    uid = bound(registry)["metadata"]["uid"]
    marked = registry.delete("Pod", "one", "p")
    assert marked
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    assert marked["metadata"]["generation"] == 3
    assert registry.delete("Pod", "one", "p") is marked
    refusal(409, "does not match", lambda: registry.remove("Pod", "one", "p", uid="other"))
    registry.remove("Pod", "one", "p", uid=uid)
    last = registry.store.since("Pod", 1000)[-1]
    assert (last.type, last.entry.object["metadata"]["deletionGracePeriodSeconds"]) == ("DELETED", 0)
    assert last.entry.object["metadata"]["deletionTimestamp"] == "2027-01-15T08:00:00Z"
    refusal(404, "not found", lambda: registry.remove("Pod", "one", "p", uid=uid))


@pytest.mark.parametrize(
    ("first", "later", "grace", "deadline"),
    [
        (100, 50, 50, "2027-01-15T08:00:50Z"),
        (100, 200, 100, "2027-01-15T08:01:40Z"),
        (100, -5, 1, "2027-01-15T08:00:01Z"),
    ],
)
def test_a_grace_may_be_shortened_and_not_lengthened(
    registry: ClusterRegistry, first: int, later: int, grace: int, deadline: str
) -> None:
    bound(registry)
    registry.delete("Pod", "one", "p", grace_period=first)
    marked = registry.delete("Pod", "one", "p", grace_period=later)
    assert marked
    assert (marked["metadata"]["deletionGracePeriodSeconds"], marked["metadata"]["deletionTimestamp"]) == (
        grace,
        deadline,
    )


@pytest.mark.parametrize("prepare", ["unscheduled", "finished", "forced"])
def test_a_pod_that_nothing_runs_is_gone_at_once(registry: ClusterRegistry, prepare: str) -> None:
    if prepare == "unscheduled":
        registry.create("Pod", "one", pod(terminationGracePeriodSeconds=300))
    else:
        bound(registry)
    if prepare == "finished":
        registry.update("Pod", "one", "p", lambda one: one["status"].update(phase="Succeeded"))
    assert registry.delete("Pod", "one", "p", grace_period=0 if prepare == "forced" else None) is None
    refusal(404, "not found", lambda: registry.get("Pod", "one", "p"))


def test_finalizers_hold_an_object_until_they_are_gone(registry: ClusterRegistry) -> None:
    registry.create("ConfigMap", "one", config(finalizers=["example.com/hold"]))
    marked = registry.delete("ConfigMap", "one", "c")
    assert marked
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 0
    assert registry.delete("ConfigMap", "one", "c") is marked
    added = {**marked, "metadata": {**marked["metadata"], "finalizers": ["example.com/hold", "example.com/more"]}}
    refusal(422, "no new finalizers can be added", lambda: put(registry, added))
    last = put(registry, {**marked, "metadata": {**marked["metadata"], "finalizers": []}})
    assert registry.store.since("ConfigMap", 1000)[-1].entry is last
    assert registry.list("ConfigMap") == []


def test_a_finalizer_holds_a_pod_that_the_kubelet_is_done_with(registry: ClusterRegistry) -> None:
    uid = bound(registry)["metadata"]["uid"]
    registry.update("Pod", "one", "p", lambda one: one["metadata"].update(finalizers=["example.com/hold"]))
    registry.delete("Pod", "one", "p")
    registry.update("Pod", "one", "p", lambda one: one["metadata"].pop("finalizers"))
    assert registry.get("Pod", "one", "p")["metadata"]["deletionGracePeriodSeconds"] == 30
    registry.update("Pod", "one", "p", lambda one: one["metadata"].update(finalizers=["example.com/hold"]))
    registry.remove("Pod", "one", "p", uid=uid)
    assert registry.get("Pod", "one", "p")["metadata"]["deletionGracePeriodSeconds"] == 0
    registry.update("Pod", "one", "p", lambda one: one["metadata"].pop("finalizers"))
    assert registry.list("Pod") == []


@pytest.mark.parametrize(
    ("kind", "propagation", "finalizers"),
    [
        ("Job", "", ["orphan"]),
        ("Job", "Background", None),
        ("Job", "Foreground", ["foregroundDeletion"]),
        ("ConfigMap", "", None),
        ("ConfigMap", "Orphan", ["orphan"]),
    ],
)
def test_the_propagation_policy_becomes_a_finalizer(
    registry: ClusterRegistry, kind: str, propagation: str, finalizers: list[str] | None
) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "base", "image": "busybox:1"}]}}
    spec = {"spec": {"template": template}} if kind == "Job" else {}
    registry.create(kind, "one", {"metadata": {"name": "c"}, **spec})
    state, gone = registry.erase(KINDS[kind], "one", "c", DeleteOptions(propagation=propagation))
    assert (state.object["metadata"].get("finalizers"), gone) == (finalizers, finalizers is None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (DeleteOptions(uid="x"), "the UID in the precondition (x) does not match the UID in record"),
        (DeleteOptions(version="1"), "the ResourceVersion in the precondition (1) does not match"),
    ],
)
def test_preconditions_are_kept(registry: ClusterRegistry, options: DeleteOptions, words: str) -> None:
    registry.create("ConfigMap", "one", config())
    refusal(409, words, lambda: registry.erase(CONFIG, "one", "c", options))


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public"])
def test_system_namespaces_stay(registry: ClusterRegistry, name: str) -> None:
    registry.create("Namespace", "", {"metadata": {"name": name}})
    refusal(403, "this namespace may not be deleted", lambda: registry.delete("Namespace", "", name))


def test_a_collection_is_deleted_by_selector(registry: ClusterRegistry) -> None:
    for name in "abc":
        registry.create("ConfigMap", "one", config(name, labels={"x": str(name == "b")}))
    erased = registry.erase_all(CONFIG, "one", select(CONFIG, "x=False", ""), DeleteOptions())
    assert sorted(entry.object["metadata"]["name"] for entry in erased) == ["a", "c"]
    assert [one["metadata"]["name"] for one in registry.list("ConfigMap", "one")] == ["b"]
    assert len(registry.erase_all(CONFIG, None, EVERYTHING, DeleteOptions())) == 1


# events


def test_events_are_counted_up_when_they_repeat(registry: ClusterRegistry) -> None:
    about = registry.create("Pod", "one", pod())
    for message in ("back-off", "back-off", "other"):
        registry.record(about, "BackOff", message, warning=True, field_path="spec.containers{base}")
    events = sorted(registry.list("Event", "one"), key=lambda event: str(event["message"]))
    assert [(event["message"], event["count"], event["type"]) for event in events] == [
        ("back-off", 2, "Warning"),
        ("other", 1, "Warning"),
    ]
    involved = events[0]["involvedObject"]
    assert (involved["kind"], involved["name"], involved["uid"]) == ("Pod", "p", about["metadata"]["uid"])
    assert involved["fieldPath"] == "spec.containers{base}"
    assert re.fullmatch(r"p\.[0-9a-f]{16}", events[0]["metadata"]["name"])


def test_events_are_forgotten_after_an_hour_whoever_wrote_them() -> None:
    now = [NOW]
    registry = ClusterRegistry(Store(), clock=lambda: now[0])
    registry.create("Namespace", "", {"metadata": {"name": "one"}})
    about = registry.create("Pod", "one", pod())
    event = {"involvedObject": {"kind": "Pod", "namespace": "one", "name": "p"}, "reason": "Mine"}
    registry.create("Event", "one", {"metadata": {"name": "mine"}, **event})
    for reason in ("Old", "Lasting"):
        registry.record(about, reason, "m")
    now[0] += 1800
    registry.record(about, "Lasting", "m")
    now[0] += 1801
    registry.record(about, "New", "m")
    assert sorted((event["reason"], event["count"]) for event in registry.list("Event")) == [("Lasting", 2), ("New", 1)]
    registry.record(about, "Old", "m")
    assert len(registry.list("Event")) == 3


def test_an_event_that_was_deleted_is_not_counted_up(registry: ClusterRegistry) -> None:
    about = registry.create("Pod", "one", pod())
    registry.record(about, "Pulled", "m")
    [event] = registry.list("Event")
    registry.delete("Event", "one", event["metadata"]["name"])
    registry.record(about, "Pulled", "m")
    assert [event["count"] for event in registry.list("Event")] == [1]


def test_no_event_is_left_behind_in_a_namespace_that_goes(registry: ClusterRegistry) -> None:
    about = registry.create("Pod", "one", pod())
    registry.delete("Namespace", "", "one")
    registry.record(about, "Killing", "m")
    assert registry.list("Event") == []
