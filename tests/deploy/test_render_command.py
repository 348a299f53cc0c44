from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from deployments import EXAMPLES, NAMES, deployment

from crosswind.cli import main
from crosswind.deploy.objects import identity
from crosswind.deploy.tree import KUSTOMIZATION


def crosswind(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    assert crosswind("render", EXAMPLES / "minimal.yaml", "-o", tmp_path / "tree").exit_code == 0
    return tmp_path / "tree"


def test_each_file_is_one_object_below_its_reason(tree: Path) -> None:
    files = sorted(tree.rglob("*.yaml"))
    assert len(files) == len(deployment("minimal"))
    for file in files:
        text = file.read_text()
        assert text.startswith("# ")
        assert len([*yaml.safe_load_all(text)]) == 1
        assert "&id" not in text


def test_namespace_is_applied_first(tree: Path) -> None:
    first = min(str(path.relative_to(tree)) for path in tree.rglob("*.yaml"))
    assert yaml.safe_load((tree / first).read_text())["kind"] == "Namespace"


def test_same_values_give_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    crosswind("render", EXAMPLES / "minimal.yaml", "-o", tmp_path / "again")
    for file in tree.rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(tree)).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_kustomize_takes_the_tree(name: str, tmp_path: Path) -> None:
    crosswind("render", EXAMPLES / f"{name}.yaml", "-o", tmp_path)
    ran = subprocess.run(["kubectl", "kustomize", tmp_path], capture_output=True, text=True, check=True)
    built = {identity(manifest) for manifest in yaml.safe_load_all(ran.stdout)}
    assert built == {identity(rendered.manifest) for rendered in deployment(name)}


def test_files_no_longer_needed_are_removed_and_others_stay(tree: Path, tmp_path: Path) -> None:
    (tree / "mine.yaml").write_text("a: 1\n")
    changed = tmp_path / "values.yaml"
    changed.write_text("image: x\nmetrics: {statsd: false}\n")
    output = crosswind("render", changed, "-o", tree).output
    assert "removed" in output
    assert not [*(tree / "statsd").glob("*.yaml")]
    assert (tree / "mine.yaml").exists()


def test_files_outside_the_tree_are_never_removed(tree: Path) -> None:
    outside = tree.parent / "outside.yaml"
    outside.write_text("a: 1\n")
    (tree / KUSTOMIZATION).write_text("resources: [../outside.yaml]\n")
    crosswind("render", EXAMPLES / "minimal.yaml", "-o", tree)
    assert outside.exists()


def test_without_a_folder_all_is_printed() -> None:
    output = crosswind("render", EXAMPLES / "minimal.yaml").output
    assert len([*yaml.safe_load_all(output)]) == len(deployment("minimal"))


def test_wrong_values_are_wrong_use(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("image: x\nshcheduler: {}\n")
    ran = crosswind("render", values)
    assert (ran.exit_code, ran.output) == (2, f"crosswind: {values}:2: shcheduler is no known key; write scheduler\n")


def test_diff_against_the_tree_is_empty_until_a_value_changes(tree: Path, tmp_path: Path) -> None:
    same = crosswind("render", EXAMPLES / "minimal.yaml", "-o", tree, "--diff")
    assert (same.exit_code, same.output) == (0, "")
    changed = tmp_path / "values.yaml"
    changed.write_text("image: registry.example.com/airflow:2026.11\nscheduler: {replicas: 2}\n")
    ran = crosswind("render", changed, "-o", tree, "--diff")
    assert ran.exit_code == 1
    assert "+  replicas: 2" in ran.output
    assert "+++ scheduler/disruption-budget.yaml" in ran.output
    assert not (tree / "scheduler" / "disruption-budget.yaml").exists()


def test_explain_prints_the_explanation() -> None:
    ran = crosswind("render", EXAMPLES / "minimal.yaml", "--explain")
    assert ran.exit_code == 0
    assert "Decides which tasks run" in ran.output


@pytest.mark.parametrize("options", [["--explain"], ["--helm-values"], ["--explain", "--helm-values"]])
def test_a_folder_is_refused_where_nothing_would_be_written_to_it(tmp_path: Path, options: list[str]) -> None:
    ran = crosswind("render", EXAMPLES / "minimal.yaml", "-o", tmp_path / "manifests", *options)
    assert ran.exit_code == 2
    assert f"{options[0]} prints only: leave out --output" in ran.output
    assert not (tmp_path / "manifests").exists()


def test_objects_are_printed_as_json_for_programs(tmp_path: Path) -> None:
    ran = CliRunner().invoke(main, ["render", str(EXAMPLES / "minimal.yaml"), "--output", "json"])
    objects = json.loads(ran.stdout)
    assert {rendered["path"] for rendered in objects} >= {"configmap.yaml", "scheduler/deployment.yaml"}
    assert all(rendered["reason"] and rendered["manifest"]["kind"] for rendered in objects)
    ran = CliRunner().invoke(main, ["render", str(EXAMPLES / "minimal.yaml"), "--output", "json", "--helm-values"])
    assert json.loads(ran.stdout)["values"]["fullnameOverride"] == "airflow"
