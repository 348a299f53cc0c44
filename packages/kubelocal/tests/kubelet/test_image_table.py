"""Image names and what they stand for, by tables."""

from __future__ import annotations

from typing import Any

import pytest

from kubelocal.kubelet.image_table import command_line, find_image, image_table, problem_of
from kubelocal.settings import LocalImage

TABLE = {
    "busybox*": LocalImage(path=("/busybox",), command=("sh",)),
    "apache/airflow*": LocalImage(entrypoint=("entry",)),
    "apache/airflow:2*": LocalImage(missing=True),
    "*/tool:*": LocalImage(path=("/tool",)),
}


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("busybox", ("/busybox",)),
        ("docker.io/library/busybox:1.36", ("/busybox",)),
        ("busybox@sha256:" + "0" * 64, ("/busybox",)),
        ("example.com:5000/tool:1", ("/tool",)),
        ("apache/airflow:3.3.2", ()),
    ],
)
def test_the_longest_pattern_that_matches_counts(name: str, path: tuple[str, ...]) -> None:
    image = find_image(name, TABLE)
    assert image is not None
    assert image.path == path


@pytest.mark.parametrize("name", ["apache/airflow:2.9", "nosuch:1"])
def test_missing_and_unknown_images_are_not_found(name: str) -> None:
    assert find_image(name, TABLE) is None


@pytest.mark.parametrize(
    ("name", "policy", "reason"),
    [
        ("busybox", "Never", None),
        ("busybox", "Always", None),
        ("nosuch:1", "Never", "ErrImageNeverPull"),
        ("nosuch:1", "IfNotPresent", "ErrImagePull"),
        ("nosuch:1", "Always", "ErrImagePull"),
        ("UPPER/case:bad:tag", "Never", "InvalidImageName"),
        ("has space", "Always", "InvalidImageName"),
        ("", "Always", "InvalidImageName"),
    ],
)
def test_images_that_cannot_be_used_have_a_reason(name: str, policy: str, reason: str | None) -> None:
    problem = problem_of({"image": name, "imagePullPolicy": policy}, TABLE)
    assert (problem and problem.reason) == reason
    assert problem is None or name in problem.message


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, ["entry", "cmd"]),
        ({"args": ["a"]}, ["entry", "a"]),
        ({"command": ["c"]}, ["c"]),
        ({"command": ["c"], "args": ["a"]}, ["c", "a"]),
    ],
)
def test_command_and_args_replace_entrypoint_and_cmd(given: dict[str, Any], wanted: list[str]) -> None:
    assert command_line(given, LocalImage(entrypoint=("entry",), command=("cmd",))) == wanted


def test_an_image_like_another_has_its_parts_and_more() -> None:
    base = LocalImage(path=("/venv",), entrypoint=("entry",), environment={"A": "1"}, mounts={"/entrypoint": "/e"})
    mine = LocalImage(like="apache/airflow:3.3.2", environment={"B": "2"}, mounts={"/opt/airflow/dags": "dags"})
    table = image_table({"apache/airflow*": base}, {"mine*": mine, "lost*": LocalImage(like="nosuch")})
    found = find_image("mine:1", table)
    assert found is not None
    assert (found.path, found.entrypoint, found.environment) == (("/venv",), ("entry",), {"A": "1", "B": "2"})
    assert found.mounts == {"/entrypoint": "/e", "/opt/airflow/dags": "dags"}
    assert find_image("lost:1", table) is None
