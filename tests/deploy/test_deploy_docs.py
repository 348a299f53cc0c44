from __future__ import annotations

import re
from pathlib import Path

import pytest
from deployments import EXAMPLES

from crosswind.deploy import findings
from crosswind.deploy.values import Values
from crosswind.deploy.values_file import read_values
from crosswind.errors import ConfigError

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "guides" / "deploy.md").read_text()
PAGE = (DOCS / "reference" / "deployment-values.md").read_text()


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
    assert f"`{file}`" in GUIDE


def test_the_guide_shows_the_real_message_about_a_wrong_key() -> None:
    text = "image: x\n\n\n\n\ndags:\n  perod: 5s\n  source: git-sync\n  repo: https://example.org/dags.git\n"
    with pytest.raises(ConfigError) as refused:
        read_values(text, "values.yaml")
    assert f"    crosswind: {refused.value}\n" in GUIDE


def test_the_guide_shows_findings_of_the_doctor_in_its_own_words() -> None:
    source = Path(findings.__file__).read_text()
    shown = re.findall(r"^    (?:fail|warn|ok) +[^:]+: (.*)$", GUIDE, re.MULTILINE)
    assert shown
    for words in shown:
        assert any(part in words for part in re.findall(r'f?"([^"{]{8,})', source)), words
