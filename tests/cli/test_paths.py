"""Every path that a command writes, and what may be there already: nothing of the user's is overwritten or deleted."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
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
from click.testing import CliRunner

from crosswind.cli import main
from crosswind.errors import ConfigError
from crosswind.local.kubeconfigs import kubeconfig, write_kubeconfig
from crosswind.local.persistence import StateFile
from crosswind.local.serving import LocalCluster
from crosswind.local.store import Store
from crosswind.ownership import FOLDER_FILE, Owner, claim_folder
from crosswind.settings import LocalSettings

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DEAD = Owner(4194399, 1)  # above the largest process id that Linux gives
DAG = """
from airflow.sdk import DAG, task
with DAG("sales"):
    @task
    def load(): ...
    load()
"""


@dataclass
class Place:
    """A path in the making: where it is, and where the inputs of commands are."""

    path: Path
    inputs: Path


@dataclass(frozen=True)
class Written:
    """A path that a command writes. ``write`` returns exit code and messages.

    ``leave``: make a file of ours there, with this owner; None for paths that need no owner.
    """

    below: str
    write: Callable[[Place], tuple[int, str]]
    leave: Callable[[Path, Owner], None] | None = None
    refusal: int = 2
    replaces: tuple[str, ...] = ()
    """What it replaces because the user has said so."""


def command(*arguments: object) -> tuple[int, str]:
    ran = CliRunner().invoke(main, [str(one) for one in arguments])
    return ran.exit_code, ran.output


def up(**settings: Any) -> tuple[int, str]:
    async def once() -> None:
        async with LocalCluster(replace(LocalSettings(simulate=1), **settings)):
            pass

    try:
        asyncio.run(once())
    except ConfigError as problem:
        return 2, str(problem)
    return 0, ""


def render(place: Place) -> tuple[int, str]:
    return command("render", EXAMPLES / "deploy" / "minimal.yaml", "-o", place.path.parents[1])


def pods_render(place: Place) -> tuple[int, str]:
    return command("pods", "render", place.inputs / "sales.py", "-o", place.path.parents[1])


def graph(place: Place) -> tuple[int, str]:
    return command("tasks", "graph", place.inputs / "files", "-o", place.path)


def init(*more: str) -> Callable[[Place], tuple[int, str]]:
    return lambda place: command("init", "--image", "x/y:1", "-o", place.path, *more)


def leave_kubeconfig(path: Path, owner: Owner) -> None:
    write_kubeconfig(path, kubeconfig("https://127.0.0.1:1", "t", "ca"), owner)


def leave_state(path: Path, owner: Owner) -> None:
    StateFile(path, owner).load(Store())


WRITTEN = {
    "kubeconfig": Written("kubeconfig", lambda place: up(kubeconfig=place.path), leave_kubeconfig),
    "state": Written("state.json", lambda place: up(state_file=place.path), leave_state),
    "render": Written("tree/scheduler/deployment.yaml", render),
    "pods render": Written("pods/sales/load.yaml", pods_render),
    "compile": Written(
        "dags/files.py", lambda place: command("tasks", "compile", place.inputs / "files", "-o", place.path.parent)
    ),
    "graph": Written("graph.txt", graph),
    "init": Written("values.yaml", init()),
    "init --force": Written("values.yaml", init("--force"), replaces=("file", "empty file")),
    "cache": Written("cache/tasks.json", lambda place: command("tasks", "check", place.inputs / "files"), refusal=0),
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
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "sales.py").write_text(DAG)
    (folder / "template.yaml").write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: worker}\nspec: {containers: [{name: base, image: x/y:1}]}"
    )
    (folder / "files").mkdir()
    (folder / "files" / "crosswind.yaml").write_text("connection: warehouse\n")
    (folder / "files" / "orders.yaml").write_text("id: orders\nquery: q.sql\ntables: []\n")
    (folder / "files" / "q.sql").write_text("CREATE TABLE orders AS SELECT 1")
    return folder


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    name = request.node.callspec.params["name"]
    path = tmp_path / WRITTEN[name].below
    if name == "cache":
        digest = hashlib.sha256(str((inputs / "files").resolve()).encode()).hexdigest()[:16]
        path = path.with_name(f"tasks-{digest}.json")
    monkeypatch.setenv("CROSSWIND_CACHE", str(path.parent) if name == "cache" else "")
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE", str(inputs / "template.yaml"))
    path.parent.mkdir(parents=True, exist_ok=True)
    return Place(path, inputs)


@pytest.fixture
def alive() -> Iterator[Owner]:
    """The owner of a process that runs."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        started = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
        yield Owner(process.pid, started)
        process.kill()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("theirs", THEIRS)
