"""Task files whose queries run in pods of an image of the platform's, ``run.image``, on a cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException
from benchmarks.operator_cells import Instance, execute

from crosswind.operators import KubernetesPodOperator
from crosswind.testing import Cluster

CLIENT = """\
run:
  image: {image}
  command: [sh, -c]
  arguments: ['echo "$TABLE gets: $QUERY"; case $QUERY in *wrong*) exit 7;; esac']
  env: {{TABLE: '${{task.table}}', QUERY: '${{task.query}}'}}
"""


@pytest.fixture
def bundle(cluster: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle of two task files, and the connection by which a worker reaches the cluster."""
    reach = {"kube_config_path": str(cluster.kubeconfig), "namespace": namespace}
    connection = json.dumps({"conn_type": "kubernetes", "extra": reach})
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", connection)
    monkeypatch.setenv("CROSSWIND_CACHE", "")
    files = {
        "loader.py": '"""Airflow DAGs."""\nfrom crosswind.dags import load_tasks\nload_tasks("files")\n',
        "files/crosswind.yaml": CLIENT.format(image=cluster.image),
        "files/daily.yaml": "id: daily\nquery: daily.sql\ntables: [orders]\nresources: {memory: 64Mi}\n",
        "files/daily.sql": "CREATE TABLE daily_sums AS SELECT $$$(TABLE)$$ FROM orders WHERE day = '{{ ds }}'",
        "files/bad.yaml": "id: bad\nquery: bad.sql\ntables: [orders]\n",
        "files/bad.sql": "SELECT wrong FROM orders",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def worker_runs(bundle: Path, task_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what a worker does: import the DAG file for the sake of one task, render its templates, execute it."""
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "files")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID", task_id)

    def build_operator() -> BaseOperator:
        (task,) = DagBag(bundle, bundle_path=bundle, bundle_name="files").dags["files"].tasks
        assert isinstance(task, KubernetesPodOperator)
        task.render_template_fields({"ds": "2026-01-31"})
        return task

    execute(build_operator, Instance(task_id))


def test_the_query_of_a_task_file_reaches_a_pod_of_the_image_with_its_templates_filled(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    worker_runs(bundle, "daily", monkeypatch)
    message = "daily_sums gets: CREATE TABLE daily_sums AS SELECT $$$(TABLE)$$ FROM orders WHERE day = '2026-01-31'"
    assert message in capsys.readouterr().out


def test_a_query_that_fails_in_its_pod_fails_its_task(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AirflowException, match="7"):
        worker_runs(bundle, "bad", monkeypatch)
