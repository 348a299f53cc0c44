from __future__ import annotations

from typing import Any

import pytest

from crosswind.deploy.differences import file_differences, object_differences


def service_object(**spec: Any) -> dict[str, Any]:
    return {"kind": "Service", "metadata": {"name": "web"}, "spec": spec}


@pytest.mark.parametrize(
    ("rendered", "live", "lines"),
    [
        ({"a": 1}, {"a": 1, "default": 2}, []),
        ({"a": 1}, {"a": 2}, ["Service web: spec.a: 2 -> 1"]),
        ({"a": {"b": "x"}}, {}, ["Service web: spec.a: nothing -> b: x"]),
        ({"a": {}, "b": [], "c": None}, {}, []),
        (
            {"ports": [{"name": "http", "port": 1}]},
            {"ports": [{"name": "http", "port": 2, "protocol": "TCP"}]},
            ["Service web: spec.ports[http].port: 2 -> 1"],
        ),
        (
            {"env": [{"name": "a"}]},
            {"env": [{"name": "b"}]},
            ["Service web: spec.env[a]: nothing -> name: a", "Service web: spec.env[b]: name: b -> nothing"],
        ),
        ({"args": ["a", "b"]}, {"args": ["a"]}, ["Service web: spec.args[1]: nothing -> b"]),
    ],
)
def test_fields_that_differ_are_reported(rendered: dict[str, Any], live: dict[str, Any], lines: list[str]) -> None:
    assert [*object_differences(service_object(**rendered), service_object(**live))] == lines


def test_object_that_is_not_there_would_be_created() -> None:
    assert [*object_differences(service_object(), None)] == ["Service web: would be created"]


def test_new_deleted_and_changed_files_are_reported() -> None:
    lines = [
        *file_differences({"new": "a\n", "same": "x\n", "other": "2\n"}, {"old": "b\n", "same": "x\n", "other": "1\n"})
    ]
    assert [line for line in lines if line[0] in "+-"] == [
        "--- /dev/null",
        "+++ new",
        "+a",
        "--- old",
        "+++ /dev/null",
        "-b",
        "--- other",
        "+++ other",
        "-1",
        "+2",
    ]
