from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.shells import SHELLS

from crosswind.pods.xcoms import CONTAINER, NOTHING, Delivery, add_sidecar, delivered, is_blocking, printed, standing

POD: dict[str, Any] = {
    "spec": {
        "containers": [{"name": "side"}, {"name": "work", "securityContext": {"runAsUser": 5}}],
        "initContainers": [{"name": "before"}],
    }
}


def ended(message: str, code: int = 0) -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "reason": "Completed", "message": message}}
    return {"status": {"initContainerStatuses": [{"name": CONTAINER, "state": state}]}}


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("value 0\n", NOTHING),
        ('value 8\n{"a": 1}', Delivery(b'{"a": 1}')),
        ('value 3\n"\u00fc"', Delivery('"\u00fc"'.encode())),
        ("log 2 5000\n", Delivery(frame=2)),
    ],
)
def test_the_message_holds_the_value_or_where_it_is(message: str, wanted: Delivery) -> None:
    assert delivered(ended(message)) == wanted


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("large 99999999\n", "99999999 bytes"),
        ("value 100\nhalf", "only 4 of 100 bytes"),
        ("", "left no word"),
        ("strange", "left no word"),
    ],
)
def test_what_is_not_whole_is_a_problem(message: str, said: str) -> None:
    found = delivered(ended(message, 137))
    assert found is not None
    assert said in found.problem


def test_nothing_is_delivered_while_the_sidecar_runs_or_was_never_seen() -> None:
    running = {"status": {"initContainerStatuses": [{"name": CONTAINER, "state": {"running": {}}}]}}
    assert delivered(running) is None
    assert delivered({}) is None


def test_the_sidecar_is_native_last_and_shares_a_volume_with_base_alone() -> None:
    spec = add_sidecar(POD, base="work", image="alpine")["spec"]
    sidecar = spec["initContainers"][-1]
    assert (sidecar["name"], sidecar["restartPolicy"], sidecar["securityContext"]) == (
        CONTAINER,
        "Always",
        {"runAsUser": 5},
    )
    assert "volumeMounts" not in spec["containers"][0]
    assert spec["containers"][1]["volumeMounts"] == sidecar["volumeMounts"]
    assert "volumes" not in POD["spec"]


def test_a_sidecar_that_lost_its_restart_policy_would_block_the_pod() -> None:
    pod = add_sidecar(POD, base="work", image="alpine")
    assert not is_blocking(pod)
    del pod["spec"]["initContainers"][-1]["restartPolicy"]
    assert is_blocking(pod)


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([("05.9", "same 0"), ("06.1", "same 0")], None),
        ([("06.1", "same 0"), ("06.6", "same 0")], NOTHING),
        ([("06.1", "same 1"), ("06.6", "same 2")], Delivery(frame=2)),
        ([("06.1", "busy"), ("06.6", "busy")], None),
        ([("06.1", "same 1"), ("06.6", "large")], "large"),
        ([("06.1", "end 1"), ("06.2", ""), ("06.6", "same 1")], None),
    ],
)
def test_two_looks_after_base_s_end_tell_how_the_file_stands(lines: list[tuple[str, str]], wanted: Any) -> None:
    found = standing([(f"2026-01-01T00:00:{time}", text) for time, text in lines], "2026-01-01T00:00:05Z")
    if wanted == "large":
        assert found is not None
        assert "another sidecar" in found.problem
    else:
        assert found == wanted


def test_a_frame_is_found_whole_or_not_at_all() -> None:
    log = b"same 0\n\nbegin 1 3\nabc\nend 1\nsame 1\n\nbegin 2 14\n\nbegin 1 3\nxyz\nend 2\nsame 2\n"
    assert printed(log, 1) == b"abc"
    assert printed(log, 2) == b"\nbegin 1 3\nxyz"
    assert printed(log, None) == b"\nbegin 1 3\nxyz"
    assert printed(log[:-12], 2) is None
    assert printed(b"", None) is None


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_says_by_message_and_log_what_the_file_holds(shell: str, tmp_path: Path) -> None:
    """Runs the script itself, with paths of this test, in the shells that images have."""
    sidecar = add_sidecar(POD, base="work", image="alpine")["spec"]["initContainers"][-1]
    script = (
        sidecar["command"][2]
        .replace("/airflow/xcom", str(tmp_path))
        .replace("/dev/termination-log", str(tmp_path / "word"))
    )
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([*shell.split(), "-c", script], stdout=out)
        (tmp_path / "return.json").write_bytes(b"[1, 2]")
        ends = time.monotonic() + 10
        while b"same 1" not in log.read_bytes() and time.monotonic() < ends:
            time.sleep(0.05)
        (tmp_path / "return.json").write_bytes(b"x" * 5000)
        process.terminate()
        assert process.wait(10) == 0
    assert printed(log.read_bytes(), 1) == b"[1, 2]"
    assert (tmp_path / "word").read_text().startswith("log 2 5000")
    assert printed(log.read_bytes(), 2) == b"x" * 5000
