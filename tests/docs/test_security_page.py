"""The tables of the security model say what the manifests say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from crosswind.deploy.tree import render
from crosswind.deploy.values_file import read_values

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanations" / "security.md").read_text()
PROGRAMS = ["scheduler", "api-server", "dag-processor", "triggerer", "migrations", "worker"]
KEYS = {
    "database connection": ("airflow-database", "connection"),
    "Fernet key": ("airflow-secrets", "fernet-key"),
    "API secret key (signs log requests)": ("airflow-secrets", "api-secret-key"),
    "JWT secret (signs tokens)": ("airflow-secrets", "jwt-secret"),
}


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, Any]]:
    values = read_values((ROOT / "examples" / "deploy" / "minimal.yaml").read_text(), "minimal.yaml")
    return [rendered.manifest for rendered in render(values)]


def secrets_of(manifests: list[dict[str, Any]], program: str) -> set[tuple[str, str]]:
    """Return the keys of Secrets that a program's pods refer to."""
    if program == "worker":
        texts = [text for it in manifests if it["kind"] == "ConfigMap" for text in it["data"].values()]
        templates = [yaml.safe_load(text) for text in texts if "kind: Pod" in text]
    else:
        kinds = ("Deployment", "StatefulSet", "Job")
        templates = [
            it for it in manifests if it["kind"] in kinds and it["metadata"]["name"].startswith(f"airflow-{program}")
        ]
    assert templates, program
    keys: set[tuple[str, str]] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(reference := node.get("secretKeyRef"), dict):
                keys.add((reference["name"], reference["key"]))
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    for template in templates:
        walk(template)
    return keys


@pytest.mark.parametrize("secret", KEYS)
def test_the_table_of_secrets_is_that_of_the_manifests(manifests: list[dict[str, Any]], secret: str) -> None:
    (cells,) = re.findall(rf"^\| {re.escape(secret)} \| (.*) \|$", PAGE, re.MULTILINE)
    expected = [cell.strip("* ") == "yes" for cell in cells.split("|")]
    assert expected == [KEYS[secret] in secrets_of(manifests, program) for program in PROGRAMS]


def test_only_schedulers_and_api_servers_mount_a_token(manifests: list[dict[str, Any]]) -> None:
    mounting = {
        it["metadata"]["name"]
        for it in manifests
        if "automountServiceAccountToken" in it.get("spec", {}).get("template", {}).get("spec", {})
        and it["spec"]["template"]["spec"]["automountServiceAccountToken"]
    }
    assert mounting == {"airflow-scheduler", "airflow-api-server"}


def test_no_program_has_a_cluster_role(manifests: list[dict[str, Any]]) -> None:
    assert {it["kind"] for it in manifests} & {"ClusterRole", "ClusterRoleBinding"} == set()


def test_task_pods_accept_no_connection(manifests: list[dict[str, Any]]) -> None:
    (policy,) = [
        it
        for it in manifests
        if it["kind"] == "NetworkPolicy"
        and it["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/component") == "worker"
    ]
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in policy["spec"]