@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_not_ours_stays_as_it_is(name: str, theirs: str, place: Place, tmp_path: Path) -> None:
    written = WRITTEN[name]
    THEIRS[theirs](place.path)
    before = seen(tmp_path)
    code, text = written.write(place)
    if theirs in written.replaces:
        assert code == 0
        assert place.path.read_text().startswith("#")
        return
    assert seen(tmp_path) == before
    assert code == written.refusal, text
    if code:
        assert str(place.path) in text
        assert "Traceback" not in text


@pytest.mark.parametrize("name", [name for name in WRITTEN if name != "init"])
def test_what_a_run_before_has_left_is_replaced(name: str, place: Place) -> None:
    for _ in range(2):
        code, text = WRITTEN[name].write(place)
        assert code == 0, text


OWNED = [name for name, written in WRITTEN.items() if written.leave]


@pytest.mark.parametrize("name", OWNED)
def test_what_a_dead_process_has_left_is_taken_over(name: str, place: Place) -> None:
    leave = WRITTEN[name].leave
    assert leave
    leave(place.path, DEAD)
    assert WRITTEN[name].write(place) == (0, "")


@pytest.mark.parametrize("name", OWNED)
def test_what_another_process_uses_is_refused_with_its_id(
    name: str, place: Place, alive: Owner, tmp_path: Path
) -> None:
    leave = WRITTEN[name].leave
    assert leave
    leave(place.path, alive)
    before = seen(tmp_path)
    code, text = WRITTEN[name].write(place)
    assert (code, seen(tmp_path)) == (2, before)
    assert f"{place.path} is in use by crosswind local up" in text
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
    claim_folder(folder, "crosswind local up", alive)
    assert f"process id {alive.pid}" in up(**settings)[1]
    (folder / FOLDER_FILE).unlink()
    claim_folder(folder, "crosswind local up", DEAD)
    assert up(**settings) == (0, "")
    assert up(**settings) == (0, "")


def test_links_inside_an_output_folder_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "scheduler").symlink_to(outside)
    code, text = command("render", EXAMPLES / "deploy" / "minimal.yaml", "-o", tmp_path / "tree")
    assert (code, list(outside.iterdir())) == (2, [])
    assert f"{tmp_path}/tree/scheduler is a link to {outside}" in text
    assert len(list((tmp_path / "tree").iterdir())) == 1, "nothing was written"


def test_files_that_lost_their_mark_are_not_removed_with_the_old_tree(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("image: x\n")
    command("render", values, "-o", tmp_path / "tree")
    (kept,) = (tmp_path / "tree" / "statsd").glob("deployment.yaml")
    kept.write_text("mine")
    values.write_text("image: x\nmetrics: {statsd: false}\n")
    assert command("render", values, "-o", tmp_path / "tree")[0] == 0
    assert [path.name for path in (tmp_path / "tree" / "statsd").iterdir()] == ["deployment.yaml"]


# two real processes


@contextlib.contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run ``crosswind local up`` from when it answers; killed in the end, if it has not ended by itself."""
    line = [sys.executable, "-m", "crosswind", "local", "up", "--output", "json", "--simulate", "1"]
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
        line = [sys.executable, "-m", "crosswind", "local", "up", "--simulate", "1", option, str(path)]
        second = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 2
        assert f"{path} is in use by crosswind local up" in second.stderr
        assert f"process id {first.pid}" in second.stderr
        assert str(first.pid) in path.read_text()
        assert option == "--state" or path.stat().st_ino == inode
        first.kill()  # it cannot take its file away
        first.wait(20)
        assert path.exists()
        with running(option, path) as third:
            third.send_signal(signal.SIGTERM)
            assert third.wait(30) == 0
    assert path.exists() == (option == "--state")


@pytest.mark.timeout(60)
def test_what_a_user_adds_to_our_kubeconfig_outlives_the_cluster(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    with running("--kubeconfig", path) as process:
        config = yaml.safe_load(path.read_text())
        config["contexts"].append({"name": "mine", "context": {"cluster": "mine", "user": "mine"}})
        path.write_text(yaml.safe_dump(config))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
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
        assert process.wait(30) == 0
    assert path.read_text() == "mine"
