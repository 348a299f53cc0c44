"""What the shim decides, as values: which failures are held back, what the termination message says, what was used."""

from __future__ import annotations

import ast
import json
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crosswind.worker import shim

KILLED = -signal.SIGKILL


def held(**facts: Any) -> str:
    usual = {"exit_code": 1, "own": False, "signalled": False, "killed": False, "oom_kills": 0, "delivered": False}
    return shim.held_reason(**{"final": "failed", **usual, **facts})


@pytest.mark.parametrize("final", ["failed", "up_for_retry"])
@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, ""),
        ({"signalled": True}, "terminated"),
        ({"signalled": True, "exit_code": -signal.SIGTERM}, "terminated"),
        ({"signalled": True, "exit_code": KILLED, "killed": True}, "terminated"),
        ({"signalled": True, "exit_code": KILLED, "killed": True, "oom_kills": 1}, "terminated"),
        ({"signalled": True, "exit_code": KILLED, "oom_kills": 1}, "oom"),
        ({"exit_code": KILLED, "oom_kills": 1}, "oom"),
        ({"exit_code": KILLED}, ""),  # somebody's kill -9
        ({"exit_code": 1, "oom_kills": 1}, ""),  # a process of the task was killed, and the task said that it failed
        ({"signalled": True, "own": True}, ""),  # it had failed before the signal
        ({"exit_code": KILLED, "oom_kills": 1, "own": True}, ""),
        ({"signalled": True, "delivered": True}, ""),
    ],
)
def test_a_failure_is_held_back_only_when_it_may_not_be_the_tasks_own(
    final: str, facts: dict[str, Any], reason: str
) -> None:
    assert held(final=final, **facts) == reason


@pytest.mark.parametrize(
    "final", ["success", "skipped", "deferred", "up_for_reschedule", "awaiting_input", "SERVER_TERMINATED", "removed"]
)
def test_other_states_are_never_held_back(final: str) -> None:
    assert held(final=final, signalled=True, exit_code=KILLED, oom_kills=3) == ""


class RetryTask(SimpleNamespace):
    pass


class TaskState(SimpleNamespace):
    pass


class SucceedTask(SimpleNamespace):
    pass


@pytest.mark.parametrize(
    ("message", "is_failure"),
    [
        (RetryTask(), True),
        (TaskState(state="failed"), True),
        (TaskState(state=SimpleNamespace(value="failed")), True),
        (TaskState(state="skipped"), False),
        (TaskState(), False),
        (SucceedTask(state="success"), False),
    ],
)
def test_messages_of_failure_are_known_by_name_and_state(message: Any, is_failure: bool) -> None:
    assert shim.is_failure(message) is is_failure


def test_the_shim_imports_the_standard_library_and_late_airflow() -> None:
    tree = ast.parse(Path(shim.__file__).read_text())
    modules = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    modules += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    packages = {module.partition(".")[0] for module in modules}
    assert packages - sys.stdlib_module_names == {"airflow"}
    at_the_top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert "airflow" not in ast.unparse(ast.Module(at_the_top, []))


def test_the_shim_is_valid_on_the_oldest_python_of_airflow() -> None:
    ast.parse(Path(shim.__file__).read_text(), feature_version=(3, 10))


# --- the termination message ------------------------------------------------------------------------------------------

FIGURES = {"reason": "", "peak": 123_456_789, "oom_kills": None, "cpu": 3.2, "run": 1.5}


def test_the_record_comes_first_and_leaves_out_what_is_not_known() -> None:
    text = shim.message(b"of the task", FIGURES)
    line, _, rest = text.partition(b"\n")
    assert json.loads(line) == {"crosswind": 1, "peak": 123_456_789, "cpu": 3.2, "run": 1.5}
    assert line.startswith(shim.MARKER)
    assert rest == b"of the task"
    assert shim.without_record(text) == b"of the task"


def test_the_logs_end_stands_only_where_the_task_wrote_nothing() -> None:
    assert shim.message(b"", FIGURES, b"last words").endswith(b"\nlast words")
    assert b"last words" not in shim.message(b"of the task", FIGURES, b"last words")


