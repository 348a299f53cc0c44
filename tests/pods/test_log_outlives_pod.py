from __future__ import annotations

from typing import Any

import pytest

from crosswind.pods.kept_logs import log_outlives_pod

FOLDER = "/opt/airflow/logs"
CLAIM = {"persistentVolumeClaim": {"claimName": "logs"}}


def pod(mounts: dict[str, dict[str, Any]], env: dict[str, str] | None = None) -> dict[str, Any]:
    base = {
        "name": "base",
        "env": [{"name": name, "value": value} for name, value in (env or {}).items()],
        "volumeMounts": [{"name": f"v{index}", "mountPath": path} for index, path in enumerate(mounts)],
    }
    volumes = [{"name": f"v{index}", **source} for index, source in enumerate(mounts.values())]
    return {"spec": {"containers": [{"name": "istio-proxy"}, base], "volumes": volumes}}


@pytest.mark.parametrize(
    ("mounts", "kept"),
    [
        ({FOLDER: CLAIM}, True),
        ({FOLDER + "/": CLAIM}, True),
        ({"/opt/airflow": CLAIM}, True),
        ({FOLDER: {"hostPath": {"path": "/var/log"}}}, True),
        ({FOLDER: {"csi": {"driver": "efs.csi.aws.com"}}}, True),
        ({FOLDER: {"emptyDir": {}}}, False),
        ({FOLDER: {"ephemeral": {}}}, False),
        ({"/opt/airflow": CLAIM, FOLDER: {"emptyDir": {}}}, False),
        ({"/opt/airflow": {"emptyDir": {}}, FOLDER: CLAIM}, True),
        ({"/opt/airflow/logs-of-others": CLAIM}, False),
        ({"/opt/airflow/logs/deeper": CLAIM}, False),
        ({}, False),
    ],
)
def test_a_log_lasts_where_the_nearest_mount_does(mounts: dict[str, dict[str, Any]], kept: bool) -> None:
    assert log_outlives_pod(pod(mounts), FOLDER) is kept


def test_the_worker_s_own_folder_counts() -> None:
    own = {"AIRFLOW__LOGGING__BASE_LOG_FOLDER": "/logs"}
    assert log_outlives_pod(pod({"/logs": CLAIM}, own), FOLDER)
    assert not log_outlives_pod(pod({FOLDER: CLAIM}, own), FOLDER)


@pytest.mark.parametrize("broken", [None, {}, {"spec": None}, {"spec": {"containers": "base", "volumes": 3}}])
def test_a_value_that_is_no_pod_keeps_no_log(broken: Any) -> None:
    assert not log_outlives_pod(broken, FOLDER)
