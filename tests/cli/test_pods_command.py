"""``crosswind pods render``: pods of real DAG files, without a cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from crosswind.cli import main

DAGS = """
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task
from kubernetes.client import models as k8s

print("a DAG file that prints")

big = k8s.V1Container(name="base", resources=k8s.V1ResourceRequirements(requests={"memory": "4Gi"}))
shared = k8s.V1Volume(name="data", empty_dir=k8s.V1EmptyDirVolumeSource())

with DAG("sales"):

    @task(executor_config={"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[big], volumes=[shared]))})
    def load():
        return [1, 2]

    @task
    def each(number): ...

    each.expand(number=load()) >> EmptyOperator(task_id="done")
"""

TEMPLATE = """
apiVersion: v1
kind: Pod
metadata: {name: worker}
spec:
  containers:
  - {name: base, image: my/airflow:1}
"""


@pytest.fixture
def dag_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dags").mkdir()
    path = tmp_path / "dags" / "sales.py"
    path.write_text(DAGS)
    (tmp_path / "template.yaml").write_text(TEMPLATE)
    classpath = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundle = {"name": "mine", "classpath": classpath, "kwargs": {"path": str(path.parent)}}
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE", str(tmp_path / "template.yaml"))
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE", "workers")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["pods", "render", *map(str, arguments)], catch_exceptions=False)


@pytest.mark.parametrize("by_id", [False, True])
def test_every_task_gets_its_pod_with_template_and_override(dag_file: Path, by_id: bool) -> None:
    result = run("sales" if by_id else dag_file)
    assert result.exit_code == 0, result.stderr
    load, each = yaml.safe_load_all(result.stdout)
    assert load["metadata"]["namespace"] == "workers"
    assert load["metadata"]["labels"]["task_id"] == "load"
    assert load["spec"]["containers"][0]["image"] == "my/airflow:1"
    assert load["spec"]["containers"][0]["resources"] == {"requests": {"memory": "4Gi"}}
    assert each["metadata"]["labels"]["map_index"] == "0"
    assert "no pod: sales.done" in result.stderr
    assert "&id" not in result.stdout


def test_the_workload_is_a_mount_of_a_secret_and_no_token(dag_file: Path) -> None:
    pod = yaml.safe_load(run(dag_file, "--task", "load").stdout)
    assert [volume["name"] for volume in pod["spec"]["volumes"] if "secret" in volume] == ["crosswind-workload"]
    assert pod["spec"]["containers"][0]["args"][-2:] == ["--json-path", "/run/crosswind/workload.json"]
    assert "token" not in str(pod)


def test_a_team_has_pods_of_its_own(dag_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__BLUE___KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE", str(tmp_path / "template.yaml"))
    monkeypatch.setenv("AIRFLOW__BLUE___KUBERNETES_EXECUTOR__NAMESPACE", "blue-workers")
    pod = yaml.safe_load(run(dag_file, "--task", "load", "--team", "blue").stdout)
    assert pod["metadata"]["namespace"] == "blue-workers"


def test_a_folder_gets_a_file_for_each_task(dag_file: Path, tmp_path: Path) -> None:
    result = run(dag_file, "-o", tmp_path / "out", "--map-index", 3)
    assert result.stdout.endswith(f"2 pods written to {tmp_path / 'out'}\n")
    assert sorted(path.name for path in (tmp_path / "out" / "sales").iterdir()) == ["each.3.yaml", "load.yaml"]


def test_a_bad_override_is_reported_with_file_field_and_fix_beside_the_good_pods(dag_file: Path) -> None:
    dag_file.write_text(DAGS.replace('"memory": "4Gi"', '"memory": ["4Gi"]'))
    result = run(dag_file)
    assert result.exit_code == 1
    assert f"{dag_file}: task sales.load: pod_override" in result.stderr
    assert "memory" in result.stderr
    assert yaml.safe_load(result.stdout)["metadata"]["labels"]["task_id"] == "each"


def test_a_bad_template_is_reported_with_file_line_and_fix(dag_file: Path, tmp_path: Path) -> None:
    (tmp_path / "template.yaml").write_text(TEMPLATE.replace("name: base", "name: main"))
    result = run(dag_file, "--task", "load")
    assert result.exit_code == 1
    assert f"{tmp_path / 'template.yaml'}:6: spec.containers has no container named base" in result.stderr


def test_a_dag_file_that_cannot_be_imported_is_reported_by_name(dag_file: Path) -> None:
    dag_file.write_text("import nothing_of_this_name_airflow_dag")
    for target in (dag_file, "sales"):
        result = run(target)
        assert result.exit_code == 1
        assert "nothing_of_this_name" in result.stderr


@pytest.mark.parametrize(
    ("target", "more", "problem"),
    [
        ("missing", [], "no DAG of the configured bundles has the id missing"),
        ("missing.py", [], "there is no DAG file missing.py"),
        ("sales", ["--task", "missing"], "has no task missing"),
    ],
)
def test_what_is_not_there_is_wrong_use(dag_file: Path, target: str, more: list[str], problem: str) -> None:
    result = run(target, *more)
    assert result.exit_code == 2
    assert problem in result.stderr


def test_native_sidecars_follow_the_server_that_is_assumed(dag_file: Path) -> None:
    def asks(*more: str) -> bool:
        pod = yaml.safe_load(run(dag_file, "--task", "load", *more).stdout)
        return "sidecar.istio.io/nativeSidecar" in pod["metadata"]["annotations"]

    assert asks()
    assert not asks("--server-version", "1.28")


def test_a_tasks_queue_is_seen_in_its_pod(dag_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dag_file.write_text(DAGS.replace("@task\n", '@task(queue="gpu")\n'))
    monkeypatch.setenv("AIRFLOW__CROSSWIND__QUEUES", '{"gpu": {"namespace": "gpus", "priority_class": "high"}}')
    load, each = yaml.safe_load_all(run(dag_file).stdout)
    assert load["metadata"]["namespace"] == "workers"
    assert each["metadata"]["namespace"] == "gpus"
    assert each["spec"]["priorityClassName"] == "high"


def test_pods_are_printed_as_json_for_programs(dag_file: Path) -> None:
    ran = run(dag_file, "--output", "json")
    listing = json.loads(ran.stdout)
    assert {"dag_id", "task_id", "map_index", "pod"} == set(listing[0])
    assert all(rendered["pod"]["kind"] == "Pod" for rendered in listing)
