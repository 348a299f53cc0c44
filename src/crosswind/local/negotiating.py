"""Which form a client wants its answer in, and objects, lists and events written in that form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeAlias

import orjson

from crosswind.local.kinds import Kind
from crosswind.local.listing import Page
from crosswind.local.representations import shown
from crosswind.local.statuses import not_acceptable
from crosswind.local.store import Entry
from crosswind.local.tables import table
from crosswind.local.watching import Seen
from crosswind.types import Json, Manifest

__all__ = ["EventWriter", "View", "view_of", "write_list", "write_one"]

View: TypeAlias = Literal["object", "metadata", "table", "table with objects", "table alone"]

ACCEPTED = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
AS: dict[str, View] = {"Table": "table", "PartialObjectMetadata": "metadata", "PartialObjectMetadataList": "metadata"}
META = "meta.k8s.io/v1"


@lru_cache(maxsize=256)
def view_of(accept: str) -> View:
    """Read an Accept header and return the first form in it that can be written; raise 406 when there is none."""
    for choice in accept.split(",") if accept.strip() else ["*/*"]:
        media, *parameters = (part.strip() for part in choice.split(";"))
        if media not in {"application/json", "application/*", "*/*"}:
            continue
        given = dict(parameter.partition("=")[::2] for parameter in parameters)
        wanted = given.get("as")
        if wanted is None:
            return "object"
        if wanted in AS and given.get("g") == "meta.k8s.io" and given.get("v") == "v1":
            return AS[wanted]
    raise not_acceptable(ACCEPTED)


def write_one(view: View, kind: Kind, entry: Entry, version: int) -> bytes:
    """Write an object."""
    if view == "object":
        return shown(kind, entry).json
    if view == "metadata":
        return orjson.dumps(_metadata(entry))
    return orjson.dumps(_table(view, kind, [entry], version, True))


def write_list(view: View, kind: Kind, page: Page) -> bytes:
    """Write a page of a list."""
    metadata: Manifest = {"resourceVersion": str(page.version)}
    if page.continues:
        metadata["continue"] = page.continues
    if page.remaining is not None:
        metadata["remainingItemCount"] = page.remaining
    if view.startswith("table"):
        return orjson.dumps({**_table(view, kind, page.entries, page.version, False), "metadata": metadata})
    if view == "metadata":
        head, items = ("PartialObjectMetadataList", META), [orjson.dumps(_metadata(entry)) for entry in page.entries]
    else:
        head, items = (f"{kind.kind}List", kind.api_version), [shown(kind, entry).bare for entry in page.entries]
    start = {"kind": head[0], "apiVersion": head[1], "metadata": metadata}
    return orjson.dumps(start)[:-1] + b',"items":[' + b",".join(items) + b"]}"


class EventWriter:
    """Writes the events of a watch as lines; of Tables the first alone has the definitions of the columns."""

    def __init__(self, view: View, kind: Kind) -> None:
        self._view, self._kind = view, kind
        self._has_begun = False

    def event(self, seen: Seen) -> bytes:
        """Write an event."""
        if self._view.startswith("table"):
            made = _table(self._view, self._kind, [seen.entry], seen.entry.version, True)
            body = orjson.dumps({**made, "columnDefinitions": None} if self._has_begun else made)
            self._has_begun = True
        else:
            body = write_one(self._view, self._kind, seen.entry, seen.entry.version)
        return b'{"type":"%b","object":%b}\n' % (seen.type.encode(), body)

    def bookmark(self, version: int, ends_initial: bool) -> bytes:
        """Write a bookmark."""
        metadata: dict[str, Json] = {"resourceVersion": str(version), "creationTimestamp": None}
        if ends_initial:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        heads = {"object": (self._kind.kind, self._kind.api_version), "metadata": ("PartialObjectMetadata", META)}
        name, group_version = heads.get(self._view, ("Table", META))
        marked = {"kind": name, "apiVersion": group_version, "metadata": metadata}
        if name == "Table":
            marked["rows"] = []
        return orjson.dumps({"type": "BOOKMARK", "object": marked}) + b"\n"


def _table(view: View, kind: Kind, entries: Sequence[Entry], version: int, single: bool) -> Manifest:
    made = table(kind, [entry.object for entry in entries], str(version), single)
    if view != "table":
        for row, entry in zip(made["rows"], entries, strict=True):
            row["object"] = shown(kind, entry).object if view == "table with objects" else None
    return made


def _metadata(entry: Entry) -> Manifest:
    return {"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": entry.object["metadata"]}
