"""Label and field selectors: parsed from a query, matched against objects.

Grammar and messages follow ``k8s.io/apimachinery/pkg/labels`` and ``fields``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from kubelocal.codec.integers import parse_int
from kubelocal.codec.kinds import EVENTS, Kind
from kubelocal.codec.status_errors import StatusError, bad_request
from kubelocal.types import Json, Manifest

__all__ = ["EVERYTHING", "Selector", "matches_labels", "parse_fields", "parse_labels", "select"]

Requirement: TypeAlias = Callable[[Mapping[str, str]], bool]
Test: TypeAlias = Callable[[Manifest], bool]

OPERATORS = "in, notin, =, ==, !=, gt, lt"
TOKEN = re.compile(r"\s*(==|!=|[=!<>(),]|[^\s=!<>(),]+|$)")
SPECIAL = frozenset({"=", "==", "!=", "!", "<", ">", "(", ")", ",", ""})
NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Selector:
    """The selectors of a list or watch; ``empty`` selects all. ``name`` is set when only that name can match."""

    tests: tuple[Test, ...] = ()
    name: str | None = None

    @property
    def empty(self) -> bool:
        """Whether everything matches."""
        return not self.tests

    def matches(self, manifest: Manifest) -> bool:
        """Whether an object is selected."""
        return all(test(manifest) for test in self.tests)


EVERYTHING = Selector()


def select(kind: Kind, labels: str, fields: str) -> Selector:
    """Parse both selectors of a query; raise 400 for a malformed one."""
    if not labels and not fields:
        return EVERYTHING
    tests: list[Test] = []
    if requirements := parse_labels(labels):
        tests.append(lambda manifest: _all(requirements, manifest["metadata"].get("labels") or {}))
    terms = parse_fields(kind, fields)
    tests += [_field_test(kind, term) for term in terms]
    names = {value for field, equal, value in terms if field == "metadata.name" and equal}
    return Selector(tuple(tests), names.pop() if len(names) == 1 else None)


def _all(requirements: Sequence[Requirement], labels: Mapping[str, str]) -> bool:
    return all(requirement(labels) for requirement in requirements)


# labels


def matches_labels(selector: Manifest | None, labels: Mapping[str, str]) -> bool:
    """Whether labels match a ``LabelSelector`` object (matchLabels, matchExpressions); None matches nothing, {} all."""
    if selector is None:
        return False
    expected = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or []
    return all(labels.get(key) == value for key, value in expected.items()) and all(
        _requirement(e["key"], e["operator"].lower(), e.get("values") or [])(labels) for e in expressions
    )


def parse_labels(text: str) -> list[Requirement]:
    """Parse a label selector such as ``a=1,b in (x,y),!c``; raise 400 for a malformed one."""
    tokens = [match[1] for match in TOKEN.finditer(text)]
    reader = _Reader([token for token in tokens if token] + [""])
    return reader.requirements() if len(reader.tokens) > 1 else []


class _Reader:
    """Parses requirements from tokens, the last of which is empty."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0

    def next(self) -> str:
        token = self.tokens[self.at]
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    @property
    def ahead(self) -> str:
        return self.tokens[self.at]

    def requirements(self) -> list[Requirement]:
        requirements = [self.requirement()]
        while (token := self.next()) == ",":
            if self.ahead in SPECIAL - {"!"}:
                raise _unreadable(f"found '{self.ahead}', expected: identifier after ','")
            requirements.append(self.requirement())
        if token:
            raise _unreadable(f"found '{token}', expected: ',' or 'end of string'")
        return requirements

    def requirement(self) -> Requirement:
        absent = self.ahead == "!" and bool(self.next())
        key = self.next()
        if key in SPECIAL:
            raise _unreadable(f"found '{key}', expected: identifier")
        _check_key(key)
        if absent or self.ahead in {",", ""}:
            return _requirement(key, "doesnotexist" if absent else "exists", [])
        operator = self.next()
        if operator not in {"=", "==", "!=", "<", ">", "in", "notin"}:
            raise _unreadable(f"found '{operator}', expected: {OPERATORS}")
        values = self.values() if operator in {"in", "notin"} else [self.value()]
        _check_values(key, operator, values)
        return _requirement(key, operator, values)

    def value(self) -> str:
        if self.ahead in {",", ""}:
            return ""
        if self.ahead in SPECIAL:
            raise _unreadable(f"found '{self.ahead}', expected: identifier")
        return self.next()

    def values(self) -> list[str]:
        if (token := self.next()) != "(":
            raise _unreadable(f"found '{token}' expected: '('")
        values = [self.value() if self.ahead != ")" else ""]
        while (token := self.next()) == ",":
            values.append(self.value() if self.ahead != ")" else "")
        if token != ")":  # noqa: S105 - a parenthesis, no password
            raise _unreadable(f"found '{token}', expected: ',' or ')'")
        return values


def _requirement(key: str, operator: str, values: Sequence[str]) -> Requirement:
    expected = frozenset(values)
    if operator in {"=", "==", "in"}:
        return lambda labels: labels.get(key) in expected
    if operator in {"!=", "notin"}:
        return lambda labels: key not in labels or labels[key] not in expected
    if operator == "exists":
        return lambda labels: key in labels
    if operator == "doesnotexist":
        return lambda labels: key not in labels
    bound, above = _number(values[0]) or 0, operator in {">", "gt"}
    return lambda labels: (
        (number := _number(labels.get(key))) is not None and (number > bound if above else number < bound)
    )


