from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelocal.codec.kinds import KINDS
from kubelocal.codec.status_errors import StatusError
from kubelocal.storage.selectors import FIELDS, matches_labels, parse_labels, select

KEYS = st.sampled_from(["a", "b", "example.com/c"])
VALUES = st.sampled_from(["", "1", "2", "x-y"])
LABELS = st.dictionaries(KEYS, VALUES)


def chosen(selector: str, labels: dict[str, str]) -> bool:
    return select(KINDS["Pod"], selector, "").matches({"metadata": {"labels": labels}})


@given(KEYS, st.lists(VALUES, min_size=1, max_size=3), LABELS)
def test_label_operators_mean_what_kubernetes_says(key: str, values: list[str], labels: dict[str, str]) -> None:
    joined, first = ",".join(values), values[0]
    expected = {
        f"{key}={first}": labels.get(key) == first,
        f"{key} == {first}": labels.get(key) == first,
        f"{key}!={first}": labels.get(key) != first,
        f"{key} in ({joined})": labels.get(key) in values,
        f"{key} notin ( {joined} )": labels.get(key) not in values,
        key: key in labels,
        f"!{key}": key not in labels,
        f" ! {key} ": key not in labels,
    }
    assert {selector: chosen(selector, labels) for selector in expected} == expected


@given(st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=4), LABELS)
def test_a_comma_joins_by_and(pairs: list[tuple[str, str]], labels: dict[str, str]) -> None:
    parts = [f"{key}={value}" for key, value in pairs]
    assert chosen(",".join(parts), labels) == all(chosen(part, labels) for part in parts)


@given(st.integers(-5, 5), st.integers(-5, 5))
def test_comparisons_are_of_whole_numbers(bound: int, value: int) -> None:
    labels = {"n": str(value)}
    if bound >= 0:
        assert chosen(f"n>{bound}", labels) == (value > bound)
        assert chosen(f"n<{bound}", labels) == (value < bound)
    assert not chosen("n>0", {"n": "many"})
    assert not chosen("n>0", {})


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused_with_400(text: str) -> None:
    for read in (lambda: parse_labels(text), lambda: select(KINDS["Pod"], "", text)):
        try:
            read()
        except StatusError as refusal:
            assert refusal.code == 400  # noqa: PT017


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("a b c", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in 1", "unable to parse requirement: found '1' expected: '('"),
        ("a,", "unable to parse requirement: found '', expected: identifier after ','"),
        ("=1", "unable to parse requirement: found '=', expected: identifier"),
        ("a in (1", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a=1 b=2", "unable to parse requirement: found 'b', expected: ',' or 'end of string'"),
    ],
)
def test_what_cannot_be_read_is_refused_in_kubernetes_words(selector: str, message: str) -> None:
    with pytest.raises(StatusError) as refusal:
        parse_labels(selector)
    assert refusal.value.status["message"] == message


@pytest.mark.parametrize("selector", ["-a=1", "a/b/c=1", "A_/x=1", "a=-", f"a={'x' * 64}", f"{'x' * 64}=1", "a>x"])
def test_keys_and_values_must_be_valid_labels(selector: str) -> None:
    with pytest.raises(StatusError, match="unable to parse requirement"):
        parse_labels(selector)


@given(LABELS)
def test_a_label_selector_object_agrees_with_its_text(labels: dict[str, str]) -> None:
    wanted = {
        "matchLabels": {"a": "1"},
        "matchExpressions": [
            {"key": "b", "operator": "In", "values": ["1", "2"]},
            {"key": "example.com/c", "operator": "DoesNotExist"},
        ],
    }
    assert matches_labels(wanted, labels) == chosen("a=1,b in (1,2),!example.com/c", labels)
    assert matches_labels({}, labels)
    assert not matches_labels(None, labels)


POD = {
    "metadata": {"name": "p", "namespace": "n"},
    "spec": {"nodeName": "node", "restartPolicy": "Never", "hostNetwork": True},
    "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
}
EVENT = {
    "metadata": {"name": "e", "namespace": "n"},
    "involvedObject": {"kind": "Pod", "name": "p", "uid": "u"},
    "reason": "Pulled",
    "source": {"component": "kubelet"},
}
JOB = {"metadata": {"name": "j"}, "status": {"succeeded": 1}}


@pytest.mark.parametrize(
    ("kind", "manifest", "fields", "matches"),
    [
        ("Pod", POD, "metadata.name=p,metadata.namespace=n", True),
        ("Pod", POD, "metadata.name==q", False),
        ("Pod", POD, "spec.nodeName!=", True),
        ("Pod", POD, "spec.schedulerName=", True),
        ("Pod", POD, "spec.hostNetwork=true", True),
        ("Pod", POD, "status.podIPs=10.0.0.1", True),
        ("Pod", POD, "status.phase!=Failed,status.phase!=Succeeded", True),
        ("Pod", {"metadata": {"name": "p"}, "spec": {}}, "spec.hostNetwork=false,status.podIPs=", True),
        ("Event", EVENT, "involvedObject.uid=u,reason=Pulled,source=kubelet", True),
        ("Event", EVENT, "involvedObject.fieldPath=x", False),
        ("Job", JOB, "status.successful=1", True),
        ("Node", {"metadata": {"name": "n"}, "spec": {}}, "spec.unschedulable=false", True),
        ("Secret", {"metadata": {"name": "s"}, "type": "a,b"}, r"type=a\,b", True),
    ],
)
def test_fields_select(kind: str, manifest: dict[str, Any], fields: str, matches: bool) -> None:
    assert select(KINDS[kind], "", fields).matches(manifest) is matches


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("Pod", "spec.nosuch=1", "field label not supported: spec.nosuch"),
        ("Job", "spec.x=1", 'field label "spec.x" not supported for Job'),
        (
            "ConfigMap",
            "data=1",
            '"data" is not a known field selector: only "metadata.name", "metadata.namespace"',
        ),
        ("Pod", "status.phase", "invalid selector: 'status.phase'; can't understand 'status.phase'"),
    ],
)
def test_fields_that_are_not_offered_are_refused(kind: str, fields: str, message: str) -> None:
    with pytest.raises(StatusError) as refusal:
        select(KINDS[kind], "", fields)
    assert (refusal.value.code, refusal.value.status["message"]) == (400, message)


def test_every_offered_field_can_be_asked_of_an_empty_object() -> None:
    for kind, fields in FIELDS.items():
        for field in fields:
            select(KINDS[kind], "", f"{field}=x").matches({"metadata": {"name": "a"}, "spec": {}})


@pytest.mark.parametrize(("fields", "name"), [("metadata.name=a", "a"), ("metadata.name!=a", None), ("", None)])
def test_a_selector_tells_the_only_name_that_can_match(fields: str, name: str | None) -> None:
    assert select(KINDS["Pod"], "", fields).name == name
