"""Content negotiation: the view that a client accepts, and objects, lists and events rendered in it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeAlias

import orjson

from kubelocal.api.conversion import shown
from kubelocal.api.printers import table
from kubelocal.codec.kinds import Kind
from kubelocal.codec.status_errors import not_acceptable
from kubelocal.storage.list_pages import ListPage
from kubelocal.storage.store import Entry
from kubelocal.storage.watch_stream import VisibleEvent
from kubelocal.types import Json, Manifest

__all__ = ["EventWriter", "View", "accepted_view", "write_list", "write_object"]

View: TypeAlias = Literal["object", "metadata", "table", "table with objects", "table alone"]

ACCEPTED = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
AS: dict[str, View] = {"Table": "table", "PartialObjectMetadata": "metadata", "PartialObjectMetadataList": "metadata"}
META = "meta.k8s.io/v1"


@lru_cache(maxsize=256)
def accepted_view(accept: str) -> View:
    """Return the first view of an Accept header that can be rendered; raise 406 when there is none."""
    for choice in accept.split(",") if accept.strip() else ["*/*"]:
        media, *parameters = (part.strip() for part in choice.split(";"))
        if media not in {"application/json", "application/*", "*/*"}:
            continue
        given = dict(parameter.partition("=")[::2] for parameter in parameters)
        as_kind = given.get("as")
        if as_kind is None:
            return "object"
        if as_kind in AS and given.get("g") == "meta.k8s.io" and given.get("v") == "v1":
            return AS[as_kind]
    raise not_acceptable(ACCEPTED)


def write_object(view: View, kind: Kind, entry: Entry, version: int) -> bytes:
    """Render an object."""
    if view == "object":
        return shown(kind, entry).json
    if view == "metadata":
        return orjson.dumps(_metadata(entry))
    return orjson.dumps(_table(view, kind, [entry], version, True))


def write_list(view: View, kind: Kind, page: ListPage) -> bytes:
    """Render a page of a list."""
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
    """Renders watch events as lines; with Tables only the first one carries the column definitions."""

    def __init__(self, view: View, kind: Kind) -> None:
        self._view, self._kind = view, kind
        self._has_begun = False

    def event(self, change: VisibleEvent) -> bytes:
        """Render an event."""
        if self._view.startswith("table"):
            rendered = _table(self._view, self._kind, [change.entry], change.entry.version, True)
            body = orjson.dumps({**rendered, "columnDefinitions": None} if self._has_begun else rendered)
            self._has_begun = True
        else:
            body = write_object(self._view, self._kind, change.entry, change.entry.version)
        return b'{"type":"%b","object":%b}\n' % (change.type.encode(), body)

    def bookmark(self, version: int, ends_initial: bool) -> bytes:
        """Render a bookmark."""
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
    rendered = table(kind, [entry.object for entry in entries], str(version), single)
    if view != "table":
        for row, entry in zip(rendered["rows"], entries, strict=True):
            row["object"] = shown(kind, entry).object if view == "table with objects" else None
    return rendered


def _metadata(entry: Entry) -> Manifest:
    return {"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": entry.object["metadata"]}
