"""The object store: the present state of every object, one version counter, and the recent history of each kind.

Pure: it neither reads a clock nor waits. A stored object is never changed in place; each state is serialized at most
once, however many readers and watches use it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import orjson

from kubelocal.types import Manifest

__all__ = ["Compacted", "Entry", "Event", "EventType", "Store"]

EventType: TypeAlias = Literal["ADDED", "MODIFIED", "DELETED"]
MAX_DECODED_STATES = 500  # states of each kind that stay decoded, because watches may still read them
Listener: TypeAlias = Callable[["Event"], None]


class Compacted(Exception):
    """The history does not reach back to ``version``; it begins after ``floor``."""

    def __init__(self, version: int, floor: int) -> None:
        super().__init__(f"too old resource version: {version} ({floor})")
        self.version = version
        self.floor = floor


class Entry:
    """One state of an object, decoded, serialized or both."""

    __slots__ = ("_json", "_object", "version")

    def __init__(self, manifest: Manifest, version: int) -> None:
        self.version = version
        self._object: Manifest | None = manifest
        self._json: bytes | None = None

    @property
    def object(self) -> Manifest:
        """The decoded state."""
        if self._object is None:
            self._object = orjson.loads(self.json)
        return self._object

    @property
    def json(self) -> bytes:
        """The state as JSON."""
        if self._json is None:
            self._json = orjson.dumps(self._object)
        return self._json

    def shelve(self) -> None:
        """Keep only the JSON until the next read: it takes less memory, and the garbage collector need not scan it."""
        self._json = memoryview(self.json).tobytes()  # a copy without the spare bytes that orjson allocates
        self._object = None

    @property
    def bare(self) -> bytes:
        """The state as JSON without kind and apiVersion, as lists hold it."""
        head = b'{"kind":"%b","apiVersion":"%b",' % (self.object["kind"].encode(), self.object["apiVersion"].encode())
        if self.json.startswith(head):
            return b"{" + self.json[len(head) :]
        return orjson.dumps({key: value for key, value in self.object.items() if key not in {"kind", "apiVersion"}})

    def copy(self) -> Manifest:
        """Return a deep copy, to change and store as the next state."""
        fresh: Manifest = orjson.loads(self.json)
        return fresh


@dataclass(frozen=True, slots=True)
class Event:
    """A change of an object; for DELETED ``entry`` is the final state with the deletion's version."""

    type: EventType
    namespace: str
    name: str
    entry: Entry
    previous: Entry | None


class _Shelf:
    """The objects of one kind by namespace and name, with their history and listeners."""

    __slots__ = ("floor", "history", "listeners", "namespaces")

    def __init__(self, length: int, floor: int) -> None:
        self.namespaces: dict[str, dict[str, Entry]] = {}
        self.history: deque[Event] = deque(maxlen=length)
        self.floor = floor
        self.listeners: tuple[Listener, ...] = ()