@pytest.mark.parametrize("size", [3000, 4000, 4096, 5000])
@pytest.mark.parametrize("reason", ["", "oom"])
def test_a_long_message_of_the_task_costs_the_record_its_figures_and_never_a_reason(size: int, reason: str) -> None:
    own = bytes(range(97, 123)) * 200
    own = own[:size]
    text = shim.message(own, {**FIGURES, "reason": reason})
    kept = text[-shim.MESSAGE_LIMIT :]  # what the kubelet reads
    if reason:
        assert json.loads(kept.partition(b"\n")[0])["reason"] == reason
    assert own.endswith(shim.without_record(kept)[-4000:])
    assert len(shim.without_record(kept)) >= min(size, shim.MESSAGE_LIMIT - 40)


def test_a_record_is_never_longer_than_its_limit() -> None:
    line = shim.record_line({"reason": "oom", "text": "x" * 5000})
    assert len(line) <= shim.RECORD_LIMIT
    assert json.loads(line) == {"crosswind": 1, "reason": "oom"}


def test_the_log_is_cut_as_the_kubelet_cuts_it() -> None:
    assert shim.last_lines(b"x\n" * 200) == b"x\n" * 80
    assert shim.last_lines(b"y" * 5000) == b"y" * 2048
    assert shim.last_lines(b"short") == b"short"


def test_a_message_is_rewritten_around_what_the_task_wrote(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    path.write_bytes(b"result=7")
    worker = shim.Worker(shim.Options({"message": str(path), "fallback": True}))
    worker.log_end += b"the log's end"
    worker.write_message("terminated", 143)
    assert json.loads(path.read_bytes().partition(b"\n")[0])["reason"] == "terminated"
    worker.write_message()
    first, _, rest = path.read_bytes().partition(b"\n")
    assert "reason" not in json.loads(first)
    assert rest == b"result=7"


def test_the_logs_end_is_no_message_of_the_task_when_it_is_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    path.touch()
    worker = shim.Worker(shim.Options({"message": str(path), "fallback": True}))
    worker.log_end += b"half way"
    worker.write_message("terminated", 143)
    assert path.read_bytes().endswith(b"\nhalf way")
    worker.log_end += b", done"
    worker.write_message("terminated", 143)
    assert path.read_bytes().endswith(b"\nhalf way, done")
    worker.write_message()
    assert b"half way" not in path.read_bytes()


def test_without_a_file_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "none"
    shim.Worker(shim.Options({"message": str(path)})).write_message("oom", 137)
    assert not path.exists()


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "1", '{"grace": "soon", "message": "", "fallback": "no"}'])
def test_options_that_cannot_be_read_are_the_defaults(text: str) -> None:
    options = shim.read_options(text)
    assert (options.message, options.fallback, options.bytecode) == ("/dev/termination-log", False, "")
    assert options.patience == 25


@pytest.mark.parametrize(("grace", "patience"), [(0, 0), (1, 0.5), (8, 4), (30, 25), (600, 595)])
def test_the_task_keeps_most_of_the_grace_period(grace: float, patience: float) -> None:
    assert shim.Options({"grace": grace}).patience == patience


# --- cgroups ----------------------------------------------------------------------------------------------------------


