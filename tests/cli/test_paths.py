"""Every path that a command writes, and what may be there already: nothing of the user's is overwritten or deleted."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from crosswind.cli import main

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
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
    """A path that a command writes. ``write`` returns exit code and messages."""

    below: str
    write: Callable[[Place], tuple[int, str]]
    refusal: int = 2
    replaces: tuple[str, ...] = ()
    """What it replaces because the user has said so."""


def command(*arguments: object) -> tuple[int, str]:
    ran = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return ran.exit_code, ran.output


def render(place: Place) -> tuple[int, str]:
    return command("render", EXAMPLES / "deploy" / "minimal.yaml", "-o", place.path.parents[1])


def pods_render(place: Place) -> tuple[int, str]:
    return command("pods", "render", place.inputs / "sales.py", "-o", place.path.parents[1])


def graph(place: Place) -> tuple[int, str]:
    return command("tasks", "graph", place.inputs / "files", "-o", place.path)


def init(*more: str) -> Callable[[Place], tuple[int, str]]:
    return lambda place: command("init", "--image", "x/y:1", "-o", place.path, *more)


WRITTEN = {
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
    listing = []
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if stat.S_ISREG(mode) else b""
        listing.append((str(path), mode, content))
    return listing


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