class Store:
    """Objects by kind, namespace ("" for cluster-scoped kinds) and name.

    ``history_length``: events kept per kind; reading older ones raises ``Compacted``. ``begin``: the version before the
    first; a store that replaces another begins above it, so that versions of the former one are too old.
    """

    def __init__(self, *, history_length: int = 10_000, begin: int = 1000) -> None:
        self.version = begin
        self._begin = begin
        self._length = history_length
        self._shelves: dict[str, _Shelf] = {}

    def _shelf(self, kind: str) -> _Shelf:
        shelf = self._shelves.get(kind)
        if shelf is None:
            shelf = self._shelves[kind] = _Shelf(self._length, self._begin)
        return shelf

    def get(self, kind: str, namespace: str, name: str) -> Entry | None:
        """Return the present state of an object, or None."""
        return self._shelf(kind).namespaces.get(namespace, {}).get(name)

    def entries(self, kind: str, namespace: str | None = None) -> list[Entry]:
        """Return the present state of a kind's objects, of one namespace or (None) of all, in no order."""
        namespaces = self._shelf(kind).namespaces
        if namespace is not None:
            return list(namespaces.get(namespace, {}).values())
        return [entry for objects in namespaces.values() for entry in objects.values()]

    def put(self, kind: str, namespace: str, name: str, manifest: Manifest) -> Entry:
        """Store a new state with the next version in its metadata; the caller gives ``manifest`` up."""
        objects = self._shelf(kind).namespaces.setdefault(namespace, {})
        previous = objects.get(name)
        entry = objects[name] = self._stamp(manifest)
        self._emit(kind, Event("MODIFIED" if previous else "ADDED", namespace, name, entry, previous))
        return entry

    def delete(self, kind: str, namespace: str, name: str, final: Manifest) -> Entry:
        """Delete an object; ``final`` is the state in the DELETED event, with the deletion's version."""
        namespaces = self._shelf(kind).namespaces
        previous = namespaces[namespace].pop(name)
        if not namespaces[namespace]:
            # Tests make and delete thousands of namespaces; empty ones would pile up.
            del namespaces[namespace]
        entry = self._stamp(final)
        self._emit(kind, Event("DELETED", namespace, name, entry, previous))
        return entry

    def _stamp(self, manifest: Manifest) -> Entry:
        self.version += 1
        manifest["metadata"]["resourceVersion"] = str(self.version)
        return Entry(manifest, self.version)

    def _emit(self, kind: str, event: Event) -> None:
        shelf = self._shelves[kind]
        history = shelf.history
        # The deque is about to drop its oldest event: versions up to that one cannot be watched from any more.
        if len(history) == self._length:
            shelf.floor = history[0].entry.version if history else event.entry.version
        history.append(event)
        if len(history) > MAX_DECODED_STATES:
            self._shelve(shelf, history[-MAX_DECODED_STATES].entry)
        # Synchronously, in the writer's call: a listener that appends and sets an event cannot miss or reorder changes.
        for listener in shelf.listeners:
            listener(event)

    def _shelve(self, shelf: _Shelf, entry: Entry) -> None:
        """Drop the decoded form of an older state, unless it is the present one."""
        metadata = entry.object["metadata"]
        present = shelf.namespaces.get(metadata.get("namespace", ""), {}).get(metadata["name"])
        # The present state is read by every list and update, so it stays decoded.
        if present is not entry:
            entry.shelve()

    def since(self, kind: str, version: int) -> list[Event]:
        """Return the events after a version, oldest first; raise ``Compacted`` if some are compacted."""
        shelf = self._shelf(kind)
        # 410 Gone at the API: the watch's client lists again, as with a compacted etcd.
        if version < shelf.floor:
            raise Compacted(version, shelf.floor)
        later: list[Event] = []
        for event in reversed(shelf.history):
            if event.entry.version <= version:
                break
            later.append(event)
        later.reverse()
        return later

    def entries_at(self, kind: str, namespace: str | None, version: int) -> list[Entry]:
        """Return the states at a version; raise ``Compacted`` if the history does not reach back."""
        then = {
            (e.object["metadata"].get("namespace", ""), e.object["metadata"]["name"]): e for e in self.entries(kind)
        }
        for event in reversed(self.since(kind, version)):
            if event.previous is None:
                del then[event.namespace, event.name]
            else:
                then[event.namespace, event.name] = event.previous
        return [entry for (within, _), entry in then.items() if namespace is None or within == namespace]

    def compact(self) -> None:
        """Drop the history: watches can only start from the present version on."""
        self._begin = self.version
        for shelf in self._shelves.values():
            shelf.history.clear()
            shelf.floor = self.version

    def listen(self, kind: str, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with each event of a kind when it is stored; return the function that unsubscribes it."""
        shelf = self._shelf(kind)
        # A new tuple, because a listener may unsubscribe while _emit iterates.
        shelf.listeners = (*shelf.listeners, listener)

        def end() -> None:
            shelf.listeners = tuple(other for other in shelf.listeners if other is not listener)

        return end

    def everything(self) -> Iterator[tuple[str, str, str, Entry]]:
        """Yield kind, namespace, name and state of every object."""
        for kind, shelf in self._shelves.items():
            for namespace, objects in shelf.namespaces.items():
                for name, entry in objects.items():
                    yield kind, namespace, name, entry

    def restore(self, version: int, objects: list[tuple[str, str, str, Manifest]]) -> None:
        """Load the objects and the version of an earlier store; the history starts empty."""
        for kind, namespace, name, manifest in objects:
            entry = Entry(manifest, int(manifest["metadata"]["resourceVersion"]))
            self._shelf(kind).namespaces.setdefault(namespace, {})[name] = entry
        # Never back: a client that watched the former cluster must get 410 rather than miss changes.
        self.version = max(self.version, version)
        self.compact()
