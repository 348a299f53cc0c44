"""List requests: pages that share one resourceVersion, and the checks of a requested resourceVersion.

Source of the rules: Kubernetes' API concepts, "Semantics for get and list", "Retrieving large results sets in chunks".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import orjson

from kubelocal.codec import field_errors
from kubelocal.codec.integers import parse_int, parse_uint, shortened
from kubelocal.codec.kinds import Kind
from kubelocal.codec.status_errors import Cause, StatusError, bad_request, expired, failure, invalid
from kubelocal.storage.selectors import EVERYTHING, Selector
from kubelocal.storage.store import Compacted, Entry, Store
from kubelocal.types import Json

__all__ = [
    "NOT_OLDER_THAN",
    "ListOptions",
    "ListPage",
    "check_version",
    "list_page",
    "read_integer",
    "read_list_options",
]

EXACT, NOT_OLDER_THAN = "Exact", "NotOlderThan"
CONTINUE_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You must start a new list without"
    " the continue parameter."
)


@dataclass(frozen=True, slots=True)
class ListOptions:
    """Options of a list. ``limit`` 0: no limit. ``version``: None for the latest. ``exact``: no later one either."""

    selector: Selector = field(default=EVERYTHING)
    limit: int = 0
    continues: str = ""
    version: int | None = None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class ListPage:
    """``continues``: the token of the next page, "" on the last. ``remaining``: objects after this page, if known."""

    entries: list[Entry]
    version: int
    continues: str = ""
    remaining: int | None = None


def read_list_options(query: Mapping[str, str], selector: Selector) -> ListOptions:
    """Read the query of a list; raise 400, or 422 for a wrong ``resourceVersionMatch``."""
    if causes := list(_wrong_match(query)):
        raise invalid("ListOptions", "", causes)
    limit = read_integer(query.get("limit") or "0")
    version, continues = query.get("resourceVersion", ""), query.get("continue", "")
    if continues and version not in {"", "0"}:
        raise bad_request("specifying resource version is not allowed when using continue")
    if version == "0":
        limit = 0  # answered from the watch cache, which has no pages
    match = query.get("resourceVersionMatch", "")
    exact = match == EXACT or (not match and limit > 0 and bool(version))
    return ListOptions(selector, max(limit, 0), continues, _version(version) if version else None, exact)


def _wrong_match(query: Mapping[str, str]) -> Iterator[Cause]:
    """Yield the causes of a wrong ``resourceVersionMatch``, as ``ValidateListOptions`` of apimachinery."""
    field, match, version = "resourceVersionMatch", query.get("resourceVersionMatch", ""), query.get("resourceVersion")
    if match and not version:
        yield field_errors.forbidden(field, f"{field} is forbidden unless resourceVersion is provided")
    if match and query.get("continue"):
        yield field_errors.forbidden(field, f"{field} is forbidden when continue is provided")
    if match not in ("", EXACT, NOT_OLDER_THAN):
        yield field_errors.unsupported(field, match, (EXACT, NOT_OLDER_THAN, ""))
    if match == EXACT and version == "0":
        yield field_errors.forbidden(field, f'{field} "exact" is forbidden for resourceVersion "0"')
    if query.get("sendInitialEvents"):
        yield field_errors.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list")


def read_integer(text: str) -> int:
    """Parse an integer of a query; raise 400 for anything else."""
    try:
        return parse_int(text)
    except ValueError as problem:
        raise bad_request(str(problem)) from problem


def _version(text: str) -> int:
    try:
        return parse_uint(text)
    except ValueError as problem:
        # Kubernetes answers 500, because its storage layer finds this out.
        raise bad_request(f'resourceVersion: Invalid value: "{shortened(text)}": {problem}') from problem


def check_version(store: Store, text: str) -> int | None:
    """Parse a ``resourceVersion``, "" as None; raise 400 for anything but a number, 504 for one in the future."""
    if not text:
        return None
    version = _version(text)
    if version > store.version:
        raise _too_large(version, store.version)
    return version


def _too_large(version: int, current: int) -> StatusError:
    message = f"Too large resource version: {version}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    details = {"causes": [cause], "retryAfterSeconds": 1}
    return failure(504, "Timeout", f"Timeout: {message}", details)


def list_page(store: Store, kind: Kind, namespace: str | None, options: ListOptions) -> ListPage:
    """Return the page that the options select, sorted by namespace and name; raise 410 for a compacted version."""
    if options.version is not None and options.version > store.version:
        raise _too_large(options.version, store.version)
    version, after = store.version, ("", "")
    if options.continues:
        version, after = _read_token(options.continues)
    elif options.exact and options.version:
        version = options.version
    matching = _matching(store, kind, namespace, options.selector, version, after)
    if not options.limit or len(matching) <= options.limit:
        return ListPage(matching, version)
    page = matching[: options.limit]
    remaining = len(matching) - len(page) if options.selector.empty else None
    return ListPage(page, version, _token(version, _place(page[-1])), remaining)


def _matching(
    store: Store, kind: Kind, namespace: str | None, selector: Selector, version: int, after: tuple[str, str]
) -> list[Entry]:
    if version == store.version:
        entries = _present(store, kind, namespace, selector)
    else:
        try:
            entries = store.entries_at(kind.kind, namespace, version)
        except Compacted as gone:
            raise expired(CONTINUE_TOO_OLD) from gone
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
