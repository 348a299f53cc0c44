"""The reaper as a component: its options are those of the command, its permissions those of docs/guides/reaper.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from deployments import of_kind

from crosswind.cli.reap import reap
from crosswind.deploy.rbac_objects import rbac, reaper_rules
from crosswind.deploy.reaper_deployment import reaper
from crosswind.deploy.values import Values

EXAMPLE = Path(__file__).parents[2] / "examples" / "reaper" / "rbac.yaml"
SETS = {"A": ("",), "B": ("", "-exec"), "C": ("", "-exec", "-change")}


def values(**reaper_settings: Any) -> Values:
    return Values.model_validate({"image": "x", "reaper": {"namespaces": ["jobs", "more"], **reaper_settings}})


def allowed(rules: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_command_takes_the_options() -> None:
    (deployment,) = [rendered.manifest for rendered in reaper(values()) if rendered.manifest["kind"] == "Deployment"]
    args = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[:4] == ["python", "-m", "crosswind", "reap"]
    parameters = reap.make_context("reap", [argument.replace("$(POD_IP)", "10.0.0.1") for argument in args[4:]]).params
    assert parameters["namespaces"] == ("jobs", "more")
    assert (parameters["selector"], parameters["lease"]) == ("batch.kubernetes.io/job-name", "airflow/airflow-reaper")


@pytest.mark.parametrize("permissions", SETS)
def test_permissions_are_the_documented_sets(permissions: str) -> None:
    roles = {
        role["metadata"]["name"]: role["rules"] for role in yaml.safe_load_all(EXAMPLE.read_text()) if "rules" in role
    }
    documented = [rule for part in SETS[permissions] for rule in roles[f"crosswind-reaper{part}"]]
    assert allowed(reaper_rules(values(permissions=permissions))) == allowed(documented)


def test_each_namespace_of_pods_gives_it_a_role() -> None:
    bindings = [
        rendered.manifest["metadata"] for rendered in rbac(values()) if rendered.manifest["kind"] == "RoleBinding"
    ]
    own = {(binding["namespace"], binding["name"]) for binding in bindings if "reaper" in binding["name"]}
    role = "airflow-reaper-reaper"
    assert own == {("jobs", role), ("more", role), ("airflow", "airflow-reaper-lease-reaper")}


def test_it_is_left_out_unless_asked_for() -> None:
    names = [manifest["metadata"]["name"] for manifest in of_kind("minimal", "Deployment", "ServiceAccount", "Role")]
    assert not [name for name in names if "reaper" in name]
