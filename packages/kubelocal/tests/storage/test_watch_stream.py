from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadlines import scaled
from kubelocal.codec.kinds import KINDS
from kubelocal.storage.selectors import EVERYTHING, Selector, select
from kubelocal.storage.store import Compacted, Store
from kubelocal.storage.watch_stream import Feed, FeedSubscription, VisibleEvent, WatchOptions, WatchStream

CONFIG = KINDS["ConfigMap"]
STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["red", "blue", None])), max_size=12)


def thing(name: str, colour: str, namespace: str = "one") -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": {"colour": colour}}
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata}


def apply(store: Store, steps: list[tuple[str, str | None]], namespace: str = "one") -> None:
    """Give objects a colour, or (None) delete them."""
    for name, colour in steps:
        present = store.get("ConfigMap", namespace, name)
        if colour:
            store.put("ConfigMap", namespace, name, thing(name, colour, namespace))
        elif present:
            store.delete("ConfigMap", namespace, name, thing(name, present.object["metadata"]["labels"]["colour"]))


def follow(seen: list[VisibleEvent], matching: set[str]) -> set[str]:
    """Which names match, as somebody knows who only sees the events."""
    for one in seen:
        name = one.entry.object["metadata"]["name"]
        assert (one.type == "ADDED") == (name not in matching)
        matching = matching - {name} if one.type == "DELETED" else matching | {name}
    return matching


def matching_names(store: Store, selector: Selector) -> set[str]:
    return {e.object["metadata"]["name"] for e in store.entries("ConfigMap", "one") if selector.matches(e.object)}


@given(STEPS, STEPS, st.sampled_from(["", "colour=red", "colour!=red"]))
def test_a_watch_with_a_selector_gives_what_a_list_with_it_gives(
    before: list[tuple[str, str | None]], after: list[tuple[str, str | None]], labels: str
) -> None:
    store, selector = Store(), select(CONFIG, labels, "")
    apply(store, before)
    known, version = matching_names(store, selector), store.version
    live = Feed(store, "ConfigMap", "one", selector)
    apply(store, after)
    apply(store, after, "two")
    replayed = [seen for event in store.since("ConfigMap", version) if (seen := live.view(event))]
    assert follow(live.take(), known) == matching_names(store, selector)
    assert follow(replayed, known) == matching_names(store, selector)


def test_an_object_that_leaves_is_told_as_it_was_under_the_new_version() -> None:
    store = Store()
    apply(store, [("a", "red")])
    feed = Feed(store, "ConfigMap", None, select(CONFIG, "colour=red", ""))
    apply(store, [("a", "blue")])
    [seen] = feed.take()
    assert (seen.type, seen.entry.object["metadata"]) == (
        "DELETED",
        {"name": "a", "namespace": "one", "labels": {"colour": "red"}, "resourceVersion": str(store.version)},
    )


def test_a_reader_that_is_too_slow_is_lost_and_holds_no_more() -> None:
    store = Store()
    feed = Feed(store, "ConfigMap", limit=2)
    apply(store, [("a", "red"), ("a", "blue"), ("a", "red"), ("a", "blue")])
    assert (feed.lost, len(feed.waiting)) == (True, 2)


def test_a_closed_feed_takes_nothing_in() -> None:
    store = Store()
    feed = Feed(store, "ConfigMap")
    feed.close()
    apply(store, [("a", "red")])
    assert feed.take() == []


async def test_a_subscription_begins_with_what_is_there_and_ends_when_closed() -> None:
    store = Store()
    apply(store, [("a", "red"), ("b", "red")])
    subscription, seen = FeedSubscription(store, "ConfigMap", "one"), []
    async for change in subscription:
        seen.append((change.type, change.object["metadata"]["name"]))
        if len(seen) == 2:
            apply(store, [("a", None)])
        if len(seen) == 3:
            subscription.close()
    assert seen == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]


def stream(store: Store, **options: Any) -> WatchStream:
    def encode(seen: VisibleEvent) -> bytes:
        return f"{seen.type} {seen.entry.object['metadata']['name']};".encode()

    def bookmark(version: int, initial: bool) -> bytes:
        return f"{'INITIAL' if initial else 'MARK'} {version};".encode()

    return WatchStream(store, "ConfigMap", None, EVERYTHING, WatchOptions(**options), encode, bookmark)


async def read(watch: WatchStream) -> str:
    return b"".join([chunk async for chunk in watch.lines()]).decode()


@pytest.mark.parametrize("bookmarks", [True, False])
async def test_a_watch_ends_at_its_timeout_with_a_bookmark_if_asked_for(bookmarks: bool) -> None:
    store = Store()
    apply(store, [("a", "red")])
    lines = await read(stream(store, version=1000, timeout=0.05, bookmarks=bookmarks))
    assert lines == ("ADDED a;MARK 1001;" if bookmarks else "ADDED a;")


async def test_bookmarks_come_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubelocal.storage.watch_stream.BOOKMARK_S", 0.02)
    began = asyncio.get_running_loop().time()
    async with contextlib.aclosing(stream(Store(), timeout=scaled(20), bookmarks=True).lines()) as lines:
        received = [await anext(lines) for _ in range(4)]
    assert received == [b"MARK 1000;"] * 4
    assert asyncio.get_running_loop().time() - began >= 4 * 0.02


async def test_initial_objects_are_closed_by_a_marked_bookmark() -> None:
    store = Store()
    apply(store, [("a", "red")])
    assert await read(stream(store, timeout=0.01, mark_initial=True)) == "ADDED a;INITIAL 1001;"


async def test_a_watch_gives_old_and_new_changes_in_order_until_it_is_ended() -> None:
    store = Store()
    apply(store, [("a", "red"), ("b", "red")])
    watch = stream(store, version=1001)
    reading = asyncio.create_task(read(watch))
    await asyncio.sleep(0)
    apply(store, [("c", "red"), ("a", None)])
    await asyncio.sleep(0)
    watch.end()
    assert await reading == "ADDED b;ADDED c;DELETED a;"


def test_a_watch_from_a_compacted_version_is_refused() -> None:
    with pytest.raises(Compacted):
        stream(Store(), version=1)
