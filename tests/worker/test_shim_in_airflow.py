"""The shim around the real worker: what it reports, how soon it ends, and that it costs no task anything."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from rig import Rig

from deadlines import scaled

pytestmark = pytest.mark.timeout(300)

WITHOUT = "runs without Crosswind's worker shim"


def test_the_seconds_of_each_part_and_the_use_of_the_pod_are_reported(rig: Rig) -> None:
    run = rig.start("succeeds_0")
    run.reached("began")
    time.sleep(0.3)  # the user's code has to last
    (run.folder / "go").touch()
    assert run.ended() == 0
    assert run.state == "success"
    record = run.record
    assert record["run"] >= 0.3
    assert record["imports"] > 0.1
    assert record["parse"] > 0
    assert record["bundle"] > 0
    assert len(run.message) <= 1000


def test_what_the_task_wrote_into_the_termination_message_stays(rig: Rig) -> None:
    run = rig.start("says_something_0", environment={"TERMINATION_LOG": "termination-log"})
    assert run.ended() == 0
    assert run.record["run"] >= 0
    assert run.message.endswith(b"\nof the task")


def test_the_logs_end_follows_the_record_of_a_task_that_failed_as_the_kubelet_would_have_it(rig: Rig) -> None:
    run = rig.start("raises_0", options={"grace": 2, "fallback": True})
    run.reached("began")
    run.signal()
    assert run.ended() == 143
    assert b"on_kill" in run.message
    assert len(run.message) < 4096


def test_the_container_ends_when_its_task_has_ended(rig: Rig) -> None:
    late = []
    for _ in range(6):  # Airflow's own worker is five seconds late every other time
        run = rig.start("succeeds_0")
        run.reached("began")
        (run.folder / "go").touch()
        assert run.ended() == 0
        late.append(time.time() - (run.folder / "ended").stat().st_mtime)
    assert max(late) < 3, late


# --- where something is not as expected -------------------------------------------------------------------------------

OTHER_COORDINATOR = """
import airflow.sdk.execution_time.coordinator as c
renamed = c._PythonCoordinator
del c._PythonCoordinator
c._build_python_coordinator = renamed
"""
NO_METHOD = """
import airflow.sdk.execution_time.supervisor as s
s.ActivitySubprocess._watch = s.ActivitySubprocess._monitor_subprocess
del s.ActivitySubprocess._monitor_subprocess
def wait(self):
    self._watch()
    self.update_task_state_if_needed()
    return self._exit_code
s.ActivitySubprocess.wait = wait
"""


@pytest.mark.parametrize("change", [OTHER_COORDINATOR, NO_METHOD])
def test_a_supervisor_that_is_not_as_expected_runs_the_task_as_ever(rig: Rig, tmp_path: Path, change: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(change)
    run = rig.start("succeeds_0", environment={"PYTHONPATH": str(tmp_path)})
    run.reached("began")
    (run.folder / "go").touch()
    assert run.ended() == 0
    assert run.state == "success"
    assert run.log.count(WITHOUT) == 1


def test_without_pidfds_a_failure_is_held_back_all_the_same(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os\ndef refused(*_): raise PermissionError(1, 'Operation not permitted')\nos.pidfd_open = refused\n"
    )
    run = rig.start("raises_0", environment={"PYTHONPATH": str(tmp_path)}, options={"grace": 2})
    run.reached("began")
    run.signal()
    assert run.ended() == 143
    assert run.record["reason"] == "terminated"
    assert run.state == "running"
    assert run.log.count("may end some seconds after its task") == 1


def test_a_workload_that_cannot_be_read_ends_as_with_airflows_own_command(rig: Rig, tmp_path: Path) -> None:
    path = tmp_path / "workload.json"
    path.write_text("{}")
    shim = Path(sys.modules["crosswind.worker.shim"].__file__ or "")
    ran = subprocess.run(
        [sys.executable, str(shim), "--json-path", str(path)],
        env=rig.environment,
        capture_output=True,
        text=True,
        timeout=scaled(90),
        check=False,
    )
    assert ran.returncode == 1
    assert "Failed to read file" in ran.stdout + ran.stderr


def test_coordinators_of_other_languages_see_airflows_own_class(rig: Rig) -> None:
    program = """
from crosswind.worker import shim
from airflow.sdk.execution_time import supervisor
before = supervisor.ActivitySubprocess
shim.watch_supervisor(shim.Worker(shim.Options({})))
from airflow.sdk.coordinators._subprocess import _PopenActivitySubprocess as other
assert supervisor.ActivitySubprocess is before
assert other.__mro__[1] is before
assert not issubclass(other, shim.WatchedActivity)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=rig.environment,
        capture_output=True,
        text=True,
        timeout=scaled(90),
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def test_dags_may_import_what_lies_in_the_working_directory(rig: Rig, tmp_path: Path) -> None:
    path = tmp_path / "sys.path"
    program = f"import atexit, sys; atexit.register(lambda: open({str(path)!r}, 'w').write(repr(sys.path[0])))"
    (tmp_path / "sitecustomize.py").write_text(program)
    run = rig.start("fails_0", environment={"PYTHONPATH": str(tmp_path)})
    assert run.ended() == 0
    assert path.read_text() == repr(str(run.folder))


# --- bytecode ---------------------------------------------------------------------------------------------------------


def test_a_bytecode_cache_serves_where_the_image_has_none(rig: Rig, tmp_path: Path) -> None:
    package = tmp_path / "image" / "airflow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    cache = tmp_path / "cache"
    cache.mkdir()
    program = (
        "import os, sys\n"
        "from crosswind.worker import shim\n"
        f"used = shim.use_bytecode({str(cache)!r})\n"
        "print(used, sys.pycache_prefix, os.environ.get('PYTHONPYCACHEPREFIX'))\n"
    )

    def run() -> list[str]:
        environment = rig.environment | {"PYTHONPATH": f"{tmp_path / 'image'}:{Path(__file__).parents[2] / 'src'}"}
        ran = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            timeout=scaled(60),
            check=True,
        )
        return ran.stdout.split()

    assert run() == ["True", str(cache), str(cache)]
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(package)], check=True)
    assert run() == ["False", "None", "None"]
