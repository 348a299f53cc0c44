from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.shells import SHELLS

from crosswind.podrun.xcom_delivery import (
    CONTAINER,
    NO_VALUE,
    XComDelivery,
    add_sidecar,
    delivered,
    early_delivery,
    is_blocking,
    printed_value,
)
from deadlines import scaled

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
    ("message", "expected"),
    [
        ("value 0\n", NO_VALUE),
        ('value 8\n{"a": 1}', XComDelivery(b'{"a": 1}')),
        ('value 3\n"\u00fc"', XComDelivery('"\u00fc"'.encode())),
        ("log 2 5000\n", XComDelivery(frame=2)),
        ("value 0 0\n", NO_VALUE),
        ('value 8 1\n{"a": 1}', XComDelivery(b'{"a": 1}')),
        ("value 100 3\nhalf", XComDelivery(frame=3)),
        ("value 3 4\n\ufffd", XComDelivery(frame=4)),
    ],
)
def test_the_message_holds_the_value_or_where_it_is(message: str, expected: XComDelivery) -> None:
    assert delivered(ended(message)) == expected


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("large 99999999\n", "99999999 bytes"),
        ("value 100\nhalf", "only 4 of 100 bytes"),
        ("", "left no value"),
        ("strange", "left no value"),
        ("broken its image has no wc\n", "its image has no wc"),
    ],
)
def test_an_incomplete_value_is_a_problem(message: str, said: str) -> None:
    delivery = delivered(ended(message, 137))
    assert delivery is not None
    assert said in delivery.problem


def test_nothing_is_delivered_while_the_sidecar_runs_or_was_never_seen() -> None:
    running = {"status": {"initContainerStatuses": [{"name": CONTAINER, "state": {"running": {}}}]}}
    assert delivered(running) is None
    again = {"waiting": {}}, {"terminated": {"message": "broken its image has no cat\n"}}
    status = {"name": CONTAINER, "state": again[0], "lastState": again[1]}
    delivery = delivered({"status": {"initContainerStatuses": [status]}})
    assert delivery is not None
    assert "has no cat" in delivery.problem
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
    ("lines", "quiet", "expected"),
    [
        ([("04.9", "same 1")], False, None),
        ([("04.9", "same 1")], True, XComDelivery(frame=1)),
        ([("03.0", "none")], True, NO_VALUE),
        ([("05.9", "busy"), ("06.1", "same 1")], False, None),
        ([("06.1", "busy"), ("06.6", "same 2")], False, XComDelivery(frame=2)),
        ([("06.1", "same 0"), ("06.6", "same 0")], False, NO_VALUE),
        ([("06.1", "busy")], True, None),
        ([("06.1", "blind")], True, None),
        ([("06.1", "same 1"), ("06.6", "large")], False, "another sidecar"),
        ([("06.1", "unreadable")], True, "may not read the file"),
        ([("06.1", "same 1"), ("06.2", ""), ("06.3", "begin 2 3")], True, None),
        ([("06.1", "same 1"), ("06.2", "[1, 2]")], True, None),
        ([], True, None),
    ],
)
def test_the_sidecars_words_give_the_state_of_the_file(
    lines: list[tuple[str, str]], quiet: bool, expected: Any
) -> None:
    timed = [(f"2026-01-01T00:00:{time}", text) for time, text in lines]
    delivery = early_delivery(timed, "2026-01-01T00:00:05Z", quiet)
    if isinstance(expected, str):
        assert delivery is not None
        assert expected in delivery.problem
    else:
        assert delivery == expected


def test_a_frame_is_found_whole_or_not_at_all() -> None:
    log = b"same 0\n\nbegin 1 3\nabc\nend 1\nsame 1\n\nbegin 2 14\n\nbegin 1 3\nxyz\nend 2\nsame 2\n"
    assert printed_value(log, 1) == b"abc"
    assert printed_value(log, 2) == b"\nbegin 1 3\nxyz"
    assert printed_value(log, None) == b"\nbegin 1 3\nxyz"
    assert printed_value(log[:-12], 2) is None
    assert printed_value(b"", None) is None


class Sidecar:
    """Runs the sidecar's script as a process, with paths of this test."""

    def __init__(self, folder: Path, shell: str, path: str = "") -> None:
        sidecar = add_sidecar(POD, base="work", image="alpine")["spec"]["initContainers"][-1]
        script = sidecar["command"][2].replace("/airflow/xcom", str(folder / "xcom"))
        self.word, self.log, self.file = folder / "word", folder / "log", folder / "xcom" / "return.json"
        self.file.parent.mkdir()
        environment = {"PATH": path} if path else None
        command = [*shell.split(), "-c", script.replace("/dev/termination-log", str(self.word))]
        command[0] = shutil.which(command[0]) or command[0]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)

    def until(self, said: bytes) -> None:
        ends = time.monotonic() + scaled(20)
        while said not in self.log.read_bytes():
            assert time.monotonic() < ends, self.log.read_bytes()
            time.sleep(0.02)

    def end(self) -> XComDelivery:
        """Send TERM, as the kubelet does, and return the delivery."""
        self.process.terminate()
        code = self.process.wait(scaled(20))
        delivery = delivered(ended(self.word.read_bytes().decode(errors="replace"), code))
        assert delivery is not None
        return delivery

    def value(self) -> bytes | None:
        delivery = self.end()
        assert not delivery.problem
        assert self.process.returncode == 0
        return printed_value(self.log.read_bytes(), delivery.frame) if delivery.value is None else delivery.value


