"""What a request holds, read and checked: body, query, and the forms in which they may come."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
import yaml
from starlette.types import Receive, Scope

from crosswind.local.access import User
from crosswind.local.addresses import Address
from crosswind.local.applying import Writer
from crosswind.local.decoding import Strictness
from crosswind.local.kinds import Kind
from crosswind.local.listing import check_version, read_integer
from crosswind.local.negotiating import View, view_of
from crosswind.local.protobuf import MEDIA_TYPE, read_protobuf
from crosswind.local.statuses import Cause, StatusError, bad_request, failure, invalid, unsupported_media_type
from crosswind.local.store import Store
from crosswind.local.watching import WatchOptions

__all__ = ["Call", "as_json", "read_body", "read_headers", "read_yaml", "watch_options"]

BODY_LIMIT = 3 << 20  # bytes, as the API server's --max-request-bytes would have it
JSON_TYPES = frozenset({"application/json", ""})
READABLE = ("application/json", MEDIA_TYPE)
LONGEST_MANAGER = 128
LONGEST_WATCH_S = 365 * 86_400.0  # the event loop's timers take no number of any size
STRICTNESS: dict[str, Strictness] = {"Strict": "Strict", "Warn": "Warn", "Ignore": "Ignore", "": "Warn"}
INCLUDED: dict[str, View] = {"Object": "table with objects", "None": "table alone"}
REPEATED = frozenset({"accept", "impersonate-group"})
TRUE = frozenset({"1", "true", "True", "TRUE", "t", "T"})


class Call:
    """One request to an address: headers and query, and the warnings that its answer will carry."""

    __slots__ = ("address", "headers", "query", "user", "verb", "warnings")

    def __init__(self, scope: Scope, headers: Mapping[str, str], address: Address, user: User) -> None:
        self.headers = headers
        # as Go's url.ParseQuery: what is no UTF-8 or wrongly escaped is text all the same
        self.query = dict(parse_qsl(scope["query_string"].decode(errors="replace"), keep_blank_values=True))
        self.address = address
        self.user = user
        self.verb = ""
        self.warnings: list[str] = []

    @property
    def watch(self) -> bool:
        """Whether the query asks for a watch."""
        return self.query.get("watch") in TRUE

    @property
    def view(self) -> View:
        """The form that the client wants; raises 406."""
        view = view_of(self.headers.get("accept", ""))
        return INCLUDED.get(self.query.get("includeObject", ""), view) if view == "table" else view

    @property
    def media(self) -> str:
        """The body's media type, without parameters; "" if not given."""
        return self.headers.get("content-type", "").partition(";")[0].strip()

    @property
    def dry_run(self) -> bool:
        """Whether nothing is to be kept; raises 422 for another value than All."""
        given: str = self.query.get("dryRun", "")
        if given not in {"", "All"}:
            told = f'Unsupported value: "{given}": supported values: "All"'
            raise self._wrong_option(Cause("FieldValueNotSupported", told, "dryRun"))
        return given == "All"

    @property
    def strictness(self) -> Strictness:
        """What to do with unknown fields; raises 422 for an unknown word."""
        given = self.query.get("fieldValidation", "")
        if given not in STRICTNESS:
            told = f'Unsupported value: "{given}": supported values: "", "Ignore", "Strict", "Warn"'
            raise self._wrong_option(Cause("FieldValueNotSupported", told, "fieldValidation"))
        return STRICTNESS[given]

    @property
    def writer(self) -> Writer:
        """Who writes, as ``managedFields`` name them: by the query, else by the client's program."""
        program = self.headers.get("user-agent", "").partition("/")[0]
        name = self.query.get("fieldManager", "") or program[:LONGEST_MANAGER] or "unknown"
        if len(name) > LONGEST_MANAGER:
            told = f"Too long: may not be more than {LONGEST_MANAGER} bytes"
            raise self._wrong_option(Cause("FieldValueTooLong", told, "fieldManager"))
        return Writer(name, time.time(), self.address.subresource)

    @property
    def forced(self) -> bool:
        """Whether an apply takes over what others own; raises 422 for one without a manager."""
        if not self.query.get("fieldManager"):
            cause = Cause("FieldValueRequired", "Required value: is required for apply patch", "fieldManager")
            raise self._wrong_option(cause)
        return self.query.get("force") in TRUE

    def _wrong_option(self, cause: Cause) -> StatusError:
        kinds = {"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions"}
        return invalid(kinds.get(self.verb, "DeleteOptions"), "", [cause])


def read_headers(scope: Scope) -> dict[str, str]:
    """Return the headers by lower-case name; of those that may come several times the values are joined."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]},{text}" if key in headers and key in REPEATED else text
    return headers


async def read_body(receive: Receive) -> bytes:
    """Read the whole body; raise 413 for one above 3 MiB."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise bad_request("the client went away before the body's end")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_LIMIT:
            raise failure(413, "RequestEntityTooLarge", f"Request entity too large: limit is {BODY_LIMIT}")
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def as_json(kind: Kind, media: str, body: bytes) -> bytes:
    """Return the body of an object as JSON; raise 415 for a media type that is not read, 400 for one that is broken."""
    if media in JSON_TYPES:
        return body
    if media == MEDIA_TYPE:
        return orjson.dumps(read_protobuf(kind, body))
    raise unsupported_media_type(READABLE)


def read_yaml(body: bytes) -> bytes:
    """Return a body of YAML, which may be JSON, as JSON; raise 400 for one that is broken or has aliases."""
    try:
        parsed = orjson.loads(body)
    except ValueError:
        try:
            parsed = yaml.load(body, PlainLoader)  # noqa: S506 - a safe loader with less
        except (yaml.YAMLError, RecursionError, ValueError) as problem:
            raise bad_request(f"error decoding YAML: {problem}") from problem
    try:
        return orjson.dumps(parsed, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as problem:
        raise bad_request(f"error decoding YAML: {problem}") from problem


class PlainLoader(yaml.SafeLoader):
    """Reads what is JSON in another form: times are text, and nothing may be named to be repeated."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the class above has it
        sign: [(tag, form) for tag, form in resolvers if not tag.endswith(":timestamp")]
        for sign, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases: a few lines of them stand for gigabytes."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


def watch_options(store: Store, query: Mapping[str, str]) -> WatchOptions:
    """Read the query of a watch; raise 400, 422, or 504 for a version that is not reached yet."""
    initial, bookmarks = query.get("sendInitialEvents", ""), query.get("allowWatchBookmarks") in TRUE
    if initial and query.get("resourceVersionMatch") != "NotOlderThan":
        told = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        raise invalid("ListOptions", "", [Cause("FieldValueForbidden", told, "resourceVersionMatch")])
    version = check_version(store, query.get("resourceVersion", "")) or None
    if initial in TRUE:
        version = None
    seconds = min(float(read_integer(query.get("timeoutSeconds") or "0")), LONGEST_WATCH_S)
    # without one, the API server too picks at random, so that its clients do not all come back at once
    seconds = seconds or random.uniform(1800, 3600)  # noqa: S311 - no secret
    return WatchOptions(version, seconds, bookmarks, initial in TRUE and bookmarks)
