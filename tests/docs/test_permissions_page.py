"""The Role of the executor's guide is the one that `crosswind render` writes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml
from tests.docs.pages import ROOT

from crosswind.deploy.rbac_objects import executor_rules
from crosswind.deploy.values_file import read_values


def permissions(rules: Iterable[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}


def test_the_role_of_the_guide_is_the_rendered_one() -> None:
    guide = (ROOT / "docs" / "guides" / "executor.md").read_text()
    (role,) = re.findall(r"```yaml\n(apiVersion: rbac.*?)```", guide, re.DOTALL)
    rendered = executor_rules(read_values("image: x\n", "values.yaml"))
    assert permissions(yaml.safe_load(role)["rules"]) == permissions(rendered)


def test_the_configuration_page_names_each_of_its_permissions() -> None:
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text().partition("## Permissions")[2]
    for resource, _ in permissions(executor_rules(read_values("image: x\n", "values.yaml"))):
        assert f"`{resource}`" in page or resource in ("pods/exec", "pods/portforward"), resource
