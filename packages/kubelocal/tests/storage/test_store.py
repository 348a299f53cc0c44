from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kubelocal.storage.store import Compacted, Event, Store

NAMES = st.sampled_from(["a", "b", "c"])
SPACES = st.sampled_from(["one", "two"])


def thing(namespace: str, name: str, value: int) -> dict[str, Any]:
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": namespace}, "data": value}


def replay(events: list[Event], start: dict[tuple[str, str], Any]) -> dict[tuple[str, str], Any]:
    state = dict(start)
    for event in events:
        key = event.namespace, event.name
        assert (event.type == "ADDED") == (key not in state)
        if event.type == "DELETED":
            del state[key]
        else:
            state[key] = event.entry.object
    return state


class Histories(RuleBasedStateMachine):
    """Any run of changes: what a reader pieces together from the history is what the store holds."""

    LENGTH = 12

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(history_length=self.LENGTH, begin=1000)
        self.snapshots = {1000: self.state()}
        self.heard: list[Event] = []
        self.store.listen("ConfigMap", self.heard.append)
        self.changes = 0

    def state(self) -> dict[tuple[str, str], Any]:
        return {
            (e.object["metadata"]["namespace"], e.object["metadata"]["name"]): e.object
            for e in self.store.entries("ConfigMap")
        }

    def changed(self) -> None:
        self.changes += 1
        self.snapshots[self.store.version] = self.state()

    @rule(namespace=SPACES, name=NAMES, value=st.integers(0, 9))
    def put(self, namespace: str, name: str, value: int) -> None:
        self.store.put("ConfigMap", namespace, name, thing(namespace, name, value))
        self.changed()

    @precondition(lambda self: self.state())
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        namespace, name = data.draw(st.sampled_from(sorted(self.state())))
        self.store.delete("ConfigMap", namespace, name, thing(namespace, name, 0))
        self.changed()

    @rule()
    def change_another_kind(self) -> None:
        self.store.put("Pod", "one", "p", {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}})
        self.snapshots[self.store.version] = self.state()

    @invariant()
    def replays_give_the_present_state(self) -> None:
        for version, snapshot in self.snapshots.items():
            try:
                events = self.store.since("ConfigMap", version)
            except Compacted:
                assert self.changes > self.LENGTH
            else:
                assert replay(events, snapshot) == self.state()

    @invariant()
    def the_last_changes_can_always_be_read(self) -> None:
        kept = self.heard[-self.LENGTH :]
        if kept:
            before = kept[0].entry.version - 1
            assert self.store.since("ConfigMap", max(before, 1000)) == kept

    @invariant()
    def earlier_states_can_be_listed(self) -> None:
        for version, snapshot in self.snapshots.items():
            try:
                entries = self.store.entries_at("ConfigMap", None, version)
            except Compacted:
                continue
            assert sorted((e.object for e in entries), key=str) == sorted(snapshot.values(), key=str)

    @invariant()
    def versions_grow(self) -> None:
        versions = [event.entry.version for event in self.heard]
        assert versions == sorted(set(versions))
        assert [event.entry.object["metadata"]["resourceVersion"] for event in self.heard] == list(map(str, versions))


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=40, stateful_step_count=30)


@given(st.lists(st.tuples(NAMES, st.integers(0, 9)), max_size=20))
def test_states_that_were_packed_away_read_as_before(puts: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kubelocal.storage.store.MAX_DECODED_STATES", 2)
        store, reported = Store(), []
        store.listen("ConfigMap", lambda event: reported.append((event.entry.version, event.entry.object["data"])))
        for name, value in puts:
            store.put("ConfigMap", "one", name, thing("one", name, value))
        assert [(e.entry.version, e.entry.object["data"]) for e in store.since("ConfigMap", 1000)] == reported


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(0, 5))
def test_a_version_is_too_old_exactly_when_a_later_event_is_gone(values: list[int], length: int) -> None:
    store = Store(history_length=length, begin=10)
    for value in values:
        store.put("ConfigMap", "one", "a", thing("one", "a", value))
    floor = max(10, store.version - length)
    assert len(store.since("ConfigMap", floor)) == store.version - floor
    if floor > 10:
        with pytest.raises(Compacted):
            store.since("ConfigMap", floor - 1)


def test_a_version_before_the_first_is_too_old() -> None:
    with pytest.raises(Compacted, match=r"too old resource version: 1 \(1000\)"):
        Store(begin=1000).since("Pod", 1)


def test_compaction_forgets_every_kinds_history() -> None:
    store = Store()
    entry = store.put("ConfigMap", "one", "a", thing("one", "a", 1))
    store.compact()
    for kind in ("ConfigMap", "Secret"):
        assert store.since(kind, store.version) == []
        with pytest.raises(Compacted):
            store.since(kind, entry.version - 1)


def test_a_listener_that_ended_hears_nothing_more() -> None:
    store, heard = Store(), []
    end = store.listen("ConfigMap", heard.append)
    store.put("ConfigMap", "one", "a", thing("one", "a", 1))
    end()
    store.put("ConfigMap", "one", "a", thing("one", "a", 2))
    assert [event.type for event in heard] == ["ADDED"]


def test_a_state_is_serialised_once() -> None:
    store = Store()
    entry = store.put("ConfigMap", "one", "a", thing("one", "a", 1))
    assert entry.json is entry.json
    assert orjson.loads(entry.json) == entry.object


@pytest.mark.parametrize("first", ["kind", "metadata"])
def test_the_bare_form_has_no_kind_wherever_it_stands(first: str) -> None:
    manifest = thing("one", "a", 1)
    entry = Store().put("ConfigMap", "one", "a", {first: manifest[first], **manifest})
    assert orjson.loads(entry.bare).keys() == {"metadata", "data"}


def test_a_copy_shares_nothing() -> None:
    entry = Store().put("ConfigMap", "one", "a", thing("one", "a", 1))
    entry.copy()["metadata"]["name"] = "b"
    assert entry.object["metadata"]["name"] == "a"
