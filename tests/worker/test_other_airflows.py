"""The shim in the images of older Airflows: their core and Task SDK, from PyPI, before this environment's own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rig import Rig, at_rest, python_path, until

from deadlines import scaled

pytestmark = pytest.mark.timeout(600)

VERSIONS = {"3.3.0": "1.3.0", "3.3.1": "1.3.1"}
"""Airflow's, and that of its Task SDK."""


@pytest.fixture(scope="module", params=list(VERSIONS))
def older(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp(f"airflow-{request.param}")
    packages = [f"apache-airflow-core=={request.param}", f"apache-airflow-task-sdk=={VERSIONS[request.param]}"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *packages],
        check=True,
        timeout=scaled(300),
    )
    ran = subprocess.run(
        [sys.executable, "-c", "import airflow, airflow.sdk as sdk; print(airflow.__version__, sdk.__file__)"],
        env=python_path(folder),
        capture_output=True,
        text=True,
        check=True,
        timeout=scaled(60),
    )
    version, file = ran.stdout.split()
    assert version == request.param
    assert Path(file).is_relative_to(folder)
    return folder


def test_a_task_succeeds_and_its_container_ends_with_a_report(rig: Rig, older: Path) -> None:
    run = rig.start("succeeds_0", environment=python_path(older))
    run.reached("began")
    (run.folder / "go").touch()
    assert run.ended() == 0
    assert run.state == "success"
    assert run.record["run"] >= 0
    assert run.record["parse"] > 0
    assert "without Crosswind" not in run.log


@pytest.mark.parametrize("dag", ["bash_0", "raises_2", "sleeps_0"])
def test_a_failure_after_sigterm_is_held_back(rig: Rig, older: Path, dag: str) -> None:
    run = rig.start(dag, environment=python_path(older), options={"grace": 2})
    run.reached("began")
    run.signal()
    assert run.ended() == 143
    assert run.record["reason"] == "terminated"
    assert run.state == "running"
    assert not run.has("callback")


@pytest.mark.parametrize("dag", ["bash_0", "raises_2"])
def test_a_failure_waits_for_a_supervisor_that_is_late(rig: Rig, older: Path, dag: str) -> None:
    run = rig.start(dag, environment=python_path(older), options={"grace": 2})
    run.reached("began")
    child = run.child
    with run.supervisor_stopped():
        run.signal("all")
        until(lambda: at_rest(child))
        child.send_signal(signal.SIGTERM)
        until(lambda: at_rest(child))
        assert not run.has("callback")
    assert run.ended() == 143
    assert run.state == "running"
    assert not run.has("callback")


@pytest.mark.parametrize(("retries", "state"), [(0, "failed"), (2, "up_for_retry")])
def test_its_own_failure_is_reported(rig: Rig, older: Path, retries: int, state: str) -> None:
    run = rig.start(f"fails_{retries}", environment=python_path(older))
    assert run.ended() == 0
    assert run.state == state
