from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from crosswind.cli import main
from crosswind.deploy.first_values import Answers, first_values
from crosswind.deploy.tree import render
from crosswind.deploy.values_file import read_values


def init(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["init", "-o", str(folder / "values.yaml"), *arguments])


@pytest.mark.parametrize(
    ("dags", "logs", "mesh"),
    [
        *product(
            ("image", "pvc", "git-sync", "bundle"),
            ("archive", "volume", "remote", "none"),
            ("none", "istio", "linkerd"),
        )
    ],
)
def test_each_choice_gives_a_short_file_that_renders(dags: str, logs: str, mesh: str) -> None:
    role = "arn:aws:iam::123456789012:role/x"
    text = first_values(Answers("x/airflow:1", dags=dags, logs=logs, mesh=mesh, host="a.example.com", aws_role=role))
    assert len(text.splitlines()) <= 60
    assert "#" in text
    assert render(read_values(text, "values.yaml"))


def test_options_become_values(tmp_path: Path) -> None:
    ran = init(tmp_path, "--image", "x/y:1", "--namespace", "flows", "--dags", "bundle", "--repo", "https://g/d.git")
    assert ran.exit_code == 0, ran.output
    values = read_values((tmp_path / "values.yaml").read_text(), "values.yaml")
    assert (values.image, values.namespace, values.dags.source) == ("x/y:1", "flows", "bundle")


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("mine")
    ran = init(tmp_path, "--image", "x")
    assert (ran.exit_code, (tmp_path / "values.yaml").read_text()) == (2, "mine")
    assert "--force" in ran.output
    assert init(tmp_path, "--image", "x", "--force").exit_code == 0


def test_without_an_image_nothing_is_written(tmp_path: Path) -> None:
    assert init(tmp_path).exit_code == 2
    assert not (tmp_path / "values.yaml").exists()


def test_an_answer_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    ran = init(tmp_path, "--image", "x", "--namespace", "Not_A_Name")
    assert ran.exit_code == 2
    assert "namespace is 'Not_A_Name'" in ran.output
    assert not (tmp_path / "values.yaml").exists()


@pytest.mark.parametrize(
    "namespace", ["a" * 22, "data-platform-production", "a" * 30, "a" * 55, "a" * 56, "a" * 63, "no", "null", "123"]
)
def test_every_namespace_that_kubernetes_allows_gives_a_file_that_renders(tmp_path: Path, namespace: str) -> None:
    ran = init(tmp_path, "--image", "x", "--namespace", namespace)
    assert ran.exit_code == 0, ran.output
    values = read_values((tmp_path / "values.yaml").read_text(), "values.yaml")
    assert values.namespace == namespace
    names = [rendered.manifest["metadata"]["name"] for rendered in render(values) if "namespace" in rendered.path]
    assert names == [namespace, *values.worker_namespaces]
    assert all(len(name) <= 63 for name in names)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--namespace", "a" * 64], "--namespace is"),
        (["--namespace", "kube-system"], "--namespace has namespace kube-system, but kube- is reserved"),
        (["--namespace", "a, b"], "--namespace is 'a, b'"),
        (["--database-secret", "a}"], "--database-secret is 'a}'"),
        (["--host", "A_B"], "--host is 'A_B'"),
        (["--aws-role", "admin"], "--aws-role is 'admin'"),
        (["--dags", "bundle", "--repo", "https://me:word@g/d.git"], "--repo has an address https://..."),
        (["--logs", "remote", "--logs-url", "bucket"], "--logs-url is 'bucket'"),
    ],
)
def test_a_problem_names_the_option_and_no_line_of_a_file(tmp_path: Path, arguments: list[str], problem: str) -> None:
    ran = init(tmp_path, "--image", "x", *arguments)
    assert (ran.exit_code, ran.output.startswith(f"crosswind: {problem}")) == (2, True), ran.output
    assert "values.yaml" not in ran.output
    assert not (tmp_path / "values.yaml").exists()
