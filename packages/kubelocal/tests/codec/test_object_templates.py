from __future__ import annotations

from typing import Any

import pytest

from kubelocal.codec.object_templates import compile_condition, compile_path, compile_template

SCOPE = {
    "pod": {
        "name": "p",
        "ports": [80, 443],
        "annotations": {"a.b/c": "note"},
        "containers": [{"name": "base"}, {"name": "side", "off": True}],
    },
    "now": "today",
}


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("plain", "plain"),
        (3, 3),
        ("$now", "today"),
        ("$pod.ports", [80, 443]),
        ("$pod.ports[1]", 443),
        ('$pod.annotations["a.b/c"]', "note"),
        ("$pod.none|left", "left"),
        ("${pod.name}-${now}", "p-today"),
        ("x${pod.none}y${pod.none|z}", "xyz"),
        ("$(POD_NAME).svc", "$(POD_NAME).svc"),
        ({"a": "$pod.none", "b": "$now"}, {"b": "today"}),
        (["$pod.none", "$now"], ["today"]),
        ({"a": {"$if": {"pod.none": True}, "b": 1}}, {}),
        ({"a": {"$if": {"pod.name": "p"}, "b": 1}}, {"a": {"b": 1}}),
        ([{"$each": "$pod.containers", "n": "$item.name"}], [{"n": "base"}, {"n": "side"}]),
        ([{"$each": "$pod.containers", "$if": {"item.off": False}, "n": "$item.name"}], [{"n": "base"}]),
        ([{"$each": "$pod.none", "n": 1}, 2], [2]),
        ([{"$each": "$pod.containers", "$if": {"item.off": True}, "$do": "$item.name"}], ["side"]),
    ],
)
def test_templates_are_filled_from_the_scope(template: Any, filled: Any) -> None:
    assert compile_template(template)(SCOPE) == filled


@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        ({}, True),
        ({"pod.name": "p"}, True),
        ({"pod.name": ["q", "p"]}, True),
        ({"pod.name": "p", "now": "never"}, False),
        ({"pod.none": False}, True),
        ({"pod.none": True}, False),
        ({"pod.ports[0]": 80}, True),
        ({"pod.containers[1].off": ["true"]}, True),
        ({"pod.none": [""]}, True),
        ({"pod.name": {"not": ["q", "r"]}}, True),
        ({"pod.name": {"not": "p"}}, False),
    ],
)
def test_conditions_all_have_to_hold(wanted: dict[str, Any], holds: bool) -> None:
    assert compile_condition(wanted)(SCOPE) is holds


@pytest.mark.parametrize("path", ["", "a..b", "a b", 'a["b', ".a.", "a[x]"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="is not a path such as"):
        compile_path(path)
