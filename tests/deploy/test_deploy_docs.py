from __future__ import annotations

from pathlib import Path

import pytest
from deployments import EXAMPLES

from crosswind.deploy.values import Values

PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()


@pytest.mark.parametrize("key", sorted(str(field.alias) for field in Values.model_fields.values()))
def test_page_names_each_key(key: str) -> None:
    assert f"`{key}`" in PAGE


@pytest.mark.parametrize(
    "part", ["database", "secrets", "web", "mesh", "metrics", "network", "pods", "workers", "reaper"]
)
def test_page_names_the_keys_of_each_part(part: str) -> None:
    fields = type(getattr(Values.model_validate({"image": "x"}), part)).model_fields.values()
    assert not [field.alias for field in fields if f"{field.alias}" not in PAGE]


@pytest.mark.parametrize("file", sorted(path.name for path in EXAMPLES.glob("*.yaml")))
def test_page_names_each_example(file: str) -> None:
    assert file in PAGE
