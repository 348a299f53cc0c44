"""Runs a DAG by Airflow's own machinery, in a home of its own; started by test_operator_in_dags."""

from __future__ import annotations

import os
from datetime import datetime

from airflow.sdk import DAG, task
from airflow.utils.db import initdb

from crosswind.operators import KubernetesPodOperator

COMMON = {
    "kubernetes_conn_id": None,
    "config_file": os.environ["TEST_KUBECONFIG"],
    "namespace": os.environ["TEST_NAMESPACE"],
    "image": os.environ["TEST_IMAGE"],
    "image_pull_policy": os.environ["TEST_PULL_POLICY"],
}
FILE = "/airflow/xcom/return.json"


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


with DAG("pods", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
    first = KubernetesPodOperator(task_id="first", cmds=shell(f"echo 5 > {FILE}"), do_xcom_push=True, **COMMON)
    deferred = KubernetesPodOperator(
        task_id="deferred",
        cmds=shell(f"echo '{{{{ ti.xcom_pull(\"first\") + 1 }}}}' > {FILE}"),
        do_xcom_push=True,
        deferrable=True,
        **COMMON,
    )
    mapped = KubernetesPodOperator.partial(task_id="mapped", cmds=["echo"], **COMMON).expand(arguments=[["1"], ["2"]])

    @task.pod(do_xcom_push=True, multiple_outputs=True, **{**COMMON, "image": os.environ["TEST_PYTHON_IMAGE"]})
    def split(number: int) -> dict[str, int]:
        return {"half": number // 2, "number": number}

    @task
    def check(half: int) -> None:
        assert half == 3

    first >> deferred >> mapped
    check(split(deferred.output)["half"])

if __name__ == "__main__":
    initdb()
    run = dag.test()
    for instance in run.get_task_instances():
        print("STATE", instance.task_id, instance.map_index, instance.state)
