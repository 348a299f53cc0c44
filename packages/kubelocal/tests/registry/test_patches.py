from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelocal.codec.status_errors import StatusError
from kubelocal.registry.patches import json_patch, merge_patch, strategic_merge_patch

SCALARS = st.none() | st.booleans() | st.integers(-2, 2) | st.text("ab", max_size=2)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)


def without_nulls(value: Any) -> Any:
    """What an object can hold: no field is null."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return value


# merge patch: RFC 7386


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_is_idempotent(document: Any, patch: Any) -> None:
    once = merge_patch(document, patch)
    assert merge_patch(once, patch) == once


@given(OBJECTS)
def test_a_merge_patch_from_nothing_gives_the_patch_without_nulls(patch: Any) -> None:
    assert merge_patch({}, patch) == without_nulls(patch)


@given(OBJECTS)
def test_an_empty_merge_patch_changes_nothing(document: Any) -> None:
    assert merge_patch(document, {}) == document


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_touches_only_what_it_names(document: Any, patch: Any) -> None:
    merged = merge_patch(document, patch)
    assert {key: merged[key] for key in document if key not in patch} == {
        key: value for key, value in document.items() if key not in patch
    }
    assert not [key for key, value in patch.items() if value is None and key in merged]


@given(OBJECTS, OBJECTS)
def test_no_patch_changes_what_it_is_given(document: Any, patch: Any) -> None:
    kept = copy.deepcopy((document, patch))
    merge_patch(document, patch)
    strategic_merge_patch(document, patch)
    assert (document, patch) == kept


@pytest.mark.parametrize(
    ("document", "patch", "merged"),
    [  # the examples of RFC 7386, appendix A, that are about objects
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_the_rfc(document: Any, patch: Any, merged: Any) -> None:
    assert merge_patch(document, patch) == merged


# strategic merge patch

ENV = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("abcd")}, optional={"value": st.sampled_from("12")}),
    max_size=4,
    unique_by=lambda item: item["name"],
)


def by_name(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in items}


def container(env: list[dict[str, Any]]) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "base", "image": "i", "env": env}]}}


@given(ENV, ENV)
def test_lists_with_a_merge_key_merge_like_maps(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> None:
    patch = {"spec": {"containers": [{"name": "base", "env": new}]}}
    [merged] = strategic_merge_patch(container(old), patch)["spec"]["containers"]
    assert merged["image"] == "i"
    expected = {name: {**by_name(old).get(name, {}), **by_name(new).get(name, {})} for name in by_name([*old, *new])}
    assert by_name(merged["env"]) == expected
    assert len(merged["env"]) == len(expected)


@given(ENV, st.sets(st.sampled_from("abcd")))
def test_patch_delete_removes_items_by_key(old: list[dict[str, Any]], names: set[str]) -> None:
    gone = [{"name": name, "$patch": "delete"} for name in sorted(names)]
    patch = {"spec": {"containers": [{"name": "base", "env": gone}]}}
    [merged] = strategic_merge_patch(container(old), patch)["spec"]["containers"]
    assert merged["env"] == [item for item in old if item["name"] not in names]


@given(ENV, ENV)
def test_patch_replace_replaces_a_list(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> None:
    patch = {"spec": {"containers": [{"name": "base", "env": [*new, {"$patch": "replace"}]}]}}
    [merged] = strategic_merge_patch(container(old), patch)["spec"]["containers"]
    assert merged["env"] == new


@given(ENV, ENV, st.permutations("abcd"))
def test_set_element_order_orders_what_it_names(
    old: list[dict[str, Any]], new: list[dict[str, Any]], order: list[str]
) -> None:
    patch = {
        "spec": {"containers": [{"name": "base", "env": new, "$setElementOrder/env": [{"name": n} for n in order]}]}
    }
    [merged] = strategic_merge_patch(container(old), patch)["spec"]["containers"]
    names = [item["name"] for item in merged["env"]]
    assert names == [name for name in order if name in names]


SETS = st.lists(st.sampled_from(["x/a", "x/b", "x/c"]), unique=True)


@given(SETS, SETS)
def test_finalizers_are_a_set(old: list[str], new: list[str]) -> None:
    merged = strategic_merge_patch({"metadata": {"finalizers": old}}, {"metadata": {"finalizers": new}})
    assert sorted(merged["metadata"]["finalizers"]) == sorted({*old, *new})
    left = strategic_merge_patch(merged, {"metadata": {"$deleteFromPrimitiveList/finalizers": new}})
    assert sorted(left["metadata"].get("finalizers", [])) == sorted({*old} - {*new})


@given(OBJECTS, OBJECTS)
def test_without_lists_it_is_a_merge_patch(document: Any, patch: Any) -> None:
    """But for an object in place of something else, whose own nulls stay out in both."""
    if "[" not in str([document, patch]):
        assert strategic_merge_patch(document, patch) == merge_patch(document, patch)


@pytest.mark.parametrize(
    ("document", "patch", "merged"),
    [
        ({"spec": {"tolerations": [1]}}, {"spec": {"tolerations": [2]}}, {"spec": {"tolerations": [2]}}),
        (
            {"imagePullSecrets": [{"name": "a"}]},
            {"imagePullSecrets": [{"name": "b"}]},
            {"imagePullSecrets": [{"name": "b"}]},
        ),
        ({"a": {"x": 1}}, {"a": {"y": 2, "$patch": "replace"}}, {"a": {"y": 2}}),
        ({"a": {"x": 1}, "b": 1}, {"a": {"$patch": "delete"}}, {"b": 1}),
        (
            {"spec": {"ports": [{"port": 1}]}},
            {"spec": {"ports": [{"port": 2}]}},
            {"spec": {"ports": [{"port": 1}, {"port": 2}]}},
        ),
        (
            {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}},
            {"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}, "$retainKeys": ["name", "hostPath"]}]}},
            {"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}},
        ),
        (
            {"status": {"conditions": [{"type": "A", "status": "True"}]}},
            {"status": {"conditions": [{"type": "A", "status": "False"}]}},
            {"status": {"conditions": [{"type": "A", "status": "False"}]}},
        ),
    ],
)
def test_directives_and_merge_keys(document: Any, patch: Any, merged: Any) -> None:
    assert strategic_merge_patch(document, patch) == merged


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        ([], 400),
        ({"a": {"$patch": "explode"}}, 422),
        ({"spec": {"containers": [{"image": "i"}]}}, 422),
        ({"spec": {"containers": ["base"]}}, 400),
    ],
)
def test_a_strategic_patch_that_makes_no_sense_is_refused(patch: Any, code: int) -> None:
    with pytest.raises(StatusError) as refusal:
        strategic_merge_patch(container([]), patch)
    assert refusal.value.code == code


# JSON patch: RFC 6902


@pytest.mark.parametrize("patch", [{"data": 1}, "text", [1], [{"op": "explode", "path": "/a"}], [{"op": "add"}], None])
def test_what_is_no_list_of_operations_is_400(patch: Any) -> None:
    with pytest.raises(StatusError) as refusal:
        json_patch({"a": "1"}, patch)
    assert refusal.value.code == 400


@pytest.mark.parametrize(
    "step",
    [
        {"op": "test", "path": "/a", "value": "2"},
        {"op": "remove", "path": "/b"},
        {"op": "replace", "path": "/b", "value": 1},
        {"op": "add", "path": "/b/c", "value": 1},
        {"op": "move", "from": "/b", "path": "/c"},
        {"op": "add", "path": "/l/9", "value": 1},
        {"op": "add", "path": "/a/b", "value": 1},
    ],
)
def test_an_operation_that_cannot_be_done_is_422_and_nothing_is_done(step: dict[str, Any]) -> None:
    document = {"a": "1", "l": []}
    with pytest.raises(StatusError) as refusal:
        json_patch(document, [{"op": "replace", "path": "/a", "value": "3"}, step])
    assert refusal.value.code == 422
    assert refusal.value.status["details"] == {}
    assert document == {"a": "1", "l": []}


def test_operations_are_done_in_order() -> None:
    steps = [
        {"op": "add", "path": "/metadata/labels", "value": {}},
        {"op": "add", "path": "/metadata/labels/a~1b", "value": "1"},
        {"op": "test", "path": "/metadata/labels/a~1b", "value": "1"},
        {"op": "copy", "from": "/metadata/labels/a~1b", "path": "/metadata/labels/c"},
    ]
    assert json_patch({"metadata": {}}, steps) == {"metadata": {"labels": {"a/b": "1", "c": "1"}}}