def _number(text: str | None) -> int | None:
    try:
        return parse_int(text or "")
    except ValueError:
        return None


def _check_key(key: str) -> None:
    prefix, slash, name = key.rpartition("/")
    if slash and not (len(prefix) <= 253 and PREFIX.fullmatch(prefix)):
        raise _unreadable(
            f'<nil>: Invalid value: "{key}": prefix part a lowercase RFC 1123 subdomain must consist of lower'
            " case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
        )
    if not (len(name) <= 63 and NAME.fullmatch(name)):
        raise _unreadable(
            f"<nil>: Invalid value: \"{key}\": name part must consist of alphanumeric characters, '-', '_' or"
            " '.', and must start and end with an alphanumeric character and be no more than 63 characters"
        )


def _check_values(key: str, operator: str, values: Sequence[str]) -> None:
    for index, value in enumerate(values):
        field = f'values[{index}][{key}]: Invalid value: "{value}"'
        if operator in {"<", ">"} and _number(value) is None:
            raise _unreadable(f"{field}: for 'Gt', 'Lt' operators, the value must be an integer")
        if value and not (len(value) <= 63 and NAME.fullmatch(value)):
            raise _unreadable(
                f"{field}: a valid label must be an empty string or consist of alphanumeric characters, '-',"
                " '_' or '.', and must start and end with an alphanumeric character, of at most 63 characters"
            )


def _unreadable(why: str) -> StatusError:
    return bad_request(f"unable to parse requirement: {why}")


# fields

Term: TypeAlias = tuple[str, bool, str]
"""A field, whether it must equal (or differ from) the value, and the value."""

_EVERY = ("metadata.name", "metadata.namespace")
_INVOLVED = tuple(
    f"involvedObject.{part}"
    for part in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
)
FIELDS: dict[str, tuple[str, ...]] = {
    "Pod": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ),
    "Event": (*_INVOLVED, "reason", "reportingComponent", "source", "type"),
    "Job": ("status.successful",),
    "Namespace": ("status.phase",),
    "Node": ("spec.unschedulable",),
    "Secret": ("type",),
    "Service": ("spec.clusterIP", "spec.type"),
}
"""The selectable fields beside name and namespace."""

EVENTS_FIELDS = {
    "reportingController": "reportingComponent",
    **{path.replace("involvedObject", "regarding"): path for path in _INVOLVED},
}
"""Names in ``events.k8s.io`` of fields of the core group's Events."""


def parse_fields(kind: Kind, text: str) -> list[Term]:
    r"""Read a field selector such as ``status.phase!=Failed,spec.nodeName=n1``, ``\,`` escapes; raise 400 otherwise."""
    return [_term(kind, part) for part in re.split(r"(?<!\\),", text) if part]


def _term(kind: Kind, text: str) -> Term:
    match = re.fullmatch(r"([^=!]*)(==|!=|=)(.*)", text, re.DOTALL)
    if not match:
        raise bad_request(f"invalid selector: '{text}'; can't understand '{text}'")
    field, operator, value = match.groups()
    if kind is EVENTS:
        field = EVENTS_FIELDS.get(field, field)
    offered = FIELDS.get(kind.kind, ())
    if field not in _EVERY and field not in offered:
        raise bad_request(_unsupported(kind, field))
    return field, operator != "!=", re.sub(r"\\([\\,=])", r"\1", value)


def _unsupported(kind: Kind, field: str) -> str:
    if kind.kind == "Job":
        return f'field label "{field}" not supported for Job'
    if kind.kind in FIELDS:
        return f"field label not supported: {field}"
    return f'"{field}" is not a known field selector: only "metadata.name", "metadata.namespace"'


def _field_test(kind: Kind, term: Term) -> Test:
    field, equal, expected = term
    read = SPECIAL_FIELDS.get((kind.kind, field)) or _reader(tuple(field.split(".")))
    return lambda manifest: (read(manifest) == expected) is equal


def _reader(path: tuple[str, ...]) -> Callable[[Manifest], str]:
    def read(manifest: Manifest) -> str:
        value: Json = manifest
        for key in path:
            value = (value or {}).get(key)
        return _text(value)

    return read


def _text(value: Json) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


SPECIAL_FIELDS: dict[tuple[str, str], Callable[[Manifest], str]] = {
    ("Pod", "spec.hostNetwork"): lambda pod: _text(bool(pod["spec"].get("hostNetwork"))),
    ("Pod", "status.podIPs"): lambda pod: ",".join(ip["ip"] for ip in pod.get("status", {}).get("podIPs") or []),
    ("Node", "spec.unschedulable"): lambda node: _text(bool(node.get("spec", {}).get("unschedulable"))),
    ("Job", "status.successful"): lambda job: str(job.get("status", {}).get("succeeded") or 0),
    ("Event", "reportingComponent"): lambda event: event.get("reportingComponent") or "",
    ("Event", "source"): lambda event: (
        (event.get("source") or {}).get("component") or event.get("reportingComponent") or ""
    ),
}
