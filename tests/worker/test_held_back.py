"""Which failures reach Airflow, with the real worker and the real Execution API."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from rig import STOCK, Rig, Run, at_rest, until

from crosswind.worker import shim

pytestmark = pytest.mark.timeout(300)

SHORT = {"grace": 2}
"""A grace period of which the task keeps one second."""


def shim_with(folder: Path, changes: Mapping[str, str]) -> list[str]:
    """Return the command of a shim whose text is changed: each key stands in it once."""
    text = Path(shim.__file__).read_text()
    for given, put in changes.items():
        assert text.count(given) == 1
        text = text.replace(given, put)
    (folder / "shim.py").write_text(text)
    return [sys.executable, str(folder / "shim.py")]


@pytest.fixture
def patient_shim(tmp_path: Path) -> list[str]:
    """The shim with more patience, so that a busy machine does not decide about a test."""
    return shim_with(tmp_path, {"LATE_SIGNAL_S = 1.0": "LATE_SIGNAL_S = 60.0"})


def is_held_back(run: Run, reason: str, code: int) -> None:
    assert run.ended() == code
    assert run.record.get("reason") == reason, run.message
    assert run.state == "running"
    assert not run.has("callback")


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("whom", ["process 1", "all"])
@pytest.mark.parametrize("dag", ["bash", "raises", "sleeps"])
def test_a_task_that_fails_after_sigterm_stays_running(rig: Rig, dag: str, whom: str, retries: int) -> None:
    run = rig.start(f"{dag}_{retries}", options=SHORT)
    run.reached("began")
    run.signal(whom)
    is_held_back(run, "terminated", 143)
    assert "asked to end" in run.task_log
    assert "Likely out of memory" not in run.task_log


# A signal to all processes reaches the task's process at once. On a busy machine the supervisor comes to it later, and
# then forwards it once more.


@pytest.mark.parametrize(("dag", "retries"), [("bash", 0), ("raises", 2), ("raises_in_template", 0), ("sleeps", 2)])
def test_a_failure_waits_for_a_supervisor_that_is_late(rig: Rig, dag: str, retries: int) -> None:
    run = rig.start(f"{dag}_{retries}", options=SHORT)
    run.reached("began")
    child = run.child
    with run.supervisor_stopped():
        run.signal("all")
        until(lambda: at_rest(child))
        for _ in range(3):  # the forwarded signal, and one more of each
            child.send_signal(signal.SIGTERM)
            until(lambda: at_rest(child))
        assert not run.has("callback")
    is_held_back(run, "terminated", 143)


@pytest.mark.parametrize(("dag", "retries"), [("bash", 2), ("raises", 0), ("raises_in_template", 2), ("sleeps", 0)])
def test_a_failure_waits_for_a_signal_that_reaches_the_supervisor_last(
    rig: Rig, patient_shim: list[str], dag: str, retries: int
) -> None:
    run = rig.start(f"{dag}_{retries}", options=SHORT, command=patient_shim)
    run.reached("began")
    child = run.child
    run.signal("all but process 1")
    until(lambda: at_rest(child))
    assert run.state == "running"
    assert not run.has("callback")
    run.signal()
    is_held_back(run, "terminated", 143)


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_child_that_dies_of_the_signal_waits_for_that_of_the_supervisor(
    rig: Rig, patient_shim: list[str], number: signal.Signals, retries: int
) -> None:
    run = rig.start(f"succeeds_{retries}", environment={"SLOW_PARSE": "1"}, command=patient_shim)
    run.reached("parsing")
    child = run.child
    run.signal("all but process 1", number)
    until(lambda: not child.is_running())  # reaped: the supervisor knows
    assert run.state == "running"
    run.signal(number=number)
    is_held_back(run, "terminated", 143)


@pytest.mark.parametrize(("retries", "state"), [(0, "failed"), (2, "up_for_retry")])
@pytest.mark.parametrize("dag", ["raises", "bash"])
def test_a_signal_to_the_child_alone_is_the_tasks_own(rig: Rig, dag: str, retries: int, state: str) -> None:
    for command in (None, STOCK):
        run = rig.start(f"{dag}_{retries}", command=command)
        run.reached("began")
        run.child.send_signal(signal.SIGTERM)
        assert run.ended() == 0
        assert run.state == state
        assert run.has("callback")


def test_a_signal_to_processes_that_the_task_forked_is_none_to_the_task(rig: Rig, patient_shim: list[str]) -> None:
    run = rig.start("terminates_its_fork_0", command=patient_shim)
    run.reached("began")
    began = time.monotonic()
    assert run.ended() == 0
    assert time.monotonic() - began < 60  # it did not wait for a signal of the supervisor
    assert run.state == "failed"
    assert run.has("callback")


def test_without_the_shim_the_same_failure_reaches_airflow(rig: Rig) -> None:
    run = rig.start("bash_0", command=STOCK)
    run.reached("began")
    run.signal()
    assert run.ended() == 0
    assert run.state == "failed"
    assert run.has("callback")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_of_either_kind_counts(rig: Rig, number: signal.Signals) -> None:
    run = rig.start("raises_2", options=SHORT)
    run.reached("began")
    run.signal(number=number)
    is_held_back(run, "terminated", 143)


@pytest.mark.parametrize("retries", [0, 2])
def test_sigterm_while_the_dag_is_parsed(rig: Rig, retries: int) -> None:
    run = rig.start(f"succeeds_{retries}", environment={"SLOW_PARSE": "1"})
    run.reached("parsing")
    run.signal()
    is_held_back(run, "terminated", 143)


def test_sigterm_before_the_task_began_leaves_it_queued(rig: Rig, tmp_path: Path) -> None:
    # A module that the imports come by: it shows that the signal arrives in their midst.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, pathlib, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'airflow.sdk.execution_time.supervisor':\n"
        "            (pathlib.Path(os.environ['MARKS']) / 'importing').touch()\n"
        "            import time; time.sleep(600)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    run = rig.start("succeeds_0", environment={"PYTHONPATH": str(tmp_path)})
    run.reached("importing")
    run.signal()
    assert run.ended() == 143
    assert run.record["reason"] == "terminated"
    assert run.state == "queued"


@pytest.mark.parametrize("retries", [0, 2])
def test_a_task_that_is_killed_after_the_signal_leaves_the_reason(rig: Rig, retries: int) -> None:
    run = rig.start(f"sleeps_{retries}")
    run.reached("began")
    run.signal()
    while "reason" not in run.record:  # written at once: the kubelet reads it, whatever ends the container
        assert run.process.poll() is None
    run.kill()
    assert run.record["reason"] == "terminated"
    assert run.state == "running"


def test_the_log_is_uploaded_when_a_failure_is_held_back(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, pathlib\n"
        "def upload(*args, **kwargs):\n"
        "    (pathlib.Path(os.environ['MARKS']) / 'uploaded').touch()\n"
        "import airflow.sdk.log\n"
        "airflow.sdk.log.upload_to_remote = upload\n"
    )
    run = rig.start("raises_0", environment={"PYTHONPATH": str(tmp_path)})
    run.reached("began")
    run.signal()
    is_held_back(run, "terminated", 143)
    assert run.has("uploaded")


# --- what is the task's own -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("retries", "state"), [(0, "failed"), (2, "up_for_retry")])
def test_a_failure_without_a_signal_is_the_tasks_own(rig: Rig, retries: int, state: str) -> None:
    run = rig.start(f"fails_{retries}")
    assert run.ended() == 0
    assert run.state == state
    assert run.has("callback")
    assert "reason" not in run.record


@pytest.mark.parametrize(("retries", "state"), [(0, "failed"), (2, "up_for_retry")])
def test_a_failure_that_came_before_the_signal_is_the_tasks_own(rig: Rig, retries: int, state: str) -> None:
    run = rig.start(f"fails_{retries}", environment={"SLOW_CALLBACK": "1"})
    run.reached("callback")
    run.signal()
    (run.folder / "go").touch()
    assert run.ended() == 0
    assert run.state == state
    assert "reason" not in run.record


@pytest.mark.parametrize(
    ("dag", "state"),
    [
        ("succeeds_0", "success"),
        ("succeeds_2", "success"),
        ("skips_0", "skipped"),
        ("defers_0", "deferred"),
        ("is_rescheduled_0", "up_for_reschedule"),
    ],
)
def test_other_ends_are_reported_after_a_signal(rig: Rig, dag: str, state: str) -> None:
    run = rig.start(dag)
    run.reached("began")
    run.signal()
    (run.folder / "go").touch()
    assert run.ended() == 0
    assert run.state == state
    assert "reason" not in run.record


@pytest.mark.parametrize("retries", [0, 2])
def test_a_second_signal_changes_nothing(rig: Rig, retries: int) -> None:
    run = rig.start(f"cleans_up_{retries}")
    run.reached("began")
    run.signal()
    run.reached("killed")
    run.signal()
    (run.folder / "go").touch()
    is_held_back(run, "terminated", 143)


# Airflow's supervisor takes UP_FOR_RETRY for a state that the child has sent, and sends none: the executor reports it.
@pytest.mark.parametrize(("retries", "state"), [(0, "failed"), (2, "running")])
def test_a_child_that_somebody_killed_ends_as_without_the_shim(rig: Rig, retries: int, state: str) -> None:
    for command in (None, STOCK):
        run = rig.start(f"sleeps_{retries}", command=command)
        run.reached("began")
        (child,) = psutil.Process(run.process.pid).children()
        child.kill()
        assert run.ended() == 0
        assert run.state == state


# --- memory -----------------------------------------------------------------------------------------------------------


def cgroups() -> dict[str, Path]:
    """Return the versions of memory cgroups that this machine has and that we may make groups in."""
    v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    mounted = {}
    if (v1 / "memory.limit_in_bytes").exists():
        mounted["v1"] = v1
    if "memory" in _read(v2 / "cgroup.subtree_control"):
        mounted["v2"] = v2
    return {version: root for version, root in mounted.items() if os.access(root, os.W_OK)}


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.fixture(params=["v1", "v2"])
def limited(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """What puts a process into a group with a limit of 450 MB, without swap."""
    root = cgroups().get(request.param)
    if root is None:
        pytest.skip(f"this machine has no memory cgroups {request.param} that tests may make groups in")
    group = root / f"crosswind-test-{os.getpid()}"
    group.mkdir()
    names = {"v1": ("memory.limit_in_bytes", "memory.swappiness"), "v2": ("memory.max", "memory.swap.max")}
    limit, swap = names[request.param]
    (group / limit).write_text("450000000")
    if (group / swap).exists():
        (group / swap).write_text("0")
    yield lambda: (group / "cgroup.procs").write_text(str(os.getpid())) and None
    for pid in _read(group / "cgroup.procs").split():  # of this test alone
        os.kill(int(pid), signal.SIGKILL)
    group.rmdir()


@pytest.mark.parametrize("retries", [0, 2])
def test_a_child_that_the_kernel_killed_for_memory_is_no_failure_yet(
    rig: Rig, limited: Callable[[], None], retries: int
) -> None:
    run = rig.start(f"takes_memory_{retries}", before=limited)
    is_held_back(run, "oom", 137)
    assert run.record["oom_kills"] >= 1
    assert run.record["peak"] > 400_000_000
    assert "because memory ran out" in run.task_log


@pytest.mark.parametrize("retries", [0, 2])
def test_an_oom_kill_that_version_2_counts_is_no_failure_yet(rig: Rig, tmp_path: Path, retries: int) -> None:
    """The files are the test's own, as the kernel lays them out: see V2 of ``test_shim_decisions.py``."""
    group = tmp_path / "cgroup"
    group.mkdir()
    (tmp_path / "membership").write_text("0::/\n")
    (group / "memory.peak").write_text("429916160\n")
    (group / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n")
    events = "low 0\nhigh 0\nmax 31\noom {0}\noom_kill {0}\noom_group_kill 0\n"
    (group / "memory.events").write_text(events.format(3))  # of an earlier container of the pod
    changes = {'"/sys/fs/cgroup"': repr(str(group)), '"/proc/self/cgroup"': repr(str(tmp_path / "membership"))}
    run = rig.start(f"sleeps_{retries}", command=shim_with(tmp_path, changes))
    run.reached("began")
    (group / "memory.events").write_text(events.format(4))
    run.child.kill()
    is_held_back(run, "oom", 137)
    assert run.record["oom_kills"] == 1
    assert (run.record["peak"], run.record["cpu"]) == (429_916_160, 1.5)
    assert "because memory ran out" in run.task_log


def test_the_peak_of_a_task_that_succeeds_is_reported(rig: Rig, limited: Callable[[], None]) -> None:
    run = rig.start("succeeds_0", before=limited)
    run.reached("began")
    (run.folder / "go").touch()
    assert run.ended() == 0
    assert 50_000_000 < run.record["peak"] < 450_000_000
    assert "oom_kills" not in run.record
