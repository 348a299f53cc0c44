"""Lists: pages at one version, and the version that a reader asks for.

Source of the rules: Kubernetes' API concepts, "Semantics for get and list", "Retrieving large results sets in chunks".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from crosswind.local.integers import parse_int, parse_uint, shortened
from crosswind.local.kinds import Kind
from crosswind.local.selectors import EVERYTHING, Selector
from crosswind.local.statuses import StatusError, bad_request, expired, failure
from crosswind.local.store import Compacted, Entry, Store
from crosswind.types import Json

__all__ = ["ListOptions", "Page", "check_version", "list_page", "read_integer", "read_list_options"]

TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You must start a new list without"
    " the continue parameter."
)


@dataclass(frozen=True, slots=True)
class ListOptions:
    """What a list asks for. ``limit`` 0: all. ``version``: None for the newest. ``exact``: not a newer one either."""

    selector: Selector = field(default=EVERYTHING)
    limit: int = 0
    continues: str = ""
    version: int | None = None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """``continues``: the token for the next page, "" at the end. ``remaining``: objects after this page, if known."""

    entries: list[Entry]
    version: int
    continues: str = ""
    remaining: int | None = None


def read_list_options(query: Mapping[str, str], selector: Selector) -> ListOptions:
    """Read the query of a list; raise 400."""
    limit = read_integer(query.get("limit") or "0")
    version, continues = query.get("resourceVersion", ""), query.get("continue", "")
    if continues and version not in {"", "0"}:
        raise bad_request("specifying resource version is not allowed when using continue")
    if version == "0":
        limit = 0  # answered from the watch cache, which has no pages
    exact = limit > 0 and bool(version)
    return ListOptions(selector, max(limit, 0), continues, _version(version) if version else None, exact)


def read_integer(text: str) -> int:
    """Read a number of a query; raise 400 for what is none."""
    try:
        return parse_int(text)
    except ValueError as problem:
        raise bad_request(str(problem)) from problem


def _version(text: str) -> int:
    try:
        return parse_uint(text)
    except ValueError as problem:
        # 500 in Kubernetes, where this check is the storage's
        raise bad_request(f'resourceVersion: Invalid value: "{shortened(text)}": {problem}') from problem


def check_version(store: Store, text: str) -> int | None:
    """Read a ``resourceVersion``, None if not given; raise 400 for no number, 504 for one that is not reached yet."""
    if not text:
        return None
    wanted = _version(text)
    if wanted > store.version:
        raise _too_large(wanted, store.version)
    return wanted


def _too_large(wanted: int, current: int) -> StatusError:
    message = f"Too large resource version: {wanted}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    told = {"causes": [cause], "retryAfterSeconds": 1}
    return failure(504, "Timeout", f"Timeout: {message}", told)


def list_page(store: Store, kind: Kind, namespace: str | None, options: ListOptions) -> Page:
    """Return the objects that a list asks for, by namespace and name; raise 410 for a version that is compacted."""
    if options.version is not None and options.version > store.version:
        raise _too_large(options.version, store.version)
    version, after = store.version, ("", "")
    if options.continues:
        version, after = _read_token(options.continues)
    elif options.exact and options.version:
        version = options.version
    matching = _matching(store, kind, namespace, options.selector, version, after)
    if not options.limit or len(matching) <= options.limit:
        return Page(matching, version)
    page = matching[: options.limit]
    remaining = len(matching) - len(page) if options.selector.empty else None
    return Page(page, version, _token(version, _place(page[-1])), remaining)


def _matching(
    store: Store, kind: Kind, namespace: str | None, selector: Selector, version: int, after: tuple[str, str]
) -> list[Entry]:
    if version == store.version:
        entries = _present(store, kind, namespace, selector)
    else:
        try:
            entries = store.entries_at(kind.kind, namespace, version)
        except Compacted as gone:
            raise expired(TOO_OLD) from gone
    if not selector.empty:
        entries = [entry for entry in entries if selector.matches(entry.object)]
    if after != ("", ""):
        entries = [entry for entry in entries if _place(entry) > after]
    return sorted(entries, key=_place)


def _present(store: Store, kind: Kind, namespace: str | None, selector: Selector) -> list[Entry]:
    if selector.name is not None and (namespace is not None or not kind.namespaced):
        entry = store.get(kind.kind, namespace or "", selector.name)
        return [entry] if entry else []
    return store.entries(kind.kind, namespace)


def _place(entry: Entry) -> tuple[str, str]:
    metadata = entry.object["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _token(version: int, after: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": after})).decode()


def _read_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        content: Json = orjson.loads(base64.urlsafe_b64decode(token))
        namespace, name = content["start"]
        return int(content["rv"]), (str(namespace), str(name))
    except (binascii.Error, ValueError, KeyError, TypeError) as problem:
        raise bad_request(f"continue key is not valid: {problem}") from problem
