from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crosswind.testing import Cluster
from deadlines import scaled


@pytest.mark.cluster
@pytest.mark.timeout(240)
def test_airflow_itself_runs_our_operators_in_a_dag(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    shutil.copy(Path(__file__).with_name("dag_of_pods.py"), tmp_path / "dags")
    environment = os.environ | {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "TEST_KUBECONFIG": str(cluster.kubeconfig),
        "TEST_NAMESPACE": namespace,
        "TEST_IMAGE": cluster.image,
        "TEST_PYTHON_IMAGE": cluster.airflow_image,
        "TEST_PULL_POLICY": cluster.pull_policy,
    }
    command = [sys.executable, str(tmp_path / "dags" / "dag_of_pods.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=scaled(220))
    states = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("STATE")]
    assert sorted(states) == [
        ["check", "-1", "success"],
        ["deferred", "-1", "success"],
        ["first", "-1", "success"],
        ["mapped", "0", "success"],
        ["mapped", "1", "success"],
        ["split", "-1", "success"],
    ], done.stdout[-3000:] + done.stderr[-2000:]