in_each_shell = pytest.mark.parametrize("shell", SHELLS)


@in_each_shell
def test_the_script_delivers_the_file_by_message_and_log(shell: str, tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path, shell)
    sidecar.until(b"none")
    sidecar.file.write_bytes(b"[1, 2]")
    sidecar.until(b"same 1")
    sidecar.file.write_bytes(b"x" * 5000)
    assert sidecar.value() == b"x" * 5000
    assert printed_value(sidecar.log.read_bytes(), 1) == b"[1, 2]"


@in_each_shell
@pytest.mark.parametrize("size", [1, 3000, 3990])
def test_a_short_value_is_in_the_log_too_for_a_message_that_is_cut(shell: str, size: int, tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path, shell)
    sidecar.until(b"none")
    sidecar.file.write_bytes(b"x" * size)
    assert sidecar.end() == XComDelivery(b"x" * size)
    cut = delivered(ended(sidecar.word.read_text()[: 12_288 // 40]))
    assert cut is not None
    assert (cut.value or printed_value(sidecar.log.read_bytes(), cut.frame)) == b"x" * size


@in_each_shell
def test_no_file_and_an_empty_one_are_no_value(shell: str, tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path, shell)
    sidecar.until(b"none")
    sidecar.file.touch()
    assert sidecar.end() == NO_VALUE


@in_each_shell
def test_the_script_speaks_only_when_the_file_changes(shell: str, tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path, shell)
    sidecar.until(b"none")
    sidecar.file.write_bytes(b"7")
    sidecar.until(b"same 1")
    said = sidecar.log.read_bytes()
    time.sleep(1.6)  # three checks of the file
    assert sidecar.log.read_bytes() == said == b"none\nbusy\n\nbegin 1 1\n7\nend 1\nsame 1\n"
    assert sidecar.value() == b"7"
    assert sidecar.log.read_bytes() == said


@pytest.mark.parametrize("missing", ["cksum", "cksum md5sum", "cksum md5sum sha1sum"])
def test_a_value_arrives_without_a_command_for_checksums(missing: str, tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path, SHELL, commands(tmp_path, "cat", "wc", "sleep", "cksum", "md5sum", less=missing))
    sidecar.until(b"none" if missing == "cksum" else b"blind")
    sidecar.file.write_bytes(b"[1]")
    assert sidecar.value() == b"[1]"


@pytest.mark.parametrize("missing", ["cat", "wc", "sleep"])
def test_an_image_without_a_command_is_said_at_once(missing: str, tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path, SHELL, commands(tmp_path, "cat", "wc", "sleep", "cksum", less=missing))
    assert sidecar.process.wait(scaled(20)) == 1
    assert f"its image has no {missing}" in sidecar.end().problem


@pytest.mark.parametrize("failing", ["cat", "wc"])
def test_a_command_that_fails_is_said(failing: str, tmp_path: Path) -> None:
    path = commands(tmp_path, "cat", "wc", "sleep", "cksum", less=failing)
    fails(path, failing)
    sidecar = Sidecar(tmp_path, SHELL, path)
    sidecar.until(b"none")
    sidecar.file.write_bytes(b"[1]")
    sidecar.until(b"unreadable")
    assert f"{failing} cannot read" in sidecar.end().problem


def test_a_sleep_that_takes_whole_seconds_only_will_do(tmp_path: Path) -> None:
    path = commands(tmp_path, "cat", "wc", "cksum")
    sleep = Path(path) / "sleep"
    sleep.write_text(f'#!/bin/sh\n[ "$1" = 1 ] || exit 2\nexec {shutil.which("sleep")} 1\n')
    sleep.chmod(0o755)
    sidecar = Sidecar(tmp_path, SHELL, path)
    sidecar.until(b"none")
    sidecar.file.write_bytes(b"[1]")
    sidecar.until(b"same 1")
    assert sidecar.value() == b"[1]"


def test_a_sleep_that_fails_is_said(tmp_path: Path) -> None:
    path = commands(tmp_path, "cat", "wc", "cksum")
    fails(path, "sleep")
    sidecar = Sidecar(tmp_path, SHELL, path)
    assert sidecar.process.wait(scaled(20)) == 1
    assert "sleep does not work" in sidecar.end().problem


def test_a_checksum_that_fails_loses_no_value(tmp_path: Path) -> None:
    path = commands(tmp_path, "cat", "wc", "sleep")
    fails(path, "cksum")
    sidecar = Sidecar(tmp_path, SHELL, path)
    sidecar.file.write_bytes(b"[1]")
    sidecar.until(b"unreadable")
    assert sidecar.value() == b"[1]"


def test_a_link_out_of_the_folder_is_said(tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path, SHELL)
    sidecar.until(b"none")
    sidecar.file.symlink_to("/no/such/file")
    assert "is a link to a file that is not in" in sidecar.end().problem


def test_a_folder_in_the_file_s_place_is_said(tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path, SHELL)
    sidecar.until(b"none")
    sidecar.file.mkdir()
    assert "wc cannot read" in sidecar.end().problem


SHELL = "sh"


def commands(folder: Path, *names: str, less: str = "") -> str:
    """Return a PATH with these commands and no other."""
    place = folder / "bin"
    place.mkdir()
    for name in set(names) - set(less.split()):
        (place / name).symlink_to(shutil.which(name) or name)
    return str(place)


def fails(path: str, name: str) -> None:
    """Add a command that fails."""
    command = Path(path) / name
    command.write_text("#!/bin/sh\nexit 3\n")
    command.chmod(0o755)