def tree(folder: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


# What the kernel prints, for a machine that has the other version: Documentation/admin-guide/cgroup-v2.rst, "Memory
# Interface Files" and "CPU Interface Files"; memory_events_show and memory_peak_show of mm/memcontrol.c (Linux 6.12).
V2 = {
    "cgroup.controllers": "cpuset cpu io memory pids\n",
    "memory.current": "52428800\n",
    "memory.peak": "104857600\n",
    "memory.max": "471859200\n",
    "memory.events": "low 0\nhigh 3\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n",
    "memory.events.local": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
    "cpu.stat": "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnice_usec 0\n"
    "core_sched.force_idle_usec 0\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\nnr_bursts 0\nburst_usec 0\n",
}
V1 = {
    "memory.max_usage_in_bytes": "104857600\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
}
READ = {"peak": 104_857_600, "oom_kills": 1, "cpu": 1.5}


@pytest.mark.parametrize("path", ["/", "/kubepods/pod1/container", "/../../pod1/container"])
def test_version_2_is_read_at_the_mount_or_below_it(tmp_path: Path, path: str) -> None:
    root = tree(tmp_path / "mount", V2)
    membership = tmp_path / "cgroup"
    membership.write_text(f"0::{path}\n")
    assert shim.read_usage(root, str(membership)) == READ


def test_version_2_is_read_below_a_mount_of_the_whole_tree(tmp_path: Path) -> None:
    # The root group of a machine has cpu.stat, and of memory.* only what other files say (cgroup-v2.rst: "exists on
    # non-root cgroups").
    path = "kubepods.slice/kubepods-pod1.slice/cri-containerd-1.scope"
    files = {"cpu.stat": "usage_usec 9000000\n", "memory.stat": "anon 1\n"}
    root = tree(tmp_path / "mount", files | {f"{path}/{name}": text for name, text in V2.items()})
    membership = tmp_path / "cgroup"
    membership.write_text(f"0::/{path}\n")
    assert shim.read_usage(root, str(membership)) == READ


@pytest.mark.parametrize(
    ("missing", "read"),
    [("memory.peak", {"peak": None}), ("memory.events", {"oom_kills": None}), ("cpu.stat", {"cpu": None})],
)
def test_version_2_of_an_older_kernel_lacks_a_figure_alone(tmp_path: Path, missing: str, read: dict[str, Any]) -> None:
    # memory.peak came with Linux 5.19; a controller that is not enabled for a group has no files there.
    root = tree(tmp_path, {name: text for name, text in V2.items() if name != missing})
    assert shim.read_usage(root, "/proc/none") == {**READ, **read}


def test_a_machine_with_both_versions_has_its_memory_in_the_first(tmp_path: Path) -> None:
    files = {f"memory/kubepods/{name}": text for name, text in V1.items()}
    files |= {"cpuacct/kubepods/cpuacct.usage": "1500000000\n", "unified/kubepods/cpu.stat": "usage_usec 7\n"}
    membership = tmp_path / "cgroup"
    membership.write_text("4:memory:/kubepods\n2:cpuacct:/kubepods\n1:name=systemd:/kubepods\n0::/kubepods\n")
    assert shim.read_usage(tree(tmp_path / "mount", files), str(membership)) == READ


def mounted(version: str) -> list[str]:
    """Return the mount points of cgroup file systems of a version, "cgroup" or "cgroup2"."""
    fields = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [point for _, point, kind, *_ in fields if kind == version]


@pytest.mark.parametrize("point", mounted("cgroup2"))
def test_the_kernels_own_version_2_is_read(point: str) -> None:
    before = shim.read_usage(point, "/proc/none")["cpu"]
    assert before > 0  # the root group has cpu.stat, whichever version its controllers are bound to
    usage = shim.read_usage(point, "/proc/none")
    assert usage["cpu"] >= before
    names = {"peak": "memory.peak", "oom_kills": "memory.events"}  # not in a root group
    assert {key: usage[key] is not None for key in names} == {key: Path(point, names[key]).exists() for key in names}


@pytest.mark.parametrize("path", ["/", "/kubepods/pod1/container"])
@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("controller", ["cpuacct", "cpu,cpuacct"])
def test_version_1_is_read_at_the_mount_or_below_it(tmp_path: Path, path: str, below: bool, controller: str) -> None:
    inside = path if below else ""
    root = tree(
        tmp_path / "mount",
        {f"memory{inside}/{name}": text for name, text in V1.items()}
        | {f"{controller}{inside}/cpuacct.usage": "1500000000\n"},
    )
    membership = tmp_path / "cgroup"
    membership.write_text(f"11:memory:{path}\n4:{controller}:{path}\n0::/\n")
    assert shim.read_usage(root, str(membership)) == READ


def test_what_the_kernel_does_not_say_is_none(tmp_path: Path) -> None:
    assert shim.read_usage(str(tmp_path), str(tmp_path / "none")) == {"peak": None, "oom_kills": None, "cpu": None}
    root = tree(tmp_path, {"memory.peak": "max\n", "memory.events": "", "cpu.stat": "nonsense"})
    assert shim.read_usage(root, "/proc/none") == {"peak": None, "oom_kills": None, "cpu": None}


def test_this_machine_says_how_much_was_used() -> None:
    usage = shim.read_usage()
    assert set(usage) == {"peak", "oom_kills", "cpu"}
    assert all(value is None or value >= 0 for value in usage.values())


def test_the_child_and_its_parent_share_the_marks() -> None:
    marks = shim.Marks()
    assert marks.get("begun") is None
    assert marks.run_seconds(10.0) is None
    marks.set("begun", 4.0)
    assert marks.run_seconds(10.0) == 6.0
    marks.set("ended", 5.5)
    assert marks.run_seconds(10.0) == 1.5


def test_a_record_has_no_oom_kill_from_before_its_task_and_none_where_there_was_none() -> None:
    worker = shim.Worker(shim.Options({}))
    assert worker.record("")["oom_kills"] is None
    worker.claimed(waited=3.0)
    assert worker.record("")["oom_kills"] is None
    assert worker.record("")["waited"] == 3.0
