"""Reading and checking a request: headers, query, and the body in its media types."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
import yaml
from starlette.types import Receive, Scope

from kubelocal.api.content_negotiation import View, accepted_view
from kubelocal.api.request_info import RequestInfo
from kubelocal.auth.users import User
from kubelocal.codec import field_errors
from kubelocal.codec.decoder import Strictness
from kubelocal.codec.kinds import Kind
from kubelocal.codec.protobuf import MEDIA_TYPE, read_protobuf
from kubelocal.codec.status_errors import Cause, StatusError, bad_request, failure, invalid, unsupported_media_type
from kubelocal.registry.server_side_apply import Writer
from kubelocal.storage.list_pages import NOT_OLDER_THAN, check_version, read_integer
from kubelocal.storage.store import Store
from kubelocal.storage.watch_stream import WatchOptions

__all__ = ["ApiRequest", "as_json", "read_body", "read_headers", "read_yaml", "watch_options"]

BODY_LIMIT = 3 << 20  # bytes, as the API server's --max-request-bytes would have it
JSON_TYPES = frozenset({"application/json", ""})
READABLE = ("application/json", MEDIA_TYPE)
MAX_FIELD_MANAGER_CHARS = 128
MAX_WATCH_TIMEOUT_S = 365 * 86_400.0  # the event loop's timers overflow on arbitrary numbers
STRICTNESS: dict[str, Strictness] = {"Strict": "Strict", "Warn": "Warn", "Ignore": "Ignore", "": "Warn"}
INCLUDED: dict[str, View] = {"Object": "table with objects", "None": "table alone"}
TRUE = frozenset({"1", "true", "True", "TRUE", "t", "T"})


class ApiRequest:
    """A request to a resource: headers, query, and the warnings that its response will carry."""

    __slots__ = ("headers", "info", "query", "user", "verb", "warnings")

    def __init__(self, scope: Scope, headers: Mapping[str, str], info: RequestInfo, user: User) -> None:
        self.headers = headers
        # Like Go's url.ParseQuery: malformed escapes and bytes that are not UTF-8 are text too.
        self.query = dict(parse_qsl(scope["query_string"].decode(errors="replace"), keep_blank_values=True))
        self.info = info
        self.user = user
        self.verb = ""
        self.warnings: list[str] = []

    @property
    def watch(self) -> bool:
        """Whether the query asks for a watch."""
        return self.query.get("watch") in TRUE

    @property
    def view(self) -> View:
        """The view that the client accepts; raises 406."""
        view = accepted_view(self.headers.get("accept", ""))
        return INCLUDED.get(self.query.get("includeObject", ""), view) if view == "table" else view

    @property
    def media(self) -> str:
        """The body's media type without parameters; "" without the header."""
        return self.headers.get("content-type", "").partition(";")[0].strip()

    @property
    def dry_run(self) -> bool:
        """Whether the query asks for a dry run; raises 422 for another value than All."""
        value: str = self.query.get("dryRun", "")
        if value not in {"", "All"}:
            detail = f'Unsupported value: "{value}": supported values: "All"'
            raise self._wrong_option(Cause("FieldValueNotSupported", detail, "dryRun"))
        return value == "All"

    @property
    def strictness(self) -> Strictness:
        """How to handle unknown fields; raises 422 for an unknown value."""
        value = self.query.get("fieldValidation", "")
        if value not in STRICTNESS:
            detail = f'Unsupported value: "{value}": supported values: "", "Ignore", "Strict", "Warn"'
            raise self._wrong_option(Cause("FieldValueNotSupported", detail, "fieldValidation"))
        return STRICTNESS[value]

    @property
    def writer(self) -> Writer:
        """The field manager: the query's, else the client's program name."""
        program = self.headers.get("user-agent", "").partition("/")[0]
        name = self.query.get("fieldManager", "") or program[:MAX_FIELD_MANAGER_CHARS] or "unknown"
        if len(name) > MAX_FIELD_MANAGER_CHARS:
            detail = f"Too long: may not be more than {MAX_FIELD_MANAGER_CHARS} bytes"
            raise self._wrong_option(Cause("FieldValueTooLong", detail, "fieldManager"))
        return Writer(name, time.time(), self.info.subresource)

    @property
    def forced(self) -> bool:
        """Whether an apply takes over fields of other managers; raises 422 without ``fieldManager``."""
        if not self.query.get("fieldManager"):
            cause = Cause("FieldValueRequired", "Required value: is required for apply patch", "fieldManager")
            raise self._wrong_option(cause)
        return self.query.get("force") in TRUE

    def _wrong_option(self, cause: Cause) -> StatusError:
        kinds = {"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions"}
        return invalid(kinds.get(self.verb, "DeleteOptions"), "", [cause])


def read_headers(scope: Scope) -> dict[str, str]:
    """Return the headers by lower-case name; values of those that may be repeated are joined.

    Impersonated groups and extra attributes are joined by line breaks, as they may hold commas.
    """
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        joint = "," if key == "accept" else "\n" if key.startswith(("impersonate-group", "impersonate-extra-")) else ""
        headers[key] = f"{headers[key]}{joint}{text}" if key in headers and joint else text
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
    """Return an object's body as JSON; raise 415 for an unsupported media type, 400 for a malformed body."""
    if media in JSON_TYPES:
        return body
    if media == MEDIA_TYPE:
        return orjson.dumps(read_protobuf(kind, body))
    raise unsupported_media_type(READABLE)


def read_yaml(body: bytes) -> bytes:
    """Return a YAML or JSON body as JSON; raise 400 for a malformed one and for aliases."""
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
    """Reads YAML with JSON's types: timestamps stay text, aliases are refused."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the class above has it
        sign: [(tag, form) for tag, form in resolvers if not tag.endswith(":timestamp")]
        for sign, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases: a few lines of nested ones expand to gigabytes."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


def _wrong_match(query: Mapping[str, str]) -> Iterator[Cause]:
    """Yield the causes of a watch's wrong ``resourceVersionMatch``, as ``ValidateListOptions`` of apimachinery."""
    field, match, initial = (
        "resourceVersionMatch",
        query.get("resourceVersionMatch", ""),
        query.get("sendInitialEvents"),
    )
    if initial and match != NOT_OLDER_THAN:
        yield field_errors.forbidden(field, f"sendInitialEvents requires setting {field} to {NOT_OLDER_THAN}")
    if match and not initial:
        yield field_errors.forbidden(field, f"{field} is forbidden for watch unless sendInitialEvents is provided")
    if match not in ("", NOT_OLDER_THAN):
        yield field_errors.unsupported(field, match, (NOT_OLDER_THAN,))
    if match and query.get("continue"):
        yield field_errors.forbidden(field, f"{field} is forbidden when continue is provided")


def watch_options(store: Store, query: Mapping[str, str]) -> WatchOptions:
    """Read the query of a watch; raise 400, 422, or 504 for a resourceVersion in the future."""
    initial, bookmarks = query.get("sendInitialEvents", ""), query.get("allowWatchBookmarks") in TRUE
    if causes := list(_wrong_match(query)):
        raise invalid("ListOptions", "", causes)
    version = check_version(store, query.get("resourceVersion", "")) or None
    if initial in TRUE:
        version = None
    seconds = min(float(read_integer(query.get("timeoutSeconds") or "0")), MAX_WATCH_TIMEOUT_S)
    # Without a timeout the API server picks a random one, so that clients do not all reconnect at once.
    seconds = seconds or random.uniform(1800, 3600)  # noqa: S311 - no secret
    return WatchOptions(version, seconds, bookmarks, initial in TRUE and bookmarks)
