"""The resources of task files: what Kubernetes can give a pod."""

from __future__ import annotations

from typing import Any

import pytest

from crosswind.documents import Dialect, parse_document

CPU = "resources.cpu must be a number of CPUs above 0; write 2, 0.5 or 500m"
MEMORY = "resources.memory must be an amount of memory above 0; write 8Gi or 512Mi"


@pytest.mark.parametrize(
    ("resources", "problem"),
    [
        *((f"cpu: {value}", CPU) for value in ("-1", "0", "0.0", "0m", "1.0e999", "2Gi", "two", "true", "'0.000'")),
        *((f"memory: {value}", MEMORY) for value in ("512m", "8GB", "0", "0Gi", "'0.0'", "-1Gi", "512", "[1Gi]")),
    ],
)
def test_resources_that_no_pod_can_have_are_one_problem_with_the_fix(folder: Any, resources: str, problem: str) -> None:
    folder.task("a", resources=f"{{{resources}}}")
    folder.cache = folder.path.parent / "cache"
    assert [folder.problems() for _ in range(2)] == [[f"a.yaml:4: {problem}"]] * 2, "with the cache, too"


@pytest.mark.parametrize(
    ("resources", "quantities"),
    [
        ("cpu: 2", {"cpu": "2"}),
        ("cpu: 0.5", {"cpu": "0.5"}),
        ("cpu: 500m", {"cpu": "500m"}),
        ("cpu: '10'", {"cpu": "10"}),
        ("memory: 8Gi", {"memory": "8Gi"}),
        ("memory: 0.5Gi", {"memory": "0.5Gi"}),
        ("memory: '1000000000'", {"memory": "1000000000"}),
    ],
)
def test_quantities_of_kubernetes_load(folder: Any, resources: str, quantities: dict[str, str]) -> None:
    folder.task("a", resources=f"{{{resources}}}")
    assert folder.problems() == []
    assert folder.compile().dags[0].tasks[0].resources == quantities


@pytest.mark.parametrize("text", ["1.0e999", "-1.0e999", "9" * 400 + ".0"])
def test_a_number_that_no_float_can_hold_stays_text(text: str) -> None:
    assert parse_document(text, "x", dialect=Dialect(plain=True)).content == text
