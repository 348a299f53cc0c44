"""Every path that a cluster writes, and what may be there already: nothing of the user's is overwritten or deleted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from deadlines import scaled
from kubelocal.auth.kubeconfig_file import kubeconfig, write_kubeconfig
from kubelocal.cluster import LocalCluster
from kubelocal.errors import SettingError
from kubelocal.owned_paths import FOLDER_FILE, Owner, claim_folder
from kubelocal.settings import LocalSettings
from kubelocal.storage.state_file import StateFile
from kubelocal.storage.store import Store

DEAD = Owner(4194399, 1)  # above the largest process id that Linux gives


@dataclass(frozen=True)
class Written:
    """A path that a cluster writes: ``write`` returns exit code and message, ``leave`` makes a file of this owner."""

    write: Callable[[Path], tuple[int, str]]
    leave: Callable[[Path, Owner], None]


def up(**settings: Any) -> tuple[int, str]:
    async def once() -> None:
        async with LocalCluster(replace(LocalSettings(simulate=1), **settings)):
            pass

    try:
        asyncio.run(once())
    except SettingError as problem:
        return 2, str(problem)
    return 0, ""


def leave_kubeconfig(path: Path, owner: Owner) -> None:
    write_kubeconfig(path, kubeconfig("https://127.0.0.1:1", "t", "ca"), owner)


def leave_state(path: Path, owner: Owner) -> None:
    StateFile(path, owner).load(Store())


WRITTEN = {
    "kubeconfig": Written(lambda path: up(kubeconfig=path), leave_kubeconfig),
    "state": Written(lambda path: up(state_file=path), leave_state),
}


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "mine").write_text("mine")


def _link(path: Path) -> None:
    target = path.with_name("target")
    target.write_text("mine")
    path.symlink_to(target)


THEIRS: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_text("apiVersion: v1\nkind: Config\n"),
    "empty file": lambda path: path.touch(),
    "folder": _folder,
    "link": _link,
    "link to nothing": lambda path: path.symlink_to(path.with_name("nothing")),
    "pipe": os.mkfifo,
}


def seen(folder: Path) -> list[tuple[str, int, object]]:
    """Return everything below a folder: names, kinds, contents."""
    found = []
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if stat.S_ISREG(mode) else b""
        found.append((str(path), mode, content))
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.fixture
def alive() -> Iterator[Owner]:
    """The owner of a process that runs."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        started = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
        yield Owner(process.pid, started)
        process.kill()


@pytest.mark.parametrize("theirs", THEIRS)
@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_of_others_stays_as_it_is(name: str, theirs: str, path: Path, tmp_path: Path) -> None:
    THEIRS[theirs](path)
    before = seen(tmp_path)
    code, text = WRITTEN[name].write(path)
    assert (code, seen(tmp_path)) == (2, before)
    assert str(path) in text


@pytest.mark.parametrize("name", WRITTEN)
def test_the_file_of_an_earlier_run_is_replaced(name: str, path: Path) -> None:
    for _ in range(2):
        assert WRITTEN[name].write(path) == (0, "")


@pytest.mark.parametrize("name", WRITTEN)
def test_the_file_of_a_dead_process_is_taken_over(name: str, path: Path) -> None:
    WRITTEN[name].leave(path, DEAD)
    assert WRITTEN[name].write(path) == (0, "")


@pytest.mark.parametrize("name", WRITTEN)
def test_the_file_of_a_live_process_is_refused_with_its_id(name: str, path: Path, alive: Owner, tmp_path: Path) -> None:
    WRITTEN[name].leave(path, alive)
    before = seen(tmp_path)
    code, text = WRITTEN[name].write(path)
    assert (code, seen(tmp_path)) == (2, before)
    assert f"{path} is in use by kubelocal up" in text
    assert f"process id {alive.pid}" in text


@pytest.mark.parametrize("theirs", ["file", "folder", "link", "link to nothing", "pipe"])
def test_a_folder_for_pods_that_is_not_ours_stays_as_it_is(theirs: str, tmp_path: Path) -> None:
    THEIRS[theirs](tmp_path / "pods")
    before = seen(tmp_path)
    code, text = up(pods_folder=tmp_path / "pods", simulate=0, sandbox="none", network="shared")
    assert (code, seen(tmp_path)) == (2, before)
    assert str(tmp_path / "pods") in text


def test_a_folder_for_pods_has_one_user_at_a_time(tmp_path: Path, alive: Owner) -> None:
    folder = tmp_path / "pods"
    settings: dict[str, Any] = {"pods_folder": folder, "simulate": 0, "sandbox": "none", "network": "shared"}
    claim_folder(folder, "kubelocal up", alive)
    assert f"process id {alive.pid}" in up(**settings)[1]
    (folder / FOLDER_FILE).unlink()
    claim_folder(folder, "kubelocal up", DEAD)
    assert up(**settings) == (0, "")
    assert up(**settings) == (0, "")


# two real processes


@contextlib.contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run ``kubelocal up`` from when it answers; killed in the end, if it has not ended by itself."""
    line = [sys.executable, "-m", "kubelocal", "up", "--output", "json", "--simulate", "1"]
    with subprocess.Popen(
        [*line, *map(str, arguments)], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["url"]
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("option", ["--kubeconfig", "--state"])
@pytest.mark.timeout(120)
def test_two_up_on_one_path(option: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with running(option, path) as first:
        inode = path.stat().st_ino
        line = [sys.executable, "-m", "kubelocal", "up", "--simulate", "1", option, str(path)]
        second = subprocess.run(line, capture_output=True, text=True, timeout=scaled(60), check=False)
        assert second.returncode == 2
        assert f"{path} is in use by kubelocal up" in second.stderr
        assert f"process id {first.pid}" in second.stderr
        assert str(first.pid) in path.read_text()
        assert option == "--state" or path.stat().st_ino == inode
        first.kill()  # it cannot take its file away
        first.wait(scaled(20))
        assert path.exists()
        with running(option, path) as third:
            third.send_signal(signal.SIGTERM)
            assert third.wait(scaled(30)) == 0
    assert path.exists() == (option == "--state")


@pytest.mark.timeout(60)
def test_what_a_user_adds_to_our_kubeconfig_outlives_the_cluster(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    with running("--kubeconfig", path) as process:
        config = yaml.safe_load(path.read_text())
        config["contexts"].append({"name": "mine", "context": {"cluster": "mine", "user": "mine"}})
        path.write_text(yaml.safe_dump(config))
        process.send_signal(signal.SIGTERM)
        assert process.wait(scaled(30)) == 0
    left = yaml.safe_load(path.read_text())
    assert [context["name"] for context in left["contexts"]] == ["mine"]
    assert (left["clusters"], left["users"]) == ([], [])


@pytest.mark.timeout(60)
def test_a_file_that_takes_the_place_of_our_kubeconfig_outlives_the_cluster(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    with running("--kubeconfig", path) as process:
        path.unlink()
        path.write_text("mine")
        process.send_signal(signal.SIGTERM)
        assert process.wait(scaled(30)) == 0
    assert path.read_text() == "mine"
